"""``lnsegfm finetune``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lnsegfm.cli.console import console
from lnsegfm.cli.options import AsJson, Data, Device, Labels, Mirroring, Workers, pairs, print_json

if TYPE_CHECKING:
    from lnsegfm.nnunet.finetune import Plan, Run


def finetune(
    data: Data,
    model: Annotated[
        Path, typer.Option(help="The base: a model folder, the folder of a run, or a name (see `lnsegfm models list`).")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run; the same command continues a run that was stopped.")],
    method: Annotated[str, typer.Option(help="How to adapt (see `lnsegfm methods`).")] = "dgst",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the method, such as gamma=2; repeat for more."),
    ] = None,
    shots: Annotated[
        int | None, typer.Option(min=1, help="Train on this many scans and hold out the rest; all unless given.")
    ] = None,
    draw: Annotated[
        int, typer.Option(min=0, help="Which scans --shots takes: 0, 1, 2, ... are different random choices.")
    ] = 0,
    iterations: Annotated[int, typer.Option(min=1, help="Training steps.")] = 1000,
    lr: Annotated[float, typer.Option(help="Learning rate at the start; it falls to 0.")] = 1e-2,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Patches in one training step; the base's unless given.")
    ] = None,
    patch_size: Annotated[
        tuple[int, int, int] | None,
        typer.Option(metavar="Z Y X", help="Patch in voxels at the base's spacing; the base's unless given."),
    ] = None,
    time_limit: Annotated[float | None, typer.Option(metavar="SECONDS", help="Stop training after this long.")] = None,
    early_stop: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="STEPS", help="Stop when the smoothed training loss has not fallen for so many steps."
        ),
    ] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="THEIRS=OURS", help="A label of the base that the data know by another name; repeat."
        ),
    ] = None,
    plans: Annotated[
        Path | None,
        typer.Option(help="An nnUNetPlans.json to adapt into (spacing, intensities, network) instead of the base's."),
    ] = None,
    min_transfer: Annotated[
        float,
        typer.Option(metavar="SHARE", help="Refuse when less than this share of the network comes from the base."),
    ] = 0.8,
    seed: Annotated[
        int, typer.Option(min=0, help="Of all that is drawn at random; the same seed gives the same model on a CPU.")
    ] = 0,
    label: Labels = None,
    device: Device = "auto",
    workers: Workers = None,
    mirroring: Mirroring = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print as JSON what would be done, write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Adapt a model to labelled scans, and show on the scans held out whether it helped.

    Leaves in --out: model/ (loads in stock nnU-Net), adapter.safetensors (what changed), report.html, run.json,
    predictions/. Not for clinical use.
    """
    from lnsegfm.datasets.labels import LabelMap
    from lnsegfm.methods.table import load_method
    from lnsegfm.recipe import Recipe

    recipe = Recipe(
        method=method,
        settings=load_method(method, pairs(set_ or (), "--set")).settings(),
        shots=shots,
        draw=draw,
        iterations=iterations,
        lr=lr,
        batch_size=batch_size,
        patch_size=patch_size,
        seed=seed,
        time_limit_s=time_limit,
        early_stop=early_stop,
        mirroring=mirroring,
        label_names=pairs(map_ or (), "--map", "lymph_node=node"),
        min_transfer=min_transfer,
    )
    labels = LabelMap.from_options(label or ())
    from lnsegfm.nnunet.claim import require_free
    from lnsegfm.nnunet.engine import choose_device
    from lnsegfm.nnunet.finetune import finetune as run  # torch and nnU-Net load only now
    from lnsegfm.nnunet.finetune import plan

    require_free(out)
    device = choose_device(device)
    with console() as progress:
        planned = plan(data, model, recipe, labels=labels, plans=plans, progress=progress)
        if dry_run:
            print_json(planned.to_json())
            return
        announce(planned, progress.stage)
        done = run(planned, out, device=device, workers=workers, progress=progress)
    if as_json:
        print_json({key: value for key, value in done.record.items() if key != "losses"})
    else:
        show(done)


def announce(planned: Plan, say: Callable[[str], None]) -> None:
    """Tell what is about to happen: what fits, what moves."""
    moved = planned.moved
    say(f"Base: {planned.transfer.summary()}")
    if planned.transfer.adapted or planned.transfer.fresh or planned.transfer.unused:
        for line in planned.transfer.lines():
            say(f"  {line}")
    say(
        f"Method {planned.method.name}: {moved.parameters:,} of {moved.total:,} parameters may move, "
        f"one step moves at most {moved.per_step:,} ({moved.per_step / moved.total:.3%})"
    )
    if planned.data.labels_from == "the base model":
        say(f"Labels: the data do not name them; taken as the base's ({planned.data.labels})")
    if not planned.split.held_out:
        say("No scan is held out: the run will not show whether it helped. Use --shots to hold some out.")


def show(run: Run) -> None:
    """Print base against adapted, and where things lie."""
    from rich.console import Console

    from lnsegfm.nnunet.record import megabytes
    from lnsegfm.report.table import comparison_table

    terminal = Console()
    if run.evidence is not None:
        terminal.print(comparison_table(run.evidence.comparison))
        terminal.print(run.evidence.comparison.verdict(), highlight=False, markup=False)
    else:
        terminal.print("No scan was held out: there is no evidence of whether this helped.")
    adapter = run.record["adapter"]
    print(f"Model    {run.model}")
    sizes = f"{megabytes(adapter['bytes'])}; the checkpoint has {megabytes(adapter['checkpoint_bytes'])}"
    print(f"Adapter  {run.folder / 'adapter.safetensors'} ({sizes})")
    print(f"Report   {run.folder / 'report.html'}")
    print("Not for clinical use.")

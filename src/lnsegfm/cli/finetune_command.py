"""``lnsegfm finetune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lnsegfm.cli.console import console
from lnsegfm.cli.finetune_lines import announce, show, show_runs
from lnsegfm.cli.finetune_options import bases_named, draws_named, how_to_train, methods_named
from lnsegfm.cli.job_file import Job, WriteJob
from lnsegfm.cli.job_file import write_job as keep_job
from lnsegfm.cli.shared_options import (
    Absent,
    AllowEmpty,
    AsJson,
    Configuration,
    Data,
    Device,
    Exclude,
    HeldOut,
    KeepLabels,
    Labels,
    Merge,
    Mirror,
    Mirroring,
    ModelAxes,
    OnlyCases,
    Shots,
    SmallestDifference,
    Workers,
    pairs,
    print_json,
)
from lnsegfm.errors import ConfigError
from lnsegfm.recipe import DEFAULT_METHOD, PostprocessingMode, Recipe, postprocessing_mode

if TYPE_CHECKING:
    from lnsegfm.report.runs_table import PlannedRun
    from lnsegfm.workflows.finetune import Run
    from lnsegfm.workflows.finetune_plan import FinetunePlan


def finetune(
    context: typer.Context,
    data: Data,
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="The base: a model folder, the folder of a run, or a name (see `lnsegfm models list`). Several with "
            "commas give a table, as several methods and draws do.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run; the same command continues a run that was stopped. Not with --dry-run."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help=f"How to adapt (see `lnsegfm methods`); {DEFAULT_METHOD} unless given. Several: dgst,full.",
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="Method, settings, iterations and rates from a file (see `lnsegfm methods --recipe NAME`) instead of "
            "the method's own recipe; options given here win.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the method, such as gamma=2; repeat for more."),
    ] = None,
    shots: Shots = None,
    held_out: HeldOut = None,
    draw: Annotated[
        str,
        typer.Option(
            metavar="N", help="Which scans --shots takes: 0, 1, 2, ... are different random choices. Several: 0,1,2."
        ),
    ] = "0",
    cases: OnlyCases = None,
    exclude: Exclude = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Training steps; the recipe's unless given.")] = None,
    lr: Annotated[
        str | None,
        typer.Option(
            metavar="RATE",
            help="Learning rate, which falls to 0; the recipe's unless given. auto: the best of three on the shots.",
        ),
    ] = None,
    warm_up: Annotated[
        int | None,
        typer.Option(min=0, metavar="STEPS", help="Steps over which the rate rises first; the recipe's unless given."),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Patches in one training step; the base's unless given.")
    ] = None,
    patch_size: Annotated[
        tuple[int, int, int] | None,
        typer.Option(metavar="Z Y X", help="Patch in voxels at the base's spacing; the base's unless given."),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Stop training after this long; the rate falls to 0 by then."),
    ] = None,
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
    configuration: Configuration = None,
    folds: Annotated[
        str | None,
        typer.Option(
            "--folds", metavar="all", help="all: adapt every fold of the base, predictions averaged; else the first."
        ),
    ] = None,
    source_data: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA", help="Labelled scans of the base's own task: shows what the adapted model forgot of it."
        ),
    ] = None,
    min_transfer: Annotated[
        float,
        typer.Option(metavar="SHARE", help="Refuse when less than this share of the network comes from the base."),
    ] = 0.8,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of everything random; the same seed gives the same model on a CPU.")
    ] = 0,
    keep_labels: KeepLabels = None,
    merge: Merge = None,
    absent: Absent = None,
    label: Labels = None,
    allow_empty: AllowEmpty = False,
    device: Device = "auto",
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            help="Train in fp32, fp16 or bf16 (newer GPUs); unless given as nnU-Net: fp16 on CUDA, fp32 elsewhere.",
        ),
    ] = None,
    workers: Workers = None,
    smallest_difference: SmallestDifference = None,
    mirroring: Mirroring = True,
    mirror: Mirror = "auto",
    postprocessing: Annotated[
        str,
        typer.Option(
            metavar="|".join(PostprocessingMode),
            help="What the model's postprocessing (largest component, smallest volume) is chosen on: the held-out "
            "scans, the shots (up to five more trainings), or none.",
        ),
    ] = PostprocessingMode.HELD_OUT,
    no_postprocessing: Annotated[
        bool, typer.Option("--no-postprocessing", help="The same as --postprocessing none.")
    ] = False,
    model_axes: ModelAxes = None,
    job: Job = None,  # noqa: ARG001 - its callback takes it
    write_job: WriteJob = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print as JSON what would be done, write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Adapt a model to labelled scans, and show on the scans held out whether it helped.

    Leaves in --out: model/ (loads in stock nnU-Net), adapter.safetensors (what changed), report.html, run.json,
    predictions/. Not for clinical use.
    """
    from lnsegfm.datasets.case_choice import named_cases, number_or_cases
    from lnsegfm.datasets.label_choice import comma_separated, merged_labels
    from lnsegfm.datasets.labels import LabelMap

    chosen = named_cases(cases, exclude)
    said: dict[str, Any] = {
        "shots": number_or_cases(shots, "--shots"),
        "held_out": number_or_cases(held_out, "--held-out"),
        "cases": chosen.cases,
        "exclude": chosen.exclude,
        "keep_labels": comma_separated(keep_labels),
        "merge": merged_labels(merge or ()),
        "absent": comma_separated(absent),
        "batch_size": batch_size,
        "patch_size": patch_size,
        "seed": seed,
        "time_limit_s": time_limit,
        "early_stop": early_stop,
        "mirroring": mirroring,
        "mirror": mirror,
        "postprocessing": postprocessing_mode(PostprocessingMode.NONE if no_postprocessing else postprocessing),
        "label_names": pairs(map_ or (), "--map", "lymph_node=node"),
        "min_transfer": min_transfer,
        "precision": precision,
        "folds": folds,
        "model_axes": model_axes,
    }

    def settled(how: str, which: int) -> Recipe:
        trained = how_to_train(how, recipe, set_ or (), iterations=iterations, lr=lr, warm_up=warm_up)
        return Recipe(**trained, draw=which, **said)

    labels = LabelMap.from_options(label or ())
    from lnsegfm.models.model_layout import ModelChoice
    from lnsegfm.nnunet.environment import choose_device
    from lnsegfm.workflows.finetune import finetune as adapt  # torch and nnU-Net load only now
    from lnsegfm.workflows.finetune_plan import plan
    from lnsegfm.workflows.run_folder import require_free
    from lnsegfm.workflows.several_runs import planned_runs, run_each

    if out is None and not dry_run:
        raise ConfigError("--out: it is missing. Name a folder for the run, such as --out run/.")
    runs = planned_runs(bases_named(model), methods_named(method, recipe), draws_named(draw))
    recipes = {run: settled(run.method, run.draw) for run in runs}
    if out is not None and len(runs) == 1:
        require_free(out)
    if write_job is not None:
        keep_job(context, write_job)
    choose_device(device)  # refused before any scan is read

    def settle(run: PlannedRun) -> FinetunePlan:
        return plan(
            data,
            Path(run.base),
            recipes[run],
            labels=labels,
            allow_empty=allow_empty,
            plans=plans,
            source_data=source_data,
            choice=ModelChoice(configuration=configuration),
            recipe_file=recipe,
            progress=progress,
        )

    def train(run: PlannedRun, folder: Path) -> Run:
        if len(runs) > 1:
            progress.stage(f"Run {run.folder}, {1 + runs.index(run)} of {len(runs)}")
        planned = settle(run)
        announce(planned, progress.stage)
        judged = {"smallest_difference": smallest_difference} if smallest_difference is not None else {}
        return adapt(planned, folder, device=device, workers=workers, progress=progress, **judged)

    with console() as progress:
        if dry_run:
            resolved = [settle(run).to_json() for run in runs]
            print_json(resolved[0] if len(runs) == 1 else {"runs": resolved})
            return
        assert out is not None  # asked above
        if len(runs) == 1:
            done = train(runs[0], out)
        else:
            rows = run_each(runs, out, lambda run, folder: train(run, folder).record)
    if len(runs) > 1:
        show_runs(rows, out, as_json=as_json)
    elif as_json:
        print_json({key: value for key, value in done.record.items() if key != "losses"})
    else:
        show(done)

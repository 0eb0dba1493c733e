"""``lnsegfm pretrain``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lnsegfm.cli.console import console
from lnsegfm.cli.options import AsJson, Data, Device, Labels, Mirroring, Workers, print_json

if TYPE_CHECKING:
    from lnsegfm.nnunet.pretrain import Base


def pretrain(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the base; the same command continues one that was stopped.")],
    preset: Annotated[
        str,
        typer.Option(
            help="Size of network and training: tiny or small (for CPUs), or default (nnU-Net's own plans; for a GPU)."
        ),
    ] = "tiny",
    plans: Annotated[Path | None, typer.Option(help="An nnUNetPlans.json instead of a preset.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Training steps; the preset's unless given.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate; the preset's unless given.")] = None,
    held_out: Annotated[int, typer.Option(min=0, help="Hold out this many scans and evaluate on them.")] = 0,
    seed: Annotated[
        int, typer.Option(min=0, help="Of all that is drawn at random; the same seed gives the same model on a CPU.")
    ] = 0,
    label: Labels = None,
    device: Device = "auto",
    workers: Workers = None,
    mirroring: Mirroring = True,
    as_json: AsJson = False,
) -> None:
    """Train a base model (nnU-Net's default network) from labelled scans. Not for clinical use."""
    from lnsegfm.datasets.labels import LabelMap

    labels = LabelMap.from_options(label or ())
    from lnsegfm.nnunet.claim import require_free
    from lnsegfm.nnunet.pretrain import Training
    from lnsegfm.nnunet.pretrain import pretrain as run

    training = Training(
        preset=preset, plans=plans, iterations=iterations, lr=lr, held_out=held_out, seed=seed, mirroring=mirroring
    )
    require_free(out)
    with console() as progress:
        base = run(data, out, training, labels=labels, device=device, workers=workers, progress=progress)
    if as_json:
        print_json({key: value for key, value in base.record.items() if key != "losses"})
    else:
        show(base)


def show(base: Base) -> None:
    """Print the base's Dice on its held-out scans, and where it lies."""
    if base.evaluation is not None:
        for label, found in base.evaluation.summary().items():
            print(f"{label}: Dice {found.mean:.3f} (mean), {found.median:.3f} (median), {found.n} held-out cases")
    print(f"Model    {base.model}")
    print("Not for clinical use.")

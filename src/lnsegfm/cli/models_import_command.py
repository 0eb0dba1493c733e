"""``lnsegfm models import``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lnsegfm.cli.shared_options import AsJson, Labels, print_json

if TYPE_CHECKING:
    from lnsegfm.registry.stored_model import Stored


def import_model(
    source: Annotated[
        Path,
        typer.Argument(
            help="An nnU-Net model folder or exported zip, a checkpoint, a state dict, a MONAI network or bundle, "
            "an Auto3DSeg folder, "
            "a STU-Net, SuPreM's or VoxTell's file, an nnssl checkpoint, a TotalSegmentator folder, "
            "a model of nnU-Net version 1."
        ),
    ],
    name: Annotated[
        str, typer.Option("--as", metavar="NAME", help="What to call it; a name of `lnsegfm models list`.")
    ],
    plans: Annotated[Path | None, typer.Option(help="nnUNetPlans.json, for weights that come without plans.")] = None,
    dataset_json: Annotated[
        Path | None, typer.Option("--dataset-json", help="nnU-Net's dataset.json, for weights that come without.")
    ] = None,
    label: Labels = None,
    channel: Annotated[
        list[str] | None, typer.Option("--channel", help="Name of an input channel, such as CT; repeat in order.")
    ] = None,
    configuration: Annotated[str | None, typer.Option(help="Which one, where there are several: 3d_fullres.")] = None,
    fold: Annotated[
        list[str] | None, typer.Option("--fold", help="A fold to take, 0 or all; repeat. Every fold unless given.")
    ] = None,
    spacing: Annotated[
        tuple[float, float, float] | None,
        typer.Option(metavar="Z Y X", help="Voxel spacing in mm that it was trained at, where no plans say it."),
    ] = None,
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LOW HIGH", help="Intensities in HU that it saw as 0 and 1, where no plans say it."),
    ] = None,
    patch_size: Annotated[
        tuple[int, int, int] | None,
        typer.Option("--patch-size", metavar="Z Y X", help="Patch in voxels, where no plans say it."),
    ] = None,
    axes: Annotated[
        str | None,
        typer.Option(metavar="RAS|LPS", help="Axes of the arrays that it was trained on, where nothing says them."),
    ] = None,
    licence: Annotated[str | None, typer.Option(metavar="TEXT", help="Its terms of use.")] = None,
    citation: Annotated[str | None, typer.Option(metavar="TEXT", help="What to cite when it is used.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a model of the same name.")] = False,
    as_json: AsJson = False,
) -> None:
    """Store a model from elsewhere under a name, so that `--model NAME` finds it. Nothing in it is executed."""
    from lnsegfm.cli.console import console
    from lnsegfm.datasets.labels import LabelMap
    from lnsegfm.models.install import ImportOptions, install
    from lnsegfm.registry.home import model_place
    from lnsegfm.registry.manifest import cards

    options = ImportOptions(
        plans=plans,
        dataset_json=dataset_json,
        labels=LabelMap.from_options(label or []),
        channels=tuple(channel or ()),
        configuration=configuration,
        folds=tuple(fold or ()),
        spacing_mm=spacing,
        window_hu=window,
        patch_size=patch_size,
        axes=axes,
        licence=licence,
        citation=citation,
        replace=replace,
    )
    with console() as progress:
        stored = install(source, name, options, card=cards().get(name), progress=progress)
    if as_json:
        print_json({**stored.as_json(), "folder": str(model_place(name))})
    else:
        _print(stored, model_place(name))


def _print(stored: Stored, folder: Path) -> None:
    print(f"{stored.card.name}: {stored.source.form}")
    print_terms(stored)
    print(f"Stored in {folder}, SHA-256 of the source {stored.source.sha256}")


def print_terms(stored: Stored) -> None:
    """Print what its import had to say of a model, and under which terms it may be used."""
    for note in stored.notes:
        print(f"Note: {note}")
    print(f"Licence: {stored.card.licence}")
    if stored.card.citation:
        print(f"Cite: {stored.card.citation}")

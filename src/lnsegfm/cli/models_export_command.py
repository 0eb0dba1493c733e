"""``lnsegfm models export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lnsegfm.cli.shared_options import AsJson, Configuration, Folds, print_json


def export_model(
    model: Annotated[Path, typer.Argument(help="The folder of a run or of a model, or the name of an imported one.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="FORM",
            help="nnunet-zip, a zip that nnU-Net installs; safetensors, with JSON; or folder, nnU-Net's of a model.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="A zip or a folder that is not there yet.")],
    configuration: Configuration = None,
    fold: Folds = None,
    as_json: AsJson = False,
) -> None:
    """Write MODEL for use elsewhere. The same model gives the same bytes."""
    from lnsegfm.cli.console import console
    from lnsegfm.models.export_model import export_model
    from lnsegfm.models.model_layout import ModelChoice

    with console() as progress:
        choice = ModelChoice(configuration=configuration, folds=tuple(fold or ()))
        done = export_model(model, to, out, choice=choice, progress=progress)
    if as_json:
        print_json({"out": str(done.out), "predict": list(done.predict), "notes": list(done.notes)})
        return
    print(f"{done.out}")
    for note in done.notes:
        print(f"Note: {note}")
    for command in done.predict:
        print(f"  {command}")

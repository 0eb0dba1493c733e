"""``lnsegfm models pull``."""

from __future__ import annotations

from typing import Annotated

import typer

from lnsegfm.cli.models_import_command import print_terms
from lnsegfm.cli.models_list_command import Manifest


def pull(
    name: Annotated[str, typer.Argument(help="A name of `lnsegfm models list`.")],
    mirror: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Base URL below which files are stored as NAME/FILENAME, used in place of the model's own location; "
            "LNSEGFM_MIRROR names one too.",
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Open no connection: take what was downloaded before.")
    ] = False,
    manifest: Manifest = None,
) -> None:
    """Download a model, check it, and store it, so that `--model NAME` finds it.

    An interrupted download goes on where it was when the command is run again.
    """
    from lnsegfm.cli.console import console
    from lnsegfm.errors import ModelError
    from lnsegfm.registry.fetch import fetch
    from lnsegfm.registry.home import installed, model_place
    from lnsegfm.registry.manifest import find_card
    from lnsegfm.registry.stored_model import read_stored

    card = find_card(name, manifest)
    if name in installed():
        there = read_stored(model_place(name)).source.sha256
        if card.sha256 is not None and there != card.sha256:
            raise ModelError(
                f"Model {name}: the one stored was made of a file with SHA-256 {there[:12]}, its card says "
                f"{card.sha256[:12]}. To replace it: lnsegfm models remove {name} --yes, then pull again."
            )
        print(f"{name} is stored already: {model_place(name)}")
        return
    with console() as progress:
        path = fetch(card, mirror=mirror, offline=offline, progress=progress)
        from lnsegfm.models.install import install

        stored = install(path, name, card=card, progress=progress)
    print(f"{name} is stored: {model_place(name)}")
    print_terms(stored)
    print("Not for clinical use.")

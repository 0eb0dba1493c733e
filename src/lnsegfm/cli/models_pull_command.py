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
    accept_change: Annotated[
        bool,
        typer.Option(
            "--accept-change",
            help="Take a file that has changed since the first pull recorded its SHA-256, and record the new one.",
        ),
    ] = False,
    configuration: Annotated[
        str | None, typer.Option(help="Which one, where its file holds several: 3d_fullres.")
    ] = None,
    fold: Annotated[
        list[str] | None, typer.Option("--fold", help="A fold to take, 0 or all; repeat. Every fold unless given.")
    ] = None,
    manifest: Manifest = None,
) -> None:
    """Download a model, check it, and store it, so that `--model NAME` finds it.

    An interrupted download goes on where it was when the command is run again. Where a card names no SHA-256, that
    of the first download is recorded, and later ones are compared with it.
    """
    from lnsegfm.cli.console import console
    from lnsegfm.errors import ConfigError, ModelError
    from lnsegfm.registry.fetch import fetch
    from lnsegfm.registry.home import installed, is_built_in, model_place
    from lnsegfm.registry.manifest import find_card
    from lnsegfm.registry.stored_model import read_stored

    if is_built_in(name):
        print(f"{name} is built in, there is nothing to download: {model_place(name)}")
        return
    card = find_card(name, manifest)
    if name in installed():
        if accept_change:
            raise ModelError(
                f"Model {name}: one is stored. To replace it: lnsegfm models remove {name} --yes, then pull again with "
                "--accept-change."
            )
        there = read_stored(model_place(name)).source.sha256
        if card.sha256 is not None and there != card.sha256:
            raise ModelError(
                f"Model {name}: the one stored was made of a file with SHA-256 {there[:12]}, its card says "
                f"{card.sha256[:12]}. To replace it: lnsegfm models remove {name} --yes, then pull again."
            )
        print(f"{name} is stored already: {model_place(name)}")
        return
    with console() as progress:
        path = fetch(card, mirror=mirror, offline=offline, accept_change=accept_change, progress=progress)
        from lnsegfm.models.install import ImportOptions, install

        options = ImportOptions(configuration=configuration, folds=tuple(fold or ()))
        try:
            stored = install(path, name, options, card=card, progress=progress)
        except (ConfigError, ModelError) as error:
            kept = f"Its file is kept, and `models import` takes more options: lnsegfm models import {path} --as {name}"
            raise type(error)(f"{error}\n{kept}") from None
    print(f"{name} is stored: {model_place(name)}")
    print_terms(stored)
    print("Not for clinical use.")

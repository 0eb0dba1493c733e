"""``lnsegfm models verify``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from lnsegfm.cli.shared_options import AsJson, print_json


def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Stored models; all of them unless named.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Hash the files of stored models again and list what is not as it was stored, built-in models too.

    Exit code 1 when one has changed; the others are checked all the same.
    """
    from lnsegfm.cli.console import console
    from lnsegfm.errors import ModelError, UnknownName
    from lnsegfm.registry.fetch import verify_download
    from lnsegfm.registry.home import installed, model_place
    from lnsegfm.registry.stored_model import read_stored, verify

    here = installed()
    for name in names or ():
        if name not in here:
            raise UnknownName(f"Model {name!r}: it is not stored. Stored are: {', '.join(here) or 'none'}.")
    problems_of: dict[str, list[str]] = {}
    with console() as progress:
        for name in dict.fromkeys(names or here):
            progress.stage(f"Verifying {name}")
            try:
                problems_of[name] = list(verify(model_place(name), progress))
                problems_of[name] += verify_download(read_stored(model_place(name)), progress)
            except ModelError as error:
                problems_of[name] = str(error).splitlines()
    wrong = {name: problems for name, problems in problems_of.items() if problems}
    if as_json:
        print_json({"models": problems_of})
    elif not problems_of:
        print("No model is stored.")
    else:
        for name in problems_of:
            if name not in wrong:
                print(f"{name}: as it was stored")
    for name, problems in wrong.items():
        for problem in problems:
            print(f"lnsegfm: Model {name}: {problem}", file=sys.stderr)
    if wrong:
        raise typer.Exit(1)

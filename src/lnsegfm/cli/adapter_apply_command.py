"""``lnsegfm adapter apply``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lnsegfm.cli.shared_options import AsJson, print_json, require_folder
from lnsegfm.messages import printable


def apply(
    base: Annotated[
        Path, typer.Argument(help="The base: a model's or a run's folder, or the name of an imported one.")
    ],
    adapter: Annotated[Path, typer.Argument(help="The folder of a run or of an adapter's two files, or one of these.")],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    as_json: AsJson = False,
) -> None:
    """Write the model that ADAPTER makes of BASE: the same bits as where the adapter was trained.

    The folder loads in stock nnU-Net. Another base is refused. Not for clinical use.
    """
    require_folder(out)
    from lnsegfm.cli.console import console
    from lnsegfm.models.adapter_files import apply_adapter, origin_record

    with console() as progress:
        done = apply_adapter(base, adapter, out, progress=progress)
    origin = origin_record(done.described)
    if as_json:
        print_json({"out": str(done.out), "written": done.written, **origin})
        return
    print(f"Model    {done.out}" + ("" if done.written else " (it was there already)"))
    print(f"Made by  {printable(origin['method'])}")
    for key, word in (("name", "Base"), ("licence", "Licence"), ("citation", "Cite")):
        if origin["base"].get(key):
            print(f"{word:8} {printable(origin['base'][key])}")
    print("Not for clinical use.")

"""``lnsegfm models remove``."""

from __future__ import annotations

from typing import Annotated

import typer


def remove(
    name: Annotated[str, typer.Argument(help="A stored model.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would be removed.")] = False,
) -> None:
    """Remove a stored model. What was downloaded for it stays in the cache."""
    import os
    import re
    import shutil

    from lnsegfm.errors import ConfigError, UnknownName
    from lnsegfm.registry.home import home, installed, is_built_in, model_place
    from lnsegfm.storage import PARTIAL

    place = model_place(name)
    if is_built_in(name):
        raise ConfigError(f"Model {name}: it is part of the package and takes no room of its own. Leave it.")
    if not place.is_dir():
        raise UnknownName(f"Model {name!r}: it is not stored. Stored are: {', '.join(installed()) or 'none'}.")
    if not yes:
        size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        raise ConfigError(f"Model {name}: {place} ({size / 1e6:.1f} MB) would be removed. Say --yes to remove it.")
    if place.is_symlink():
        place.unlink()
    else:
        leaving = place.with_name(f"{PARTIAL}{os.getpid()}-{name}")
        place.rename(leaving)  # gone at once, even if the rest is interrupted
        shutil.rmtree(leaving)
    print(f"{name} is removed.")
    for path in (home() / "downloads").glob(f"{name}-*"):
        if re.fullmatch(f"{re.escape(name)}-[0-9a-f]{{12}}", path.name):
            print(f"What was downloaded is kept: {path}")

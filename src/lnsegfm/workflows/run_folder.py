"""Ownership of a run's folder: its ``recipe.json`` identifies the run that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lnsegfm.errors import ConfigError, RunMismatch
from lnsegfm.storage import PARTIAL, clear_partials, read_json, write_json

RECIPE = "recipe.json"
MEMORY_DATA, MEMORY_CARD = "data", "data.json"
"""Folder below a run's with the scans that were given in memory, and the file in it that says which they are."""


def require_free(out: Path) -> None:
    """Refuse a folder that cannot become a run's, before long work begins.

    Raises:
        RunMismatch: It is not empty and holds no run.
        ConfigError: It is a file.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: it is a file. Name a folder.")
    if (out / RECIPE).is_file() or not out.is_dir():
        return
    kept = {MEMORY_DATA} if (out / MEMORY_DATA / MEMORY_CARD).is_file() else set()
    if any(not entry.name.startswith(PARTIAL) and entry.name not in kept for entry in out.iterdir()):
        raise RunMismatch(f"{out}: it is not empty and holds no run. Choose another --out.")


def claim(out: Path, resolved: Mapping[str, Any]) -> None:
    """Make a folder a run's own, or recognise it as such.

    Args:
        out: The folder.
        resolved: The run's resolved recipe, with its ``identity``.

    Raises:
        RunMismatch: It holds another run, or something else; nothing is touched.
        ConfigError: It is a file.
    """
    require_free(out)
    file = out / RECIPE
    if file.is_file():
        there = read_json(file)
        if there.get("identity") != resolved["identity"]:
            raise RunMismatch(f"{out}: it holds another run ({_difference(there, resolved)}). Choose another --out.")
    out.mkdir(parents=True, exist_ok=True)
    clear_partials(out)
    write_json(file, resolved)


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    old, new = there.get("recipe", {}), here["recipe"]
    changed = [f"{key} {old.get(key)}, not {new[key]}" for key in new if old.get(key) != new[key]]
    if there.get("base", {}).get("sha256") != here.get("base", {}).get("sha256"):
        changed.append("another base")
    return "; ".join(changed) if changed else "other data"

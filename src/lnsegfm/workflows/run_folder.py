"""Ownership of a run's folder: its ``recipe.json`` identifies the run that it belongs to."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lnsegfm.errors import ConfigError, RunMismatch
from lnsegfm.messages import differences
from lnsegfm.storage import PARTIAL, clear_partials, read_json, write_json

RECIPE = "recipe.json"
MEMORY_DATA, MEMORY_CARD = "data", "data.json"
"""Folder below a run's with the scans that were given in memory, and the file in it that says which they are."""
_LENGTH = frozenset({"iterations", "lr", "lr_grid", "lr_default", "warm_up", "time_limit_s", "early_stop"})
"""Settings of how long and how fast a run trains: a finished run that differs in these alone can be trained further."""


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


def require_claimable(out: Path, resolved: Mapping[str, Any]) -> None:
    """Refuse a folder that is not this run's and cannot become it; nothing is touched.

    Raises:
        RunMismatch: It holds another run, or something else.
        ConfigError: It is a file.
    """
    require_free(out)
    file = out / RECIPE
    if file.is_file():
        there = read_json(file)
        if there.get("identity") != resolved["identity"]:
            raise RunMismatch(_another_run(out, there, resolved))


def claim(out: Path, resolved: Mapping[str, Any]) -> None:
    """Make a folder a run's own, or recognise it as such.

    Args:
        out: The folder.
        resolved: The run's resolved recipe, with its ``identity``.

    Raises:
        RunMismatch: It holds another run, or something else; nothing is touched.
        ConfigError: It is a file.
    """
    require_claimable(out, resolved)
    file = out / RECIPE
    out.mkdir(parents=True, exist_ok=True)
    clear_partials(out)
    write_json(file, resolved)


def _another_run(out: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Why a folder's run is not the one that is asked for, and what can be done."""
    changed = differences(there.get("recipe", {}), here["recipe"])
    same_base = there.get("base", {}).get("sha256") == here.get("base", {}).get("sha256")
    longer = same_base and changed and all(line.split()[0] in _LENGTH for line in changed)
    changed += [] if same_base else ["another base"]
    why = f"{out}: it holds another run ({'; '.join(changed) if changed else 'other data'})"
    if longer and (out / "run.json").is_file():
        return (
            f"{why}, which is finished. To train it further, start from it with lnsegfm finetune "
            f"--model {shlex.quote(str(out))} and another --out; to train anew, choose another --out."
        )
    return f"{why}. Choose another --out."

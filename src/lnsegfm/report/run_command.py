"""The command of a run, from what its ``run.json`` holds: the same run, or one with other options."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_OPTIONS: dict[str, tuple[str, Any]] = {
    "method": ("--method", None),
    "shots": ("--shots", None),
    "held_out": ("--held-out", None),
    "cases": ("--cases", None),
    "exclude": ("--exclude", ()),
    "draw": ("--draw", 0),
    "iterations": ("--iterations", None),
    "lr": ("--lr", None),
    "warm_up": ("--warm-up", 0),
    "batch_size": ("--batch-size", None),
    "patch_size": ("--patch-size", None),
    "time_limit_s": ("--time-limit", None),
    "early_stop": ("--early-stop", None),
    "label_names": ("--map", {}),
    "folds": ("--folds", None),
    "min_transfer": ("--min-transfer", 0.8),
    "seed": ("--seed", 0),
    "precision": ("--precision", None),
    "mirror": ("--mirror", "auto"),
    "model_axes": ("--model-axes", None),
    "postprocessing": ("--postprocessing", None),
    "keep_labels": ("--keep-labels", ()),
    "settings": ("--set", {}),
}
"""Fields of a recipe: their option, and the value that needs none."""


def finetune_command(record: Mapping[str, Any], out: str, **changes: Any) -> str:
    """The command line of a run; what it took from files (``--plans``, ``--label``) is not in it.

    Args:
        record: What ``run.json`` holds.
        out: The folder to name.
        changes: Fields of the recipe with other values.
    """
    base = record["base"].get("name") or record["base"]["folder"]
    words = ["lnsegfm", "finetune", str(record["data"]["folder"]), "--model", str(base), "--out", out]
    recipe = {**record["recipe"], **changes}
    for name, (option, idle) in _OPTIONS.items():
        value = recipe.get(name)
        if value is None or value == idle or not (value or value == 0) or (name == "lr" and not value):
            continue
        words += _option(option, value)
    for name, parts in (recipe.get("merge") or {}).items():
        words += ["--merge", f"{name}={'+'.join(parts)}"]
    if recipe.get("mirroring") is False:
        words.append("--no-mirroring")
    if record["data"].get("allow_empty"):
        words.append("--allow-empty")
    return shlex.join(words)


def next_folder(folder: str | Path, word: str) -> str:
    """A name for the folder of a further run beside this one."""
    return str(Path(folder).with_name(f"{Path(folder).name}-{word}"))


def _option(option: str, value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [w for key, each in value.items() if each is not None for w in (option, f"{key}={each}")]
    if option == "--patch-size":
        return [option, *map(str, value)]
    if isinstance(value, list | tuple):
        return [option, ",".join(map(str, value))]
    return [option, str(value)]

"""The command of a run, from what its ``run.json`` holds: the same run, or one with other options.

Whatever was said on the command line, in a job file or from Python stands in it as an option, unless it is the default.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lnsegfm.methods.table import load_method

Options = Mapping[str, tuple[str, Any]]

_SHARED: Options = {
    "cases": ("--cases", None),
    "exclude": ("--exclude", ()),
    "keep_labels": ("--keep-labels", ()),
    "merge": ("--merge", {}),
    "absent": ("--absent", ()),
    "iterations": ("--iterations", None),
    "lr": ("--lr", None),
    "batch_size": ("--batch-size", None),
    "patch_size": ("--patch-size", None),
    "time_limit_s": ("--time-limit", None),
    "seed": ("--seed", 0),
    "mirror": ("--mirror", "auto"),
}
_MIRRORING: Options = {"mirroring": ("--no-mirroring", True)}
_RECIPE: Options = {
    "method": ("--method", None),
    "shots": ("--shots", None),
    "held_out": ("--held-out", None),
    "draw": ("--draw", 0),
    **_SHARED,
    "warm_up": ("--warm-up", None),
    "early_stop": ("--early-stop", None),
    "label_names": ("--map", {}),
    "folds": ("--folds", None),
    "min_transfer": ("--min-transfer", 0.8),
    "precision": ("--precision", None),
    "model_axes": ("--model-axes", None),
    "postprocessing": ("--postprocessing", None),
    "settings": ("--set", {}),
    **_MIRRORING,
}
_PRETRAINING: Options = {
    "architecture": ("--architecture", "nnunet"),
    "preset": ("--preset", "tiny"),
    "gpu_memory_gb": ("--gpu-memory", None),
    "checkpointing": ("--checkpointing", False),
    **_SHARED,
    "held_out": ("--held-out", 0),
    "gpus": ("--gpus", 1),
    "prepared": ("--prepared", "half"),
    "preprocessed": ("--preprocessed", None),
    **_MIRRORING,
}
_ASKED: Options = {
    "labels": ("--label", {}),
    "allow_empty": ("--allow-empty", False),
    "plans": ("--plans", None),
    "source_data": ("--source-data", None),
    "configuration": ("--configuration", None),
    "device": ("--device", "auto"),
    "workers": ("--workers", None),
    "smallest_difference": ("--smallest-difference", None),
}
"""Fields of a recipe, of the settings of a pretraining, and of what was asked besides: their option, and the value that
needs none."""


def finetune_command(record: Mapping[str, Any], out: str, **changes: Any) -> str:
    """The command line of a run.

    Args:
        record: What ``run.json`` holds.
        out: The folder to name.
        changes: Fields of the recipe with other values.
    """
    asked = record.get("asked") or _of_older(record)
    base = asked.get("model") or record["base"].get("name") or record["base"]["folder"]
    recipe = {**record["recipe"], **changes}
    words = ["lnsegfm", "finetune", str(record["data"]["folder"]), "--model", str(base), "--out", out]
    if asked.get("recipe_file") and recipe["lr"] == "auto" and recipe["method"] == record["recipe"]["method"]:
        words += ["--recipe", asked["recipe_file"]]  # holds the rates to choose from, which no option names
        recipe["settings"] = {name: "none" if value is None else value for name, value in recipe["settings"].items()}
    else:
        recipe |= _beside_the_card(recipe)
    return shlex.join([*words, *_words(_RECIPE, recipe), *_words(_ASKED, asked)])


def pretrain_command(record: Mapping[str, Any], out: str) -> str:
    """The command line of a pretraining.

    Args:
        record: What its ``run.json`` holds.
        out: The folder to name.
    """
    words = ["lnsegfm", "pretrain", str(record["data"]["folder"]), "--out", out]
    return shlex.join([*words, *_words(_PRETRAINING, record["asked"]), *_words(_ASKED, record["asked"])])


def next_folder(folder: str | Path, word: str) -> str:
    """A name for the folder of a further run beside this one."""
    return str(Path(folder).with_name(f"{Path(folder).name}-{word}"))


def _of_older(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record of an older version says of what was asked."""
    return {"allow_empty": bool(record["data"].get("allow_empty"))}


def _beside_the_card(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Settings and warm-up of a method as options: what is open, or as on its card, needs none."""
    card = load_method(recipe["method"])
    given, usual = recipe.get("settings") or {}, card.settings()
    said = {
        name: "none" if value is None else value
        for name, value in given.items()
        if (value, usual.get(name)) != (None, None)
    }
    warm_up = recipe.get("warm_up")
    return {"settings": said, "warm_up": None if warm_up == card.training.warm_up else warm_up}


def _words(options: Options, values: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for name, (option, idle) in options.items():
        value = values.get(name)
        empty = isinstance(value, list | tuple | Mapping) and not value
        if value is not None and value != idle and not empty:
            words += _option(option, value)
    return words


def _option(option: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [option]
    if option == "--merge":
        return [w for name, parts in value.items() for w in (option, f"{name}={'+'.join(parts)}")]
    if isinstance(value, Mapping):
        return [w for key, each in value.items() for w in (option, f"{key}={each}")]
    if option == "--patch-size":
        return [option, *map(str, value)]
    if option in ("--shots", "--held-out") and isinstance(value, list | tuple) and len(value) == 1:
        return [option, f"{value[0]},"]  # a name that may be a number
    if isinstance(value, list | tuple):
        return [option, ",".join(map(str, value))]
    return [option, str(value)]

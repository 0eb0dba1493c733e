"""What the options of ``lnsegfm finetune`` say: bases, methods and draws by name, and how a method is trained."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lnsegfm.cli.shared_options import pairs
from lnsegfm.errors import ConfigError
from lnsegfm.recipe import AUTO, DEFAULT_METHOD, read_recipe, recipe_of


def how_to_train(
    method: str | None, file: Path | None, settings: Iterable[str], **options: int | str | None
) -> dict[str, Any]:
    """Fields of a `Recipe`: those of the method's own recipe, or of a file's, and the options that were given.

    Raises:
        LnSegFmError: A method, a file or a value that cannot be.
    """
    from lnsegfm.methods.table import load_method

    if file is None:
        load_method(method or DEFAULT_METHOD)
        recipe = recipe_of(method or DEFAULT_METHOD)
    else:
        recipe = read_recipe(file)
        if method not in (None, recipe.method):
            raise ConfigError(f"--method {method}: {file} is a recipe of {recipe.method}. Leave one of them out.")
        try:
            load_method(recipe.method, recipe.texts())
        except ConfigError as error:
            raise ConfigError(f"{file}: settings: {error}") from None
    fields = {key: getattr(recipe, key) for key in ("method", "iterations", "lr", "lr_grid", "warm_up")}
    fields |= {"lr_default": recipe.lr}
    fields |= {key: rate(value) if key == "lr" else value for key, value in options.items() if value is not None}
    texts = recipe.texts() | pairs(settings, "--set")
    return fields | {"settings": load_method(recipe.method, texts).settings()}


def rate(text: Any) -> float | str:
    """A learning rate, or the word that has it chosen.

    Raises:
        ConfigError: Neither.
    """
    try:
        return AUTO if text == AUTO else float(text)
    except ValueError:
        raise ConfigError(f"--lr {text}: a number such as 0.01 is needed, or {AUTO}.") from None


def bases_named(text: str) -> list[str]:
    """The bases that ``--model`` names; a folder whose name has a comma is one."""
    return [text] if Path(text).exists() else [part.strip() for part in text.split(",") if part.strip()] or [text]


def methods_named(text: str | None, file: Path | None) -> list[str]:
    """The methods that ``--method`` names, else the one of the recipe's file, else the default."""
    named = [part.strip() for part in (text or "").split(",") if part.strip()]
    return named or [read_recipe(file).method if file is not None else DEFAULT_METHOD]


def draws_named(text: str) -> list[int]:
    """The draws that ``--draw`` names.

    Raises:
        ConfigError: Not whole numbers from 0.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise ConfigError(f"--draw {text}: whole numbers from 0 are needed, with commas between them. Write 0,1,2.")
    return [int(part) for part in parts]

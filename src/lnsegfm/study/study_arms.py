"""Methods with settings, as a study compares them; a grid makes several of one."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lnsegfm.errors import ConfigError, LnSegFmError
from lnsegfm.methods.table import load_method
from lnsegfm.recipe import AUTO
from lnsegfm.study.study_keys import TomlPart

KEYS = ("method", "settings", "training", "grid", "lr", "rates", "rates_of")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A method with its settings.

    Args:
        name: Its name in tables.
        method: The method.
        settings: Its settings, all of them.
        training: Fields of a `lnsegfm.recipe.Recipe` that are this method's own.
        rates_of: Another arm, whose choice of the learning rate is taken.
    """

    name: str
    method: str
    settings: Mapping[str, Any]
    training: Mapping[str, Any]
    rates_of: str | None = None


def arms_of(methods: TomlPart, training_keys: Collection[str], base: str) -> tuple[Arm, ...]:
    """The arms that a table of methods declares.

    Args:
        methods: The table: one below for each method.
        training_keys: Fields of a recipe that may be set.
        base: The name that the untouched base has.

    Raises:
        ConfigError: A key or value that cannot be, or two arms of one name.
        UnknownName: A method that there is not.
    """
    arms: list[Arm] = []
    for name, part in methods.tables().items():
        arms += _expanded(name, part, training_keys)
    names = [arm.name for arm in arms]
    for arm in arms:
        if names.count(arm.name) > 1 or arm.name == base:
            raise ConfigError(f"{methods.where}: {arm.name}: the name is taken. Give each method a name of its own.")
        if arm.rates_of is not None:
            methods.known(f"{arm.name}.rates_of", arm.rates_of, [one.name for one in arms if one.rates_of is None])
    return tuple(arms)


def _expanded(name: str, part: TomlPart, training_keys: Collection[str]) -> Iterator[Arm]:
    """One arm, or one for each place of its grid."""
    part.only(KEYS)
    method = part.text("method", default=name)
    try:
        own = load_method(method)
    except LnSegFmError as error:
        raise type(error)(f"{part.where}: {error}") from None
    if not own.learns:
        raise ConfigError(f"{part.where}: {method} changes nothing. Leave it out: the base is scored in every study.")
    settings, training, grid = part.table("settings"), part.table("training"), part.table("grid")
    training.only(training_keys)
    known = set(own.settings())
    grid.only({*known, *training_keys})
    rates_of = part.text("rates_of", default="") or None
    plain = {**training.content, **_rates(part, rates_of)}
    for axis, values in grid.content.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{grid.where}: {axis} = {values!r}: it cannot stand there. Write a list of values.")
    for place in itertools.product(*(grid.content[axis] for axis in grid.content)):
        chosen = dict(zip(grid.content, place, strict=True))
        texts = {
            key: _word(value)
            for key, value in {**settings.content, **chosen}.items()
            if key in known or key in settings.content
        }
        try:
            resolved = load_method(method, texts).settings()
        except LnSegFmError as error:
            raise ConfigError(f"{part.where}: {error}") from None
        further = {key: value for key, value in chosen.items() if key not in known}
        label = " ".join([name, *(f"{key}={_word(value)}" for key, value in chosen.items())])
        yield Arm(
            name=label,
            method=method,
            settings=resolved,
            training={**plain, **further},
            rates_of=rates_of,
        )


def _rates(part: TomlPart, rates_of: str | None) -> dict[str, Any]:
    """The learning rate: a number, or chosen on the shots."""
    content = part.content
    if sum(key in content for key in ("lr", "rates", "rates_of")) > 1:
        raise ConfigError(f"{part.where}: lr, rates and rates_of say the same thing. Write one of them.")
    if "lr" in content:
        return {"lr": content["lr"]}
    if "rates" in content:
        rates = content["rates"]
        if not isinstance(rates, list) or not rates or not all(isinstance(each, int | float) for each in rates):
            raise ConfigError(f"{part.where}: rates = {rates!r}: it cannot stand there. Write numbers: [0.001, 0.01].")
        return {"lr": AUTO, "lr_grid": tuple(map(float, rates))}
    return {"lr": AUTO} if rates_of is not None else {}


def _word(value: Any) -> str:
    """A setting as ``--set`` would give it."""
    return str(value).lower() if isinstance(value, bool) else str(value)

"""Plain values in the configs of MONAI models. Expressions (``$...``) are programs, and none is evaluated."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lnsegfm.errors import ModelError

DEEPEST = 64
INTENSITIES = (
    "NormalizeIntensityd",
    "ScaleIntensityd",
    "ScaleIntensityRangePercentilesd",
    "ClipIntensityPercentilesd",
    "ThresholdIntensityd",
    "HistogramNormalized",
    "AdjustContrastd",
)
PER_SCAN_IS_Z_SCORE = ["NormalizeIntensityd"]
PAIRS = ("RL", "AP", "SI")


def resolve(config: Mapping[str, Any], value: Any) -> Any:
    """A value, or the plain one that it refers to; None for an expression and for what is not there."""
    for _ in range(DEEPEST):
        if isinstance(value, str) and re.fullmatch(r"\$@[\w#:]+", value):  # an expression that is a reference alone
            value = value[1:]
        if not isinstance(value, str) or not value.startswith(("@", "$")):
            return value
        if value.startswith("$"):
            return None
        found: Any = config
        for part in value[1:].replace("::", "#").split("#"):
            found = found.get(part) if isinstance(found, Mapping) else None
        value = found
    return None


def targets(value: Any) -> Iterator[Mapping[str, Any]]:
    """The entries that name a class, in the order in which a chain of transforms applies them."""
    if isinstance(value, list):
        for each in value:
            yield from targets(each)
    elif isinstance(value, Mapping) and value.get("_disabled_") is not True:
        if isinstance(value.get("_target_"), str):
            yield value
        yield from targets(value.get("transforms"))


def target_name(entry: Mapping[str, Any]) -> str:
    """The name of an entry's class, without its module."""
    return str(entry["_target_"]).rpartition(".")[2]


def argument_of(config: Mapping[str, Any], transforms: list[Mapping[str, Any]], target: str, key: str) -> Any:
    """An argument of the last transform of a class that has it."""
    values = [resolve(config, each.get(key)) for each in transforms if target_name(each) == target]
    return values[-1] if values else None


def intensities(
    transforms: list[Mapping[str, Any]], *, of_ct: bool
) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """The window that becomes 0 to 1, or the transforms that are no such window."""
    names = [target_name(each) for each in transforms]
    others = [name for name in names if name in INTENSITIES]
    scaled = [each for each in transforms if target_name(each) == "ScaleIntensityRanged"]
    if not scaled:
        if of_ct:
            return None, tuple(others)
        return None, () if others == PER_SCAN_IS_Z_SCORE else tuple(others) or ("no transform that is known",)
    low, high, *rest = (scaled[0].get(key) for key in ("a_min", "a_max", "b_min", "b_max"))
    plain = rest == [0, 1] and scaled[0].get("clip") is True and isinstance(low, (int, float))
    if not plain or not isinstance(high, (int, float)) or len(scaled) > 1 or others or not of_ct:
        return None, tuple(dict.fromkeys(["ScaleIntensityRanged", *others]))
    return (float(low), float(high)), ()  # type: ignore[arg-type]  # plain says that it is a number


def three_z_y_x(value: Any) -> tuple[float, float, float] | None:
    """MONAI's (x, y, z) as (z, y, x); None where an axis keeps its spacing (-1)."""
    if not isinstance(value, list) or len(value) != len(PAIRS):
        return None
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) and 0 < v < float("inf") for v in value):
        return None
    return float(value[2]), float(value[1]), float(value[0])


def whole_z_y_x(value: Any) -> tuple[int, int, int] | None:
    """MONAI's (x, y, z) as (z, y, x) in whole numbers; None where they are not."""
    sizes = three_z_y_x(value)
    if sizes is None or any(size != int(size) for size in sizes):
        return None
    return int(sizes[0]), int(sizes[1]), int(sizes[2])


def axes_code(code: Any, path: Path) -> str:
    """The axis code that scans are turned to.

    Args:
        code: What a config says.
        path: What is imported, for the messages.

    Raises:
        ModelError: It is none whose axes run left-right, front-back, head-foot.
    """
    in_order = isinstance(code, str) and len(code) == len(PAIRS)
    if not in_order or not all(letter in pair for letter, pair in zip(code, PAIRS, strict=True)):
        raise ModelError(
            f"{path}: its config turns scans to {code!r}. Axes that run left-right, front-back, head-foot are "
            "read, in this order, such as RAS."
        )
    return str(code)

"""Selectors of series: ``plane=axial,kernel=B31f``, ``thickness<=3``, ``description=*neck*``, ``all``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from lnsegfm.errors import ConfigError
from lnsegfm.imaging.dicom.kernels import SHARP, SOFT, sharpness
from lnsegfm.spelling import normalise_name

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.series_index import Series

PLANES = ("axial", "coronal", "sagittal", "oblique")
_NUMBERS = ("thickness", "step", "number")
KEYS = ("description", "plane", "kernel", "thickness", "step", "number", "uid")
_EXAMPLES = "description=*neck*, plane=axial, kernel=B31f, thickness<=3, number=4, uid=1.2.3 or all"
_CONDITION = re.compile(r"\s*([A-Za-z_-]+)\s*(<=|>=|=|<|>)\s*(.*?)\s*", re.DOTALL)
_EXACT_MM = 0.005

Condition = Callable[["Series"], bool]


@dataclass(frozen=True)
class SeriesSelector:
    """A selector as a user writes it: all of its conditions have to hold.

    Args:
        text: As it was given.
        everything: ``all``: every series that is a volume, also several of one scan.
        conditions: Each says whether a series fits.
    """

    text: str
    everything: bool
    conditions: tuple[Condition, ...]

    def fits(self, series: Series) -> bool:
        """Whether a series is one that the selector means."""
        return all(condition(series) for condition in self.conditions)


def parse_selector(text: str) -> SeriesSelector:
    """Read a selector: ``all``, or conditions ``key=value`` with commas between them.

    Keys: ``description``, ``kernel`` and ``uid`` (with the wildcards ``*``, ``?`` and ``[ab]``; case, blanks, hyphens
    and underscores of descriptions and kernels do not count; ``kernel=soft`` and ``kernel=sharp`` by their names),
    ``plane``, and the numbers ``thickness`` (mm), ``step`` (mm) and ``number``, which take ``=``, ``<``, ``<=``, ``>``,
    ``>=`` and ranges, ``thickness=1..2``.

    Raises:
        ConfigError: An unknown key, a plane that there is not, or something that is no number.
    """
    if text.strip().casefold() == "all":
        return SeriesSelector(text, True, ())
    parts = re.split(r",(?=\s*[A-Za-z_-]+\s*(?:<|>|=))", text)
    return SeriesSelector(text, False, tuple(_condition(part, text) for part in parts))


def _condition(part: str, whole: str) -> Condition:
    found = _CONDITION.fullmatch(part)
    if found is None or not found[3]:
        raise ConfigError(f"--series {whole}: not KEY=VALUE. Write {_EXAMPLES}.")
    key, operator, value = found[1].casefold(), found[2], found[3]
    if key not in KEYS:
        raise ConfigError(f"--series {whole}: there is no key {found[1]}. Use {', '.join(KEYS)}, or all.")
    if key in _NUMBERS:
        return _number_condition(key, operator, value, whole)
    if operator != "=":
        raise ConfigError(f"--series {whole}: {key} is no number. Write {key}={value}.")
    if key == "plane":
        if value.casefold() not in PLANES:
            raise ConfigError(f"--series {whole}: there is no plane {value}. Use {', '.join(PLANES)}.")
        return lambda series: series.traits.plane == value.casefold()
    if key == "uid":
        return lambda series: fnmatchcase(series.uid, value)
    if key == "kernel":
        return lambda series: _kernel_fits(series, value)
    return lambda series: _named(series.description, value)


def _number_condition(key: str, operator: str, value: str, whole: str) -> Condition:
    low, dots, high = value.removesuffix("mm").partition("..")
    try:
        ends = float(low), float(high if dots else low)
    except ValueError:
        ends = 1.0, 0.0
    if not ends[0] <= ends[1] or (dots and operator != "="):
        example = "thickness=1..2 or thickness<=3" if key != "number" else "number=4 or number=2..5"
        raise ConfigError(f"--series {whole}: {value} is no number or range. Write {example}.")

    def fits(series: Series) -> bool:
        own = _number_of(series, key)
        if own is None:
            return False
        return {
            "=": ends[0] - _EXACT_MM <= own <= ends[1] + _EXACT_MM,
            "<": own < ends[0] - _EXACT_MM,
            "<=": own <= ends[0] + _EXACT_MM,
            ">": own > ends[0] + _EXACT_MM,
            ">=": own >= ends[0] - _EXACT_MM,
        }[operator]

    return fits


def _number_of(series: Series, key: str) -> float | None:
    if key == "number":
        return series.number
    return series.traits.step_mm if key == "step" else series.traits.thickness_mm or series.traits.step_mm


def _kernel_fits(series: Series, value: str) -> bool:
    traits = series.traits
    if value.casefold() in (SOFT, SHARP) and sharpness_of(series) == value.casefold():
        return True
    return any(_named(name, value) for name in (*traits.kernel, " ".join(traits.kernel)) if name)


def sharpness_of(series: Series) -> str:
    """``soft``, ``sharp`` or "", by the kernel of a series."""
    return sharpness(series.traits.kernel, series.traits.kernel_group, series.traits.manufacturer)


def _named(name: str, pattern: str) -> bool:
    if normalise_name(name) == normalise_name(pattern):
        return True
    # within brackets a hyphen makes a range and a blank is a choice
    parts = re.split(r"(\[[^\]]*\])", pattern.strip())
    wanted = "".join(p.casefold() if p.startswith("[") else re.sub(r"[\s_-]+", "_", p.casefold()) for p in parts)
    return fnmatchcase(normalise_name(name), wanted)

"""Labels that name a side of the patient, and how a training may be mirrored because of them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lnsegfm.datasets.side_words import IN_PAIRS_ONLY, Side, SideReading, letters_apart, side_readings
from lnsegfm.errors import ConfigError

COUNTING = 3
"""Other letters in the place of an L or R from which on letters count (zone_A, zone_B, ...) and name no side."""

_UNLIKE = re.compile(r"atri|ventric|coronar|heart|herz|liver|leber|foie|\b[lr][av]\b")

MIRROR_AUTO, MIRROR_ALL, MIRROR_NONE, MIRROR_SWAP = "auto", "all", "none", "swap"
_AXES = "xyz"
_REMEDY = f"Use {MIRROR_AUTO}, {MIRROR_ALL}, {MIRROR_NONE}, {MIRROR_SWAP}, or axes such as y,z (x: left-right)"


def side_pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Labels that differ in their side only, as (left, right).

    ``Parotid_L`` and ``Parotid_R`` are such, ``LeftLung`` and ``RightLung``, ``kidney left`` and ``kidney right``,
    ``Niere_li`` and ``Niere_re``, ``LV`` and ``RV`` (`lnsegfm.datasets.side_words`).
    """
    pairs: dict[tuple[str, ...], dict[Side, str]] = {}
    for name, readings in _readings(names).items():
        for reading in readings:
            pairs.setdefault(reading.rest, {}).setdefault(reading.side, name)
    paired: dict[str, str] = {}
    for pair in pairs.values():
        left, right = pair.get(Side.LEFT), pair.get(Side.RIGHT)
        if left is not None and right is not None and not {left, right} & {*paired, *paired.values()}:
            paired[left] = right
    return list(paired.items())


def lone_sides(names: Iterable[str]) -> list[str]:
    """Labels that name a side whose other side is no label, such as ``LeftParotid`` or ``left_atrium`` alone.

    A single letter has to stand apart, end a number or a word, or begin a capitalised word (``Lung_R``, ``4L``,
    ``LParotid``): ``vertebrae_L4`` is of no side.
    """
    names = list(names)
    paired = {name for pair in side_pairs(names) for name in pair}
    readings = _readings(names)
    return [name for name in names if name not in paired and any(reading.alone for reading in readings[name])]


def name_sides(names: Iterable[str]) -> bool:
    """Whether any of the labels names a side."""
    names = list(names)
    return bool(side_pairs(names) or lone_sides(names))


def differs_in_more(name: str) -> bool:
    """Whether left and right of a structure differ in more than their side, as chambers of the heart do.

    A mirrored network tells these apart; exchanging them with a flip makes anatomy that nobody has. The lateral
    ventricles of the brain are like each other.
    """
    said = name.lower()
    return bool(_UNLIKE.search(said)) and "lateral" not in said and "brain" not in said


def _readings(names: Iterable[str]) -> dict[str, list[SideReading]]:
    """Readings of each name, without letters that only count: of ``zone_A`` to ``zone_R`` none is of a side."""
    names = list(names)
    counted: dict[tuple[str, ...], set[str]] = {}
    for name in names:
        for letter, rest in letters_apart(name):
            counted.setdefault(rest, set()).add(letter)

    def counts(reading: SideReading) -> bool:
        others = counted.get(reading.rest, set()) - {"l", "r"}
        if reading.letter in IN_PAIRS_ONLY:
            return bool(counted[reading.rest] - {"g", "d"})
        return bool(reading.letter) and len(others) >= COUNTING

    return {name: [each for each in side_readings(name) if not counts(each)] for name in names}


def require_mirror(text: str, what: str = "--mirror") -> str:
    """An option of mirroring in its one spelling: a word, or axes of the patient such as ``y,z``.

    Raises:
        ConfigError: Neither.
    """
    said = text.strip().lower()
    if said in (MIRROR_AUTO, MIRROR_ALL, MIRROR_NONE, MIRROR_SWAP):
        return said
    axes = re.split(r"[,\s]+", said)
    if not set(axes) <= set(_AXES) or len(set(axes)) != len(axes):
        raise ConfigError(f"{what} {text}: not known. {_REMEDY}.")
    return ",".join(sorted(axes))

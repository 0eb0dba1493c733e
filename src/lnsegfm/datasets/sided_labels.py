"""Labels that name a side of the patient, and how a training may be mirrored because of them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lnsegfm.errors import ConfigError

_LEFT, _RIGHT = frozenset({"left", "l", "lt"}), frozenset({"right", "r", "rt"})
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_STATION = re.compile(r"\d+[lr]")

MIRROR_AUTO, MIRROR_ALL, MIRROR_NONE, MIRROR_SWAP = "auto", "all", "none", "swap"
_AXES = "xyz"
_REMEDY = f"Use {MIRROR_AUTO}, {MIRROR_ALL}, {MIRROR_NONE}, {MIRROR_SWAP}, or axes such as y,z (x: left-right)"


def side_pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Labels that differ in their side only, as (left, right).

    ``Parotid_L`` and ``Parotid_R`` are such, ``LeftLung`` and ``RightLung``, ``kidney left`` and ``kidney right``.
    """
    sides: dict[tuple[str, ...], dict[str, str]] = {}
    for name in names:
        words = [w.lower() for w in _WORDS.findall(name)]
        side = [w for w in words if w in _LEFT | _RIGHT]
        if len(side) == 1:
            rest = tuple(w for w in words if w not in side)
            sides.setdefault(rest, {})["left" if side[0] in _LEFT else "right"] = name
    return [(pair["left"], pair["right"]) for pair in sides.values() if len(pair) == 2]


def lone_sides(names: Iterable[str]) -> list[str]:
    """Labels that name a side whose other side is no label, such as ``LeftParotid`` alone.

    A single letter has to stand apart or end a number (``Lung_R``, ``4L``): ``vertebrae_L4`` is of no side.
    """
    names = list(names)
    paired = {name for pair in side_pairs(names) for name in pair}
    return [name for name in names if name not in paired and _names_one_side(name)]


def _names_one_side(name: str) -> bool:
    apart = [part.lower() for part in re.split(r"[^A-Za-z0-9]+", name)]
    said = {word for word in map(str.lower, _WORDS.findall(name)) if word in {"left", "right"}}
    said |= {part for part in apart if part in _LEFT | _RIGHT}
    said |= {part[-1] for part in apart if _STATION.fullmatch(part)}
    left, right = bool(said & _LEFT), bool(said & _RIGHT)
    return left != right


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

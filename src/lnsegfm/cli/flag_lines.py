"""Flags as the lines with which ``predict`` ends: every reason of a few cases, of many a line for each kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from lnsegfm.evaluation.flags import FLAGS, Flag
from lnsegfm.messages import counted, listed

CASES = 3
"""So many flagged cases have their reasons on the terminal."""
REASONS = 6
"""So many reasons of a case are shown."""
_NAMES = 3
KINDS = {
    "trained-on": "trained the model",
    "orientation": "axes of the model not known",
    "mirroring": "mirrored copies disagree",
    "hu-scale": "hardly HU",
    "hu": "HU outside training",
    "spacing": "spacing outside training",
    "field-of-view": "field of view outside training",
    "border": "cut off at the border",
    "empty-mask": "empty mask",
    "volume": "volume outside training",
    "components": "many components",
}
"""What a kind of flag is called on a terminal."""


def flag_lines(flags: Sequence[Flag]) -> list[str]:
    """What to review, in few lines.

    Args:
        flags: Of all cases.

    Returns:
        ``Review CASE: REASON`` for each reason of up to `CASES` cases. Of more cases how many there are and, for each
        kind of flag, which cases raise it and the reason of the first, whose numbers are its own.
    """
    of_case: dict[str, list[Flag]] = defaultdict(list)
    of_kind: dict[str, list[Flag]] = defaultdict(list)
    for flag in flags:
        of_case[flag.case].append(flag)
        of_kind[flag.kind].append(flag)
    if len(of_case) <= CASES:
        return [line for case, raised in of_case.items() for line in _of_case(case, raised)]
    kinds = sorted(of_kind, key=lambda kind: list(KINDS).index(kind) if kind in KINDS else len(KINDS))
    return [
        f"Review {counted(len(of_case), 'case')}; {FLAGS} beside the masks has the reasons of each:",
        *(_of_kind(kind, of_kind[kind]) for kind in kinds),
    ]


def _of_case(case: str, raised: Sequence[Flag]) -> list[str]:
    lines = [f"Review {case}: {flag.reason}" for flag in raised[:REASONS]]
    more = len(raised) - REASONS
    return [*lines, f"Review {case}: {counted(more, 'more reason')} in {FLAGS}."] if more > 0 else lines


def _of_kind(kind: str, raised: Sequence[Flag]) -> str:
    names = list(dict.fromkeys(flag.case for flag in raised))
    first = raised[0]
    alike = all(flag.reason == first.reason for flag in raised)
    example = first.reason if alike else f"such as {first.case}: {first.reason}"
    return f"  {KINDS.get(kind, kind)}, {counted(len(names), 'case')} ({listed(names, _NAMES)}), {example}"

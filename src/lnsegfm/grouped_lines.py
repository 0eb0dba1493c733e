"""One line for one mistake: lines that say the same of many cases become one that names them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from lnsegfm.messages import counted, listed

SEPARATE = 2
"""So many cases with the same problem still have a line each."""
ALIKE = 8
"""So many lines that differ in their numbers alone are all shown."""
_CASE = re.compile(r"Case (.+?): (.+)", re.DOTALL)
_IN_FILE_NAME = re.compile(r"[/\\]|\.(?:nii|nrrd|nhdr|mha|mhd|dcm|npz)\b")


def grouped_lines(lines: Iterable[str]) -> list[str]:
    """Lines about cases, with those joined that differ in the case and its files alone.

    Args:
        lines: Each ``Case NAME: problem``; others are kept as they are.

    Returns:
        In the order of the first line of each kind. Three cases or more become ``N cases (a, b, c and 8 others): ...``;
        of more than `ALIKE` lines that differ in their numbers too the first are kept, and a line names the rest.
    """
    every = list(lines)
    joined = {group[0]: group for group in _together(every, _same)}
    kept: list[list[str]] = []
    for alike in _together(list(joined), lambda line: re.sub(r"\d+(?:\.\d+)?", "#", _same(line))):
        members = [joined[first] for first in alike]
        single = [line for group in members if len(group) <= SEPARATE for line in group]
        many = [group for group in members if len(group) > SEPARATE]
        kept += many
        kept += [[line] for line in (single if len(single) <= ALIKE else single[: ALIKE // 2])]
        if len(single) > ALIKE:
            names = [_named(line)[0] for line in single[ALIKE // 2 :]]
            kept.append([f"{counted(len(names), 'more case')} alike but for the numbers: {listed(names)}."])
    return [_as_one(group) for group in kept]


def _together(lines: Sequence[str], key: Callable[[str], str]) -> list[list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        groups[key(line)].append(line)
    return list(groups.values())


def _named(line: str) -> tuple[str, str]:
    """The case that a line is about, "" where it is about none, and what it says."""
    matched = _CASE.fullmatch(line)
    return (matched[1], matched[2]) if matched else ("", line)


def _same(line: str) -> str:
    """What a line says, whatever its case and the names of the case's files."""
    case, text = _named(line)
    if not case:
        return f"\0{line}"
    return " ".join(word.replace(case, "\0") if _IN_FILE_NAME.search(word) else word for word in text.split())


def _as_one(group: Sequence[str]) -> str:
    if len(group) == 1:
        return group[0]
    names = list(dict.fromkeys(_named(line)[0] for line in group))
    case, text = _named(group[0])
    example = f", as in {case}" if "\0" in _same(group[0]) else ""
    return f"{counted(len(names), 'case')} ({listed(names, 3)}){example}: {text}"

"""Names that differ in their spelling alone: case, blanks, hyphens and underscores."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


def normalise_name(name: str) -> str:
    """A name without what does not count: ``GTV-n  1`` and ``gtv_N_1`` are the same."""
    return re.sub(r"[\s_-]+", "_", name.strip()).strip("_").casefold()


def spelt_alike(names: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """Names that others lack, each with the only one of the others that is the same but for its spelling.

    Two names are spelt alike where they are equal without case, blanks, hyphens and underscores; between two digits a
    separator counts (``LN 1 1`` is not ``LN 11``).

    Args:
        names: Names, such as those of a base's labels.
        others: Other names, such as those of the data's labels. What both have plays no part.

    Returns:
        Name to other name; nothing for a name that several others, or none, are spelt like.
    """
    here, there = list(dict.fromkeys(names)), list(dict.fromkeys(others))
    own = [name for name in here if name not in there]
    theirs = [name for name in there if name not in here]
    found = {name: [other for other in theirs if _letters(other) == _letters(name)] for name in own}
    alike = {name: others[0] for name, others in found.items() if len(others) == 1}
    return {name: other for name, other in alike.items() if list(alike.values()).count(other) == 1}


def nearest(name: str, names: Iterable[str]) -> str:
    """A sentence on which names there are, for a name that there is not: the nearest, else the first five."""
    known = sorted(set(names))
    if near := difflib.get_close_matches(name, known, n=3):
        return f"Near it: {', '.join(near)}."
    return f"There are: {', '.join(known[:5])}{', ...' if len(known) > 5 else ''}."


def _letters(name: str) -> str:
    return re.sub(r"(?<!\d)_|_(?!\d)", "", normalise_name(name))

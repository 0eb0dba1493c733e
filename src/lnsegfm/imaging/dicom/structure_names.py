"""Names of structures in the room that a system has for them: shortened, unique, and reported."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

_SPELLED = {"ß": "ss", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O", "œ": "oe", "Œ": "OE", "ł": "l", "Ł": "L", "µ": "u"}
_NUMBER = re.compile(r"[ _-]*\d+$")


def fitted_names(
    names: Sequence[str], length: int, *, ascii_only: bool = False, taken: Iterable[str] = ()
) -> tuple[str, ...]:
    """Names that fit, in order, no two alike whatever the case of their letters.

    A number at the end, such as a node's, stays; what is before it is cut. Names that are then alike, or taken, get
    ``_2``, ``_3``, ...

    Args:
        names: The full names.
        length: Characters, at most; at least 8.
        ascii_only: Letters lose their accents, and what is then not ASCII becomes ``_``.
        taken: Names of others, which stay theirs.
    """
    # names that fit as they are keep their names, whoever comes first
    used = {name.strip().casefold() for name in taken}
    plain = [_ascii(name) if ascii_only else name for name in names]
    fitted: dict[int, str] = {}
    for number in sorted(range(len(names)), key=lambda n: (len(plain[n]) > length or plain[n] != names[n], n)):
        name = _cut(plain[number], length)
        count = 1
        while name.strip().casefold() in used:
            count += 1
            name = _cut(plain[number], length - len(f"_{count}")) + f"_{count}"
        used.add(name.strip().casefold())
        fitted[number] = name
    return tuple(fitted[number] for number in range(len(names)))


def _cut(name: str, length: int) -> str:
    if len(name) <= length:
        return name
    tail = found.group() if (found := _NUMBER.search(name)) else ""
    tail = tail[-length:]
    return (name[: len(name) - len(tail)][: length - len(tail)].rstrip(" _-") + tail).strip()


def _ascii(name: str) -> str:
    spelled = "".join(_SPELLED.get(letter, letter) for letter in name)
    bare = "".join(c for c in unicodedata.normalize("NFKD", spelled) if not unicodedata.combining(c))
    return "".join(c if c.isascii() and c.isprintable() else "_" for c in bare).strip() or "_"

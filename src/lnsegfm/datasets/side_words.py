"""How names of structures say left and right: words of several languages, letters, and where they stand.

`Parotid_L` and `Lung_R` follow AAPM TG-263 (Mayo et al., Int J Radiat Oncol Biol Phys 100, 2018), ``kidney_left``
TotalSegmentator; ``sin`` and ``dx`` are the Latin of anatomy.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Side(StrEnum):
    """A side of the patient."""

    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True)
class SideReading:
    """One way to read a name as that of a side.

    Args:
        side: The side.
        rest: What is left of the name without it; names of both sides with one rest are a pair.
        alone: Whether the name says its side without a partner.
        letter: The letter that says it; "" for a word.
    """

    side: Side
    rest: tuple[str, ...]
    alone: bool
    letter: str = ""


_LETTERS_WITHOUT_PARTS = str.maketrans({"ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "ß": "ss", "æ": "ae", "Æ": "Ae"})


def _plain(text: str) -> str:
    """Text without accents."""
    parts = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return unicodedata.normalize("NFC", parts).translate(_LETTERS_WITHOUT_PARTS)


_LEFT = """left lt lft links linke linker linkes linken linkem linksseitig gauche sinister sinistra sinistro sinistrum
    sin sx izquierda izquierdo izq izda izdo esquerda esquerdo esq venstre vanster vanstra lewa lewy lewe leva levy
    vasen левая левый левое лев"""
_RIGHT = """right rt rgt rechts rechte rechter rechtes rechten rechtem rechtsseitig droite droit dexter dextra dextro
    dextrum dex dext dxt dx derecha derecho dcha dcho direita direito hojre hoger hogra prawa prawy prawe prava
    pravy oikea правая правый правое прав"""
WORDS = {_plain(word): side for side, words in ((Side.LEFT, _LEFT), (Side.RIGHT, _RIGHT)) for word in words.split()}
LETTERS = {"l": Side.LEFT, "r": Side.RIGHT}
IN_PAIRS_ONLY = {"g": Side.LEFT, "d": Side.RIGHT, "li": Side.LEFT, "re": Side.RIGHT, "sol": Side.LEFT,
                 "sag": Side.RIGHT, "der": Side.RIGHT, "dir": Side.RIGHT}  # fmt: skip
"""``Parotide_G`` and ``Parotide_D``, ``Niere li`` and ``Niere re``: each of them alone may mean anything."""
_WITHIN = {
    "左": Side.LEFT,
    "右": Side.RIGHT,
    "좌측": Side.LEFT,
    "우측": Side.RIGHT,
    "왼쪽": Side.LEFT,
    "오른쪽": Side.RIGHT,
}
_JOINED = re.compile(
    r"(?P<first>left|right|links|rechts|linke[rsnm]?|rechte[rsnm]?)(?P<after>.{3,})"
    r"|(?P<before>.{3,})(?P<last>left|right|links|rechts|gauche|droite)"
)
_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\dA-Za-z_]+")
_NO_SIDES = frozenset({"cleft", "leftover", "upright"})
_SPINE = frozenset({"spine", "vertebra", "vertebrae", "vert", "lumbar", "wirbel"})
_NODES = frozenset({"node", "nodes"})


def side_readings(name: str) -> list[SideReading]:
    """Ways in which a name may say a side, the surest alone where there is one; none where it says both sides."""
    tokens = list(_tokens(name))
    sure = [token for token in tokens if token.sure]
    if len({token.side for token in sure}) > 1:
        return []
    if sure:
        rest = tuple(part for token in tokens for part in (token.rest if token.sure else (token.text,)) if part)
        said = next((token for token in sure if len(token.text) > 1 or token.apart), sure[0])
        alone = any(_says_alone(token, rest) for token in sure)
        return [SideReading(said.side, rest, alone, said.text if len(said.text) == 1 else "")] if said.side else []
    return [reading for number in range(len(tokens)) for reading in _unsure(tokens, number)]


def letters_apart(name: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each single letter among the words of a name, and the other words: ``zone_K`` and ``zone_L`` count letters."""
    words = [token.text for token in _tokens(name)]
    for number, word in enumerate(words):
        if len(word) == 1 and word.isalpha():
            yield word, (*words[:number], *words[number + 1 :])


@dataclass(frozen=True)
class _Token:
    """A word of a name: what it says, and whether it stands apart from its neighbours or before a number."""

    text: str
    side: Side | None
    rest: tuple[str, ...]
    apart: bool
    numbered: bool

    @property
    def sure(self) -> bool:
        return self.side is not None and not self.numbered


def _tokens(name: str) -> Iterator[_Token]:
    plain = _plain(name)
    for match in _TOKEN.finditer(plain):
        text = match.group().lower()
        before, after = plain[: match.start()][-1:], plain[match.end() :][:1]
        side, rest = WORDS.get(text) or LETTERS.get(text), tuple[str, ...]()
        if side is None:
            side, rest = _joined(text)
        numbered = text in LETTERS and after.isdigit()  # L4 is a vertebra
        yield _Token(text, side, rest, not before.isalpha() and not after.isalpha(), numbered)


def _joined(text: str) -> tuple[Side | None, tuple[str, ...]]:
    """The side that a word is joined with, and the rest of the word: ``leftkidney``, ``左腮腺``."""
    for sign, side in _WITHIN.items():
        if sign in text:
            return side, (text.replace(sign, ""),)
    match = _JOINED.fullmatch(text) if text not in _NO_SIDES else None
    if match is None:
        return None, ()
    return WORDS[match["first"] or match["last"]], (match["after"] or match["before"],)


def _says_alone(token: _Token, rest: tuple[str, ...]) -> bool:
    """Whether a name with this word is of one side though it has no partner: ``LParotid`` is, ``LNode`` is not."""
    if len(token.text) > 1:
        return True
    if not _SPINE.isdisjoint(rest):
        return False
    return token.apart or (_NODES.isdisjoint(rest) and any(len(word) > 3 for word in rest))


def _unsure(tokens: list[_Token], number: int) -> Iterator[SideReading]:
    """Readings of one word that hold only where the other side is there: ``L4``, ``li``, ``LV``, ``lkidney``."""
    text = tokens[number].text
    others = [token.text for token in tokens]
    if text in LETTERS or text in IN_PAIRS_ONLY:
        side = LETTERS.get(text) or IN_PAIRS_ONLY[text]
        rest = tuple(other for place, other in enumerate(others) if place != number)
        yield SideReading(side, rest, False, text if len(text) == 1 else "")
    for end, letter, kept in ((0, text[:1], text[1:]), (1, text[-1:], text[:-1])):
        if kept and letter in LETTERS:
            marked = f"?{kept}" if end == 0 else f"{kept}?"
            yield SideReading(LETTERS[letter], (*others[:number], marked, *others[number + 1 :]), False)

"""The glossary's words are the ones in use, and the words that they replaced are gone."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.idioms import IDIOMS

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
TEXTS = [
    *(ROOT / "src").rglob("*.py"),
    *(ROOT / "src").rglob("*.j2"),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "examples").rglob("*.py"),
    *(ROOT / "benchmarks").rglob("*.py"),
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
]
ENTRIES = re.findall(r"^- \*\*(.+?)\*\*: (.+)$", GLOSSARY.read_text(encoding="utf-8"), flags=re.MULTILINE)


@cache
def lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


@cache
def words(file: Path) -> str:
    """A file's text with its words in lower case and parted by single blanks, ``CamelCase`` and ``snake_case`` too."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", file.read_text(encoding="utf-8"))
    return " ".join(re.sub(r"[^\w]|_", " ", parted).lower().split())


def holding(pattern: str) -> list[str]:
    """Where a pattern occurs, as ``file:line``."""
    exact = any(letter.isupper() for letter in pattern)
    found = re.compile(rf"(?<![A-Za-z])(?:{pattern})(?![A-Za-z])", flags=0 if exact else re.IGNORECASE)
    return [
        f"{file.relative_to(ROOT)}:{number}"
        for file in TEXTS
        for number, line in enumerate(lines(file), start=1)
        if found.search(line)
    ]


def test_entries_are_lines_in_alphabetical_order() -> None:
    items = [line for line in lines(GLOSSARY) if line.startswith("-")]
    assert len(items) == len(ENTRIES) > 40
    terms = [term for term, _ in ENTRIES]
    assert terms == sorted(set(terms), key=str.lower)
    assert all(definition.endswith((".", ")")) for _, definition in ENTRIES)


@pytest.mark.parametrize("term", [term for term, _ in ENTRIES])
def test_every_term_is_in_use(term: str) -> None:
    plain = re.escape(" ".join(re.sub(r"[^\w]|_", " ", term).lower().split()))
    used = re.compile(rf"\b{plain}s?\b")
    assert any(used.search(words(file)) for file in TEXTS if file != GLOSSARY)


@pytest.mark.parametrize("idiom", IDIOMS)
def test_replaced_words_are_gone(idiom: str) -> None:
    assert holding(idiom) == [], f"say: {IDIOMS[idiom]}"


def test_the_search_for_replaced_words_finds_them(tmp_path: Path) -> None:
    assert holding("reference"), "a word that every page holds"
    assert not holding("an idiom that nobody wrote, ever")

"""What a terminal shows, judged: lines that are too wide, words that are broken."""

from __future__ import annotations

import re

FRAME = "│╭╮╰╯─━┃┏┓┗┛┡┩┳┻╇┴┬├┤┼╷╵╶╴|\\"


def words_of(text: str) -> list[str]:
    """Words without the frames of tables and without figures, which differ from run to run."""
    plain = text.translate(dict.fromkeys(map(ord, FRAME), " "))
    return [word for word in plain.split() if re.search("[A-Za-z]{2}", word) and not re.search("[0-9]", word)]


def broken_words(narrow: str, wide: str) -> list[str]:
    """Words at a narrow terminal that the wide one does not show: pieces of others, or cut by an ellipsis."""
    known = set(words_of(wide))
    return [word for word in words_of(narrow) if word not in known]


def too_wide(text: str, width: int) -> list[str]:
    """Lines of more columns; a single longer word, such as a path, may stand on a line of its own."""
    return [line for line in text.splitlines() if len(line.rstrip()) > width and len(line.rstrip(" \\").split()) > 1]


def test_pieces_of_words_and_wide_lines_are_found():
    assert broken_words("│ RightPar │\n│ otid     │", "│ RightParotid │") == ["RightPar", "otid"]
    assert broken_words("a word\nand more", "a word and more") == []
    assert too_wide("a " * 41, 80) == ["a " * 41]
    assert too_wide("x" * 90, 80) == []

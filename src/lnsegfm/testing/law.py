"""How a law is broken: an AssertionError that says what, also where Python runs without assert statements."""

from __future__ import annotations


def require(holds: object, text: str) -> None:
    """Raise unless a law holds.

    Raises:
        AssertionError: It does not; ``text`` says what was seen.
    """
    if not holds:
        raise AssertionError(text)

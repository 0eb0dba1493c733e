"""Commands as the program has them, to read command lines by."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any


@cache
def commands() -> Mapping[str, Any]:
    import typer.main

    from lnsegfm.cli.main import app

    return typer.main.get_command(app).commands  # type: ignore[attr-defined, no-any-return]


class Stopped(Exception):
    """Everything was asked."""

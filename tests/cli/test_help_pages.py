"""Help at 80 columns: no word broken, the options that most need first, the rest grouped."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from lnsegfm.cli.help_panels import PANELS
from lnsegfm.cli.main import app
from tests.cli.test_start import commands

PROGRAM: Any = typer.main.get_command(app)


def found(way: tuple[str, ...]) -> Any:
    command = PROGRAM
    for name in way:
        command = command.commands[name]
    return command


def help_of(way: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    done = CliRunner().invoke(app, [*way, "--help"], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


@pytest.mark.parametrize("way", commands(PROGRAM), ids=" ".join)
def test_help_fits_80_columns_and_keeps_every_word_whole(way: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = help_of(way, monkeypatch)
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    words = set(shown.split())
    command = found(way)
    parameters = command.params if not hasattr(command, "commands") else []
    for parameter in parameters:
        told = [*(parameter.help or "").replace("`", "").split(), *(name for name in parameter.opts if "-" in name)]
        assert [word for word in told if not {word, f"{word},"} & words] == [], parameter.name


@pytest.mark.parametrize("name", PANELS)
def test_the_long_commands_open_with_six_options_and_group_the_rest(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = help_of((name,), monkeypatch)
    options = {opt for parameter in found((name,)).params for opt in parameter.opts} | {"--help"}
    grouped = [option for panel in PANELS[name].values() for option in panel]
    assert sorted(grouped) == sorted(set(grouped))
    assert set(grouped) <= options
    opening = shown.partition("─ Most used ─")[2].partition("╰")[0]
    assert len(PANELS[name]["Most used"]) == 6
    assert [line.split()[1] for line in opening.splitlines() if line.startswith("│ --")] == list(
        PANELS[name]["Most used"]
    )


def test_an_option_that_no_panel_names_is_shown_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PANELS, "evaluate", {"Most used": ("--out",)})  # type: ignore[arg-type]
    shown = help_of(("evaluate",), monkeypatch)
    assert "--against" in shown.partition("─ Further options ─")[2]

"""The laws of a command."""

from __future__ import annotations

from typing import Any

from lnsegfm.cli.plugin_commands import click_command, command_problem
from lnsegfm.testing.law import require


def check_command(command: Any) -> None:
    """Check that a command keeps the laws of all commands.

    Typer makes a command of it; the command, each command below it, and every option and argument has a line of help.

    Args:
        command: A function, or a ``typer.Typer``.

    Raises:
        AssertionError: A law is broken; the text says which.
    """
    problem = command_problem(command)
    require(problem is None, f"command {command!r}: {problem}")
    name = getattr(command, "__name__", None) or getattr(command.info, "name", None) or "command"
    _check(click_command(command, str(name)), str(name))


def _check(command: Any, name: str) -> None:
    require(command.help, f"command {name}: it has no line of help; write a docstring")
    for parameter in command.params:
        told = getattr(parameter, "help", None) or parameter.name == "help"
        require(told, f"command {name}: {parameter.name} has no line of help")
    for below, inner in getattr(command, "commands", {}).items():
        _check(inner, f"{name} {below}")

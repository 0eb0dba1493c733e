"""Commands of other packages (entry points ``lnsegfm.commands``): listed by name, imported when they are run."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from lnsegfm.plugins import Plugin, PluginTable

PANEL = "Commands of other packages"


def command_problem(value: object) -> str | None:
    """What is wrong with a plugin's command, as a clause; None where nothing is."""
    if isinstance(value, typer.Typer) or (callable(value) and not isinstance(value, type)):
        return None
    return "it is neither a function nor a typer.Typer"


def click_command(value: Any, name: str) -> Any:
    """The command that a function or a ``typer.Typer`` stands for."""
    program = value
    if not isinstance(value, typer.Typer):
        program = typer.Typer(add_completion=False, rich_markup_mode="markdown")
        program.command(context_settings={"help_option_names": ["-h", "--help"]})(value)
    program.pretty_exceptions_enable = False
    program._add_completion = False
    command = typer.main.get_command(program)
    command.name = name
    return command


def accept_command(value: Any, plugin: Plugin) -> Any:
    """A plugin's command.

    Raises:
        PluginError: It is no command.
    """
    if problem := command_problem(value):
        raise plugin.error(problem)
    try:
        return click_command(value, plugin.name)
    except Exception as error:  # options that typer cannot read
        raise plugin.error(f"typer makes no command of it ({type(error).__name__}: {error})") from error


class ProgramGroup(TyperGroup):
    """The commands of the program, and after them those of other packages."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's signature
        """All names."""
        return list(self._table())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command to be run, or while help is written one of another package with its package's line only.

        Raises:
            PluginError: Another package's command that cannot be used.
        """
        table = self._table()
        running = ctx.obj is _RUNNING
        if cmd_name not in table.brought() or (cmd_name in self.commands and not running):
            return super().get_command(ctx, cmd_name)
        if running:
            return table[cmd_name]
        plugin = table.brought()[cmd_name]
        summary = f"{plugin.summary.rstrip('.')} ({plugin.package})" if plugin.summary else f"Of {plugin.package}"
        return TyperCommand(cmd_name, help=f"{summary}.", rich_help_panel=PANEL)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the words name."""
        before, ctx.obj = ctx.obj, _RUNNING
        try:
            return super().resolve_command(ctx, args)
        finally:
            ctx.obj = before

    def _table(self) -> PluginTable[Any]:
        return PluginTable("commands", self.commands, accept_command)


_RUNNING = object()

"""``--help`` of a command: two columns within the terminal's width, no word broken."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand

from lnsegfm.cli.help_panels import panels_of

if TYPE_CHECKING:
    from rich.text import Text

NAME_WIDTH = 28
"""Columns of an option's name and value; longer ones take two lines."""
_VALUES = {"path": "PATH", "int": "N", "integer": "N", "float": "NUMBER", "str": "TEXT", "text": "TEXT"}


class HelpCommand(TyperCommand):
    """A command whose help opens with the options that most need and groups the others (`help_panels.PANELS`)."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """``[OPTIONS]`` and the arguments, as the help names them."""
        arguments = [p for p in self.get_params(ctx) if p.param_type_name == "argument"]
        return ["[OPTIONS]", *map(_argument, arguments)]

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - click's signature; rich prints by itself
        """Print the help."""
        from rich.console import Console
        from rich.panel import Panel

        terminal = Console(highlight=False)
        parameters = [p for p in self.get_params(ctx) if not getattr(p, "hidden", False)]
        arguments = [p for p in parameters if p.param_type_name == "argument"]
        options = [p for p in parameters if p.param_type_name == "option"]
        terminal.print(_indented(f"Usage: {ctx.command_path} {' '.join(self.collect_usage_pieces(ctx))}", style="bold"))
        for paragraph in inspect.cleandoc(self.help or "").split("\n\n"):
            terminal.print(_indented(" ".join(paragraph.split())))
        for title, panel in ({"Arguments": arguments} | panels_of(ctx.info_name, options)).items():
            if panel:
                terminal.print(Panel(_rows(panel, ctx), title=title, title_align="left", border_style="dim"))


def _indented(text: str, style: str = "") -> Any:
    from rich.padding import Padding

    return Padding(_text(text, style), (0, 1, 1, 1))


def _rows(parameters: list[Any], ctx: Any) -> Any:
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=NAME_WIDTH, overflow="fold")
    table.add_column(overflow="fold")
    for parameter in parameters:
        table.add_row(_name(parameter, ctx), _help(parameter, ctx))
    return table


def _name(parameter: Any, ctx: Any) -> Text:
    """An option with what it takes: on one line where they fit, else below each other."""
    from rich.text import Text

    if parameter.param_type_name == "argument":
        return Text(_argument(parameter), style="bold cyan")
    names = sorted(parameter.opts, key=len, reverse=True)
    if parameter.secondary_opts:
        parts = [f"{names[0]},", *parameter.secondary_opts]
    else:
        parts = [", ".join(names), *([_value(parameter, ctx)] if not parameter.is_flag else [])]
    line = " ".join(parts)
    return Text(line if len(line) <= NAME_WIDTH else "\n  ".join(parts), style="bold cyan")


def _argument(parameter: Any) -> str:
    return str(parameter.metavar or f"{str(parameter.name).upper()}{'...' if parameter.nargs != 1 else ''}")


def _value(parameter: Any, ctx: Any) -> str:
    """What an option takes, in a word."""
    if parameter.metavar:
        return str(parameter.metavar)
    shown = getattr(parameter, "display_type_rich", None) or parameter.make_metavar
    kind = str(shown(ctx) or "").strip("<>").lower().removesuffix(" range")
    return _VALUES.get(kind, kind.upper())


def _help(parameter: Any, ctx: Any) -> Text:
    parts = [parameter.help or ""]
    if parameter.required:
        parts.append("[required]")
    elif (default := _default(parameter, ctx)) is not None:
        parts.append(f"[default: {default}]")
    return _text(" ".join(parts))


def _default(parameter: Any, ctx: Any) -> str | None:
    """The default as a user would type it; None where there is none to tell."""
    value = parameter.get_default(ctx, call=False)
    if value is None or value is False or value in ((), []) or parameter.param_type_name == "argument":
        return None
    if value is True:
        return str(max(parameter.opts, key=len)) if parameter.secondary_opts else None
    return f"{value:g}" if isinstance(value, float) else str(value)


def _text(text: str, style: str = "") -> Text:
    """Text with code between backticks, as documents of the project write it."""
    from rich.text import Text

    shown = Text(style=style)
    for number, part in enumerate(text.split("`")):
        shown.append(part, style="cyan" if number % 2 else "")
    return shown

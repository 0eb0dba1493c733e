"""``lnsegfm methods``."""

from __future__ import annotations

import dataclasses
import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lnsegfm.cli.shared_options import AsJson, print_json
from lnsegfm.messages import printable
from lnsegfm.methods.shares import share_of
from lnsegfm.recipe import recipe_of, recipe_text

if TYPE_CHECKING:
    from lnsegfm.methods.method import Method


def methods(
    name: Annotated[
        str | None, typer.Argument(help="Show this method with its settings; all in short unless given.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Print a method's recipe, to save, change and give to finetune --recipe."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the methods of adaptation: what moves, how much of the network, the paper, the settings."""
    from lnsegfm.methods.table import METHODS, load_method

    if recipe is not None:
        sys.stdout.write(recipe_text(recipe))
        return
    problems: list[str] = []
    if name is None:
        shown, problems = METHODS.usable()
    else:
        shown = {name: type(load_method(name))}
    if as_json:
        print_json({name: _card(cls) for name, cls in shown.items()})
    elif name is None:
        _all(shown)
    else:
        _one(shown[name])
    for line in problems:
        print(f"lnsegfm: {printable(line)}", file=sys.stderr)


def share(percent: float) -> str:
    """A share for people: two digits that count."""
    if percent == 0 or percent >= 10:
        return f"{percent:.0f} %"
    return f"{float(f'{percent:.2g}'):f}".rstrip("0").rstrip(".") + " %"


def _card(cls: type[Method]) -> dict[str, Any]:
    recipe = {key: value for key, value in dataclasses.asdict(recipe_of(cls.name)).items() if key != "settings"}
    return {
        "summary": cls.summary,
        "source": cls.source,
        "share_percent": share_of(cls),
        "trains": sorted(cls.trains),
        "learns": cls.learns,
        "starts_fresh": cls.starts_fresh,
        "settings": {
            field.name: {"default": field.default, "meaning": field.metadata["meaning"]}
            for field in dataclasses.fields(cls)
        },
        "recipe": recipe if cls.learns else None,
    }


def _all(shown: dict[str, type[Method]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        "method", "a step moves", "what moves and whose method it is", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    table.columns[1].justify = "right"
    for name, cls in shown.items():
        paper = re.sub(r", (arXiv|doi) [^\s;,)]+", "", cls.source)
        table.add_row(
            Text(name, "bold"), share(share_of(cls)), Text.assemble(cls.summary, (f"\n{paper}", "dim italic"))
        )
    terminal = Console()
    terminal.print(table)
    terminal.print(
        "\nA step moves: at most this share of the parameters of nnU-Net's default network.\n"
        "lnsegfm methods NAME shows its settings, lnsegfm methods --recipe NAME its recipe.",
        highlight=False,
        markup=False,
    )


def _one(cls: type[Method]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = Console()
    facts = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    facts.add_row(Text(cls.name, "bold"), cls.summary)
    facts.add_row("source", cls.source)
    facts.add_row("a step moves", f"at most {share(share_of(cls))} of nnU-Net's default network")
    if cls.learns:
        recipe = recipe_of(cls.name)
        grid = ", ".join(map(str, recipe.lr_grid))
        facts.add_row("recipe", f"{recipe.iterations} iterations, lr {recipe.lr} (auto: {grid})")
    terminal.print(facts, highlight=False)
    fields = dataclasses.fields(cls)
    if fields:
        settings = Table("--set", "meaning", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        settings.columns[0].no_wrap = True
        for field in fields:
            value = "none" if field.default is None else field.default
            settings.add_row(Text(f"{field.name}={value}"), Text(field.metadata["meaning"]))
        terminal.print()
        terminal.print(settings, highlight=False)

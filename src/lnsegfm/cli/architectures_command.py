"""``lnsegfm architectures``."""

from __future__ import annotations

from lnsegfm.cli.shared_options import AsJson, print_json


def architectures(as_json: AsJson = False) -> None:
    """Show the networks that `lnsegfm pretrain` can train: what they are, their patches, what they cost."""
    from lnsegfm.networks.architectures import ARCHITECTURES

    if as_json:
        print_json({name: card.to_json() for name, card in ARCHITECTURES.items()})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column("architecture", no_wrap=True)
    table.add_column("what it is")
    for heading in ("parameters", "Dice*", "250 it.*", "GPU*"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, card in ARCHITECTURES.items():
        reported = card.reported
        cells = (
            (f"{reported.dice_percent} %", f"{reported.seconds} s", f"{reported.gpu_gb} GB")
            if reported
            else ("", "", "")
        )
        table.add_row(name, card.summary, f"{card.parameters / 1e6:.1f} M", *cells)
    rules: dict[str, list[str]] = {}
    for name, card in ARCHITECTURES.items():
        rules.setdefault(card.patches, []).append(name)
    terminal = Console()
    terminal.print(table)
    for rule, names in rules.items():
        terminal.print(f"Patches of {', '.join(names)}: {rule}.", highlight=False)
    terminal.print(
        "* Reported by the paper's release (https://github.com/Zihaoluoh/LN-Seg-FM) of its models on RADCURE and a "
        "V100S; not measured here.\nSources: --json.",
        highlight=False,
    )

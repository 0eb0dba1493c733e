"""The comparison as a table for the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from lnsegfm.evaluation.evaluate import MEAN
from lnsegfm.report.comparison import Comparison, Difference, dice_text, interval_text


def comparison_table(comparison: Comparison) -> Table:
    """A row per held-out case and label, and the means over the cases compared with the interval of their difference.

    A ``*`` marks a Dice of the base for a label it cannot know. Names of cases come from strangers' files: what does
    not print, and what the terminal would take for markup or an escape sequence, is shown as text.
    """
    several = len(comparison.labels) > 1
    caption = "\n".join([*_intervals(comparison), *comparison.notes()])
    table = Table(title="Base against adapted on the held-out cases", caption=Text(caption, justify="left"))
    table.add_column("Case", overflow="fold")
    if several:
        table.add_column("Label", overflow="fold")
    for name in ("Dice\nbase", "Dice\nadapted", "Change", "Reference\nml", "Base\nml", "Adapted\nml"):
        table.add_column(name, justify="right", no_wrap=True)

    def add(name: str, label: str, *cells: str, style: str | None = None) -> None:
        table.add_row(_plain(name), *([_plain(label)] if several else []), *cells, style=style)

    for case in comparison.cases:
        for label in comparison.labels:
            score = comparison.adapted_score(case, label)
            base, adapted = comparison.base_dice(case, label), comparison.adapted_dice(case, label)
            change = None if base is None or adapted is None else adapted - base
            add(
                case,
                label,
                dice_text(base) + ("*" if label in comparison.unknown else ""),
                dice_text(adapted),
                dice_text(change, signed=True),
                f"{score.reference_ml:.2f}",
                f"{comparison.base_ml(case, label):.2f}",
                f"{score.prediction_ml:.2f}",
            )
        if several:
            table.add_section()
    table.add_section()
    for label in comparison.labels:
        add(*_mean_cells(label, comparison.difference(label)), style="bold")
    if several:
        add(*_mean_cells(MEAN, comparison.difference()), style="bold")
    return table


def _mean_cells(label: str, found: Difference) -> tuple[str, ...]:
    return (
        f"mean of {found.n}",
        label,
        dice_text(found.base_mean),
        dice_text(found.adapted_mean),
        dice_text(found.mean, signed=True),
    )


def _intervals(comparison: Comparison) -> list[str]:
    found = {label: comparison.difference(label) for label in comparison.labels}
    if len(found) > 1:
        found[MEAN] = comparison.difference()
    return [
        f"{label}: 95 % interval of the difference [{interval_text(one.low, one.high)}]"
        for label, one in found.items()
        if one.low is not None
    ]


def _plain(name: str) -> Text:
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name))

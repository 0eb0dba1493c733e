"""What the commands of ``lnsegfm study`` print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lnsegfm.errors import ConfigError
from lnsegfm.expected_time import duration
from lnsegfm.messages import counted, printable

if TYPE_CHECKING:
    from lnsegfm.study.study_collection import StudyOutcome
    from lnsegfm.study.study_figures import StudyDifference
    from lnsegfm.study.study_scores import StudyScores


def study_folder(file: Path, out: Path | None) -> Path:
    """The folder of a study's results.

    Raises:
        ConfigError: The name of the study's file leaves none.
    """
    if out is not None:
        return out
    if not file.suffix:
        raise ConfigError(f"{file}: it has no ending, so its results have no name. Name a folder: --out DIR.")
    return file.with_suffix("")


def show_outcome(outcome: StudyOutcome, folder: Path) -> None:
    """Print how much of a study is done, a row a method of a setting, and what failed."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(padding=(0, 0, 0, 1))
    table.add_column("Data, base, shots", overflow="fold")
    table.add_column("Method", overflow="fold")
    for name in ("Done", "Failed", "Lacking"):
        table.add_column(name, justify="right", no_wrap=True)
    for (where, method), (done, failed, lacking) in outcome.counts().items():
        cells = [str(number) if number else "" for number in (done, failed, lacking)]
        table.add_row(Text(where), Text(method), *cells)
    Console().print(table)
    for name, reason in outcome.failed.items():
        print(printable(f"lnsegfm: {name}: {reason}"), file=sys.stderr)
    lacking = len(outcome.lacking)
    text = f"{len(outcome.done)} of {counted(len(outcome.planned), 'run')} done"
    text += f", {len(outcome.failed)} failed" if outcome.failed else ""
    print(f"{text}, {lacking} lacking." if lacking else f"{text}.")
    if (seconds := outcome.seconds_left()) is not None:
        print(f"The trainings that lack take about {duration(seconds)} one after the other.")
    print(f"Results  {folder / outcome.table_name}")


def show_figures(scores: StudyScores, differences: Sequence[StudyDifference]) -> None:
    """Print each setting's methods against the base and the reference, and what the comparisons show."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from lnsegfm.study.study_figures import AGAINST_BASE, AGAINST_REFERENCE, KEPT, method_figures
    from lnsegfm.study.study_words import finding, limits, mean_text, sentences, setting_title

    terminal = Console()
    for setting in scores.settings:
        asked = {(one.question, one.method): one for one in differences if one.setting == setting}
        table = Table(title=Text(setting_title(scores, setting)), title_justify="left", padding=(0, 0, 0, 1))
        table.add_column("Method", overflow="fold")
        for name in ("Dice", "Less the base", "Own task"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("Against the reference", overflow="fold")
        for one in method_figures(scores, setting):
            found = [asked.get((question, one.method)) for question in (AGAINST_BASE, KEPT)]
            texts = [
                mean_text(each.difference, signed=True, ends=n == 0) if each else "" for n, each in enumerate(found)
            ]
            against = asked.get((AGAINST_REFERENCE, one.method))
            table.add_row(
                Text(one.method), mean_text(one.dice, ends=False), *texts, Text(finding(against) if against else "")
            )
        terminal.print(table)
    for line in (*sentences(differences), *limits(scores, differences)):
        terminal.print(line, highlight=False, markup=False)

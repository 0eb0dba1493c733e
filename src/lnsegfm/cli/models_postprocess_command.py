"""``lnsegfm models postprocess``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lnsegfm.cli.shared_options import Absent, AsJson, Labels, pairs, print_json
from lnsegfm.errors import ConfigError

if TYPE_CHECKING:
    from lnsegfm.workflows.model_postprocessing import StoredPostprocessing


def postprocess(
    model: Annotated[Path, typer.Argument(help="The folder of a run or of a model, or the name of an imported one.")],
    predictions: Annotated[
        Path | None,
        typer.Option(help="Masks of it (predict --no-postprocessing) of scans that did not train it, to choose by."),
    ] = None,
    references: Annotated[
        Path | None, typer.Option(help="Reference masks of these scans, or a dataset folder.")
    ] = None,
    largest: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL", help="Keep the largest component of it; all: of all foreground; repeat."),
    ] = None,
    smallest: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=MM3", help="Remove its components below this volume; all=MM3: each label's."),
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="Remove the rules that the model has.")] = False,
    label: Labels = None,
    absent: Absent = None,
    as_json: AsJson = False,
) -> None:
    """Choose or set the postprocessing that is stored with MODEL, which predict applies.

    With --predictions and --references rules are taken by the one-standard-error rule, only where they help. Writes
    postprocessing.json and, for nnUNetv2_apply_postprocessing, postprocessing.pkl into the model's folder.
    """
    by_hand = bool(largest or smallest)
    chosen = predictions is not None or references is not None
    if [by_hand, chosen, none].count(True) != 1 or (chosen and (predictions is None or references is None)):
        raise ConfigError(
            "models postprocess: nothing says which rules. Give --predictions with --references to choose, or "
            "--largest and --smallest, or --none."
        )
    volumes = [(name, _mm3(name, text)) for name, text in pairs(smallest or (), "--smallest", "node=50").items()]
    from lnsegfm.cli.console import console
    from lnsegfm.datasets.label_choice import comma_separated
    from lnsegfm.datasets.labels import LabelMap
    from lnsegfm.workflows.model_postprocessing import choose_for_model, set_for_model

    with console() as progress:
        if predictions is not None and references is not None:
            named, lacked = LabelMap.from_options(label or ()), comma_separated(absent)
            done = choose_for_model(model, predictions, references, labels=named, absent=lacked, progress=progress)
        else:
            done = set_for_model(model, largest or (), volumes)
    if as_json:
        print_json(_result(done))
    else:
        _print(done)


def _mm3(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--smallest {name}={text}: not a volume. Give mm3, such as {name}=50.") from None


def _result(done: StoredPostprocessing) -> dict[str, object]:
    means = done.choice.scores.means() if done.choice is not None else {}
    return {
        "model": str(done.folder),
        "rules": done.postprocessing.to_json(),
        "lines": list(done.lines),
        "dice": {name: {"before": a, "after": b, "cases": n} for name, (a, b, n) in means.items()},
        "reason": done.choice.reason if done.choice is not None else "",
        "left_out": list(done.left_out),
    }


def _print(done: StoredPostprocessing) -> None:
    from rich.console import Console
    from rich.table import Table

    terminal = Console()
    if done.choice is not None:
        table = Table("label", "cases", "Dice before", "after", title="Dice, cross-fitted")
        for name, (before, after, cases) in done.choice.scores.means().items():
            table.add_row(name, str(cases), f"{before:.3f}", f"{after:.3f}")
        terminal.print(table)
    reason = done.choice.reason if done.choice is not None else ""
    for line in done.lines or (f"none{': ' if reason else ''}{reason}",):
        terminal.print(f"Postprocessing: {line}", highlight=False, markup=False)
    print(f"Model    {done.folder}")
    if done.left_out:
        print(f"lnsegfm: left out: {', '.join(done.left_out)}, which trained the model.", file=sys.stderr)

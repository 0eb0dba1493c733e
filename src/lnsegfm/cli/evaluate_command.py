"""``lnsegfm evaluate``: predicted masks against references."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lnsegfm.cli.job_options import Jobs, On, OnlyPart, Sharing
from lnsegfm.cli.shared_options import (
    Absent,
    AsJson,
    Exclude,
    KeepLabels,
    Labels,
    Merge,
    OnlyCases,
    SmallestDifference,
    pairs,
    print_json,
    require_folder,
)
from lnsegfm.cli.work_in_parts import print_pending, shared_work
from lnsegfm.errors import ConfigError
from lnsegfm.grouped_lines import grouped_lines
from lnsegfm.jobs.parts import PartsPending
from lnsegfm.progress import Progress

if TYPE_CHECKING:
    from lnsegfm.evaluation.scores import Evaluation
    from lnsegfm.report.comparison import Comparison

NOTICE = "Not for clinical use."
PAGE = "report.html"
_MOST_ROWS = 40  # of the table case by case; more are for the CSV


def evaluate(
    context: typer.Context,
    predictions: Annotated[Path, typer.Argument(help="Folder of predicted masks, named as their references.")],
    references: Annotated[Path, typer.Argument(help="Folder of reference masks, or a dataset folder.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Write report.html, evaluation.json, evaluation.csv and nodes.csv to this folder."),
    ] = None,
    cases: OnlyCases = None,
    exclude: Exclude = None,
    label: Labels = None,
    keep_labels: KeepLabels = None,
    merge: Merge = None,
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="THEIRS=OURS",
            help="A label of the predictions that the references know by another name; repeat.",
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the scans, for the pictures; a dataset's own unless given.")
    ] = None,
    node: Annotated[
        list[str] | None,
        typer.Option(
            "--node",
            metavar="LABEL",
            help="A label whose connected components are counted as nodes; repeat for more. By their names unless "
            "given.",
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(metavar="MM", min=0, help="Tolerance of the normalised surface Dice.")
    ] = 1.0,
    connectivity: Annotated[
        int, typer.Option(metavar="6|18|26", help="Neighbours of a voxel that belong to the same node.")
    ] = 26,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Measure this too: a metric of another package; repeat for more."),
    ] = None,
    absent: Absent = None,
    subjects: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV", help="Columns case and subject: intervals then count patients. Else the dataset's own."
        ),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Masks of another model, to compare these with.")
    ] = None,
    smallest_difference: SmallestDifference = None,
    on: On = "local",
    jobs: Jobs = None,
    part: OnlyPart = None,
    as_json: AsJson = False,
) -> None:
    """Score PREDICTIONS against REFERENCES: overlap, surface distances and nodes, case by case and over all cases.

    With --out, a page (report.html) shows false negatives, false positives and the worst overlaps, the worst cases
    first.
    """
    if out is not None:
        require_folder(out)
    if smallest_difference is not None and against is None:
        raise ConfigError("--smallest-difference: one model's figures have no difference. Use it with --against.")
    sharing = Sharing.of(on, jobs, part)
    from lnsegfm.cli.console import console
    from lnsegfm.datasets.label_choice import LabelChoice, comma_separated, merged_labels
    from lnsegfm.datasets.labels import LabelMap
    from lnsegfm.evaluation.folders import evaluate as evaluate_masks
    from lnsegfm.evaluation.references import labels_of_predictions
    from lnsegfm.report.report_files import compared

    names = pairs(map_ or (), "--map", '"Lymph Node=lymph_node"')
    choice = LabelChoice(keep=comma_separated(keep_labels), merge=merged_labels(merge or ()))

    def scored(folder: Path, names: dict[str, str]) -> Evaluation:
        return evaluate_masks(
            folder,
            references,
            labels=LabelMap.from_options(label or []),
            label_names=names,
            choice=choice,
            cases=cases,
            exclude=exclude,
            images=images,
            nodes=node or (),
            tolerance_mm=tolerance,
            connectivity=connectivity,
            metrics=metric or (),
            absent=comma_separated(absent),
            subjects=subjects,
            partial=True,
            sharer=sharer,
            progress=progress,
        )

    def against_scored(folder: Path) -> Evaluation:
        progress.stage(f"Evaluating {folder}")
        known = labels_of_predictions(folder)
        return scored(folder, {name: ours for name, ours in names.items() if known is not None and name in known.names})

    with console() as progress, shared_work(context, sharing, out, progress) as sharer:
        first, second = partial(scored, predictions, names), partial(against_scored, against) if against else None
        try:
            evaluation, other = scored_both(first, second)
        except PartsPending as pending:
            print_pending(pending, "scored", as_json)
            return
        comparison = None
        if other is not None and against is not None:
            comparison = compared(other, against, evaluation, predictions, smallest_difference)
        if out is not None:
            progress.stage("Drawing the page")
            _write(out, predictions, references, evaluation, against, other, comparison, progress)
    if as_json:
        print_json(_result(evaluation, comparison))
    else:
        _print(evaluation)
        if comparison is not None:
            _print_comparison(comparison)
        if out is not None:
            print(f"Report   {out / PAGE}")
        print(NOTICE)
    failures = (*evaluation.failures, *(other.failures if other is not None else ()))
    for line in (*_notes(evaluation), *_trained_on(predictions, evaluation), *grouped_lines(failures)):
        print(f"lnsegfm: {line}", file=sys.stderr)
    if failures:
        raise typer.Exit(1)


def scored_both(
    first: Callable[[], Evaluation], second: Callable[[], Evaluation] | None
) -> tuple[Evaluation, Evaluation | None]:
    """Evaluate masks, and others to compare them with; of a part both are scored before it ends.

    Raises:
        PartsPending: Other parts lack.
    """
    pending: PartsPending | None = None
    evaluation = other = None
    try:
        evaluation = first()
    except PartsPending as lacking:
        pending = lacking
    if second is not None:
        other = second()
    if evaluation is None:
        assert pending is not None
        raise pending
    return evaluation, other


def _result(evaluation: Evaluation, comparison: Comparison | None) -> dict[str, Any]:
    from lnsegfm.report.comparison_json import to_json

    return evaluation.to_json() if comparison is None else to_json(comparison)


def _write(
    out: Path,
    predictions: Path,
    references: Path,
    evaluation: Evaluation,
    against: Path | None,
    other: Evaluation | None,
    comparison: Comparison | None,
    progress: Progress,
) -> None:
    from lnsegfm.evaluation.evaluation_files import write_evaluation
    from lnsegfm.evaluation.flags import read_flags
    from lnsegfm.report.report_files import write_comparison, write_report

    scored = {case.case for case in evaluation.cases}
    flags = {case: raised for case, raised in read_flags(predictions).items() if case in scored}
    facts = {"Predictions": str(predictions), "References": str(references)}
    # the page first: a scan that cannot be read fails before anything is written
    if other is None or comparison is None:
        write_report(out / PAGE, evaluation, facts, flags, progress)
    else:
        facts["Compared with"] = str(against)
        write_comparison(out, comparison, facts, flags, progress)
        write_evaluation(out / "against", other)
    write_evaluation(out, evaluation)


def _notes(evaluation: Evaluation) -> list[str]:
    predicted = evaluation.prediction_labels
    unknown = [name for name in evaluation.labels.names if predicted is not None and name not in predicted.names]
    doubts = [*_same_files(evaluation), *map(str, evaluation.doubtful().values())]
    if not unknown:
        return doubts
    return [
        *doubts,
        f"Label {', '.join(unknown)}: the model that predicted has only {predicted}; it counts as an empty prediction.",
    ]


def _same_files(evaluation: Evaluation) -> list[str]:
    files = [case.files for case in evaluation.cases if case.files is not None]
    same = [each for each in files if each.prediction is not None and each.prediction.samefile(each.reference)]
    if not same:
        return []
    return [f"{len(same)} of {len(files)} predictions are the reference files themselves: a Dice of 1 says nothing."]


def _trained_on(predictions: Path, evaluation: Evaluation) -> list[str]:
    """Which of the cases trained the model that predicted them, as far as its flags tell."""
    from lnsegfm.evaluation.flags import TRAINED_ON, read_flags
    from lnsegfm.messages import counted

    flags, scored = read_flags(predictions), [case.case for case in evaluation.cases]
    known = [case for case in scored if any(flag.kind == TRAINED_ON for flag in flags.get(case, ()))]
    if not known:
        return []
    return [
        f"{len(known)} of {counted(len(scored), 'case')} trained the model that predicted them ({', '.join(known)}): "
        "their scores say nothing about new scans."
    ]


def _print(evaluation: Evaluation) -> None:
    from rich.console import Console

    from lnsegfm.report.terminal_tables import case_table, node_table, summary_table
    from lnsegfm.report.verdict import limits

    terminal = Console()
    rows = len(evaluation.cases) * len(evaluation.labels.names)
    if rows <= _MOST_ROWS:
        terminal.print(case_table(evaluation))
    else:
        print(f"Case by case there are {rows} rows: --out writes them to evaluation.csv.")
    terminal.print(summary_table(evaluation))
    if any(math.isnan(score.dice) for case in evaluation.cases for score in case.labels.values()):
        print("Left out: cases where neither reference nor prediction has the label, or where it is not annotated.")
    for label in evaluation.node_labels:
        terminal.print(node_table(evaluation, label))
    for line in limits(len(set(evaluation.subjects))):
        print(line)


def _print_comparison(comparison: Comparison) -> None:
    from rich.console import Console

    from lnsegfm.report.verdict import verdict

    Console().print(verdict(comparison), highlight=False, markup=False)

"""``lnsegfm report``: the page of a run or an evaluation, rebuilt, or of two against each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lnsegfm.cli.shared_options import AsJson, SmallestDifference, print_json, require_folder
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.progress import Progress

if TYPE_CHECKING:
    from lnsegfm.evaluation.scores import Evaluation


def report(
    run: Annotated[
        Path | None, typer.Argument(help="A run of finetune, or a folder that evaluate has written with --out.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Two such folders: shows B against A on the cases that both have."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the page of --compare; RUN's page is written into RUN.")
    ] = None,
    smallest_difference: SmallestDifference = None,
    methods: Annotated[
        bool, typer.Option("--methods", help="Print a paragraph on RUN for the methods section of a paper, no more.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Rebuild the page of RUN from what its folder holds, or compare two of them. No model is loaded.

    Not for clinical use.
    """
    if (run is None) == (compare is None):
        raise ConfigError("report: give the folder of a run or an evaluation, or --compare A B. One of the two.")
    if compare is None and out is not None:
        raise ConfigError(f"--out {out}: the page of a run is written into it. Use --out with --compare only.")
    if compare is not None and out is None:
        raise ConfigError("--compare: it needs a folder for its page. Name one: --out DIR.")
    if methods:
        _print_methods(run)
        return
    from lnsegfm.cli.console import console

    with console() as progress:
        if run is not None:
            page, figures = _anew(run, progress, smallest_difference)
        elif compare is not None and out is not None:
            require_folder(out)
            page, figures = _side_by_side(*compare, out, progress, smallest_difference)
    if as_json:
        from lnsegfm.storage import read_json

        print_json(read_json(figures))
        return
    print(f"Report   {page}")
    print(f"Figures  {figures}")
    print("Not for clinical use.")


def _print_methods(run: Path | None) -> None:
    from lnsegfm.report.methods_paragraph import methods_paragraph
    from lnsegfm.storage import read_json

    if run is None or not (run / "run.json").is_file():
        raise ConfigError(f"--methods {run or ''}: a finished run of finetune is needed. Name its folder.")
    print(methods_paragraph(read_json(run / "run.json")))


def _anew(folder: Path, progress: Progress, smallest: float | None) -> tuple[Path, Path]:
    from lnsegfm.evaluation.evaluation_files import EVALUATION, read_evaluation, write_evaluation
    from lnsegfm.evaluation.flags import read_flags
    from lnsegfm.report.report_files import write_report
    from lnsegfm.report.run_report import PAGE, with_smallest_difference, write_run_report
    from lnsegfm.storage import read_json, write_json

    if (folder / "run.json").is_file():
        record = read_json(folder / "run.json")
        if smallest is not None:
            record = with_smallest_difference(record, smallest, folder)
            write_json(folder / "run.json", record)
        write_run_report(folder, record, progress)
        return folder / PAGE, folder / "run.json"
    if smallest is not None:
        raise ConfigError(f"--smallest-difference: {folder} holds one model's figures. Use it with a run or --compare.")
    evaluation = read_evaluation(folder)
    places = {case.files.prediction.parent for case in evaluation.cases if case.files and case.files.prediction}
    scored = {case.case for case in evaluation.cases}
    flags = {case: raised for place in sorted(places) for case, raised in read_flags(place).items() if case in scored}
    write_evaluation(folder, evaluation)
    write_report(folder / PAGE, evaluation, {}, flags, progress)
    return folder / PAGE, folder / EVALUATION


def _side_by_side(
    first: Path, second: Path, out: Path, progress: Progress, smallest: float | None
) -> tuple[Path, Path]:
    from lnsegfm.report.report_files import COMPARISON, PAGE, compared, write_comparison

    comparison = compared(_evaluation(first), first, _evaluation(second), second, smallest)
    if not comparison.cases:
        raise DataError(f"{first} and {second}: they have no case in common. Evaluate the same cases with both.")
    write_comparison(out, comparison, {"First": str(first), "Second": str(second)}, None, progress)
    return out / PAGE, out / COMPARISON


def _evaluation(folder: Path) -> Evaluation:
    """An evaluation, or that of a run's adapted model on its held-out cases."""
    from lnsegfm.evaluation.evaluation_files import read_evaluation

    if (folder / "run.json").is_file():
        return read_evaluation(folder / "predictions" / "adapted")
    return read_evaluation(folder)

"""Prediction of many scans by other processes, and what became of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from lnsegfm.models.model_folder import Model
from lnsegfm.prediction.pipeline import attempt
from lnsegfm.prediction.predict_cases import (
    Predictions,
    model_as_asked,
    predictions_of,
    require_apart,
    say_what_of_model,
)
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.scans import Failure, Scans
from lnsegfm.prediction.shared_folder import joined
from lnsegfm.prediction.writers.case_outputs import CaseOutputs, Need
from lnsegfm.prediction.writers.case_records import FAILED, read_record
from lnsegfm.prediction.writers.cohort_summary import (
    read_refusals,
    write_indexes,
    write_passed_over,
    write_refusals,
)
from lnsegfm.prediction.writers.mask_origin import MaskOrigin
from lnsegfm.progress import Progress
from lnsegfm.storage import write_json


def predict_by_others(
    model: Model,
    scans: Scans,
    out: Path,
    options: PredictOptions,
    run: Callable[[Sequence[str]], Mapping[str, str]],
    progress: Progress,
) -> Predictions:
    """Have scans predicted by other processes, and gather what became of them; the network is not loaded here.

    Args:
        model: The model.
        scans: The scans.
        out: Folder of the masks.
        options: How, and what is written besides the masks.
        run: Has the cases of these names done, each by a process that calls `predict_cases` for its part of ``scans``
            with a summary; gives why processes failed.
        progress: Reported to.

    Raises:
        RunMismatch: As `predict_cases`.
        ConfigError: As `predict_cases`.
    """
    model = model_as_asked(model, options)
    origin = MaskOrigin.of(model, options)
    outputs = CaseOutputs(out, origin, scans, options)
    require_apart(out, scans.cases, outputs)
    say_what_of_model(model, scans, progress)
    needs = {case.name: attempt(case, partial(outputs.need, case.name, None)) for case in scans.cases}
    todo = [name for name, need in needs.items() if need is not Need.NOTHING]
    names = frozenset(needs)

    def leaving() -> None:
        write_refusals(out, scans.source, scans.refused, names)
        write_passed_over(out, scans.source, scans.passed_over)
        write_indexes(out, model.mask_labels, summary=True)

    with joined(out, origin.made_by, overwrite=options.overwrite, leaving=leaving) as generation:
        write_json(out / "dataset.json", model.masks_json)
        write_refusals(out, scans.source, scans.refused)
        lost = list(run(todo).values()) if todo else []
    after = CaseOutputs(out, origin, scans, replace(options, overwrite=False))
    failed = _failed(after, scans, generation if options.overwrite else 0, lost)
    return predictions_of(outputs, scans, {n for n, need in needs.items() if need is Need.PREDICT}, failed)


def _failed(outputs: CaseOutputs, scans: Scans, generation: int, lost: Sequence[str]) -> list[Failure]:
    """The cases that have no mask of this call, and why."""
    refused = read_refusals(outputs.out, scans.source)
    why = " ".join(lost) or "no process has done it. Run the same command again."
    failed = []
    for case in scans.cases:
        record = read_record(outputs.out, case.name)
        need = attempt(case, partial(outputs.need, case.name, None))
        if isinstance(need, Failure):
            failed.append(need)
        elif case.name in refused:
            failed.append(Failure(case.name, refused[case.name]))
        elif record is not None and record.status == FAILED:
            failed.append(Failure(case.name, record.reason))
        elif need is not Need.NOTHING or record is None or record.generation < generation:
            failed.append(Failure(case.name, why))
    return failed

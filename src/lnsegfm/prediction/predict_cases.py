"""Prediction of many scans into a folder: the model loaded once, each case done by one of the processes at work."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lnsegfm.datasets.dataset import Case
from lnsegfm.errors import ConfigError, Interrupted
from lnsegfm.evaluation.flags import Flag
from lnsegfm.expected_time import Clock, TimedProgress, TimePlan
from lnsegfm.jobs.parts import ListPart
from lnsegfm.messages import counted
from lnsegfm.models.model_folder import Model
from lnsegfm.nnunet.environment import choose_device, without_warnings
from lnsegfm.nnunet.mirroring import mirrored_sides
from lnsegfm.nnunet.preprocessing import PreprocessedScan
from lnsegfm.prediction.inputs import one_line
from lnsegfm.prediction.memory_budget import room
from lnsegfm.prediction.pipeline import Passed, Steps, attempt, each, worthwhile
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.prediction_time import mirrored_copies
from lnsegfm.prediction.ready_predictor import ready
from lnsegfm.prediction.results import RawPrediction
from lnsegfm.prediction.scan_predictor import ScanPredictor
from lnsegfm.prediction.scans import Failure, Scans
from lnsegfm.prediction.shared_folder import joined, take_case
from lnsegfm.prediction.writers.case_outputs import CaseOutputs, Need
from lnsegfm.prediction.writers.case_records import describe_passed_over
from lnsegfm.prediction.writers.cohort_summary import write_indexes, write_passed_over, write_refusals
from lnsegfm.prediction.writers.mask_origin import MaskOrigin
from lnsegfm.progress import Progress, Silent
from lnsegfm.storage import write_json

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.series_choice import PassedOver

_SHORTEST_WAIT_S, _LONGEST_WAIT_S = 0.05, 1.0
"""Between two attempts at cases that another process is at."""


@dataclass(frozen=True)
class Predictions:
    """What became of a folder of scans.

    Args:
        folder: Where the masks lie.
        done: Cases predicted now, by this process.
        skipped: Cases whose mask was there already, or was made by another process meanwhile.
        failed: Cases that could not be predicted, or whose mask could not be measured.
        flags: Reasons to review cases, done now or before; none where flags were not asked for.
        passed_over: DICOM series that were not taken, and why.
        notes: Case, and what differs between its mask and its exports.
    """

    folder: Path
    done: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: tuple[Failure, ...]
    flags: tuple[Flag, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()


def predict_cases(
    model: Model,
    scans: Scans | Sequence[Case],
    out: Path,
    options: PredictOptions | None = None,
    *,
    summary: bool = False,
    tell_time: bool = False,
    part: ListPart | None = None,
    clock: Clock = time.monotonic,
    progress: Progress | None = None,
) -> Predictions:
    """Predict many scans; a mask that is there already is left alone, a scan that fails does not stop the rest.

    Several processes may predict into one folder at once: each case is done by one of them, and a killed one's by
    another. What a mask that is there lacks is added without predicting again; only missing probabilities need the
    network. While a scan is on the network the next one is read and the one before is written, if there is room for
    three in memory and a core that the network leaves (`lnsegfm.prediction.pipeline`).

    Args:
        model: The model.
        scans: The scans.
        out: Folder of the masks; a case's mask is named as the case.
        options: How, and what is written besides the masks.
        summary: Measure the nodes of each mask, and write ``summary.json`` and ``summary.csv``.
        tell_time: Say after the first scan about how long the others take.
        part: Predict these of the scans alone; others are for other processes.
        clock: Seconds of a clock that never goes back.
        progress: Reported to.

    Raises:
        RunMismatch: ``out`` holds masks of another model or of other settings, or a process that makes such masks
            writes there.
        ConfigError: A mask would take the place of a scan, or settings that cannot be, or less memory than
            the program, the model and the largest scan hold.
    """
    progress, options = progress or Silent(), options or PredictOptions()
    model = model_as_asked(model, options)
    scans = scans if isinstance(scans, Scans) else Scans(tuple(scans))
    outputs = CaseOutputs(out, MaskOrigin.of(model, options), scans, options, measure=summary)
    require_apart(out, scans.cases, outputs)
    say_what_of_model(model, scans, progress)
    everything, others = scans, frozenset[str]()
    if part is not None:
        scans = replace(scans, cases=tuple(part.take(scans.cases)))
        others = frozenset(case.name for case in everything.cases) - {case.name for case in scans.cases}
    cohort = _Cohort(model, scans, outputs, options, progress)
    cohort.prepare()
    if tell_time:
        cohort.tell_time(clock)

    def leaving() -> None:
        write_refusals(out, scans.source, [*scans.refused, *cohort.foreign], others)
        write_passed_over(out, scans.source, scans.passed_over)
        write_indexes(out, model.mask_labels, summary=summary)

    with joined(out, outputs.origin.made_by, overwrite=options.overwrite, leaving=leaving) as generation:
        write_json(out / "dataset.json", model.masks_json)
        cohort.predict(generation)
    return predictions_of(outputs, scans, cohort.predicted, cohort.failed)


def predictions_of(
    outputs: CaseOutputs, scans: Scans, predicted: Collection[str], failed: Sequence[Failure]
) -> Predictions:
    """What became of scans, with what the records of their masks say.

    Args:
        outputs: Of the folder.
        scans: The scans.
        predicted: Cases whose masks are new.
        failed: Cases that failed.
    """
    lost = {failure.case for failure in failed}
    names = [case.name for case in scans.cases if case.name not in lost]
    return Predictions(
        folder=outputs.out,
        done=tuple(name for name in names if name in predicted),
        skipped=tuple(name for name in names if name not in predicted),
        failed=(*scans.refused, *failed),
        flags=tuple(flag for name in names for flag in outputs.flags(name)) if outputs.options.flags else (),
        passed_over=scans.passed_over,
        notes=tuple((name, note) for name in names for note in outputs.export_notes(name)),
    )


def model_as_asked(model: Model, options: PredictOptions) -> Model:
    """A model with the axes that are said, and without its rules where they are not wanted."""
    model = model if options.postprocessing else model.without_postprocessing()
    return model.with_axes(options.model_axes)


def say_what_of_model(model: Model, scans: Scans, progress: Progress) -> None:
    """Report what of a model somebody should know who predicts with it."""
    if scans.cases and model.trained_axes.assumed:
        progress.stage(model.trained_axes.assumed)
    confused = mirrored_sides(model.plans, model.first.mirroring_axes, model.label_names)
    if scans.cases and confused:
        progress.stage(f"Model: {confused}. Adapt it with labelled scans: sides are then told apart")
    for line in model.mask_postprocessing.lines(model.labels.covered):
        progress.stage(f"Postprocessing: {line}")


class _Cohort:
    """The cases of one process, under way."""

    def __init__(
        self, model: Model, scans: Scans, outputs: CaseOutputs, options: PredictOptions, progress: Progress
    ) -> None:
        self.model, self.scans, self.outputs, self.options, self.progress = model, scans, outputs, options, progress
        self.predicted: set[str] = set()
        self.failed: list[Failure] = []
        self.foreign: list[Failure] = []
        """Those of the failed whose masks are another series': their records are not this process's."""
        self._needs: dict[str, Need] = {}
        self._predictor: ScanPredictor | None = None
        self._overlap = False

    def prepare(self) -> None:
        """Find out what each case needs, and load the network where one needs it, before anything is written."""
        self._needs = {case.name: self._seems_to_need(case, None) for case in self.scans.cases}
        todo = [case for case in self.scans.cases if self._needs[case.name] is Need.PREDICT]
        if todo:
            self._load(todo)

    def tell_time(self, clock: Clock) -> None:
        """From now on say about how long it takes, once the first scan is done."""
        todo = sum(need is Need.PREDICT for need in self._needs.values())
        plan = TimePlan(
            unit="scan",
            sample=1,
            skip=0,
            under_way=int(self._overlap),
            total=todo or None,
            fewer_steps=_shorter(self.model, self.options),
        )
        self.progress = TimedProgress(self.progress, plan, clock)

    def predict(self, generation: int) -> None:
        """Do what every case needs; those that another process is at are waited for in the end."""
        pending = [case for case in self.scans.cases if self._needs[case.name] is not Need.NOTHING]
        total, wait_s = len(pending), _SHORTEST_WAIT_S
        while pending:
            later = self._one_round(pending, generation, total)
            if later and len(later) == len(pending):
                if wait_s == _SHORTEST_WAIT_S:
                    self.progress.stage(f"Waiting for another process to finish {counted(len(later), 'case')}")
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            pending = later
            self._needs = {case.name: self._seems_to_need(case, generation) for case in pending}

    def _one_round(self, cases: Sequence[Case], generation: int, total: int) -> list[Case]:
        """Go once over cases; gives those that another process is at."""
        later: list[Case] = []
        left = len(cases)

        def report(case: Case, outcome: Failure | Passed | None) -> None:
            nonlocal left
            if isinstance(outcome, Passed) and outcome.later:
                later.append(case)
                return
            if isinstance(outcome, Failure):
                self.failed.append(outcome)
            left -= 1
            self.progress.advance(total - left, total, case.name)

        todo = [case for case in cases if self._needs[case.name] is Need.PREDICT]
        if todo and self._predictor is None:
            self._load(todo)
        if self._predictor is not None:
            with without_warnings:
                each(todo, self._steps(self._predictor, generation), report, overlap=self._overlap)
        for case in cases:
            if self._needs[case.name] is not Need.PREDICT:
                report(case, attempt(case, partial(self._complete, case, generation)))
        return later

    def _load(self, todo: Sequence[Case]) -> None:
        options = self.options
        space = room(self.model, todo, self.scans.series, options.memory_bytes, probabilities=options.probabilities)
        self._predictor = ready(
            self.model,
            options.setting,
            device=choose_device(options.device),
            watch=options.flags,
            air=options.air,
            memory=space.rest,
        )
        self._overlap = space.overlap and worthwhile(self._predictor.device.type, torch.get_num_threads())

    def _seems_to_need(self, case: Case, generation: int | None) -> Need:
        """What a case seems to need while nobody holds it; what is wrong with it is found again when it is held."""
        need = attempt(case, partial(self.outputs.need, case.name, generation))
        return need if isinstance(need, Need) else Need.COMPLETE

    @contextmanager
    def _held(self, case: Case, wanted: Need, generation: int) -> Iterator[None]:
        """Keep a case to this process, if it still needs what is wanted, and record what goes wrong with it."""
        lock = take_case(self.outputs.out, case.name)
        if lock is None:
            raise Passed(later=True)
        with lock:
            try:
                need = self.outputs.need(case.name, generation)
            except Exception as error:
                self.foreign.append(Failure(case.name, one_line(error)))
                raise
            if need is not wanted:  # another process was faster; what it left to do is for the next round
                raise Passed(later=need is not Need.NOTHING)
            try:
                yield
            except (Interrupted, Passed):
                raise
            except Exception as error:
                self.outputs.fail(case.name, one_line(error))
                raise

    def _complete(self, case: Case, generation: int) -> None:
        with self._held(case, Need.COMPLETE, generation):
            self.outputs.complete(case)

    def _steps(self, predictor: ScanPredictor, generation: int) -> Steps[PreprocessedScan, RawPrediction]:
        # pydicom's settings are the whole process's: two threads that change them would put back each other's
        dicom = threading.Lock()

        @contextmanager
        def opened(case: Case) -> Iterator[Case]:
            with ExitStack() as closing:
                with dicom:
                    scan = closing.enter_context(self.scans.opened(case))
                yield scan

        def write(scan: Case, made: RawPrediction) -> None:
            before = partial(self.outputs.before_mask, scan, generation=generation)
            predictor.write(made, self.outputs.mask_file(scan.name), first=before)

        def finish(case: Case) -> None:
            with dicom:
                self.outputs.export(case.name)
            self.predicted.add(case.name)

        return Steps(
            partial(self._held, wanted=Need.PREDICT, generation=generation),
            opened,
            prepare=lambda scan: predictor.prepare(scan.images),
            run=lambda prepared: predictor.run(prepared, probabilities=self.options.probabilities),
            write=write,
            finish=finish,
        )


def _shorter(model: Model, options: PredictOptions) -> tuple[str, ...]:
    """Options that make a prediction shorter than what was asked for."""
    setting, copies = options.setting, mirrored_copies(model.first)
    found: tuple[str, ...] = (
        (f"--no-mirroring (up to {copies} times faster)",) if setting.mirroring and copies > 1 else ()
    )
    found += ("--fold 0",) if len(model.folds) > 1 else ()
    return (*found, "--fast wide-steps") if options.fast is None and not options.exact else found


def require_apart(out: Path, cases: Sequence[Case], outputs: CaseOutputs) -> None:
    """Refuse masks that would take the place of scans."""
    images = {image.resolve(): image for case in cases for image in case.images}
    for case in cases:
        if (image := images.get(outputs.mask_file(case.name).resolve())) is not None:
            raise ConfigError(
                f"--out {out}: the scan {image.name} lies there under its mask's name. Name another folder."
            )


def as_json(predictions: Predictions) -> Mapping[str, Any]:
    """What became of the scans, for a program to read."""
    failed: dict[str, str] = {}
    for failure in predictions.failed:  # two files of one series may each have been refused
        failed[failure.case] = f"{failed[failure.case]} {failure.reason}" if failure.case in failed else failure.reason
    return {
        "folder": str(predictions.folder),
        "done": list(predictions.done),
        "skipped": list(predictions.skipped),
        "failed": failed,
        "flags": [flag.to_json() for flag in predictions.flags],
        "passed_over": [describe_passed_over(each) for each in predictions.passed_over],
        "notes": [{"case": case, "note": note} for case, note in predictions.notes],
    }

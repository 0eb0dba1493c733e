"""Prediction with nnU-Net's sliding window: the model loaded once, one scan after the other, in one process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lnsegfm.datasets.dataset import Case
from lnsegfm.errors import ConfigError, RunMismatch
from lnsegfm.evaluation.flags import Flag, read_flags
from lnsegfm.models.model_folder import Model
from lnsegfm.nnunet.environment import choose_device, without_warnings
from lnsegfm.nnunet.preprocessing import PreprocessedScan
from lnsegfm.prediction.inputs import Failure
from lnsegfm.prediction.memory_budget import room
from lnsegfm.prediction.pipeline import Steps, attempt, each, worthwhile
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.predictor import Predictor, ready
from lnsegfm.prediction.results import PredictedMask, RawPrediction
from lnsegfm.prediction.writers.dicom_exports import Exports
from lnsegfm.prediction.writers.sidecars import Beside, Wanted
from lnsegfm.progress import Progress, Silent
from lnsegfm.storage import clear_partials, content_hash, locked, read_json, write_json


@dataclass(frozen=True)
class Predictions:
    """What became of a folder of scans.

    Args:
        folder: Where the masks lie.
        done: Cases predicted now.
        skipped: Cases whose mask was there already.
        failed: Cases that could not be predicted, or whose mask could not be looked at.
        flags: Reasons to look at cases, done now or before; none where flags were not asked for.
    """

    folder: Path
    done: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: tuple[Failure, ...]
    flags: tuple[Flag, ...] = ()


def predict_cases(
    model: Model,
    cases: Sequence[Case],
    out: Path,
    options: PredictOptions | None = None,
    *,
    exports: Exports | None = None,
    progress: Progress | None = None,
) -> Predictions:
    """Predict many scans; a mask that is there already is left alone, a scan that fails does not stop the rest.

    What a mask that is there lacks beside it is added without predicting again; only missing probabilities ask for the
    network. While a scan is on the network the next one is read and the one before is written, if there is room for
    three in memory and a core that the network leaves (`lnsegfm.prediction.pipeline`).

    Args:
        model: The model.
        cases: The scans.
        out: Folder of the masks; a case's mask is named as the case.
        options: How, and what is written besides the masks.
        exports: Writes DICOM and records beside the masks, and opens scans that are DICOM.
        progress: Told how far it is.

    Raises:
        RunMismatch: ``out`` holds masks of another model or of other settings, or another run is writing there.
        ConfigError: A mask would take the place of a scan, or settings that cannot be, or less memory than
            the program, the model and the largest scan hold.
    """
    progress, options = progress or Silent(), options or PredictOptions()
    setting, overwrite, flags = options.setting, options.overwrite, options.flags
    places = model.mask_files(out, (case.name for case in cases))
    _require_apart(out, cases, places)
    beside = Beside(model, out, Wanted(flags=flags, nodes=options.nodes, probabilities=options.probabilities))
    todo = [case for case in cases if overwrite or not places[case.name].is_file() or beside.needs_network(case)]
    made_by = {"model": [fold.weights_sha256 for fold in model.folds]} | setting.to_json()
    predictor, overlap = None, False
    if todo:
        series = exports.scans.series if exports is not None else {}
        there = room(model, todo, series, options.memory_bytes, probabilities=options.probabilities)
        device = choose_device(options.device)
        predictor = ready(model, setting, device=device, watch=flags, air=options.air, memory=there.rest)
        overlap = there.overlap and worthwhile(predictor.device.type, torch.get_num_threads())
    with locked(out):
        _claim(out, made_by, overwrite)
        write_json(out / "dataset.json", dict(model.dataset_json))
        failed: list[Failure] = list(exports.claim(places, overwrite=overwrite)) if exports is not None else []
        others = {failure.case for failure in failed}
        todo = [case for case in todo if case.name not in others]
        rest = [
            case
            for case in cases
            if case not in todo
            and case.name not in others
            and (beside.lacks(case) or (exports is not None and exports.lacks(case, places[case.name])))
        ]
        finished = 0

        def told(case: Case, failure: Failure | None) -> None:
            nonlocal finished
            finished += 1
            failed.extend([failure] if failure is not None else [])
            progress.advance(finished, len(todo) + len(rest), case.name)

        if predictor is not None:
            steps = _steps(predictor, places, beside, exports, options.probabilities)
            with without_warnings:
                each(todo, steps, told, overlap=overlap)
        for case in rest:
            told(case, attempt(case, partial(_complete, case, places[case.name], beside, exports)))
        lost = {failure.case for failure in failed}
        raised = read_flags(out) if flags else {}
        done = tuple(case.name for case in todo if case.name not in lost)
        found = tuple(flag for case in cases if case.name not in lost for flag in raised.get(case.name, ()))
        if exports is not None:
            exports.summarise(done, failed, found)
            failed = [*exports.scans.refused, *failed]
    return Predictions(
        folder=out,
        done=done,
        skipped=tuple(case.name for case in cases if case not in todo and case.name not in lost),
        failed=tuple(failed),
        flags=found,
    )


def model_title(model: Model) -> str:
    """What files that a model made call it: the hash of its weights, and its name where it has one."""
    hashes = [fold.weights_sha256 for fold in model.folds]
    weights = hashes[0] if len(hashes) == 1 else content_hash(hashes)
    named = f" ({model.stored.card.name})" if model.stored is not None else ""
    return f"weights {weights[:12]}{named}"


def _steps(
    predictor: Predictor, places: Mapping[str, Path], beside: Beside, exports: Exports | None, probabilities: bool
) -> Steps[PreprocessedScan, RawPrediction]:
    # pydicom's settings are the whole process's: two threads that change them would put back each other's
    dicom = threading.Lock()

    @contextmanager
    def opened(case: Case) -> Iterator[Case]:
        with ExitStack() as closing:
            with dicom:
                scan = closing.enter_context(_opened(case, exports))
            yield scan

    def write(scan: Case, made: RawPrediction) -> None:
        place = places[scan.name]

        def first(found: PredictedMask) -> None:
            """Before a mask appears: what belongs to the one before goes, what belongs to this one is written."""
            if exports is not None:
                exports.replace(scan, place)
            beside.write(scan, found)

        predictor.write(made, place, first=first)

    def finish(case: Case) -> None:
        with dicom:
            _export(case, places[case.name], exports)

    return Steps(
        opened,
        prepare=lambda scan: predictor.prepare(scan.images),
        run=lambda prepared: predictor.run(prepared, probabilities=probabilities),
        write=write,
        finish=finish,
    )


def _export(case: Case, place: Path, exports: Exports | None) -> None:
    if exports is not None and exports.lacks(case, place):
        exports.write(case, place)


def _complete(case: Case, place: Path, beside: Beside, exports: Exports | None) -> None:
    if exports is not None and exports.edited(case, place):
        beside.forget_nodes(case)  # their numbers would not be those of the structures
    if beside.lacks(case):
        with _opened(case, exports) as scan:
            beside.complete(scan, place)
    _export(case, place, exports)


def _opened(case: Case, exports: Exports | None) -> AbstractContextManager[Case]:
    return exports.scans.opened(case) if exports is not None else nullcontext(case)


def _require_apart(out: Path, cases: Sequence[Case], places: Mapping[str, Path]) -> None:
    """Refuse masks that would take the place of scans."""
    images = {image.resolve(): image for case in cases for image in case.images}
    for place in places.values():
        if (image := images.get(place.resolve())) is not None:
            raise ConfigError(
                f"--out {out}: the scan {image.name} lies there under its mask's name. Name another folder."
            )


def _claim(out: Path, made_by: dict[str, Any], overwrite: bool) -> None:
    """Make a folder the masks' of one model: what another one left there must not pass for this one's."""
    clear_partials(out)
    card = out / "masks.json"
    if card.is_file() and not overwrite and read_json(card) != made_by:
        raise RunMismatch(
            f"{out}: its masks come from another model or other settings. Choose another --out, or --overwrite."
        )
    write_json(card, made_by)


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
    }

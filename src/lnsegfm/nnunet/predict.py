"""Prediction with nnU-Net's own sliding window: the model loaded once, one scan after the other, in one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lnsegfm.datasets.dataset import Case
from lnsegfm.errors import ConfigError, Interrupted, RunMismatch
from lnsegfm.evaluation.flags import Flag, read_flags
from lnsegfm.nnunet.beside import Beside, Wanted
from lnsegfm.nnunet.exports import Exports
from lnsegfm.nnunet.model import Model
from lnsegfm.nnunet.predictor import Found, Predictor
from lnsegfm.nnunet.scans import Failure, one_line
from lnsegfm.progress import Progress, Silent
from lnsegfm.storage import alone, clear_partials, content_hash, read_json, write_json


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
    *,
    device: str = "cpu",
    mirroring: bool = True,
    step: float = 0.5,
    overwrite: bool = False,
    flags: bool = True,
    nodes: bool = False,
    probabilities: bool = False,
    exports: Exports | None = None,
    progress: Progress | None = None,
) -> Predictions:
    """Predict many scans; a mask that is there already is left alone, a scan that fails does not stop the rest.

    What a mask that is there lacks beside it is added without predicting again; only missing probabilities ask for the
    network.

    Args:
        model: The model.
        cases: The scans.
        out: Folder of the masks; a case's mask is named as the case.
        device: ``cpu``, ``cuda`` or ``mps``.
        mirroring: See `Predictor`.
        step: See `Predictor`.
        overwrite: Predict also what is there already.
        flags: Write ``flags.json``, the reasons to look at a case (`lnsegfm.evaluation.flags`).
        nodes: Write ``CASE.nodes.csv`` and ``CASE.nodes.json``, the measured nodes of a mask.
        probabilities: Write ``CASE.npz``, each class's probability in each voxel.
        exports: Writes DICOM and records beside the masks, and opens scans that are DICOM.
        progress: Told how far it is.

    Raises:
        RunMismatch: ``out`` holds masks of another model or of other settings, or another run is writing there.
        ConfigError: A mask would take the place of a scan.
    """
    progress = progress or Silent()
    ending = str(model.dataset_json.get("file_ending", ".nii.gz"))
    places = {case.name: out / f"{case.name}{ending}" for case in cases}
    _require_apart(out, cases, places)
    beside = Beside(model, out, Wanted(flags=flags, nodes=nodes, probabilities=probabilities))
    todo = [case for case in cases if overwrite or not places[case.name].is_file() or beside.needs_network(case)]
    made_by = {"model": [fold.weights_sha256 for fold in model.folds], "mirroring": mirroring, "step": step}
    predictor = Predictor(model, device=device, mirroring=mirroring, step=step, watch=flags) if todo else None
    with alone(out):
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
        for number, case in enumerate([*todo, *rest], 1):
            try:
                place = places[case.name]
                if predictor is not None and number <= len(todo):
                    _predict(predictor, case, place, beside, exports, probabilities)
                else:
                    _complete(case, place, beside, exports)
                if exports is not None and exports.lacks(case, place):
                    exports.write(case, place)
            except (KeyboardInterrupt, Interrupted):
                raise
            except Exception as error:  # whatever is wrong with one scan, the others are wanted
                failed.append(Failure(case.name, one_line(error)))
            progress.advance(number, len(todo) + len(rest), case.name)
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


def _predict(
    predictor: Predictor, case: Case, place: Path, beside: Beside, exports: Exports | None, probabilities: bool
) -> None:
    with _opened(case, exports) as scan:

        def first(found: Found) -> None:
            """Before a mask appears: what belongs to the one before goes, what belongs to this one is written."""
            if exports is not None:
                exports.replace(scan, place)
            beside.write(scan, found)

        predictor.predict(scan.images, place, probabilities=probabilities, first=first)


def _complete(case: Case, place: Path, beside: Beside, exports: Exports | None) -> None:
    if exports is not None and exports.edited(case, place):
        beside.forget_nodes(case)  # their numbers would not be those of the structures
    if beside.lacks(case):
        with _opened(case, exports) as scan:
            beside.complete(scan, place)


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

"""Prediction with nnU-Net's own sliding window: the model loaded once, one scan after the other, in one process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lnsegfm.datasets.dataset import CHANNEL, Case
from lnsegfm.errors import DataError, Interrupted, LnSegFmError, RunMismatch
from lnsegfm.evaluation.flags import Flag, read_flags
from lnsegfm.imaging.files import image_files, stem
from lnsegfm.nnunet.beside import Beside, Wanted
from lnsegfm.nnunet.model import Model
from lnsegfm.nnunet.predictor import Predictor
from lnsegfm.progress import Progress, Silent
from lnsegfm.storage import clear_partials, read_json, write_json


@dataclass(frozen=True)
class Failure:
    """A case that could not be predicted.

    Args:
        case: Its name.
        reason: Why, in one line.
    """

    case: str
    reason: str

    def __str__(self) -> str:
        return f"Case {self.case}: {self.reason}"


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
        progress: Told how far it is.

    Raises:
        RunMismatch: ``out`` holds masks of another model or of other settings.
    """
    progress = progress or Silent()
    ending = str(model.dataset_json.get("file_ending", ".nii.gz"))
    places = {case.name: out / f"{case.name}{ending}" for case in cases}
    beside = Beside(model, out, Wanted(flags=flags, nodes=nodes, probabilities=probabilities))
    todo = [case for case in cases if overwrite or not places[case.name].is_file() or beside.needs_network(case)]
    rest = [case for case in cases if case not in todo and beside.lacks(case)]
    made_by = {"model": [fold.weights_sha256 for fold in model.folds], "mirroring": mirroring, "step": step}
    predictor = Predictor(model, device=device, mirroring=mirroring, step=step, watch=flags) if todo else None
    _claim(out, made_by, overwrite)
    write_json(out / "dataset.json", dict(model.dataset_json))
    failed: list[Failure] = []
    for number, case in enumerate([*todo, *rest], 1):
        try:
            if predictor is not None and number <= len(todo):
                first = partial(beside.write, case)
                predictor.predict(case.images, places[case.name], probabilities=probabilities, first=first)
            else:
                beside.complete(case, places[case.name])
        except (KeyboardInterrupt, Interrupted):
            raise
        except Exception as error:  # whatever is wrong with one scan, the others are wanted
            failed.append(Failure(case.name, _reason(error)))
        progress.advance(number, len(todo) + len(rest), case.name)
    lost = {failure.case for failure in failed}
    raised = read_flags(out) if flags else {}
    return Predictions(
        folder=out,
        done=tuple(case.name for case in todo if case.name not in lost),
        skipped=tuple(case.name for case in cases if case not in todo),
        failed=tuple(failed),
        flags=tuple(flag for case in cases if case.name not in lost for flag in raised.get(case.name, ())),
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


def find_scans(path: Path, channels: int) -> tuple[Case, ...]:
    """The scans that a user means: one image, or the images of a folder.

    A name that ends in ``_0000``, ``_0001``, ... is a channel of the case before it, as nnU-Net has it; a plain name is
    a case of its own.

    Raises:
        DataError: Nothing there, no image in it, or channels missing.
    """
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = image_files(path)
    else:
        raise DataError(f"{path}: no such file or folder. Give a scan, or a folder of scans.")
    if not files:
        raise DataError(f"{path}: it holds no images. Give a folder with NIfTI, NRRD or MHA files.")
    scans: dict[str, dict[int, Path]] = defaultdict(dict)
    for file in files:
        match = CHANNEL.fullmatch(stem(file))
        name, channel = (match["case"], int(match["channel"])) if match else (stem(file), 0)
        if channel in scans[name]:
            raise DataError(f"{file}: {scans[name][channel].name} is the same case. Rename or remove one of the two.")
        scans[name][channel] = file
    problems = [
        f"Case {name} in {path}: channels {sorted(found)} are there, but the model takes {channels}. Add the others."
        for name, found in scans.items()
        if sorted(found) != list(range(channels))
    ]
    if problems:
        raise DataError(*problems)
    return tuple(Case(name, tuple(scans[name][c] for c in range(channels))) for name in sorted(scans))


def _reason(error: Exception) -> str:
    if isinstance(error, LnSegFmError):
        return str(error).splitlines()[0]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no explanation'}"


def as_json(predictions: Predictions) -> Mapping[str, Any]:
    """What became of the scans, for a program to read."""
    return {
        "folder": str(predictions.folder),
        "done": list(predictions.done),
        "skipped": list(predictions.skipped),
        "failed": {failure.case: failure.reason for failure in predictions.failed},
        "flags": [flag.to_json() for flag in predictions.flags],
    }

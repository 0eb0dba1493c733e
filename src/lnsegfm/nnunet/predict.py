"""Prediction with nnU-Net's own sliding window: the model loaded once, one scan after the other, in one process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lnsegfm.datasets.dataset import CHANNEL, Case
from lnsegfm.errors import ConfigError, DataError, Interrupted, LnSegFmError, RunMismatch
from lnsegfm.imaging.files import image_files, read_volume, stem
from lnsegfm.nnunet.engine import engine
from lnsegfm.nnunet.model import Model, build_network, load_weights
from lnsegfm.progress import Progress, Silent
from lnsegfm.storage import clear_partials, read_json, whole, write_json


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
        failed: Cases that could not be predicted.
    """

    folder: Path
    done: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: tuple[Failure, ...]


class Predictor:
    """A model ready to predict.

    With the defaults its masks are those of stock ``nnUNetv2_predict``, voxel for voxel.

    Args:
        model: The model; the folds of an ensemble are averaged as nnU-Net does.
        device: ``cpu``, ``cuda`` or ``mps``.
        mirroring: Average over mirrored copies, along the axes that the model allows.
        step: Distance of tiles as a share of the patch.
    """

    def __init__(self, model: Model, *, device: str = "cpu", mirroring: bool = True, step: float = 0.5) -> None:
        if not 0 < step <= 1:
            raise ConfigError(f"step {step}: tiles must lie less than a patch apart. Use a step in (0, 1].")
        self.model = model
        network = build_network(model.first, deep_supervision=False)
        for fold in model.folds:
            load_weights(network, fold.weights)
        with engine():
            from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
            from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

            self._plans = PlansManager(dict(model.plans))
            self._configuration = self._plans.get_configuration(model.configuration)
            self._engine = nnUNetPredictor(
                tile_step_size=step, use_mirroring=mirroring, device=torch.device(device), allow_tqdm=False
            )
            self._engine.manual_initialization(
                network,
                self._plans,
                self._configuration,
                [dict(fold.weights) for fold in model.folds],
                dict(model.dataset_json),
                model.first.trainer_name,
                model.first.mirroring_axes,
            )

    def predict(self, images: Sequence[Path], out: Path) -> None:
        """Predict one scan and write its mask.

        Args:
            images: One file a channel.
            out: The mask's file; its ending chooses the format.

        Raises:
            DataError: The scan cannot be read, or its channels are not the model's.
        """
        from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

        if len(images) != self.model.channels:
            raise DataError(f"{images[0]}: {len(images)} channels, but the model takes {self.model.channels}.")
        for image in images:
            _require_whole(image)
        with engine():
            reader = self._reader(images[0])
            data, properties = reader.read_images([str(image) for image in images])
            _require_volume(data, images[0], self.model.channels)
            data, _, properties = self._configuration.preprocessor_class(verbose=False).run_case_npy(
                data, None, properties, self._plans, self._configuration, dict(self.model.dataset_json)
            )
            logits = self._engine.predict_logits_from_preprocessed_data(torch.from_numpy(data)).cpu()
            mask = convert_predicted_logits_to_segmentation_with_correct_shape(
                logits, self._plans, self._configuration, self._engine.label_manager, properties
            )
            with whole(out) as partial:
                reader.write_seg(mask, str(partial), properties)

    def _reader(self, image: Path) -> Any:
        """The reader of the plans, or SimpleITK's where that one does not know the file's ending."""
        from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

        stated = self._plans.image_reader_writer_class
        known = any(image.name.lower().endswith(ending) for ending in stated.supported_file_endings)
        return stated() if known else SimpleITKIO()


def predict_cases(
    model: Model,
    cases: Sequence[Case],
    out: Path,
    *,
    device: str = "cpu",
    mirroring: bool = True,
    step: float = 0.5,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Predictions:
    """Predict many scans; a mask that is there already is left alone, a scan that fails does not stop the rest.

    Args:
        model: The model.
        cases: The scans.
        out: Folder of the masks; a case's mask is named as the case.
        device: ``cpu``, ``cuda`` or ``mps``.
        mirroring: See `Predictor`.
        step: See `Predictor`.
        overwrite: Predict also what is there already.
        progress: Told how far it is.

    Raises:
        RunMismatch: ``out`` holds masks of another model or of other settings.
    """
    progress = progress or Silent()
    ending = str(model.dataset_json.get("file_ending", ".nii.gz"))
    places = {case.name: out / f"{case.name}{ending}" for case in cases}
    todo = [case for case in cases if overwrite or not places[case.name].is_file()]
    made_by = {"model": [fold.weights_sha256 for fold in model.folds], "mirroring": mirroring, "step": step}
    predictor = Predictor(model, device=device, mirroring=mirroring, step=step) if todo else None
    _claim(out, made_by, overwrite)
    write_json(out / "dataset.json", dict(model.dataset_json))
    failed: list[Failure] = []
    for number, case in enumerate(todo, 1):
        try:
            assert predictor is not None
            predictor.predict(case.images, places[case.name])
        except (KeyboardInterrupt, Interrupted):
            raise
        except Exception as error:  # whatever is wrong with one scan, the others are wanted
            failed.append(Failure(case.name, _reason(error)))
        progress.advance(number, len(todo), case.name)
    lost = {failure.case for failure in failed}
    return Predictions(
        folder=out,
        done=tuple(case.name for case in todo if case.name not in lost),
        skipped=tuple(case.name for case in cases if case not in todo),
        failed=tuple(failed),
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


def _require_whole(image: Path) -> None:
    """Refuse what the engine's reader takes without a word: a file cut short, and NaN, which it makes 0 HU."""
    voxels, _ = read_volume(image)
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise DataError(f"{image}: it holds NaN or infinite voxels. Replace them, for example by -1024 HU.")


def _require_volume(data: Any, image: Path, channels: int) -> None:
    if data.shape[0] != channels or min(data.shape[1:]) < 2:
        raise DataError(f"{image}: a 3D image is needed, this one has the shape {'x'.join(map(str, data.shape))}.")


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
    }

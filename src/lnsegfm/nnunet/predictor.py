"""One model, ready to predict one scan after the other with nnU-Net's own sliding window."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lnsegfm.errors import ConfigError, DataError
from lnsegfm.evaluation.flags import Overlap
from lnsegfm.imaging.files import read_volume
from lnsegfm.nnunet.engine import engine
from lnsegfm.nnunet.model import Model, build_network, load_weights
from lnsegfm.nnunet.seen import ct_channel
from lnsegfm.storage import whole


@dataclass(frozen=True, eq=False)
class Found:
    """What a prediction gives besides its mask.

    Args:
        mask: The file that will be the mask; it has not got its name yet.
        scan: The scan's HU (z, y, x); None where the model takes no CT.
        mirrored: How far plain and mirrored predictions agree, by label and ``FOREGROUND``; None without mirroring.
        probabilities: Of background and labels (1 + labels, z, y, x); None where they were not asked for.
    """

    mask: Path
    scan: np.ndarray | None
    mirrored: Mapping[str, Overlap] | None
    probabilities: np.ndarray | None


class Predictor:
    """A model ready to predict.

    With the defaults its masks are those of stock ``nnUNetv2_predict``, voxel for voxel.

    Args:
        model: The model; the folds of an ensemble are averaged as nnU-Net does.
        device: ``cpu``, ``cuda`` or ``mps``.
        mirroring: Average over mirrored copies, along the axes that the model allows.
        step: Distance of tiles as a share of the patch.
        watch: Count how far plain and mirrored predictions agree; the masks do not depend on it.
    """

    def __init__(
        self, model: Model, *, device: str = "cpu", mirroring: bool = True, step: float = 0.5, watch: bool = False
    ) -> None:
        if not 0 < step <= 1:
            raise ConfigError(f"step {step}: tiles must lie less than a patch apart. Use a step in (0, 1].")
        self.model = model
        network = build_network(model.first, deep_supervision=False)
        for fold in model.folds:
            load_weights(network, fold.weights)
        with engine():
            from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

            from lnsegfm.nnunet.mirrored import WatchedPredictor

            self._plans = PlansManager(dict(model.plans))
            self._configuration = self._plans.get_configuration(model.configuration)
            self._ct = ct_channel(model.plans, model.configuration)
            self._engine = WatchedPredictor(
                tile_step_size=step, use_mirroring=mirroring, device=torch.device(device), allow_tqdm=False
            )
            self._engine.watching = watch
            self._engine.manual_initialization(
                network,
                self._plans,
                self._configuration,
                [dict(fold.weights) for fold in model.folds],
                dict(model.dataset_json),
                model.first.trainer_name,
                model.first.mirroring_axes,
            )

    def predict(
        self,
        images: Sequence[Path],
        out: Path,
        *,
        probabilities: bool = False,
        first: Callable[[Found], None] | None = None,
    ) -> None:
        """Predict one scan and write its mask.

        Args:
            images: One file a channel.
            out: The mask's file; its ending chooses the format.
            probabilities: Find them too, for ``first``.
            first: Told what was found before the mask has its name: what it writes is there once the mask is.

        Raises:
            DataError: The scan cannot be read, or its channels are not the model's.
        """
        from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

        if len(images) != self.model.channels:
            raise DataError(f"{images[0]}: {len(images)} channels, but the model takes {self.model.channels}.")
        scan = None
        for channel, image in enumerate(images):
            voxels = _read_whole(image)
            scan = voxels if channel == self._ct else scan
        with engine():
            reader = self._reader(images[0])
            data, properties = reader.read_images([str(image) for image in images])
            _require_volume(data, images[0], self.model.channels)
            data, _, properties = self._configuration.preprocessor_class(verbose=False).run_case_npy(
                data, None, properties, self._plans, self._configuration, dict(self.model.dataset_json)
            )
            self._engine.counts = None
            logits = self._engine.predict_logits_from_preprocessed_data(torch.from_numpy(data)).cpu()
            made = convert_predicted_logits_to_segmentation_with_correct_shape(
                logits,
                self._plans,
                self._configuration,
                self._engine.label_manager,
                properties,
                return_probabilities=probabilities,
            )
            mask, likely = made if probabilities else (made, None)
            with whole(out) as partial:
                reader.write_seg(mask, str(partial), properties)
                if first is not None:
                    first(Found(partial, scan, self._engine.overlaps(self.model.labels), likely))

    def _reader(self, image: Path) -> Any:
        """The reader of the plans, or SimpleITK's where that one does not know the file's ending."""
        from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

        stated = self._plans.image_reader_writer_class
        known = any(image.name.lower().endswith(ending) for ending in stated.supported_file_endings)
        return stated() if known else SimpleITKIO()


def _read_whole(image: Path) -> np.ndarray:
    """Refuse what the engine's reader takes without a word: a file cut short, and NaN, which it makes 0 HU."""
    voxels, _ = read_volume(image)
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise DataError(f"{image}: it holds NaN or infinite voxels. Replace them, for example by -1024 HU.")
    return voxels


def _require_volume(data: Any, image: Path, channels: int) -> None:
    if data.shape[0] != channels or min(data.shape[1:]) < 2:
        raise DataError(f"{image}: a 3D image is needed, this one has the shape {'x'.join(map(str, data.shape))}.")

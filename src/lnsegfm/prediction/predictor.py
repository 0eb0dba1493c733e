"""One model of one stage, ready to predict one scan after the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lnsegfm.errors import ConfigError, DataError, ModelError
from lnsegfm.imaging.image_objects import Volume
from lnsegfm.inference.coarse_to_fine import coarse_to_fine
from lnsegfm.inference.logits_to_mask import (
    LIMIT_BYTES,
    InversePreprocessing,
    mask_from_logits,
    probabilities_from_logits,
)
from lnsegfm.inference.mirror_agreement import MirrorAgreement
from lnsegfm.inference.sliding_window import Air, sliding_window
from lnsegfm.inference.speed_presets import CoarsePass
from lnsegfm.inference.tile_forward import SliceNetwork
from lnsegfm.models.model_folder import Model
from lnsegfm.models.training_domain import ct_channel
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.mirroring import swap_of_plans
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.nnunet.preprocessing import PreprocessedScan
from lnsegfm.prediction.results import RawPrediction
from lnsegfm.prediction.scan_predictor import ScanPredictor
from lnsegfm.weights.state import load_weights

__all__ = ["Predictor"]


class Predictor(ScanPredictor):
    """A model ready to predict.

    Masks are those of stock nnU-Net 2.8.1's ``nnUNetv2_predict`` but for roundings:

    - With ``exact=True`` they are equal voxel for voxel on a CPU: tiles one by one and summed in half precision,
      resampling by nnU-Net's own functions.
    - By default tiles are summed in single precision, scans are resampled by matrices in single precision (nnU-Net:
      splines in double; at most 1e-5 of the intensity range apart), and logits are not rounded to half precision
      before they are compared. Beside nnU-Net's functions made to sum in single precision, voxels differ where two
      classes' logits are nearly equal, and nowhere else. nnU-Net sums in half precision, in which the weights of a
      tile's corners are nearly 0: its logits are up to 0.5 off in the corners of a scan, and ours are not.
    - A model whose left and right labels change places with a mirrored copy is averaged over these copies, too; stock
      nnU-Net leaves them out.
    - ``air`` and ``memory`` change nothing of the mask, ``watch`` neither.

    Plans with other resampling functions or preprocessors, and models of regions, go through nnU-Net's own functions
    for that part.

    Args:
        model: The model; the folds of an ensemble are averaged as nnU-Net does.
        device: ``cpu``, ``cuda`` or ``mps``.
        mirroring: Average over mirrored copies, along the axes that the model allows.
        step: Distance of tiles as a share of the patch.
        watch: Count how far plain and mirrored predictions agree.
        air: Evaluate all tiles that hold nothing but air as one (`lnsegfm.inference.sliding_window.Air`).
        memory: Bytes that may be held beyond network, inputs and results: slabs get smaller, tiles go one by one and
            sums move from CUDA's memory to the CPU's. None holds what is fastest. A bound below what one tile needs
            is exceeded by it (`lnsegfm.prediction.memory_budget` asks for what there has to be).
        exact: Round as nnU-Net does; slower, and ``air`` has no effect.
        coarse: Look at full resolution only near what a coarse look finds (`lnsegfm.inference.coarse_to_fine`).
        hashed: Give the hash of each scan, by which it is recognised (`lnsegfm.imaging.scan_hash`).

    Raises:
        ConfigError: A step, or a memory, that cannot be, or a coarse look by a model of slices.
        ModelError: The network cannot be built, or the weights are another's.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str = "cpu",
        mirroring: bool = True,
        step: float = 0.5,
        watch: bool = False,
        air: bool = True,
        memory: int | None = None,
        exact: bool = False,
        coarse: CoarsePass | None = None,
        hashed: bool = False,
    ) -> None:
        if not 0 < step <= 1:
            raise ConfigError(f"step {step}: tiles must lie less than a patch apart. Use a step in (0, 1].")
        if memory is not None and memory < 1:
            raise ConfigError(f"memory {memory}: a prediction needs some. Give bytes, or leave it out.")
        self.model = model
        self.device = torch.device(device)
        self.step, self.memory, self.exact, self.coarse = step, memory, exact, coarse
        self._network = build_network(model.first, deep_supervision=False)
        for fold in reversed(model.folds):  # the first one stays in it
            load_weights(self._network, fold.weights, f"Model {model.folder}")
        with nnunet_environment():
            from lnsegfm.nnunet.prediction_plans import PredictionPlans

            self._plans = PredictionPlans.read(
                model.plans, model.configuration, model.dataset_json, exact=exact, memory=memory
            )
        if coarse is not None and len(self._plans.patch_size) != 3:
            raise ConfigError("--fast coarse-first: the model looks at slices, not volumes. Use another preset.")
        self._hashed = hashed
        self._ct = ct_channel(model.plans, model.configuration)
        skips_air = air and self._plans.default_export and self._plans.air is not None
        self._air = Air(self._plans.air) if skips_air and self._plans.air is not None else None
        self._axes = tuple(model.first.mirroring_axes or ()) if mirroring else ()
        self._swap = swap_of_plans(model.plans) if mirroring else None
        if self._swap is not None:
            if max(map(max, self._swap.pairs), default=0) >= self._plans.labels.num_segmentation_heads:
                raise ModelError(f"Model {model.folder}: its plans exchange labels that it has not. Copy it again.")
            self._axes = tuple(sorted({*self._axes, self._swap.axis}))
        self._watch = watch and bool(self._axes)

    def prepare(self, images: Sequence[Path | Volume], previous: np.ndarray | None = None) -> PreprocessedScan:
        """Read and prepare a scan; may run in another thread than the rest.

        Args:
            images: One file, or volume in memory, a channel.
            previous: The mask of a cascade's previous stage, in memory as `run` gives it.

        Raises:
            DataError: The scan cannot be read, or its channels are not the model's.
        """
        from lnsegfm.nnunet.preprocessing import prepare

        if len(images) != self.model.channels:
            raise DataError(f"{images[0]}: {len(images)} channels, but the model takes {self.model.channels}.")
        plans = self._plans
        return prepare(
            images,
            plans.plans,
            plans.preprocessing,
            self.model.dataset_json,
            ct=self._ct,
            bound=plans.air,
            axes=self.model.axes,
            previous=previous,
            hashed=self._hashed,
        )

    def run(self, prepared: PreprocessedScan, *, probabilities: bool = False) -> RawPrediction:
        """Evaluate the network and compute the mask on the scan's own grid and axes, all in memory.

        Args:
            prepared: The scan.
            probabilities: Compute them, too.

        Raises:
            ModelError: Logits that are not finite.
        """
        agreement = MirrorAgreement(regions=bool(self.model.labels.regions)) if self._watch else None
        logits = self._logits(prepared.volume, agreement)
        mask, likely = self._exported(logits, prepared, probabilities)
        mirrored = agreement.overlaps(self.model.labels) if agreement is not None else None
        mask = np.ascontiguousarray(prepared.turn.back(mask))
        likely = None if likely is None else np.ascontiguousarray(prepared.turn.back(likely))
        return RawPrediction(prepared, mask, mirrored, likely)

    @torch.inference_mode()
    def _logits(self, volume: Tensor, agreement: MirrorAgreement | None) -> Tensor:
        """Averaged over folds, on the network's grid, on the CPU."""
        total: Tensor | None = None
        for fold in self.model.folds:
            if len(self.model.folds) > 1:
                load_weights(self._network, fold.weights)
            found = self._window(self._network, volume, agreement)
            total = found if total is None else total.add_(found)
        assert total is not None  # a model has at least one fold
        return total.div_(len(self.model.folds)) if len(self.model.folds) > 1 else total

    def _window(self, network: nn.Module, volume: Tensor, agreement: MirrorAgreement | None) -> Tensor:
        patch = self._plans.patch_size
        planar = len(patch) == 2
        heads = self._plans.labels.num_segmentation_heads
        difference = self._plans.default_export and heads == 2
        need = 4 * (2 if difference else heads + 1) * volume[0].numel()
        aside = self.device.type == "cpu" or self.exact or (self.memory is not None and need > self.memory / 2)
        window: dict[str, Any] = {
            "step": (1.0, self.step, self.step) if planar else self.step,
            "mirror_axes": [axis + planar for axis in self._axes],
            "batch": 1 if self.exact or self.memory is not None else None,
            "device": self.device,
            "accumulate_on": "cpu" if aside else self.device,
            "precision": torch.float16 if self.exact else torch.float32,
            "difference": difference,
            "quick": not self.exact,
            "air": self._air,
            "watch": agreement,
            "swap": self._swap,
        }
        if self.coarse is not None:
            tiles = partial(sliding_window, network, **window)
            return coarse_to_fine(
                tiles, volume, patch, self.coarse, step=self.step, regions=self._plans.labels.has_regions
            )
        if planar:
            network, patch = SliceNetwork(network), [1, *patch]
        return sliding_window(network, volume, patch, **window).cpu()

    def _exported(
        self, logits: Tensor, prepared: PreprocessedScan, probabilities: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        plans = self._plans
        if not plans.default_export:
            return plans.stock_export(logits, prepared.properties, probabilities=probabilities)
        limit = LIMIT_BYTES if self.memory is None else max(1, min(LIMIT_BYTES, self.memory // 2))
        way = InversePreprocessing.read(plans.plans, plans.export, prepared.properties)
        mask = mask_from_logits(logits, way, limit_bytes=limit)
        return mask, probabilities_from_logits(logits, way, limit_bytes=limit) if probabilities else None

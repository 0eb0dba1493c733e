"""Masks after a model's postprocessing: components that its rules remove become background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lnsegfm.evaluation.postprocessing import Postprocessing
from lnsegfm.imaging.image_objects import Volume
from lnsegfm.nnunet.preprocessing import PreprocessedScan
from lnsegfm.prediction.results import RawPrediction
from lnsegfm.prediction.scan_predictor import ScanPredictor


class PostprocessedMasks(ScanPredictor):
    """A predictor whose masks are postprocessed. Probabilities stay those of the network.

    Args:
        predictor: Gives masks of the network's outputs, 1, 2, 3, ...
        postprocessing: The rules.
    """

    def __init__(self, predictor: ScanPredictor, postprocessing: Postprocessing) -> None:
        self._predictor, self._rules = predictor, postprocessing
        self.device, self.memory = predictor.device, predictor.memory

    def prepare(self, images: Sequence[Path | Volume]) -> PreprocessedScan:
        """The scan as the predictor takes it."""
        return self._predictor.prepare(images)

    def run(self, prepared: PreprocessedScan, *, probabilities: bool = False) -> RawPrediction:
        """The predictor's mask after the rules.

        Raises:
            ModelError: Logits that are not finite.
        """
        self._predictor.memory = self.memory
        made = self._predictor.run(prepared, probabilities=probabilities)
        return replace(made, mask=self._rules.applied(made.mask, 1000 * prepared.grid.voxel_volume_ml))

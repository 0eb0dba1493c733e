"""A predictor whose masks are changed once they are made; its probabilities are not."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.image_objects import Volume
from lnsegfm.nnunet.preprocessing import PreprocessedScan
from lnsegfm.prediction.results import RawPrediction
from lnsegfm.prediction.scan_predictor import ScanPredictor


class ChangedMasks(ScanPredictor):
    """Another predictor's masks, changed.

    Args:
        predictor: Gives the masks.
    """

    def __init__(self, predictor: ScanPredictor) -> None:
        self._predictor = predictor
        self.device, self.memory = predictor.device, predictor.memory

    @abstractmethod
    def changed(self, mask: np.ndarray, grid: Grid) -> np.ndarray:
        """The mask that is given in the place of one.

        Args:
            mask: The predictor's (z, y, x).
            grid: Where its voxels lie.
        """

    def prepare(self, images: Sequence[Path | Volume]) -> PreprocessedScan:
        """The scan as the predictor takes it."""
        return self._predictor.prepare(images)

    def run(self, prepared: PreprocessedScan, *, probabilities: bool = False) -> RawPrediction:
        """The predictor's mask, changed.

        Raises:
            ModelError: Logits that are not finite.
        """
        self._predictor.memory = self.memory
        made = self._predictor.run(prepared, probabilities=probabilities)
        return replace(made, mask=self.changed(made.mask, prepared.grid))

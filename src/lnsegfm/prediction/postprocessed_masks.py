"""Masks after a model's postprocessing: components that its rules remove become background."""

from __future__ import annotations

import numpy as np

from lnsegfm.evaluation.postprocessing import Postprocessing
from lnsegfm.imaging.grid import Grid
from lnsegfm.prediction.changed_masks import ChangedMasks
from lnsegfm.prediction.scan_predictor import ScanPredictor


class PostprocessedMasks(ChangedMasks):
    """A predictor whose masks are postprocessed. Probabilities stay those of the network.

    Args:
        predictor: Gives masks of the network's outputs, 1, 2, 3, ...
        postprocessing: The rules.
    """

    def __init__(self, predictor: ScanPredictor, postprocessing: Postprocessing) -> None:
        super().__init__(predictor)
        self._rules = postprocessing

    def changed(self, mask: np.ndarray, grid: Grid) -> np.ndarray:
        """The mask after the rules."""
        return self._rules.applied(mask, 1000 * grid.voxel_volume_ml)

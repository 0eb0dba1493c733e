"""Masks with the values of the data that a model was trained on, in the place of the numbers of its outputs."""

from __future__ import annotations

import numpy as np

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.imaging.grid import Grid
from lnsegfm.prediction.changed_masks import ChangedMasks
from lnsegfm.prediction.scan_predictor import ScanPredictor


class MaskValues(ChangedMasks):
    """A predictor whose masks get other values: those of labels with gaps, or of a single label of 255.

    Probabilities keep their order, which is that of the values.

    Args:
        predictor: Gives masks of 1, 2, 3, ...
        labels: The values that they get.
    """

    def __init__(self, predictor: ScanPredictor, labels: LabelMap) -> None:
        super().__init__(predictor)
        self._labels = labels

    def changed(self, mask: np.ndarray, grid: Grid) -> np.ndarray:  # noqa: ARG002 - values have no place
        """The mask with the values of the labels."""
        return self._labels.from_consecutive(mask)

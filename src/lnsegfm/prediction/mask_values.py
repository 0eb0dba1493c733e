"""Masks with the values of the data that a model was trained on, in the place of the numbers of its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.imaging.image_objects import Volume
from lnsegfm.nnunet.preprocessing import PreprocessedScan
from lnsegfm.prediction.results import RawPrediction
from lnsegfm.prediction.scan_predictor import ScanPredictor


class MaskValues(ScanPredictor):
    """A predictor whose masks get other values: those of labels with gaps, or of a single label of 255.

    Probabilities keep their order, which is that of the values.

    Args:
        predictor: Gives masks of 1, 2, 3, ...
        labels: The values that they get.
    """

    def __init__(self, predictor: ScanPredictor, labels: LabelMap) -> None:
        self._predictor, self._labels = predictor, labels
        self.device, self.memory = predictor.device, predictor.memory

    def prepare(self, images: Sequence[Path | Volume]) -> PreprocessedScan:
        """The scan as the predictor takes it."""
        return self._predictor.prepare(images)

    def run(self, prepared: PreprocessedScan, *, probabilities: bool = False) -> RawPrediction:
        """The predictor's mask with the values of the labels.

        Raises:
            ModelError: Logits that are not finite.
        """
        self._predictor.memory = self.memory
        made = self._predictor.run(prepared, probabilities=probabilities)
        return replace(made, mask=self._labels.from_consecutive(made.mask))

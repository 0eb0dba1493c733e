"""A cascade: a model whose input is the scan and the mask of a model of lower resolution."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lnsegfm.errors import ConfigError
from lnsegfm.imaging.image_objects import Volume
from lnsegfm.inference.speed_presets import CoarsePass
from lnsegfm.nnunet.preprocessing import PreprocessedScan
from lnsegfm.prediction.predictor import Predictor
from lnsegfm.prediction.results import RawPrediction
from lnsegfm.prediction.scan_predictor import ScanPredictor


class CascadePredictor(ScanPredictor):
    """Both stages of a cascade, one after the other: masks are those of ``nnUNetv2_predict`` run for each of them.

    The mask of the previous stage goes from memory into the later stage's preprocessing, which crops and resamples it
    as labels and makes a channel of each.

    Args:
        before: The previous stage.
        later: The stage whose masks are given.
        coarse: Refused where it is given.

    Raises:
        ConfigError: A coarse look first, which a stage of low resolution is already.
    """

    def __init__(self, before: ScanPredictor, later: Predictor, coarse: CoarsePass | None = None) -> None:
        if coarse is not None:
            raise ConfigError(
                "--fast coarse-first: the model is a cascade, which looks coarsely itself. Use another preset."
            )
        self._before, self._later = before, later
        self.device, self.memory = later.device, later.memory

    def prepare(self, images: Sequence[Path | Volume]) -> PreprocessedScan:
        """The scan as the previous stage takes it."""
        return self._before.prepare(images)

    def run(self, prepared: PreprocessedScan, *, probabilities: bool = False) -> RawPrediction:
        """The mask of the previous stage, the scan with it, and the later stage's mask."""
        self._before.memory = self._later.memory = self.memory
        first = self._before.run(prepared)
        return self._later.run(self._later.prepare(prepared.images, first.mask), probabilities=probabilities)

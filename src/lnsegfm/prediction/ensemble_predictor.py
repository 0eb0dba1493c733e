"""Several models whose probabilities are averaged, as ``nnUNetv2_ensemble`` averages them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path

import numpy as np

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.evaluation.flags import Overlap
from lnsegfm.imaging.image_objects import Volume
from lnsegfm.nnunet.preprocessing import PreprocessedScan
from lnsegfm.prediction.results import RawPrediction
from lnsegfm.prediction.scan_predictor import ScanPredictor


class EnsemblePredictor(ScanPredictor):
    """Models of the same labels: their probabilities on the scan's own grid are averaged, and the largest wins.

    Folds of one model average logits on the network's grid, as ``nnUNetv2_predict`` does. Models with plans of their
    own have no grid in common but the scan's: so nnU-Net averages probabilities there, in single precision.

    Args:
        members: The models' predictors, at least one.
        labels: Their outputs: of regions each that is likelier than not is written, in their order.
    """

    def __init__(self, members: Sequence[ScanPredictor], labels: LabelMap) -> None:
        self._members, self._labels = tuple(members), labels
        self.device, self.memory = members[0].device, members[0].memory

    def prepare(self, images: Sequence[Path | Volume]) -> PreprocessedScan:
        """The scan as the first model takes it; the others prepare it when their turn comes."""
        return self._members[0].prepare(images)

    def run(self, prepared: PreprocessedScan, *, probabilities: bool = False) -> RawPrediction:
        """Each model's probabilities in turn, and the mask of their average.

        Raises:
            ModelError: Logits that are not finite.
        """
        total: np.ndarray | None = None
        agreements: list[Mapping[str, Overlap]] = []
        first: RawPrediction | None = None
        for number, member in enumerate(self._members):
            member.memory = self.memory
            made = member.run(prepared if not number else member.prepare(prepared.images), probabilities=True)
            assert made.probabilities is not None
            first = first or made
            if total is None:
                total = made.probabilities.astype(np.float32, copy=False)
            else:
                total += made.probabilities
            if made.mirrored is not None:
                agreements.append(made.mirrored)
        assert first is not None
        assert total is not None
        total /= len(self._members)
        mask = np.empty_like(first.mask)
        for here, likely in zip(mask, np.moveaxis(total, 0, 1), strict=True):  # slice by slice: argmax gives 8 bytes
            if not self._labels.regions:
                here[...] = likely.argmax(0)
                continue
            here[...] = 0
            for value, share in zip(self._labels.names.values(), likely, strict=True):
                here[share > 0.5] = value
        mirrored = reduce(_summed, agreements) if agreements else None
        return RawPrediction(first.prepared, mask, mirrored, total if probabilities else None)


def _summed(one: Mapping[str, Overlap], other: Mapping[str, Overlap]) -> dict[str, Overlap]:
    return {
        name: Overlap(a.both + b.both, a.plain + b.plain, a.averaged + b.averaged)
        for name, (a, b) in ((name, (one[name], other[name])) for name in one)
    }

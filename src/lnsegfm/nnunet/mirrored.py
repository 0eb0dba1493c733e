"""nnU-Net's predictor, watched: how far its plain prediction and its average over mirrored copies agree."""

from __future__ import annotations

from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import Tensor

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.evaluation.flags import Overlap
from lnsegfm.evaluation.look import FOREGROUND


class WatchedPredictor(nnUNetPredictor):
    """Predicts as nnU-Net does, and counts tile by tile where the first, plain pass and the average agree.

    The network is asked no more often than without it: the first of a tile's passes is the plain one, and its labels
    are taken before nnU-Net adds the mirrored ones to it.
    """

    watching: bool = True
    """Whether to count at all."""
    counts: Tensor | None = None
    """A row for each label's value, row 0 for the foreground: voxels of both, of the plain one, of the average."""

    def overlaps(self, labels: LabelMap) -> dict[str, Overlap] | None:
        """The counts by label and ``FOREGROUND``; None where nothing was mirrored."""
        if self.counts is None:
            return None
        rows = self.counts.cpu().tolist()
        return {name: Overlap(*rows[value]) for name, value in labels.names.items()} | {FOREGROUND: Overlap(*rows[0])}

    def _internal_maybe_mirror_and_predict(self, x: Tensor) -> Tensor:
        if not (self.watching and self.use_mirroring and self.allowed_mirroring_axes):
            return super()._internal_maybe_mirror_and_predict(x)
        plain: list[Tensor] = []

        def keep(_module: Any, _inputs: Any, output: Tensor) -> None:
            if not plain:
                plain.append(output.argmax(1))

        watch = self.network.register_forward_hook(keep)
        try:
            averaged = super()._internal_maybe_mirror_and_predict(x)
        finally:
            watch.remove()
        found = _count(plain[0], averaged.argmax(1), averaged.shape[1])
        self.counts = found if self.counts is None else self.counts + found
        return averaged


def _count(plain: Tensor, averaged: Tensor, classes: int) -> Tensor:
    """Voxels of both, of the one and of the other, by value; row 0, which would be background's, is the foreground."""
    pairs = torch.bincount((plain * classes + averaged).flatten(), minlength=classes**2).view(classes, classes)
    rows = torch.stack([pairs.diagonal(), pairs.sum(1), pairs.sum(0)], 1)
    rows[0] = torch.stack([pairs[1:, 1:].sum(), pairs[1:].sum(), pairs[:, 1:].sum()])
    return rows

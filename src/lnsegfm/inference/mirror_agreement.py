"""How far plain predictions and their average over mirrored copies agree, counted while tiles are predicted."""

from __future__ import annotations

import torch
from torch import Tensor

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.evaluation.flags import Overlap
from lnsegfm.evaluation.mask_statistics import FOREGROUND


class MirrorAgreement:
    """Counts, tile by tile, the voxels that both predictions call so: handed to ``sliding_window`` as its ``watch``.

    Args:
        regions: Channels are regions, each found where its logit is above 0; else classes, background first.
    """

    def __init__(self, *, regions: bool = False) -> None:
        self._regions = regions
        self.counts: Tensor | None = None
        """A row for each label in the order of outputs, row 0 the foreground: voxels of both, of the plain one, of the
        average."""

    def __call__(self, plain: Tensor, averaged: Tensor) -> None:
        """Count a batch: logits (tiles, classes, z, y, x) of the plain pass and of the average."""
        if self._regions:
            found = _count_regions(plain > 0, averaged > 0)
        else:
            found = _count(labels_of(plain), labels_of(averaged), averaged.shape[1])
        self.counts = found if self.counts is None else self.counts + found

    def overlaps(self, labels: LabelMap) -> dict[str, Overlap]:
        """The counts by label and ``FOREGROUND``; zeros where every tile was air."""
        rows = [[0, 0, 0]] * (1 + len(labels.names)) if self.counts is None else self.counts.cpu().tolist()
        found = {name: Overlap(*rows[number]) for number, name in enumerate(labels.names, start=1)}
        return found | {FOREGROUND: Overlap(*rows[0])}


def labels_of(logits: Tensor) -> Tensor:
    """The class of the largest logit (tiles, z, y, x); of equal ones the first."""
    return (logits[:, 1] > logits[:, 0]).long() if logits.shape[1] == 2 else logits.argmax(1)


def _count(plain: Tensor, averaged: Tensor, classes: int) -> Tensor:
    """Voxels of both, of the one and of the other, by value; row 0, which would be background's, is the foreground."""
    pairs = torch.bincount((plain * classes + averaged).flatten(), minlength=classes**2).view(classes, classes)
    rows = torch.stack([pairs.diagonal(), pairs.sum(1), pairs.sum(0)], 1)
    rows[0] = torch.stack([pairs[1:, 1:].sum(), pairs[1:].sum(), pairs[:, 1:].sum()])
    return rows


def _count_regions(plain: Tensor, averaged: Tensor) -> Tensor:
    """The same of regions (tiles, regions, z, y, x), boolean; the foreground is where any of them is."""
    plain, averaged = (torch.cat([found.any(1, keepdim=True), found], 1) for found in (plain, averaged))
    return torch.stack([found.sum((0, 2, 3, 4)) for found in (plain & averaged, plain, averaged)], 1)

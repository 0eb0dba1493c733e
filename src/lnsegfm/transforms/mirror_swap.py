"""Left and right labels that change places when a patch is mirrored from side to side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MirrorSwap:
    """Which outputs of a network change places when the left-right axis is mirrored.

    Args:
        axis: The left-right axis among (0, 1, 2), as the network's arrays have it.
        pairs: Outputs (left, right): values of labels, or numbers of regions.
    """

    axis: int
    pairs: tuple[tuple[int, int], ...]

    def labels(self, labels: Tensor) -> Tensor:
        """Label values of any shape with left and right exchanged."""
        exchanged = labels.clone()
        for left, right in self.pairs:
            exchanged[labels == left] = right
            exchanged[labels == right] = left
        return exchanged

    def channels(self, values: Tensor, axis: int = 1) -> Tensor:
        """One channel an output along ``axis``, with those of left and right exchanged."""
        order = self.outputs(range(values.shape[axis]))
        return values.index_select(axis, torch.tensor(order, device=values.device))

    def outputs(self, outputs: Sequence[int]) -> list[int]:
        """Each output's partner, or itself where it has none."""
        partner = {one: other for left, right in self.pairs for one, other in ((left, right), (right, left))}
        return [partner.get(output, output) for output in outputs]

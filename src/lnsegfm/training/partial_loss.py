"""The loss of cases in which some labels were not annotated.

There a voxel of the background may be one of an unannotated label. So the network's probabilities of both are added up
(its logits by ``logsumexp``) and compared with background, and the label has no part in the overlap: nnU-Net's own
loss, of a network without that output. Marginal loss: Shi et al., Medical Image Analysis 70, 2021,
https://doi.org/10.1016/j.media.2021.101979.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]


class PartialLoss(nn.Module):
    """A loss of logits (B, C, z, y, x) and labels (B, 1, z, y, x) for batches of partly annotated samples.

    Samples with the same annotated labels are judged together, and each sample weighs the same. A sample without any
    annotated label plays no part. With every label annotated it is the loss itself.

    Args:
        loss: nnU-Net's, a mean over samples.

    Attributes:
        unlabelled: Of each sample of the next batch the values of the labels that nobody annotated.
    """

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss = loss
        self.unlabelled: Sequence[Sequence[int]] = ()

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of the batch, a scalar; 0 where nothing is annotated."""
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for sample, values in enumerate(self.unlabelled or [()] * len(logits)):
            groups[tuple(values)].append(sample)
        if set(groups) == {()}:
            return self.loss(logits, target)
        judged = {values: samples for values, samples in groups.items() if len(values) < logits.shape[1] - 1}
        total = logits.sum() * 0
        for values, samples in judged.items():
            total = total + len(samples) * self.loss(*without_labels(logits[samples], target[samples], values))
        return total / max(1, sum(map(len, judged.values())))


def without_labels(logits: Tensor, target: Tensor, values: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Logits and labels of a network that has no output for some labels: they are background's.

    Args:
        logits: (B, C, z, y, x).
        target: (B, 1, z, y, x); values beyond the logits' are kept: those of voxels that are ignored.
        values: The labels, from 1.
    """
    if not values:
        return logits, target
    kept = [value for value in range(1, logits.shape[1]) if value not in values]
    background = logits[:, [0, *values]].logsumexp(1, keepdim=True)
    numbers = torch.arange(max(int(target.max()), logits.shape[1] - 1) + 1, device=target.device, dtype=target.dtype)
    numbers[list(values)] = 0
    numbers[kept] = torch.arange(1, len(kept) + 1, device=target.device, dtype=target.dtype)
    return torch.cat([background, logits[:, kept]], 1), numbers[target.long()]

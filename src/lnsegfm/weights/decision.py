"""What is transferred from a base into one tensor of a network.

A label that the base does not know was background to it, and its head says so with great certainty: beside that row a
freshly drawn one has a probability near 0, where the overlap has no slope, and little or nothing is learnt. So the
rows of new labels start as copies of the background's (Cermelli et al., CVPR 2020, https://arxiv.org/abs/2002.00718),
with biases by which they have `NEW_LABELS_SHARE` of its probability (Lin et al., ICCV 2017,
https://arxiv.org/abs/1708.02002: with half of it the first steps go to where everything is background, and stay
there). The probabilities of labels that are kept do not change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lnsegfm.datasets.label_tables import BACKGROUND
from lnsegfm.networks.parameter_roles import NetworkParameter
from lnsegfm.networks.role import Role
from lnsegfm.weights.fit_tensor import fit_convolution, fit_table, same_family
from lnsegfm.weights.transfer_report import TransferStatus

NEW_LABELS_SHARE = 0.01
"""Share of the background's probability that all new labels together start with."""


@dataclass(frozen=True)
class BaseMismatch:
    """What may differ between base and network: labels and input channels.

    Args:
        base_labels: Names of the base's output channels in their order, ``background`` among them if it is one.
        labels: Names of the network's.
        base_channels: Input channels of the base, None if unknown.
        channels: Input channels of the network.
    """

    base_labels: Sequence[str]
    labels: Sequence[str]
    base_channels: int | None = None
    channels: int | None = None

    @property
    def rows(self) -> list[tuple[int, int]]:
        """Rows of a head that base and network share, as (network's, base's)."""
        return [(i, self.base_labels.index(label)) for i, label in enumerate(self.labels) if label in self.base_labels]

    @property
    def new(self) -> list[int]:
        """The network's rows of labels that the base does not know."""
        return [i for i, label in enumerate(self.labels) if label not in self.base_labels]

    @property
    def background(self) -> int | None:
        """The network's row of the background where the base has one too, that is, unless labels are regions."""
        return next((i for i, _ in self.rows if self.labels[i] == BACKGROUND), None)


@dataclass(frozen=True, eq=False)
class Decision:
    """What is transferred into one tensor of the network.

    Args:
        status: Matched, adapted or fresh.
        value: Its new value, unless it is fresh.
        notes: What is done, or why it is fresh; the same words for all tensors it applies to.
        difference: How this tensor differs from the base; only if it is fresh.
        fresh: Entries that stay fresh in an adapted tensor: the rows of new labels, where there is no background or
            no bias.
    """

    status: TransferStatus
    value: Tensor | None = None
    notes: tuple[str, ...] = ()
    difference: str = ""
    fresh: int = 0


def decide(
    base: Mapping[str, Tensor],
    names: Sequence[str],
    tensor: Tensor,
    parameter: NetworkParameter | None,
    mismatch: BaseMismatch,
) -> Decision:
    """Decide what is transferred into one tensor of the network.

    Args:
        base: State dict of the base.
        names: All names of the tensor in the network; the base may use any of them.
        tensor: The network's tensor.
        parameter: Its role and module; None for a running statistic.
        mismatch: Labels and input channels of base and network.
    """
    name, shape = names[0], tuple(tensor.shape)
    known = [alias for alias in names if alias in base]
    if not known:
        return Decision(TransferStatus.FRESH, None, ("not in the base",), f"{name} {shape} is not in the base")
    source = base[known[0]]
    for alias in known[1:]:
        if not _equal(base[alias], source):
            difference = f"{name} {shape} is two tensors in the base, {known[0]} and {alias}"
            return Decision(TransferStatus.FRESH, None, ("two tensors in the base",), difference)
    if not same_family(source.dtype, tensor.dtype):
        kind = str(source.dtype).removeprefix("torch.")
        return Decision(TransferStatus.FRESH, None, (f"{kind} in the base",), f"{name} {shape} is {kind} in the base")
    if parameter is not None and parameter.role is Role.HEAD and mismatch.labels != mismatch.base_labels:
        return _decide_head(source, parameter, mismatch)
    if source.shape == tensor.shape:
        return Decision(TransferStatus.MATCHED, source)
    fitted = None
    if parameter is not None and parameter.role is Role.POSITION:
        fitted = fit_table(source.to(tensor.dtype), tensor, parameter.module)
    elif parameter is not None and parameter.role is Role.WEIGHT:
        channels = {"base_channels": mismatch.base_channels, "channels": mismatch.channels}
        fitted = fit_convolution(source.to(tensor.dtype), tensor, parameter.module, **channels)
    if fitted is not None:
        return Decision(TransferStatus.ADAPTED, fitted.value, fitted.notes)
    return _other_shape(name, source, tensor)


def _decide_head(source: Tensor, parameter: NetworkParameter, mismatch: BaseMismatch) -> Decision:
    """Rows of the labels that the base knows, in the order of the network's labels; new ones from the background's."""
    value = parameter.tensor.detach().clone()
    axis = 1 if parameter.layout.transposed and value.dim() > 1 else 0
    wanted = list(value.shape)
    wanted[axis] = len(mismatch.base_labels)
    groups = getattr(parameter.module, "groups", 1)
    if groups != 1 or value.shape[axis] != len(mismatch.labels) or list(source.shape) != wanted:
        return _other_shape(parameter.name, source, value)
    for i, j in mismatch.rows:
        value.select(axis, i).copy_(source.select(axis, j))
    if mismatch.background is not None and getattr(parameter.module, "bias", None) is not None:
        _share_background(value, axis, mismatch.background, mismatch.new)
        return Decision(TransferStatus.ADAPTED, value)
    fresh = value.numel() * len(mismatch.new) // len(mismatch.labels)
    return Decision(TransferStatus.ADAPTED, value, fresh=fresh) if mismatch.rows else Decision(TransferStatus.FRESH)


def _share_background(value: Tensor, axis: int, background: int, new: Sequence[int]) -> None:
    """Copy the background's row to the new labels'; by biases, their probabilities and its sum up to what it was."""
    for i in new:
        value.select(axis, i).copy_(value.select(axis, background))
    if value.dim() == 1 and new:
        value[background] += math.log(1 - NEW_LABELS_SHARE)
        value[list(new)] += math.log(NEW_LABELS_SHARE / len(new))


def _other_shape(name: str, source: Tensor, tensor: Tensor) -> Decision:
    difference = f"{name} {tuple(tensor.shape)} is {tuple(source.shape)} in the base"
    return Decision(TransferStatus.FRESH, None, ("another shape in the base",), difference)


def _equal(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    same_storage = first.data_ptr() == second.data_ptr() and first.stride() == second.stride()
    return same_storage or torch.equal(first, second)

"""What is to become of each tensor of a network that a base's weights go into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lnsegfm.networks.parameter_roles import NetworkParameter
from lnsegfm.networks.role import Role
from lnsegfm.weights.fit_tensor import fit_convolution, fit_table, same_family
from lnsegfm.weights.transfer_report import TransferStatus


@dataclass(frozen=True)
class Change:
    """What differs between base and network.

    Args:
        base_labels: Names of the base's output channels in their order, background first.
        labels: Names of the network's.
        base_channels: Input channels of the base, None where they are not known.
        channels: Input channels of the network.
    """

    base_labels: Sequence[str]
    labels: Sequence[str]
    base_channels: int | None = None
    channels: int | None = None

    @property
    def rows(self) -> list[tuple[int, int]]:
        """Rows of a head that base and network share: the network's, the base's."""
        return [(i, self.base_labels.index(label)) for i, label in enumerate(self.labels) if label in self.base_labels]


@dataclass(frozen=True, eq=False)
class Decision:
    """What is to become of one tensor of the network.

    Args:
        fate: Its fate.
        value: What is to be written, unless it is fresh.
        notes: What is done, or why it is fresh, in words that hold for other tensors too.
        difference: What differs from the base, of this tensor alone; only where it is fresh.
        fresh: Entries that stay fresh in a tensor that is adapted: the rows of new labels.
    """

    fate: TransferStatus
    value: Tensor | None = None
    notes: tuple[str, ...] = ()
    difference: str = ""
    fresh: int = 0


def decide(
    base: Mapping[str, Tensor], names: Sequence[str], tensor: Tensor, parameter: NetworkParameter | None, change: Change
) -> Decision:
    """Decide on one tensor of the network.

    Args:
        base: State dict of the base.
        names: All names of the tensor in the network; the base may know any of them.
        tensor: The network's tensor.
        parameter: What it is; None for a running statistic.
        change: What differs between base and network.
    """
    name, shape = names[0], tuple(tensor.shape)
    there = [alias for alias in names if alias in base]
    if not there:
        return Decision(TransferStatus.FRESH, None, ("not in the base",), f"{name} {shape} is not in the base")
    source = base[there[0]]
    for alias in there[1:]:
        if not _equal(base[alias], source):
            told = f"{name} {shape} is two tensors in the base, {there[0]} and {alias}"
            return Decision(TransferStatus.FRESH, None, ("two tensors in the base",), told)
    if not same_family(source.dtype, tensor.dtype):
        kind = str(source.dtype).removeprefix("torch.")
        return Decision(TransferStatus.FRESH, None, (f"{kind} in the base",), f"{name} {shape} is {kind} in the base")
    if parameter is not None and parameter.role is Role.HEAD and change.labels != change.base_labels:
        return _decide_head(source, parameter, change)
    if source.shape == tensor.shape:
        return Decision(TransferStatus.MATCHED, source)
    fitted = None
    if parameter is not None and parameter.role is Role.POSITION:
        fitted = fit_table(source.to(tensor.dtype), tensor, parameter.module)
    elif parameter is not None and parameter.role is Role.WEIGHT:
        known = {"base_channels": change.base_channels, "channels": change.channels}
        fitted = fit_convolution(source.to(tensor.dtype), tensor, parameter.module, **known)
    if fitted is not None:
        return Decision(TransferStatus.ADAPTED, fitted.value, fitted.notes)
    return _other_shape(name, source, tensor)


def _decide_head(source: Tensor, parameter: NetworkParameter, change: Change) -> Decision:
    """Rows of the labels that the base knows, in the order of the network's labels."""
    value = parameter.tensor.detach().clone()
    axis = 1 if parameter.layout.transposed and value.dim() > 1 else 0
    wanted = list(value.shape)
    wanted[axis] = len(change.base_labels)
    groups = getattr(parameter.module, "groups", 1)
    if groups != 1 or value.shape[axis] != len(change.labels) or list(source.shape) != wanted:
        return _other_shape(parameter.name, source, value)
    for i, j in change.rows:
        value.select(axis, i).copy_(source.select(axis, j))
    fresh = value.numel() * (len(change.labels) - len(change.rows)) // len(change.labels)
    return Decision(TransferStatus.ADAPTED, value, fresh=fresh) if change.rows else Decision(TransferStatus.FRESH)


def _other_shape(name: str, source: Tensor, tensor: Tensor) -> Decision:
    told = f"{name} {tuple(tensor.shape)} is {tuple(source.shape)} in the base"
    return Decision(TransferStatus.FRESH, None, ("another shape in the base",), told)


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    same_place = one.data_ptr() == other.data_ptr() and one.stride() == other.stride()
    return same_place or torch.equal(one, other)

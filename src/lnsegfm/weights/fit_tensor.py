"""Adapting single tensors of a base to another shape: convolutions and tables of relative positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


@dataclass(frozen=True, eq=False)
class FittedTensor:
    """A tensor in the shape of the network's.

    Args:
        value: The tensor.
        notes: What was done to it, as text.
    """

    value: Tensor
    notes: tuple[str, ...]


def fit_convolution(
    weight: Tensor, target: Tensor, module: nn.Module, *, base_channels: int | None = None, channels: int | None = None
) -> FittedTensor | None:
    """Adapt a base's convolution to the input channels and the kernel size of the network's.

    The kernel size of a transposed convolution, and of a patch embedding, is its stride: such a kernel has no
    counterpart of another size, and is not adapted.

    Args:
        weight: The base's weight (out, in / groups, *taps).
        target: The network's.
        module: The network's layer that owns it.
        base_channels: Input channels of the base; None if unknown; then no layer counts as the first.
        channels: Input channels of the network.

    Returns:
        None where one shape cannot be adapted to the other.
    """
    if not isinstance(module, _ConvNd) or isinstance(module, _ConvTransposeNd):
        return None
    if weight.dim() != target.dim() or weight.shape[0] != target.shape[0]:
        return None
    notes = []
    if weight.shape[1] != target.shape[1]:
        first = base_channels is not None and (weight.shape[1], target.shape[1]) == (base_channels, channels)
        if not first or module.groups != 1:
            return None
        notes.append(channels_note(weight.shape[1], target.shape[1]))
        weight = fit_channels(weight, target.shape[1])
    if weight.shape != target.shape:
        old, new = weight.shape[2:], target.shape[2:]
        if any(a != b and b == stride > 1 for a, b, stride in zip(old, new, module.stride, strict=True)):
            return None
        centred = fit_extent(weight, new)
        if centred is None:
            return None
        weight = centred
        notes.append(f"kernel {_times(old)} -> {_times(new)}: centred")
    return FittedTensor(weight, tuple(notes))


def fit_channels(weight: Tensor, channels: int) -> Tensor:
    """Adapt a convolution to another number of input channels: an image repeated in all of them has the same response.

    Args:
        weight: (out, in, *taps).
        channels: Input channels of the result.

    Returns:
        (out, channels, *taps): in each channel the sum over the old ones, divided by the number of new ones.
    """
    share = weight.double().sum(dim=1, keepdim=True) / channels
    return share.to(weight.dtype).repeat_interleave(channels, dim=1)


def channels_note(old: int, new: int) -> str:
    """Describes what `fit_channels` does."""
    divided = "halved" if new == 2 else f"divided by {new}"
    done = "summed" if new == 1 else f"repeated and {divided}" if old == 1 else f"summed, {divided} and repeated"
    return f"input channels {old} -> {new}: {done}"


def fit_extent(weight: Tensor, extent: Sequence[int]) -> Tensor | None:
    """Pad kernels with zeros on all sides, or crop them to their centre.

    Args:
        weight: (out, in, *taps).
        extent: Taps of the result.

    Returns:
        (out, in, *extent), or None where they cannot be centred: another number of axes, or an odd difference.
    """
    old = weight.shape[2:]
    if len(old) != len(extent) or any((new - was) % 2 for was, new in zip(old, extent, strict=True)):
        return None
    sides = [(new - was) // 2 for was, new in zip(old, extent, strict=True)]
    return functional.pad(weight, [side for side in reversed(sides) for _ in range(2)])  # negative sides crop


def fit_table(table: Tensor, target: Tensor, module: nn.Module) -> FittedTensor | None:
    """Adapt a table of relative positions to another window.

    Windows are cubes (squares where a table's length is no cube) unless the network's layer has a ``window_size``;
    the base's are always taken to be cubes or squares.

    Args:
        table: The base's table (offsets, heads); a window of (a, b, c) has (2a - 1)(2b - 1)(2c - 1) offsets.
        target: The network's.
        module: The network's layer that owns it.

    Returns:
        None where the heads differ or the windows are unknown.
    """
    if table.dim() != 2 or target.dim() != 2 or table.shape[1] != target.shape[1]:
        return None
    window = getattr(module, "window_size", None)
    for axes in (3, 2):
        old, new = regular_window(len(table), axes), regular_window(len(target), axes)
        if isinstance(window, Sequence) and len(window) == axes and _offsets(window) == len(target):
            new = tuple(window)
        elif isinstance(window, Sequence):
            new = None
        if old is not None and new is not None:
            return FittedTensor(
                fit_positions(table, old, new), (f"positions of window {_edge(old)} -> {_edge(new)}: interpolated",)
            )
    return None


def fit_positions(table: Tensor, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """Interpolate a table of relative positions for another window, linearly along each axis and for each head.

    The outermost offsets of one window are those of the other, as is offset 0.

    Args:
        table: (offsets, heads), the offsets of the last axis next to each other.
        old: Window of the table, two or three edges in tokens.
        new: The other window.
    """
    grid = table.double().T.reshape(1, -1, *(2 * edge - 1 for edge in old))
    for axis, edge in enumerate(new, start=2):
        if edge == 1:  # the one offset is 0, which lies in the middle
            grid = grid.narrow(axis, grid.shape[axis] // 2, 1)
    mode = "trilinear" if len(new) == 3 else "bilinear"
    grid = functional.interpolate(grid, size=[2 * edge - 1 for edge in new], mode=mode, align_corners=True)
    return grid.reshape(table.shape[1], -1).T.to(table.dtype)


def regular_window(offsets: int, axes: int) -> tuple[int, ...] | None:
    """The cube or square whose table of relative positions has this length; None if there is none."""
    size = round(offsets ** (1 / axes))
    return (size // 2 + 1,) * axes if size**axes == offsets and size % 2 else None


def same_family(first: torch.dtype, second: torch.dtype) -> bool:
    """Whether one type may be converted to the other: floats to floats, integers to integers."""
    kinds = [(kind.is_floating_point, kind.is_complex, kind is torch.bool) for kind in (first, second)]
    return kinds[0] == kinds[1]


def _offsets(window: Sequence[int]) -> int:
    product = 1
    for edge in window:
        product *= 2 * edge - 1
    return product


def _times(extent: Sequence[int]) -> str:
    return "x".join(map(str, extent))


def _edge(window: Sequence[int]) -> str:
    return str(window[0]) if len(set(window)) == 1 else _times(window)

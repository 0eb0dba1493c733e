"""Tensors and networks compared bit by bit."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from lnsegfm.testing.law import require


def bits(tensor: Tensor) -> np.ndarray:
    """The bytes of a tensor as integers: -0.0 differs from 0.0, and a NaN equals itself."""
    tensor = tensor.detach().cpu().contiguous()
    width = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.int8}[tensor.element_size()]
    values: np.ndarray = tensor.reshape(-1).view(width).numpy().copy()
    return values


def require_same_bits(actual: Tensor, expected: Tensor, what: str) -> None:
    """Raise unless two tensors are bit-identical."""
    different = np.flatnonzero(bits(actual) != bits(expected))
    require(different.size == 0, f"{what}: {different.size} of {actual.numel()} entries differ, first {different[:3]}")


def state_of(network: nn.Module) -> dict[str, np.ndarray]:
    """All parameters and buffers as bits."""
    return {name: bits(tensor) for name, tensor in network.state_dict().items()}


def same_state(first: nn.Module, second: nn.Module) -> bool:
    """Whether two networks are bit-identical."""
    a, b = state_of(first), state_of(second)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)

"""Which entries belong to one output filter: written down by explicit indexing, apart from the package's own view."""

from __future__ import annotations

import numpy as np
from torch import nn


def kernel_indices(module: nn.Module, shape: tuple[int, ...]) -> np.ndarray:
    """Flat indices (kernels, fan-in) into a weight of a module."""
    flat = np.arange(int(np.prod(shape))).reshape(shape)
    if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        inputs = shape[0] // module.groups
        rows = [
            flat[group * inputs : (group + 1) * inputs, out].reshape(-1)
            for group in range(module.groups)
            for out in range(shape[1])
        ]
    else:
        rows = [flat[out].reshape(-1) for out in range(shape[0])]
    return np.stack(rows)

"""The role of a parameter: a network declares it, a method names the roles that it trains."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """The role of a parameter in its network; each parameter has exactly one."""

    HEAD = "head"
    """Weight or bias of a layer whose output channels are the labels."""
    WEIGHT = "weight"
    """Kernel of a convolution, a transposed convolution or a linear layer."""
    BIAS = "bias"
    """Bias of such a layer."""
    NORM_WEIGHT = "norm-weight"
    """Scale of a normalisation layer (and its running statistics, where it keeps any)."""
    NORM_BIAS = "norm-bias"
    """Shift of a normalisation layer."""
    POSITION = "position"
    """Table of positions of an attention layer."""
    ADAPTER = "adapter"
    """Added by a method: not the network's own."""
    OTHER = "other"
    """Anything else: only methods that train everything train it."""

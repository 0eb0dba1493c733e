"""Biases and head (BitFit)."""

from __future__ import annotations

from dataclasses import dataclass

from lnsegfm.methods.dense import Dense
from lnsegfm.networks.role import Role


@dataclass(frozen=True, kw_only=True)
class Bias(Dense):
    """Every bias trains, those of norms included, and the head.

    The bias of a convolution that an instance norm follows has no effect: the norm subtracts it again.
    """

    name = "bias"
    summary = "every bias and the head train (BitFit)"
    source = "Ben Zaken et al., ACL 2022, arXiv 2106.10199"
    trains = frozenset({Role.HEAD, Role.BIAS, Role.NORM_BIAS})

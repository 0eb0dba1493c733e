"""Norms and head (Affine-IN)."""

from __future__ import annotations

from dataclasses import dataclass

from lnsegfm.methods.dense import Dense
from lnsegfm.networks.role import Role


@dataclass(frozen=True, kw_only=True)
class Affine(Dense):
    """Scale and shift of every normalisation train, and the head."""

    name = "affine"
    summary = "scale and shift of every norm and the head train (Affine-IN)"
    source = "Luo et al., MICCAI 2025, arXiv 2503.00748 (Affine-IN); Frankle et al., ICLR 2021, arXiv 2003.00152"
    trains = frozenset({Role.HEAD, Role.NORM_WEIGHT, Role.NORM_BIAS})
    trainer = "norm"

"""Training from fresh weights: the control for the base."""

from __future__ import annotations

from dataclasses import dataclass

from lnsegfm.methods.dense import Dense
from lnsegfm.networks.role import Role


@dataclass(frozen=True, kw_only=True)
class Scratch(Dense):
    """Everything trains, from fresh weights in the base's architecture and plans."""

    name = "scratch"
    summary = "every parameter trains, from fresh weights (the control for the base)"
    source = "Isensee et al., Nat. Methods 2021, doi 10.1038/s41592-020-01008-z"
    trains = frozenset(Role)
    starts_fresh = True
    needs_base = False

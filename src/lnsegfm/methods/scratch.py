"""Training from nothing: what the base is worth."""

from __future__ import annotations

from dataclasses import dataclass

from lnsegfm.methods.dense import Dense
from lnsegfm.networks.role import Role


@dataclass(frozen=True, kw_only=True)
class Scratch(Dense):
    """Everything moves, from fresh weights in the base's architecture and plans."""

    name = "scratch"
    summary = "every parameter moves, from fresh weights (the control for the base's worth)"
    source = "Isensee et al., Nat. Methods 2021, doi 10.1038/s41592-020-01008-z"
    trains = frozenset(Role)
    starts_fresh = True
    needs_base = False

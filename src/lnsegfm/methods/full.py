"""Full fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from lnsegfm.methods.dense import Dense
from lnsegfm.methods.training_defaults import TrainingDefaults
from lnsegfm.networks.role import Role


@dataclass(frozen=True, kw_only=True)
class Full(Dense):
    """Everything trains."""

    name = "full"
    summary = "every parameter trains"
    source = "Isensee et al., Nat. Methods 2021, doi 10.1038/s41592-020-01008-z"
    trains = frozenset(Role)
    needs_base = False
    training = TrainingDefaults(lr=3e-3)

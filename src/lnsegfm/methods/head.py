"""Head only."""

from __future__ import annotations

from dataclasses import dataclass

from lnsegfm.methods.dense import Dense
from lnsegfm.methods.training_defaults import TrainingDefaults
from lnsegfm.networks.role import Role


@dataclass(frozen=True, kw_only=True)
class Head(Dense):
    """Only the layers whose output channels are the labels train."""

    name = "head"
    summary = "the segmentation head trains"
    source = "linear probing, as in Alain and Bengio, ICLR 2017 (workshop), arXiv 1610.01644"
    trains = frozenset({Role.HEAD})
    training = TrainingDefaults(lr=3e-3)

"""What advice is given from: the facts of a run, and advice as a value."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lnsegfm.evaluation.domain_ranges import TrainingDomain
from lnsegfm.report.comparison import Comparison
from lnsegfm.report.label_verdict import labels_apart, mean_dice, unusable
from lnsegfm.report.run_command import finetune_command, next_folder

GOOD_DICE = 0.9
"""From this Dice on a label needs no advice."""
BASE_AHEAD = ("base better", "base ahead")


@dataclass(frozen=True)
class Advice:
    """One thing to try.

    Args:
        kind: What it follows from: ``sides``, ``hu``, ``steps``, ``patch``, ``label volume``, ``postprocessing``,
            ``volume`` or ``hold out``.
        sentence: What was measured, and what may help.
        command: The command to try.
    """

    kind: str
    sentence: str
    command: str

    def to_json(self) -> dict[str, str]:
        """As JSON-able values."""
        return dict(vars(self))


@dataclass(frozen=True)
class LabelMeasure:
    """What masks say of a label beyond its scores.

    Args:
        extent_mm: Median extent of the reference along (z, y, x).
        swapped: The label of the other side, and the mean Dice against its reference; None without another side.
    """

    extent_mm: tuple[float, float, float]
    swapped: tuple[str, float] | None = None


@dataclass(frozen=True)
class RunFacts:
    """A run and what was measured of it.

    Args:
        record: What its ``run.json`` holds.
        comparison: Base against adapted on the held-out cases.
        folder: The run's; further runs are named beside it.
        measured: What the masks say of labels, by name.
        domains: The training domains of its model: the shots', then those of its bases.
    """

    record: Mapping[str, Any]
    comparison: Comparison
    folder: str
    measured: Mapping[str, LabelMeasure] = field(default_factory=dict)
    domains: Sequence[TrainingDomain] = ()

    @cached_property
    def weak(self) -> tuple[str, ...]:
        """The labels below `GOOD_DICE`."""
        return tuple(label for label in self.comparison.labels if mean_dice(self.comparison, label) < GOOD_DICE)

    @cached_property
    def works(self) -> bool:
        """Whether the verdict is that the adapted model is better, worse for no label and usable for all."""
        better = self.comparison.outcome == "adapted better"
        poor = [label for label in self.comparison.labels if unusable(self.comparison, label)]
        return better and not labels_apart(self.comparison)[0] and not poor

    def base_ahead(self, label: str) -> bool:
        """Whether the verdict on a label is to keep the base."""
        return self.comparison.outcome_of(label) in BASE_AHEAD

    def again(self, word: str, **changes: Any) -> str:
        """The command of the same run with other settings, in a folder of its own."""
        return finetune_command(self.record, next_folder(self.folder, word), **changes)

    def data_check(self, *, with_model: bool = False) -> str:
        """The command that looks the data over."""
        base, asked = self.record["base"], self.record.get("asked") or {}
        words = ["lnsegfm", "data", "check", str(self.record["data"]["folder"])]
        for name, value in asked.get("labels", {}).items():
            words += ["--label", f"{name}={value}"]
        if with_model:
            words += ["--model", str(asked.get("model") or base.get("name") or base["folder"])]
        return shlex.join(words)

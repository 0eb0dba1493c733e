"""Cases that trained the base: they are not held out, and where they are predicted all the same, that is said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lnsegfm.datasets.check import DatasetCheck
from lnsegfm.datasets.dataset import Dataset
from lnsegfm.datasets.shots import Split
from lnsegfm.messages import listed
from lnsegfm.models.trained_scans import TrainedCases, Training


@dataclass(frozen=True)
class KnownCases:
    """What the base saw of the cases that it is compared on.

    Args:
        recorded: Whether the base records the scans that trained it.
        held_out: Cases that would have been held out and are not.
        source_data: Cases of the source data.
    """

    recorded: bool = False
    held_out: TrainedCases = TrainedCases()  # noqa: RUF009 - frozen
    source_data: TrainedCases = TrainedCases()  # noqa: RUF009 - frozen

    def lines(self) -> Iterator[str]:
        """What a user has to know, in sentences."""
        if self.held_out.scans:
            one = len(self.held_out.scans) == 1
            yield (
                f"Not held out: {listed(self.held_out.scans)}; the base was trained on "
                f"{'this scan, so it' if one else 'these scans, so they'} would prove nothing."
            )
        if self.held_out.subjects:
            yield (
                f"Not held out: {listed(self.held_out.subjects)}; the base was trained on another scan of the same "
                "patient, by the name in subjects.csv. If it is another patient, rename him there."
            )
        if self.source_data.cases:
            yield (
                f"Source data: the base was trained on {listed(tuple(sorted(self.source_data.cases)))}; its Dice "
                "there is too good, and forgetting overstated."
            )

    def facts(self) -> dict[str, str]:
        """The lines of a report."""
        facts = {}
        if not self.recorded:
            facts["Scans of the base"] = "not recorded: whether a held-out scan trained the base is not known"
        if lines := " ".join(self.lines()):
            facts["Known to the base"] = lines
        return facts

    def to_json(self) -> dict[str, Any]:
        """A plain table."""
        return {
            "recorded": self.recorded,
            "not_held_out": sorted(self.held_out.cases),
            "source_data": sorted(self.source_data.cases),
            "facts": self.facts(),
        }


def not_learned(split: Split, checked: DatasetCheck, data: Dataset) -> Iterator[str]:
    """A line where the shots hold some of the labels nowhere: none of them can be learned.

    Args:
        split: The split; nothing is said where its shots hold no label at all.
        checked: The check of the data.
        data: The data.
    """
    lacking = checked.lacking(data.labels, split.shots)
    if lacking and len(lacking) < len(data.labels.names):
        yield f"Not learned: no shot holds {listed(lacking)}. Choose other --shots, or leave it out by --keep-labels."


def training_on(split: Split, checked: DatasetCheck, data: Dataset) -> Training:
    """What a training on the shots of a split is recorded as.

    Args:
        split: The split.
        checked: The check of the data, which hashed every scan.
        data: Whose the scans are.
    """
    scans = (checked.scan_hashes[case] for case in split.shots)
    return Training.on(scans, (data.subjects[case] for case in split.shots if case in data.subjects))

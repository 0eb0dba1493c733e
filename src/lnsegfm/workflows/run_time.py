"""What is known before a training of the predictions that come after it: how many, and about how long they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lnsegfm.datasets.dataset import Case
from lnsegfm.expected_time import Clock, PredictionsAhead, TimedProgress, TimePlan
from lnsegfm.messages import counted
from lnsegfm.prediction.pipeline import worthwhile
from lnsegfm.prediction.prediction_time import count_tiles, mirrored_copies, tile_seconds
from lnsegfm.progress import Progress
from lnsegfm.weights.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class PredictionWork:
    """Held-out scans that are predicted after a training.

    Args:
        start: Plans and description of a model as large as those that predict.
        cases: The scans.
        models: Models that predict each of them.
        networks: Networks that evaluate each of them: the folds of all models.
        mirroring: Average over mirrored copies.
        folders: Where each model's masks go: those that are there already are not predicted.
        more: Further scans of the same kind, each predicted by one model.
        noun: What a scan is called.
    """

    start: Checkpoint
    cases: Sequence[Case]
    models: int = 1
    networks: int = 1
    mirroring: bool = True
    folders: Sequence[Path] = ()
    more: int = 0
    noun: str = "held-out scan"

    @property
    def scans(self) -> int:
        """Predictions of a scan, each model's counted."""
        return len(self.cases) * self.models

    @property
    def left(self) -> int:
        """Predictions whose masks are not there yet."""
        ending = self.start.dataset_json.get("file_ending", ".nii.gz")
        return self.scans - sum(
            (each / f"{case.name}{ending}").is_file() for each in self.folders for case in self.cases
        )

    def measured(self, device: str, clock: Clock) -> PredictionsAhead | None:
        """How long they take, from the sizes of the scans and one tile; None where that is not known."""
        tiles = count_tiles(self.start, self.cases)
        each_s = tile_seconds(self.start, device, clock) if tiles else None
        if each_s is None:
            return None
        copies = mirrored_copies(self.start) if self.mirroring else 1
        share = 1 + self.more / self.scans
        what = f"predictions of {counted(len(self.cases), self.noun)}"
        what += " by both models" if self.models > 1 else ""
        what += f" and {self.more} others" if self.more else ""
        what += ", mirrored" if copies > 1 else ""
        return PredictionsAhead(what, tiles * self.networks * each_s * copies * share, copies, self.scans)


def timed_predictions(
    progress: Progress, work: PredictionWork | None, ahead: PredictionsAhead | None, device: str, clock: Clock
) -> Progress:
    """A progress that corrects what was said of the predictions, or says it where nothing was."""
    if work is None:
        return progress
    shorter = ("--no-mirroring",) if work.mirroring and mirrored_copies(work.start) > 1 else ()
    overlap = worthwhile(device, torch.get_num_threads())
    plan = TimePlan(unit="scan", sample=1, skip=0, under_way=int(overlap), total=work.left or None, fewer_steps=shorter)
    told = ahead.seconds if ahead is not None and not work.more else None
    return TimedProgress(progress, plan, clock, told)

"""What to train, for how long and where: the value that training is started with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lnsegfm.datasets.dataset import Case
from lnsegfm.expected_time import Clock, TimePlan
from lnsegfm.methods.method import Method
from lnsegfm.training.prepared_files import EXACT
from lnsegfm.training.preprocessed_folder import NnunetFolder
from lnsegfm.training.schedule import Schedule
from lnsegfm.weights.checkpoint import Checkpoint

LOSS_HISTORY = "loss_history.json"
STATE = "work/training.pt"
SANITY = "work/sanity_check.json"
FACTORS = "work/factors.safetensors"
PREPARED = "work/prepared"


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One training.

    Args:
        start: Plans, description and weights to start from.
        method: What is trained.
        cases: Scans with references.
        schedule: How long and how fast.
        out: The run's folder.
        device: ``cpu``, ``cuda`` or ``mps``.
        workers: Processes that make batches; None takes none beside a CPU, nor beside a GPU that holds the scans and
            makes its own, and a few beside one that does not.
        on_disk: Keep the prepared scans in files, not in memory.
        stored: How those files keep intensities, as of `PreparedFiles`.
        ready: Scans that nnU-Net preprocessed, in place of preparing any.
        also: Where prepared scans are written for nnU-Net as well.
        time_plan: What is known of the time that the run takes, so that it is said; None says nothing.
        clock: Seconds of a clock that never goes back, by which the time limit counts.
    """

    start: Checkpoint
    method: Method
    cases: Sequence[Case]
    schedule: Schedule
    out: Path
    device: str
    workers: int | None = None
    on_disk: bool = False
    stored: str = EXACT
    ready: NnunetFolder | None = None
    also: NnunetFolder | None = None
    time_plan: TimePlan | None = None
    clock: Clock = time.monotonic

    @property
    def model(self) -> Path:
        """Folder of the model to train."""
        return self.out / "model"

"""Fine-tuning of a base's further folds: each a training of its own, whose network becomes a fold of the model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lnsegfm.datasets.dataset import Case
from lnsegfm.methods.method import Method
from lnsegfm.models.model_layout import CHECKPOINT, member_folder
from lnsegfm.storage import read_json
from lnsegfm.training.schedule import Schedule
from lnsegfm.training.train_model import train_model
from lnsegfm.training.training_job import LOSS_HISTORY, TrainingJob
from lnsegfm.weights.checkpoint import Checkpoint
from lnsegfm.workflows.training_run import RunContext


def train_members(
    starts: Sequence[Checkpoint], method: Method, cases: Sequence[Case], schedule: Schedule, context: RunContext
) -> tuple[Mapping[str, Any], ...]:
    """Train further folds, one after the other; what is finished is kept, what was stopped continues.

    Fold number k trains with the run's seed plus k: other patches, and other fresh heads where there are any.

    Args:
        starts: Each fold's plans and weights, from fold 1 on.
        method: What is trained.
        cases: The shots.
        schedule: That of fold 0.
        context: Where; the model's folder is that of the run.

    Returns:
        The content of each one's ``loss_history.json``.

    Raises:
        ConfigError: As `train_model`.
        Interrupted: Asked to stop; the state is saved.
    """
    histories = []
    for number, start in enumerate(starts, 1):
        place = member_folder(context.out, number)
        file, history = context.model / f"fold_{number}" / CHECKPOINT, place / LOSS_HISTORY
        if not (file.is_file() and history.is_file()):
            context.progress.stage(f"Fold {number}, of 0 to {len(starts)}")
            job = TrainingJob(
                start=start,
                method=method,
                cases=cases,
                schedule=replace(schedule, seed=schedule.seed + number),
                out=place,
                device=context.device,
                workers=context.workers,
                clock=context.clock,
            )
            train_model(job, context.progress)
            file.parent.mkdir(parents=True, exist_ok=True)
            (job.model / "fold_0" / CHECKPOINT).replace(file)
        shutil.rmtree(place / "model", ignore_errors=True)  # its plans are those of the run's model
        histories.append(read_json(history))
    return tuple(histories)

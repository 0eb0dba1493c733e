"""From a start and some scans to a model folder, continued where it was stopped."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lnsegfm.datasets.dataset import Case
from lnsegfm.methods.method import Method
from lnsegfm.nnunet.batches import preprocess
from lnsegfm.nnunet.engine import engine
from lnsegfm.nnunet.fit import MemoryTrainer, Schedule, fit, summary
from lnsegfm.nnunet.model import CHECKPOINT, write_model
from lnsegfm.progress import Progress
from lnsegfm.storage import clear_partials, read_json, write_json
from lnsegfm.weights.checkpoint import Checkpoint

STATE = "work/training.pt"


def train_model(
    start: Checkpoint,
    method: Method,
    cases: Sequence[Case],
    schedule: Schedule,
    out: Path,
    *,
    device: str,
    workers: int | None,
    progress: Progress,
) -> dict[str, Any]:
    """Train, and write ``out/model``; give back how it went. What is there already is not done again.

    Args:
        start: Plans, description and weights to start from.
        method: What moves.
        cases: Scans with references.
        schedule: How long and how fast.
        out: The run's folder.
        device: ``cpu``, ``cuda`` or ``mps``.
        workers: Processes that make batches; None takes none beside a CPU and a few beside a GPU.
        progress: Told how far it is.
    """
    if (out / "model" / "fold_0" / CHECKPOINT).is_file() and (out / "course.json").is_file():
        progress.stage("The model is there already")
        course: dict[str, Any] = read_json(out / "course.json")
        return course
    with engine(out / "work"):
        trainer = MemoryTrainer.ready(start, method, schedule, device)
    scans = preprocess(cases, trainer.plans_manager, trainer.configuration_manager, trainer.dataset_json, progress)
    clear_partials((out / STATE).parent)
    if workers is None:
        workers = 0 if device == "cpu" else max(1, min(8, (os.cpu_count() or 2) - 1))
    went = summary(fit(trainer, scans, schedule, out / STATE, workers=workers, progress=progress))
    write_json(out / "course.json", went)
    weights = {key: tensor.detach().cpu() for key, tensor in trainer.network.state_dict().items()}
    axes = tuple(trainer.inference_allowed_mirroring_axes)
    for place in (out / "model", out / "model" / "fold_0"):
        clear_partials(place)
    write_model(out / "model", replace(start, weights=weights, mirroring_axes=axes))
    return went

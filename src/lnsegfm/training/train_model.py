"""From a start and some scans to a model folder, continued where it was stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lnsegfm.datasets.dataset import Case
from lnsegfm.methods.method import Method
from lnsegfm.methods.sanity_check import empty_sanity_report
from lnsegfm.models.model_folder import CHECKPOINT, write_model
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.progress import Progress
from lnsegfm.storage import read_json, write_json
from lnsegfm.training.loss_history import LossHistory, summary
from lnsegfm.training.schedule import Schedule
from lnsegfm.training.train_process import prepare_scans, train_in_process
from lnsegfm.weights.checkpoint import Checkpoint


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
    on_disk: bool = False,
    processes: int = 1,
) -> dict[str, Any]:
    """Train, and write ``out/model``; give back how it went. What is there already is not done again.

    Args:
        start: Plans, description and weights to start from.
        method: What moves.
        cases: Scans with references.
        schedule: How long and how fast.
        out: The run's folder.
        device: ``cpu``, ``cuda`` or ``mps``.
        workers: Processes that make batches; None takes none beside a CPU, nor beside a GPU that holds the scans and
            makes its own, and a few beside one that does not.
        progress: Told how far it is.
        on_disk: Keep the prepared scans in files, not in memory.
        processes: Processes that train together (DDP), on a GPU each where ``device`` is ``cuda``.

    Raises:
        ConfigError: The method does not train what it declares (`lnsegfm.methods.sanity_check`), or the loss is not
            finite.
        Interrupted: Asked to stop (`Progress.stoppable`); the state is saved. So it is on a `KeyboardInterrupt`.
    """
    if (out / "model" / "fold_0" / CHECKPOINT).is_file() and (out / "loss_history.json").is_file():
        progress.stage("The model is there already")
        course: dict[str, Any] = read_json(out / "loss_history.json")
        return course
    if not method.learns:
        report = empty_sanity_report(build_network(start, deep_supervision=True))
        course = summary(LossHistory(0, [], 0.0)) | {"sanity_check": report.to_json()}
        write_json(out / "loss_history.json", course)
        write_model(out / "model", start)
        return course
    arguments: dict[str, Any] = {
        "start": start,
        "method": method,
        "cases": cases,
        "schedule": schedule,
        "out": out,
        "device": device,
        "workers": workers,
        "on_disk": on_disk or processes > 1,
    }
    if processes > 1:
        from lnsegfm.training.distributed import train_distributed

        prepare_scans(start, cases, out, progress, on_disk=True)
        train_distributed(arguments, processes, progress)
        together: dict[str, Any] = read_json(out / "loss_history.json")
        return together
    return train_in_process(**arguments, progress=progress)

"""From a training job to a model folder, continued where it was stopped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lnsegfm.methods.sanity_check import empty_sanity_report
from lnsegfm.models.model_folder import CHECKPOINT, write_model
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.progress import Progress
from lnsegfm.storage import read_json, write_json
from lnsegfm.training.loss_history import LossHistory, summary
from lnsegfm.training.train_process import prepare_scans, train_in_process
from lnsegfm.training.training_job import LOSS_HISTORY, TrainingJob


def train_model(job: TrainingJob, progress: Progress, *, processes: int = 1) -> dict[str, Any]:
    """Train and write the model's folder; an existing model is kept.

    Args:
        job: What to train.
        progress: Where progress is reported.
        processes: Processes that train together (DDP), on a GPU each where the device is ``cuda``: those that torchrun
            or srun started, else so many of this one's own.

    Returns:
        The content of ``loss_history.json``.

    Raises:
        ConfigError: The method does not train what it declares (`lnsegfm.methods.sanity_check`), or the loss is not
            finite.
        ProcessLost: One of the processes that torchrun or srun started is gone; the same call continues.
        Interrupted: Asked to stop (`Progress.stoppable`); the state is saved. So it is on a `KeyboardInterrupt`.
    """
    file = job.out / LOSS_HISTORY
    if (job.model / "fold_0" / CHECKPOINT).is_file() and file.is_file():
        progress.stage("The model is there already")
        existing: dict[str, Any] = read_json(file)
        return existing
    if not job.method.learns:
        report = empty_sanity_report(build_network(job.start, deep_supervision=True))
        untrained = summary(LossHistory(0, [], 0.0)) | {"sanity_check": report.to_json()}
        write_json(file, untrained)
        write_model(job.model, job.start)
        return untrained
    if processes == 1:
        return train_in_process(job, progress)
    from lnsegfm.training.distributed import train_distributed
    from lnsegfm.training.launched import LaunchedProcess, train_launched

    job = replace(job, on_disk=True)
    prepare_scans(job, progress)
    launched = LaunchedProcess.of_environment()
    if launched is not None:
        train_launched(job, launched, progress)
    else:
        train_distributed(job, processes, progress)
    written: dict[str, Any] = read_json(file)
    return written

"""Training in one process, alone or as one of several: prepared scans, the sanity check, the loop, the model folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from lnsegfm.cores import usable_cores
from lnsegfm.models.model_folder import write_model
from lnsegfm.models.plans import adapted_architecture
from lnsegfm.networks.cards import unwrap
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.plan_configuration import plans_managers
from lnsegfm.progress import Progress
from lnsegfm.storage import clear_partials, read_json, write_json
from lnsegfm.training.in_memory_trainer import InMemoryTrainer
from lnsegfm.training.loop import fit
from lnsegfm.training.loss_history import summary
from lnsegfm.training.prepared_cache import PreparedCache
from lnsegfm.training.prepared_cases import prepare_cases, prepare_in_files
from lnsegfm.training.prepared_files import PreparedFiles
from lnsegfm.training.sanity_run import sanity_run
from lnsegfm.training.training_job import FACTORS, LOSS_HISTORY, PREPARED, SANITY, STATE, TrainingJob
from lnsegfm.transforms.augmentation.prepared_case import PreparedCase
from lnsegfm.weights.factors import save_factors

MOST_WORKERS = 8
"""Processes where nobody says how many."""
GPU_SHARE = 0.25
"""Largest share of a GPU's whole memory that scans may take; of what is free now it would change when a run goes on."""


def train_in_process(job: TrainingJob, progress: Progress) -> dict[str, Any]:
    """Train in this process; of several that train together, the first one writes.

    Returns:
        The content of ``loss_history.json``.
    """
    shots = prepare_scans(job, progress)
    if job.device == "cuda" and not job.workers and not job.on_disk:
        shots = move_to_gpu(shots)
    report = None
    if not (job.out / STATE).is_file():
        report = sanity_run(job.start, job.method, shots, job.schedule, job.out / "work", job.device, progress)
    with nnunet_environment(job.out / "work"):
        trainer = InMemoryTrainer.ready(job.start, job.method, job.schedule, job.device)
    first = trainer.local_rank == 0
    if first and report is not None:
        write_json(job.out / SANITY, report.to_json())
    if first:
        clear_partials((job.out / STATE).parent)
    workers = _workers(job, shots)
    trained = fit(
        trainer,
        shots,
        job.schedule,
        job.out / STATE,
        workers=workers,
        progress=progress,
        clock=job.clock,
        time_plan=job.time_plan,
    )
    history = summary(trained)
    history |= job.schedule.cut(history)
    if "time_limit" in history:
        progress.stage(f"Time limit: {history['time_limit']['ended']}")
    if first:
        history["sanity_check"] = read_json(job.out / SANITY) if (job.out / SANITY).is_file() else None
        _write_trained(job, trainer, history)
    return history


def _workers(job: TrainingJob, shots: Sequence[PreparedCase]) -> int:
    """Processes that make batches: those asked for, else some where a GPU trains on scans that lie in main memory."""
    if job.workers is not None:
        return job.workers
    beside_a_gpu = job.device != "cpu" and shots[0].image.device.type == "cpu"
    return max(1, min(MOST_WORKERS, usable_cores() - 1)) if beside_a_gpu else 0


def _write_trained(job: TrainingJob, trainer: InMemoryTrainer, history: dict[str, Any]) -> None:
    """Factors, the loss history and the model's folder, in this order: with its checkpoint the model is complete."""
    network = unwrap(trainer.network)
    save_factors(job.out / FACTORS, job.method.merge(network))
    write_json(job.out / LOSS_HISTORY, history)
    weights = {key: tensor.detach().cpu() for key, tensor in network.state_dict().items()}
    for place in (job.model, job.model / "fold_0"):
        clear_partials(place)
    plans = adapted_architecture(job.start.plans, job.start.configuration, job.method)
    write_model(job.model, replace(job.start, weights=weights, plans=plans))


def move_to_gpu(shots: Sequence[PreparedCase]) -> tuple[PreparedCase, ...]:
    """The scans on the GPU that trains, where samples are then made; unchanged where they are too large for it."""
    room = GPU_SHARE * torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    fits = sum(shot.image.nbytes + shot.labels.nbytes for shot in shots) <= room
    return tuple(shot.to("cuda") if fits else shot for shot in shots)


def prepare_scans(job: TrainingJob, progress: Progress) -> tuple[PreparedCase, ...]:
    """The scans preprocessed as the plans say, in memory or in files below the run's folder."""
    if job.on_disk:
        files = PreparedFiles(job.out / PREPARED, job.stored)
        return prepare_in_files(
            job.cases,
            job.start,
            files,
            progress,
            processes=preparing_processes(job.workers),
            ready=job.ready,
            also=job.also,
        )
    plans, configuration = plans_managers(job.start.plans, job.start.configuration)
    cache = PreparedCache.of_this_machine()
    return prepare_cases(job.cases, plans, configuration, dict(job.start.dataset_json), progress, cache)


def preparing_processes(workers: int | None) -> int:
    """Processes that prepare scans: those asked for, else one a core, 8 at most, for they take memory."""
    return max(1, min(MOST_WORKERS, usable_cores()) if workers is None else workers)

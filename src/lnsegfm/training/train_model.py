"""From a start and some scans to a model folder, continued where it was stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lnsegfm.cores import usable_cores
from lnsegfm.datasets.dataset import Case
from lnsegfm.methods.method import Method
from lnsegfm.methods.proof import nothing_to_prove
from lnsegfm.models.model_folder import CHECKPOINT, build_network, write_model
from lnsegfm.models.plans import adapted_architecture
from lnsegfm.networks.cards import unwrap
from lnsegfm.nnunet.environment import engine
from lnsegfm.progress import Progress
from lnsegfm.storage import clear_partials, read_json, write_json
from lnsegfm.training.in_memory_trainer import MemoryTrainer, Schedule, fit
from lnsegfm.training.loss_history import Course, summary
from lnsegfm.training.prepared_cache import ShotCache
from lnsegfm.training.prepared_cases import Shot, prepare
from lnsegfm.training.sanity_run import try_out
from lnsegfm.weights.checkpoint import Checkpoint
from lnsegfm.weights.factors import save_factors

STATE = "work/training.pt"
PROOF = "work/proof.json"
FACTORS = "work/factors.safetensors"
PREPARED = "work/prepared"
GPU_SHARE = 0.25
"""Of a GPU's memory, all of it and not what is free now: at most so much holds scans, the same when a run goes on."""


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
        ConfigError: The method does not do what it says (`lnsegfm.methods.proof`), or the loss is no number any more.
        Interrupted: A signal arrived; the state is saved.
    """
    if (out / "model" / "fold_0" / CHECKPOINT).is_file() and (out / "course.json").is_file():
        progress.stage("The model is there already")
        course: dict[str, Any] = read_json(out / "course.json")
        return course
    if not method.learns:
        proof = nothing_to_prove(build_network(start, deep_supervision=True))
        course = summary(Course(0, [], 0.0)) | {"proof": proof.to_json()}
        write_json(out / "course.json", course)
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
        from lnsegfm.training.distributed import train_together

        scans(start, cases, out, progress, on_disk=True)
        train_together(arguments, processes, progress)
        together: dict[str, Any] = read_json(out / "course.json")
        return together
    return train_here(**arguments, progress=progress)


def train_here(
    start: Checkpoint,
    method: Method,
    cases: Sequence[Case],
    schedule: Schedule,
    out: Path,
    device: str,
    workers: int | None,
    on_disk: bool,
    progress: Progress,
) -> dict[str, Any]:
    """Train in this process; of several that train together, the first one writes."""
    shots = scans(start, cases, out, progress, on_disk=on_disk)
    if device == "cuda" and not workers and not on_disk:
        shots = on_gpu(shots)
    proof = None
    if not (out / STATE).is_file():
        proof = try_out(start, method, shots, schedule, out / "work", device, progress).to_json()
    with engine(out / "work"):
        trainer = MemoryTrainer.ready(start, method, schedule, device)
    first = trainer.local_rank == 0
    if first and proof is not None:
        write_json(out / PROOF, proof)
    if first:
        clear_partials((out / STATE).parent)
    if workers is None:
        beside = device != "cpu" and shots[0].image.device.type == "cpu"
        workers = max(1, min(8, usable_cores() - 1)) if beside else 0
    went = summary(fit(trainer, shots, schedule, out / STATE, workers=workers, progress=progress))
    if first:
        went["proof"] = read_json(out / PROOF) if (out / PROOF).is_file() else None
        network = unwrap(trainer.network)
        save_factors(out / FACTORS, method.merge(network))
        write_json(out / "course.json", went)
        weights = {key: tensor.detach().cpu() for key, tensor in network.state_dict().items()}
        for place in (out / "model", out / "model" / "fold_0"):
            clear_partials(place)
        plans = adapted_architecture(start.plans, start.configuration, method)
        write_model(out / "model", replace(start, weights=weights, plans=plans))
    return went


def on_gpu(shots: Sequence[Shot]) -> tuple[Shot, ...]:
    """The scans on the GPU that trains, where samples are then made; where they are too large for that, as they are."""
    room = GPU_SHARE * torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    fits = sum(shot.image.nbytes + shot.labels.nbytes for shot in shots) <= room
    return tuple(shot.to("cuda") if fits else shot for shot in shots)


def scans(
    start: Checkpoint, cases: Sequence[Case], out: Path, progress: Progress, *, on_disk: bool
) -> tuple[Shot, ...]:
    """The scans prepared as the plans say, in memory or in files below the run's folder."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(dict(start.plans))
    configuration = plans.get_configuration(start.configuration)
    folder = out / PREPARED if on_disk else None
    cache = ShotCache.of_this_machine()
    return prepare(cases, plans, configuration, dict(start.dataset_json), progress, folder, cache)

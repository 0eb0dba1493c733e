"""Training in one process, alone or as one of several: prepared scans, the sanity check, the loop, the model folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lnsegfm.cores import usable_cores
from lnsegfm.datasets.dataset import Case
from lnsegfm.methods.method import Method
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
from lnsegfm.training.prepared_cases import prepare_cases
from lnsegfm.training.sanity_run import sanity_run
from lnsegfm.training.schedule import Schedule
from lnsegfm.transforms.augmentation.prepared_case import PreparedCase
from lnsegfm.weights.checkpoint import Checkpoint
from lnsegfm.weights.factors import save_factors

STATE = "work/training.pt"


SANITY = "work/sanity_check.json"


FACTORS = "work/factors.safetensors"


PREPARED = "work/prepared"


GPU_SHARE = 0.25
"""Of a GPU's memory, all of it and not what is free now: at most so much holds scans, the same when a run goes on."""


def train_in_process(
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
    shots = prepare_scans(start, cases, out, progress, on_disk=on_disk)
    if device == "cuda" and not workers and not on_disk:
        shots = move_to_gpu(shots)
    report = None
    if not (out / STATE).is_file():
        report = sanity_run(start, method, shots, schedule, out / "work", device, progress).to_json()
    with nnunet_environment(out / "work"):
        trainer = InMemoryTrainer.ready(start, method, schedule, device)
    first = trainer.local_rank == 0
    if first and report is not None:
        write_json(out / SANITY, report)
    if first:
        clear_partials((out / STATE).parent)
    if workers is None:
        beside = device != "cpu" and shots[0].image.device.type == "cpu"
        workers = max(1, min(8, usable_cores() - 1)) if beside else 0
    went = summary(fit(trainer, shots, schedule, out / STATE, workers=workers, progress=progress))
    if first:
        went["sanity_check"] = read_json(out / SANITY) if (out / SANITY).is_file() else None
        network = unwrap(trainer.network)
        save_factors(out / FACTORS, method.merge(network))
        write_json(out / "loss_history.json", went)
        weights = {key: tensor.detach().cpu() for key, tensor in network.state_dict().items()}
        for place in (out / "model", out / "model" / "fold_0"):
            clear_partials(place)
        plans = adapted_architecture(start.plans, start.configuration, method)
        write_model(out / "model", replace(start, weights=weights, plans=plans))
    return went


def move_to_gpu(shots: Sequence[PreparedCase]) -> tuple[PreparedCase, ...]:
    """The scans on the GPU that trains, where samples are then made; where they are too large for that, as they are."""
    room = GPU_SHARE * torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    fits = sum(shot.image.nbytes + shot.labels.nbytes for shot in shots) <= room
    return tuple(shot.to("cuda") if fits else shot for shot in shots)


def prepare_scans(
    start: Checkpoint, cases: Sequence[Case], out: Path, progress: Progress, *, on_disk: bool
) -> tuple[PreparedCase, ...]:
    """The scans prepared as the plans say, in memory or in files below the run's folder."""
    plans, configuration = plans_managers(start.plans, start.configuration)
    folder = out / PREPARED if on_disk else None
    cache = PreparedCache.of_this_machine()
    return prepare_cases(cases, plans, configuration, dict(start.dataset_json), progress, folder, cache)

"""A base model from labelled scans: planned, trained, and looked at on scans held out."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lnsegfm.datasets.check import require_usable
from lnsegfm.datasets.dataset import Case, Dataset, open_dataset
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.datasets.shots import draw_shots
from lnsegfm.errors import ConfigError
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.messages import counted
from lnsegfm.methods.full import Full
from lnsegfm.models.model_folder import CHECKPOINT, read_model
from lnsegfm.models.planning import DEFAULT, RELEASE, find_preset, plans_for_preset, set_patch
from lnsegfm.models.plans import (
    CONFIGURATION,
    dataset_json,
    dataset_name,
    given_plans,
    in_image_order,
    in_plan_order,
    set_sizes,
)
from lnsegfm.models.training_domain import write_training_domain
from lnsegfm.networks.architectures import SWIN, find_architecture
from lnsegfm.nnunet.environment import choose_device, seed_everything
from lnsegfm.nnunet.lookup import STOCK_TRAINER
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.notebook import HtmlTable, notebook_html
from lnsegfm.progress import Progress, Silent
from lnsegfm.storage import content_hash, sha256, write_json
from lnsegfm.training.distributed import require_processes
from lnsegfm.training.schedule import Schedule
from lnsegfm.training.train_model import train_model
from lnsegfm.weights.checkpoint import Checkpoint
from lnsegfm.weights.state import aliases
from lnsegfm.workflows.held_out_comparison import predict_masks, score_masks
from lnsegfm.workflows.run_folder import claim
from lnsegfm.workflows.run_record import versions

MIRRORED = (0, 1, 2)
"""Axes along which a base is mirrored in training, as nnU-Net does by default."""


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """How a base is trained.

    Args:
        architecture: Name of the network (see `lnsegfm.networks.architectures`).
        preset: ``tiny`` or ``small`` for CPUs, ``default`` for nnU-Net's own planner, ``release`` for the patch and
            schedule of the paper's release.
        plans: A plans file instead of architecture and preset; with nnU-Net's SGD.
        gpu_memory_gb: GPU memory to plan for, with ``default``; None takes the architecture's.
        checkpointing: Compute activations of a SwinUNETR's transformer again in the backward pass.
        patch_size: Voxels (z, y, x); None takes the plans'.
        batch_size: Patches a step; None takes the plans'.
        iterations: Optimizer steps; None takes the preset's.
        lr: Learning rate; None takes the preset's.
        held_out: Scans to hold out and evaluate on: a number from 1, or a share below 1; 0 trains on all of them.
        seed: Of weights, patches and augmentation.
        mirroring: Mirror patches at prediction of the held-out scans.
        gpus: Processes that train together, a GPU each.
    """

    architecture: str = "nnunet"
    preset: str = "tiny"
    plans: Path | None = None
    gpu_memory_gb: float | None = None
    checkpointing: bool = False
    patch_size: tuple[int, int, int] | None = None
    batch_size: int | None = None
    iterations: int | None = None
    lr: float | None = None
    held_out: float = 0
    seed: int = 0
    mirroring: bool = True
    gpus: int = 1

    def __post_init__(self) -> None:
        find_architecture(self.architecture)
        for name in ("iterations", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} {value}: it must be at least 1.")
        if self.lr is not None and not self.lr > 0:
            raise ConfigError(f"lr {self.lr}: a step needs a length above 0. Use for example 0.002.")
        if not self.held_out >= 0 or (self.held_out > 1 and self.held_out != int(self.held_out)):
            raise ConfigError(f"held-out {self.held_out}: give a number of scans, or a share of them such as 0.2.")
        if self.gpus < 1:
            raise ConfigError(f"gpus {self.gpus}: at least one process trains. Use --gpus 1.")
        if self.gpu_memory_gb is not None:
            if not self.gpu_memory_gb > 0:
                raise ConfigError(f"gpu-memory {self.gpu_memory_gb}: it must be above 0 GB.")
            if self.plans is not None or self.preset != DEFAULT:
                raise ConfigError("--gpu-memory: the plans are fixed already. Use it with --preset default.")

    def recipe(self) -> tuple[Full, float, int]:
        """Method, learning rate and iterations."""
        if self.plans is None and self.preset not in (DEFAULT, RELEASE):
            preset = find_preset(self.preset)
            lr = preset.swin_lr if find_architecture(self.architecture).network == SWIN else preset.lr
            return Full(rule="adamw"), self.lr or lr, self.iterations or preset.iterations
        epochs = 2000 if self.plans is None and self.preset == RELEASE else 1000
        return Full(), self.lr or 1e-2, self.iterations or 250 * epochs

    def count_held_out(self, cases: int) -> int:
        """Scans to hold out of so many.

        Raises:
            ConfigError: None would be left to train on.
        """
        number = max(1, round(self.held_out * cases)) if 0 < self.held_out < 1 else int(self.held_out)
        if number >= cases:
            raise ConfigError(f"held-out {self.held_out:g}: there are only {cases} cases. Hold out fewer.")
        return number


@dataclass(frozen=True)
class PretrainRun:
    """A trained base model.

    Args:
        folder: The run's folder.
        model: The model's folder, which stock nnU-Net loads.
        record: What ``run.json`` holds.
        evaluation: On the held-out scans; None where none was held out.
    """

    folder: Path
    model: Path
    record: Mapping[str, Any]
    evaluation: Evaluation | None

    def _repr_html_(self) -> str:
        facts = {
            "parameters": f"{self.record['parameters']:,}",
            "iterations": self.record["training"]["iterations"],
            "model": self.model,
        }
        shown = self.evaluation._repr_html_() if self.evaluation is not None else ""
        return notebook_html(f"Base model {self.folder.name}", [HtmlTable.of_facts(facts)]) + shown


def pretrain(
    data: Path,
    out: Path,
    training: PretrainSettings,
    *,
    labels: LabelMap | None = None,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
) -> PretrainRun:
    """Train a base model; the same call continues one that was stopped.

    Args:
        data: Labelled scans: an nnU-Net raw dataset, or a folder with ``images/`` and ``labels/``.
        out: The run's folder.
        training: How.
        labels: What the masks' numbers mean, where the data do not say it themselves.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        workers: Processes that make batches; None takes none beside a CPU and a few beside a GPU.
        progress: Told how far it is.

    Raises:
        DataError: Cases that cannot be used; all of them are listed.
        ModelError: A plans file that cannot be used.
        RunMismatch: ``out`` holds another run.
        Interrupted: Asked to stop (`Progress.stoppable`); the state is saved. So it is on a `KeyboardInterrupt`.
    """
    progress = progress or Silent()
    device = choose_device(device)
    method, lr, iterations = training.recipe()
    dataset = open_dataset(data, labels)
    progress.stage(f"Checking {counted(len(dataset.cases), 'case')}")
    require_usable(dataset, progress=progress)
    names = [case.name for case in dataset.labelled]
    split = draw_shots(names, len(names) - training.count_held_out(len(names)))
    cases = {case.name: case for case in dataset.cases}
    shots, held_out = [cases[name] for name in split.shots], [cases[name] for name in split.held_out]
    resolved: dict[str, Any] = {
        "format": "lnsegfm.base/1",
        "recipe": {
            "architecture": training.architecture if training.plans is None else None,
            "preset": training.preset if training.plans is None else None,
            "plans": sha256(training.plans) if training.plans is not None and training.plans.is_file() else None,
            "method": method.name,
            "settings": method.settings(),
            "iterations": iterations,
            "lr": lr,
            "gpu_memory_gb": training.gpu_memory_gb,
            "checkpointing": training.checkpointing,
            "patch_size": training.patch_size,
            "batch_size": training.batch_size,
            "held_out": training.held_out,
            "seed": training.seed,
            "mirroring": training.mirroring,
            "gpus": training.gpus,
        },
        "data": {"folder": str(data), "labels": dataset.labels.to_dataset_json(), "sha256": dataset.content_hash()},
        "shots": split.shots,
        "held_out": split.held_out,
    }
    resolved["identity"] = content_hash([resolved["recipe"], resolved["data"]["sha256"]])
    start = _start(training, dataset, shots, out, progress)
    network = start.plans["configurations"][start.configuration]
    require_processes(training.gpus, network["batch_size"], device)
    claim(out, resolved)
    schedule = Schedule(lr=lr, iterations=iterations, seed=training.seed)
    course = train_model(
        start,
        method,
        shots,
        schedule,
        out,
        device=device,
        workers=workers,
        progress=progress,
        on_disk=True,
        processes=training.gpus,
    )
    write_training_domain(start, shots, dataset.labels, out / "model", progress)
    evaluation = None
    if held_out:
        base = read_model(out / "model")
        masks = predict_masks(
            base,
            "base",
            held_out,
            out / "predictions",
            device=device,
            mirroring=training.mirroring,
            progress=progress,
        )
        evaluation = score_masks(held_out, masks, dataset.labels, base, subjects=dataset.subjects)
    record = {
        **resolved,
        "versions": versions(),
        "device": device,
        "spacing_mm": in_image_order(start.plans, network["spacing"]),
        "patch_size": in_image_order(start.plans, network["patch_size"]),
        "batch_size": network["batch_size"],
        "network": network["architecture"],
        "parameters": sum(start.weights[name].numel() for name in set(aliases(start.weights).values())),
        "training": {key: value for key, value in course.items() if key != "losses"},
        "model": {"sha256": sha256(out / "model" / "fold_0" / CHECKPOINT)},
        "result": evaluation.to_json(out) if evaluation else None,
        "losses": course["losses"],
    }
    write_json(out / "run.json", record)
    shutil.rmtree(out / "work", ignore_errors=True)
    return PretrainRun(out, out / "model", record, evaluation)


def _start(training: PretrainSettings, data: Dataset, cases: list[Case], out: Path, progress: Progress) -> Checkpoint:
    if training.plans is not None:
        plans, configuration = given_plans(
            training.plans, dataset_name(data), patch_size=training.patch_size, batch_size=training.batch_size
        )
    else:
        plans, configuration = _planned(training, data, cases, out, progress), CONFIGURATION
    description = dataset_json(data, len(cases))
    start = Checkpoint({}, configuration, plans, description, STOCK_TRAINER, MIRRORED)
    seed_everything(training.seed)
    network = build_network(start, deep_supervision=True)
    weights = {key: tensor.detach() for key, tensor in network.state_dict().items()}
    return replace(start, weights=weights)


def _planned(
    training: PretrainSettings, data: Dataset, cases: list[Case], out: Path, progress: Progress
) -> dict[str, Any]:
    architecture = find_architecture(training.architecture)
    plans = plans_for_preset(
        training.preset,
        architecture,
        data,
        cases,
        out.with_name(f".{out.name}-plans"),
        gpu_memory_gb=training.gpu_memory_gb,
        checkpointing=training.checkpointing,
        progress=progress,
    )
    configuration = plans["configurations"][CONFIGURATION]
    patch_size = training.patch_size
    if patch_size is not None and training.preset in (DEFAULT, RELEASE):
        set_patch(configuration, architecture, in_plan_order(plans, patch_size), checkpointing=training.checkpointing)
        patch_size = None
    set_sizes(plans, configuration, patch_size, training.batch_size)
    return plans

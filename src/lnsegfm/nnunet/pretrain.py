"""A base model from labelled scans: planned, trained, and looked at on scans held out."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lnsegfm.datasets.check import require_usable
from lnsegfm.datasets.dataset import Case, Dataset, open_dataset
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.datasets.shots import draw_shots
from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.evaluation.evaluate import Evaluation
from lnsegfm.methods.dense import Full
from lnsegfm.nnunet.claim import claim
from lnsegfm.nnunet.engine import choose_device, seed_everything
from lnsegfm.nnunet.evidence import masks_of, score
from lnsegfm.nnunet.fingerprint import fingerprint, planned
from lnsegfm.nnunet.fit import Schedule
from lnsegfm.nnunet.model import CHECKPOINT, STOCK_TRAINER, build_network, read_model, require_known_imports
from lnsegfm.nnunet.plans import CONFIGURATION, dataset_json, dataset_name, find_preset, preset_plans, require_divisible
from lnsegfm.nnunet.record import versions
from lnsegfm.nnunet.training import train_model
from lnsegfm.progress import Progress, Silent
from lnsegfm.storage import content_hash, read_json, sha256, write_json
from lnsegfm.weights.checkpoint import Checkpoint

DEFAULT = "default"
"""nnU-Net's own planner, its SGD at 1e-2 and 250,000 iterations."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a base is trained.

    Args:
        preset: ``tiny`` or ``small`` for CPUs, ``default`` for nnU-Net's own planner.
        plans: A plans file instead of a preset; with nnU-Net's SGD.
        iterations: Optimizer steps; None takes the preset's.
        lr: Learning rate; None takes the preset's.
        held_out: Number of scans to hold out and evaluate on.
        seed: Of weights, patches and augmentation.
        mirroring: Mirror patches at prediction of the held-out scans.
    """

    preset: str = "tiny"
    plans: Path | None = None
    iterations: int | None = None
    lr: float | None = None
    held_out: int = 0
    seed: int = 0
    mirroring: bool = True

    def __post_init__(self) -> None:
        if self.iterations is not None and self.iterations < 1:
            raise ConfigError(f"iterations {self.iterations}: it must be at least 1.")
        if self.lr is not None and not self.lr > 0:
            raise ConfigError(f"lr {self.lr}: a step needs a length above 0. Use for example 0.002.")
        if self.held_out < 0:
            raise ConfigError(f"held-out {self.held_out}: a number of scans is needed, 0 or more.")

    def recipe(self) -> tuple[Full, float, int]:
        """Method, learning rate and iterations."""
        if self.plans is None and self.preset != DEFAULT:
            preset = find_preset(self.preset)
            return Full(rule="adamw"), self.lr or preset.lr, self.iterations or preset.iterations
        return Full(), self.lr or 1e-2, self.iterations or 250_000


@dataclass(frozen=True)
class Base:
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


def pretrain(
    data: Path,
    out: Path,
    training: Training,
    *,
    labels: LabelMap | None = None,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Base:
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
        Interrupted: A signal arrived during training; its state is saved.
    """
    progress = progress or Silent()
    device = choose_device(device)
    method, lr, iterations = training.recipe()
    dataset = open_dataset(data, labels)
    progress.stage(f"Checking {len(dataset.cases)} cases")
    require_usable(dataset, progress=progress.advance)
    names = [case.name for case in dataset.labelled]
    if training.held_out >= len(names):
        raise ConfigError(f"held-out {training.held_out}: there are only {len(names)} cases. Hold out fewer.")
    split = draw_shots(names, len(names) - training.held_out)
    cases = {case.name: case for case in dataset.cases}
    shots, held_out = [cases[name] for name in split.shots], [cases[name] for name in split.held_out]
    resolved: dict[str, Any] = {
        "format": "lnsegfm.base/1",
        "recipe": {
            "preset": training.preset if training.plans is None else None,
            "plans": sha256(training.plans) if training.plans is not None and training.plans.is_file() else None,
            "method": method.name,
            "settings": method.settings(),
            "iterations": iterations,
            "lr": lr,
            "held_out": training.held_out,
            "seed": training.seed,
            "mirroring": training.mirroring,
        },
        "data": {"folder": str(data), "labels": dataset.labels.to_dataset_json(), "sha256": dataset.content_hash()},
        "shots": split.shots,
        "held_out": split.held_out,
    }
    resolved["identity"] = content_hash([resolved["recipe"], resolved["data"]["sha256"]])
    start = _start(training, dataset, shots, out, progress)
    claim(out, resolved)
    schedule = Schedule(lr=lr, iterations=iterations, seed=training.seed)
    course = train_model(start, method, shots, schedule, out, device=device, workers=workers, progress=progress)
    evaluation = None
    if held_out:
        base = read_model(out / "model")
        masks = masks_of(
            base,
            "base",
            held_out,
            out / "predictions",
            device=device,
            mirroring=training.mirroring,
            progress=progress,
        )
        evaluation = score(held_out, masks, dataset.labels, base)
    record = {
        **resolved,
        "versions": versions(),
        "device": device,
        "training": {key: value for key, value in course.items() if key != "losses"},
        "model": {"sha256": sha256(out / "model" / "fold_0" / CHECKPOINT)},
        "result": evaluation.to_json() if evaluation else None,
        "losses": course["losses"],
    }
    write_json(out / "run.json", record)
    shutil.rmtree(out / "work", ignore_errors=True)
    return Base(out, out / "model", record, evaluation)


def _start(training: Training, data: Dataset, cases: list[Case], out: Path, progress: Progress) -> Checkpoint:
    name = dataset_name(data)
    if training.plans is not None:
        plans, configuration = _read_plans(training.plans)
    else:
        found, configuration = fingerprint(cases, progress), CONFIGURATION
        if training.preset == DEFAULT:
            plans = planned(data, cases, name, found, out.with_name(f".{out.name}-plans"))
        else:
            plans = preset_plans(find_preset(training.preset), name, found, data.channels)
    description = dataset_json(data, len(cases))
    start = Checkpoint({}, configuration, plans, description, STOCK_TRAINER, None)
    seed_everything(training.seed)
    network = build_network(start, deep_supervision=True)
    weights = {key: tensor.detach() for key, tensor in network.state_dict().items()}
    return Checkpoint(weights, configuration, plans, description, STOCK_TRAINER, None)


def _read_plans(file: Path) -> tuple[dict[str, Any], str]:
    """A plans file and the name of its 3D configuration.

    Raises:
        ModelError: It is not a plans file, or has no 3D configuration of its own.
    """
    plans = read_json(file)
    try:
        for name in (CONFIGURATION, *plans["configurations"]):
            configuration = plans["configurations"].get(name)
            if configuration and len(configuration.get("patch_size", ())) == 3:
                require_known_imports(configuration, file)
                require_divisible(configuration)
                kept = copy.deepcopy(configuration)
                return {**plans, "configurations": {name: kept}}, name
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{file}: not nnU-Net plans ({error!r}). Give an nnUNetPlans.json.") from None
    raise ModelError(f"{file}: it has no 3D configuration with a patch size. Give plans with 3d_fullres.")

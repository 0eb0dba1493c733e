"""What a pretraining is about to do: settings and data checked, plans made, a network with fresh weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lnsegfm.datasets.case_choice import CaseChoice, Cases, number_or_cases
from lnsegfm.datasets.check import require_usable
from lnsegfm.datasets.dataset import Case, Dataset, open_dataset
from lnsegfm.datasets.label_choice import LabelChoice
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.datasets.shots import draw_shots, require_labelled
from lnsegfm.datasets.sided_labels import MIRROR_AUTO, name_sides, require_mirror
from lnsegfm.datasets.stored_axes import commonest_axes, oblique_words, stored_axes, turned_words
from lnsegfm.errors import ConfigError, DataError, LnSegFmError
from lnsegfm.evaluation.mask_statistics import MaskStatistics
from lnsegfm.jobs.parts import ListPart
from lnsegfm.messages import counted, listed
from lnsegfm.methods.full import Full
from lnsegfm.methods.training_defaults import require_time_limit
from lnsegfm.models.case_readings import Readings, read_cases
from lnsegfm.models.fingerprint import fingerprint_of
from lnsegfm.models.planning import DEFAULT, RELEASE, find_preset, plans_for_preset, set_patch
from lnsegfm.models.plans import (
    CONFIGURATION,
    dataset_json,
    dataset_name,
    given_plans,
    in_plan_order,
    read_plans,
    set_sizes,
)
from lnsegfm.models.trained_scans import TrainedScans
from lnsegfm.models.training_domain import ct_channel
from lnsegfm.networks.architectures import SWIN, find_architecture
from lnsegfm.nnunet.environment import seed_everything
from lnsegfm.nnunet.lookup import STOCK_TRAINER
from lnsegfm.nnunet.mirroring import SWAP, settle_mirroring
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.nnunet.plan_axes import with_axes
from lnsegfm.progress import Progress
from lnsegfm.report.asked_options import AskedOptions, as_text, option_labels
from lnsegfm.spelling import nearest
from lnsegfm.storage import content_hash, sha256
from lnsegfm.training.prepared_files import HALF, require_stored
from lnsegfm.training.preprocessed_folder import PLANS, NnunetFolder, require_safe_reading
from lnsegfm.weights.checkpoint import Checkpoint
from lnsegfm.workflows.held_out_comparison import known_absence
from lnsegfm.workflows.known_cases import not_learned, training_on
from lnsegfm.workflows.training_run import TrainingPlan

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
        time_limit_s: Stop training after this many seconds of it; the rate falls to 0 by then. None is no limit.
        lr: Learning rate; None takes the preset's.
        held_out: Scans to hold out and evaluate on: a number from 1, or a share below 1; 0 trains on all of them.
        seed: Of weights, patches and augmentation.
        mirroring: Mirror patches at prediction of the held-out scans.
        mirror: Along which axes training and prediction mirror, as in `lnsegfm.Recipe`.
        gpus: Processes that train together, a GPU each.
        cases: The only scans that are used; None uses all.
        exclude: Scans that are not used.
        keep_labels: The only labels that are used, by their names after merging; () uses all.
        merge: A merged label to those that it consists of.
        absent: Labels that are truly absent where references lack them, though most hold them.
        prepared: How prepared scans are stored: ``half`` where that changes no intensity by more than
            `lnsegfm.training.prepared_files.LOSS`, or ``float32``.
        preprocessed: Folder of a data set that nnU-Net preprocessed: its plans and scans are taken as they are.
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
    mirror: str = MIRROR_AUTO
    gpus: int = 1
    cases: Cases | None = None
    exclude: Cases = ()
    keep_labels: tuple[str, ...] = ()
    merge: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    time_limit_s: float | None = None
    absent: tuple[str, ...] = ()
    prepared: str = HALF
    preprocessed: Path | None = None

    def __post_init__(self) -> None:
        find_architecture(self.architecture)
        object.__setattr__(self, "mirror", require_mirror(self.mirror))
        require_stored(self.prepared)
        if self.preprocessed is not None:
            self._take_preprocessed(Path(self.preprocessed))
        for name in ("cases", "exclude"):  # lists too, from Python
            object.__setattr__(self, name, number_or_cases(getattr(self, name), f"--{name}"))
        for name in ("keep_labels", "absent"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "plans", Path(self.plans) if self.plans is not None else None)
        for name in ("iterations", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} {value}: it must be at least 1.")
        if self.lr is not None and not self.lr > 0:
            raise ConfigError(f"lr {self.lr}: a step needs a length above 0. Use for example 0.002.")
        require_time_limit(self.time_limit_s)
        whole = math.isfinite(self.held_out) and self.held_out == int(self.held_out)
        if not self.held_out >= 0 or (self.held_out > 1 and not whole):
            raise ConfigError(f"held-out {self.held_out}: give a number of scans, or a share of them such as 0.2.")
        if whole:  # 4 and 4.0 are one run
            object.__setattr__(self, "held_out", int(self.held_out))
        if self.gpus < 1:
            raise ConfigError(f"gpus {self.gpus}: at least one process trains. Use --gpus 1.")
        if self.gpu_memory_gb is not None:
            if not self.gpu_memory_gb > 0:
                raise ConfigError(f"gpu-memory {self.gpu_memory_gb}: it must be above 0 GB.")
            if self.plans is not None or self.preset != DEFAULT:
                raise ConfigError("--gpu-memory: the plans are fixed already. Use it with --preset default.")

    def _take_preprocessed(self, folder: Path) -> None:
        if self.plans is None:
            object.__setattr__(self, "plans", folder / PLANS)
        object.__setattr__(self, "preprocessed", folder)
        if self.keep_labels or self.merge:
            raise ConfigError(
                f"--preprocessed {folder}: its labels are those of all masks. Leave --keep-labels and --merge out."
            )

    def with_fields(self, **fields: Any) -> PretrainSettings:
        """The same with some fields changed.

        Raises:
            ConfigError: A name that is no field, or as the class.
        """
        known = self.__dataclass_fields__
        if unknown := [name for name in fields if name not in known]:
            raise ConfigError(f"Setting {unknown[0]}: not known. {nearest(unknown[0], known)}")
        return replace(self, **fields)

    def said(self) -> dict[str, Any]:
        """The settings that differ from the defaults, as plain values; the plans are a place, not a setting."""
        usual = PretrainSettings()
        said = {name: value for name, value in vars(self).items() if value != getattr(usual, name) and name != "plans"}
        return said | ({"preprocessed": str(self.preprocessed)} if self.preprocessed is not None else {})

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


@dataclass(frozen=True, kw_only=True)
class PretrainPlan(TrainingPlan):
    """What a pretraining is about to do.

    Args:
        method: Training of all parameters, with the preset's optimizer.
        data: The labelled scans.
        split: Which of them are trained on and which are held out.
        start: Plans, description and fresh weights.
        identity: Hash of the settings and of the data's content.
        settings: The settings.
        lr: Learning rate.
        iterations: Optimizer steps.
        recipe: The settings as ``recipe.json`` keeps them.
        data_json: Folder, labels and hash of the data.
        looks: What the training domain is made of, in the order of the shots; None where it was not measured.
        absence: What is known of labels that references lack.
        asked: What was asked for besides the settings.
    """

    settings: PretrainSettings
    lr: float
    iterations: int
    recipe: Mapping[str, Any]
    data_json: Mapping[str, Any]
    looks: tuple[MaskStatistics, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """The resolved settings, as ``recipe.json`` keeps them."""
        return {
            "format": "lnsegfm.base/1",
            "recipe": dict(self.recipe),
            "data": dict(self.data_json),
            "shots": self.split.shots,
            "held_out": self.split.held_out,
            "axes": self.axes,
            "identity": self.identity,
        }


def plan_pretrain(
    data: Path,
    settings: PretrainSettings,
    work: Path,
    *,
    labels: LabelMap | None = None,
    allow_empty: bool = False,
    progress: Progress,
    readings: Path | None = None,
    processes: int = 1,
    part: ListPart | None = None,
) -> PretrainPlan:
    """Check data and settings, make the plans and a network with fresh weights.

    Args:
        data: Labelled scans: an nnU-Net raw dataset, or a folder with ``images/`` and ``labels/``.
        settings: The settings.
        work: A folder for nnU-Net's planner; removed afterwards.
        labels: What the masks' numbers mean, where the data do not say it themselves.
        allow_empty: Keep scans whose label is empty: they hold nothing.
        progress: Where progress is reported.
        readings: Folder for what is found in the scans, so that a call that was stopped reads none twice; None
            is one beside ``work``.
        processes: That read scans, at most.
        part: Read these scans alone; others read the rest.

    Raises:
        PartsPending: They have not yet.
        DataError: Cases that cannot be used; all of them are listed.
        ModelError: A plans file that cannot be used.
        ConfigError: A setting that does not fit the data.
    """
    method, lr, iterations = settings.recipe()
    dataset = open_dataset(data, labels, allow_empty=allow_empty)
    choice = CaseChoice(cases=settings.cases, exclude=settings.exclude)
    dataset = LabelChoice(keep=settings.keep_labels, merge=settings.merge).on(dataset)
    dataset = dataset.with_cases(choice.usable(dict.fromkeys(case.name for case in dataset.cases)))
    progress.stage(f"Checking {counted(len(dataset.cases), 'case')}")
    names = [case.name for case in dataset.labelled]
    training = _training(settings, names)
    channel = _ct_channel(settings, dataset)
    read = read_cases(
        dataset,
        training,
        readings or work.with_name(f"{work.name}-scans"),
        progress,
        axes=_axes([case for case in dataset.cases if case.name in set(training)]),
        channel=channel,
        processes=processes,
        part=part,
    )
    checked = require_usable(dataset, progress=progress, checked=read.checked, absent=settings.absent)
    absence = known_absence(dataset, checked, settings.absent)
    split = draw_shots(names, len(names) - settings.count_held_out(len(names)))
    require_labelled(split, checked.empty)
    for line in not_learned(split, checked, dataset):
        progress.stage(line)
    recipe = _recipe_json(settings, method, lr, iterations)
    data_json = {
        "folder": str(data),
        **dataset.labels.to_record(),
        "sha256": dataset.content_hash(read.file_hashes),
    }
    cases = {case.name: case for case in dataset.cases}
    shots = [cases[name] for name in split.shots]
    start = _start(settings, dataset, shots, work, read, progress)
    if start.mirroring_axes and name_sides(dataset.labels.outputs) and (oblique := oblique_words(shots)):
        progress.stage(oblique)
    measured = ct_channel(start.plans, start.configuration) == channel
    if start.mirroring_axes != MIRRORED or SWAP in start.plans:
        recipe |= {"mirrored": start.mirroring_axes, "swap": start.plans.get(SWAP)}
    if settings.preprocessed is not None:
        recipe |= {"preprocessed": _ready(settings.preprocessed, start, dataset, shots)}
    if settings.time_limit_s is not None:
        recipe |= {"time_limit_s": settings.time_limit_s}
    if settings.absent:
        recipe |= {"absent": settings.absent}
    trained = TrainedScans((training_on(split, checked, dataset),))
    return PretrainPlan(
        method=method,
        data=dataset,
        split=split,
        start=replace(start, plans=trained.in_plans(start.plans)),
        identity=content_hash([recipe, data_json["sha256"]]),
        settings=settings,
        lr=lr,
        iterations=iterations,
        recipe=recipe,
        data_json=data_json,
        looks=tuple(read.statistics[name] for name in split.shots) if measured else None,
        absence=absence,
        asked=AskedOptions(labels=option_labels(labels), allow_empty=allow_empty, plans=as_text(settings.plans)),
    )


def _recipe_json(settings: PretrainSettings, method: Full, lr: float, iterations: int) -> dict[str, Any]:
    own = settings.plans
    return {
        "architecture": settings.architecture if own is None else None,
        "preset": settings.preset if own is None else None,
        "plans": sha256(own) if own is not None and own.is_file() else None,
        "method": method.name,
        "settings": method.settings(),
        "iterations": iterations,
        "lr": lr,
        "gpu_memory_gb": settings.gpu_memory_gb,
        "checkpointing": settings.checkpointing,
        "patch_size": settings.patch_size,
        "batch_size": settings.batch_size,
        "held_out": settings.held_out,
        "seed": settings.seed,
        "mirroring": settings.mirroring,
        "gpus": settings.gpus,
        "prepared": settings.prepared,
    }


def _ready(folder: Path, start: Checkpoint, data: Dataset, shots: list[Case]) -> str:
    """Hash of the scans that nnU-Net preprocessed.

    Raises:
        DataError: Some of the scans are not among them.
        ConfigError: They were not preprocessed as these scans would be here.
    """
    require_safe_reading()
    there = NnunetFolder.of(folder, start.plans, start.configuration)
    if lacking := there.lacking(shots):
        raise DataError(
            f"--preprocessed {folder}: {counted(len(lacking), 'scan')} are not in {there.folder.name} "
            f"({listed(lacking)}). Preprocess them with nnU-Net, or leave them out (--exclude)."
        )
    if len(stored := stored_axes(shots)) > 1:
        raise ConfigError(
            f"--preprocessed {folder}: nnU-Net turns no scans, and these are stored as {', '.join(stored)}. "
            "Leave --preprocessed out."
        )
    if data.labels.names != data.labels.consecutive.names:
        raise ConfigError(
            f"--preprocessed {folder}: the values of the labels have gaps, which nnU-Net refuses. "
            "Leave --preprocessed out."
        )
    return there.digest(shots)


def _training(settings: PretrainSettings, names: list[str]) -> tuple[str, ...]:
    """The scans that train, so far as names alone can say; none where the check will refuse."""
    if not names or len(set(names)) < len(names):
        return ()
    return draw_shots(names, len(names) - settings.count_held_out(len(names))).shots


def _axes(cases: list[Case]) -> str | None:
    """The axis code to which scans are turned; None where a header cannot be read, of which the check tells."""
    try:
        stored = stored_axes(cases)
    except LnSegFmError:
        return None
    return commonest_axes(stored) if stored else None


def _ct_channel(settings: PretrainSettings, data: Dataset) -> int | None:
    """The first channel that will be normalised as CT, if one will."""
    if settings.plans is None:
        return next((number for number, name in enumerate(data.channels) if name.casefold() == "ct"), None)
    try:
        return ct_channel(*read_plans(settings.plans))
    except LnSegFmError:
        return None  # that the plans cannot be used is said after the check


def _start(
    settings: PretrainSettings, data: Dataset, cases: list[Case], work: Path, read: Readings, progress: Progress
) -> Checkpoint:
    stored = stored_axes(cases)
    axes = commonest_axes(stored)
    if turned := turned_words(stored, axes):
        progress.stage(f"Orientation {axes}, the commonest of the scans: {turned}")
    if settings.plans is not None:
        plans, configuration = given_plans(
            settings.plans, dataset_name(data), patch_size=settings.patch_size, batch_size=settings.batch_size
        )
    else:
        plans, configuration = _plans_of_preset(settings, data, cases, axes, work, read, progress), CONFIGURATION
    description = dataset_json(data, len(cases))
    plans = with_axes(plans, axes, data.file_ending)
    mirroring = settle_mirroring(settings.mirror, MIRRORED, plans, data.labels.outputs)
    if mirroring.words:
        progress.stage(mirroring.words)
    start = Checkpoint({}, configuration, mirroring.in_plans(plans), description, STOCK_TRAINER, mirroring.axes)
    seed_everything(settings.seed)
    network = build_network(start, deep_supervision=True)
    weights = {key: tensor.detach() for key, tensor in network.state_dict().items()}
    return replace(start, weights=weights)


def _plans_of_preset(
    settings: PretrainSettings,
    data: Dataset,
    cases: list[Case],
    axes: str,
    work: Path,
    read: Readings,
    progress: Progress,
) -> dict[str, Any]:
    architecture = find_architecture(settings.architecture)
    plans = plans_for_preset(
        settings.preset,
        architecture,
        data,
        cases,
        work,
        gpu_memory_gb=settings.gpu_memory_gb,
        checkpointing=settings.checkpointing,
        progress=progress,
        axes=axes,
        found=fingerprint_of([read.fingerprints[case.name] for case in cases]),
    )
    configuration = plans["configurations"][CONFIGURATION]
    patch_size = settings.patch_size
    if patch_size is not None and settings.preset in (DEFAULT, RELEASE):
        set_patch(configuration, architecture, in_plan_order(plans, patch_size), checkpointing=settings.checkpointing)
        patch_size = None
    set_sizes(plans, configuration, patch_size, settings.batch_size)
    return plans

"""Models of nnU-Net version 1: ``fold_X/model_final_checkpoint.model``, with their plans as JSON.

The weights are read as any other; the plans lie in a pickle beside them, which is not opened. STU-Net's published
models are of this form, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from lnsegfm.datasets.nnunet_layout import channel_names
from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.models.importing.forms.bare_weights import require_labels, unnamed_outputs
from lnsegfm.models.importing.import_options import ImportOptions
from lnsegfm.models.importing.model_source import ModelSource, SourceKind
from lnsegfm.models.importing.recognised import FoldAsRead, NotThisForm, RecognisedFold, RecognisedModel
from lnsegfm.models.importing.stu_plans import stu_architecture
from lnsegfm.models.importing.synthesise_plans import input_channels
from lnsegfm.models.importing.validate_plans import as_plain_json, read_table, synthesise_dataset_json
from lnsegfm.models.importing.version_1_plans import (
    HOW,
    channels_of,
    converted_plans,
    finest_strides,
    is_version_1_plans,
)
from lnsegfm.models.importing.version_1_weights import Converted, convert_version_1, is_version_1
from lnsegfm.networks.stu_net import is_stu_net
from lnsegfm.nnunet.lookup import STOCK_TRAINER
from lnsegfm.nnunet.plan_axes import RAS
from lnsegfm.weights.checkpoint import Checkpoint, load_safely
from lnsegfm.weights.state_dict_names import state_dict_in

TAKES = frozenset({"plans", "dataset_json", "labels", "channels", "configuration", "folds"})
FILES = ("model_final_checkpoint.model", "model_best.model", "model_latest.model")
PICKLE = "model_final_checkpoint.model.pkl"
PLANS = ("plans.json",)
STOCK = "nnUNetTrainerV2"
SAME_NETWORK = r"(?i)(nnUNetTrainerV2|STUNetTrainer)(_(small|base|large|huge|ft|ep\d+|nomirror\w*|fp16|da\d\w*))*"
"""Trainers whose networks are those that are built here: they differ in schedule, augmentation and size."""
NO_MIRRORING = "nomirror"
RESAMPLING = (
    "Version 1 normalises after it resamples, nnU-Net 2 before: on scans of another spacing than the model's, voxels "
    "at the edges of structures may differ from version 1's."
)


@dataclass(frozen=True)
class _Stated:
    """What is stated of a model besides its weights."""

    plans: Mapping[str, Any]
    file: Path
    options: ImportOptions
    path: Path


def read(source: ModelSource, options: ImportOptions) -> RecognisedModel:
    """Recognise a model of version 1, one fold or a folder of them.

    Raises:
        NotThisForm: Its weights are not of version 1's networks.
        ConfigError: Its plans are not there as JSON, or nothing names its outputs.
        ModelError: Its plans are not version 1's, or its network is one that version 2 does not have.
    """
    folds = _folds(source, options)
    first = next(iter(folds.values()))
    weights = _weights(first, source)
    if weights is None or not (is_version_1(weights) or is_stu_net(weights)):
        raise NotThisForm
    file = options.plans or source.beside(*PLANS) or _in_folder(source)
    if file is not None and file.suffix == ".pkl":
        raise ConfigError(f"--plans {file}: a pickle is a program, and is not opened here. {HOW}.")
    plans: Any = read_table(file) if file is not None else {}
    if file is None or not is_version_1_plans(plans):
        if is_stu_net(weights):
            raise NotThisForm  # under plans of version 2, or none
        raise ConfigError(
            f"{source.path}: weights of nnU-Net version 1, and its plans lie in a pickle ({PICKLE}), which is a "
            f"program and is not opened here. {HOW}; give that file with --plans."
        )
    stated = _Stated(plans, file, options, source.path)
    read_fold = {name: partial(_fold, place, source, stated) for name, place in folds.items()}
    return RecognisedModel(
        form="nnU-Net version 1 model",
        folds=tuple(RecognisedFold(name, place, read_fold[name]) for name, place in folds.items()),
        files=(file, *((options.dataset_json,) if options.dataset_json is not None else ())),
        notes=_notes(plans.get("trainer")),
        axes=RAS if "TotalSegmentator" in str(source.path.resolve()) else None,
    )


def _notes(trainer: Any) -> tuple[str, ...]:
    """What is to be said of a model that such a trainer, or one that nobody names, has trained."""
    if not isinstance(trainer, str) or not trainer:
        return RESAMPLING, (
            f"Nothing names its trainer: it was taken as {STOCK}, whose network has leaky ReLUs and whose prediction "
            "mirrors along all axes."
        )
    mirrors = "does not mirror" if _mirrors_nothing(trainer) else "mirrors along all axes"
    notes = RESAMPLING, f"Its trainer was {trainer}: prediction {mirrors}."
    if re.fullmatch(SAME_NETWORK, trainer):
        return notes
    return (
        *notes,
        f"{trainer} may have built a network with other activations, which leave no mark in weights: {STOCK}'s were "
        "taken. Compare a mask with one of version 1.",
    )


def _mirrors_nothing(trainer: Any) -> bool:
    return isinstance(trainer, str) and NO_MIRRORING in trainer.lower()


def _folds(source: ModelSource, options: ImportOptions) -> dict[str, Path]:
    """The file of each fold by its name; of a file itself, that one as fold 0."""
    if source.kind in (SourceKind.CHECKPOINT, SourceKind.TENSORS):
        if options.folds:
            raise NotThisForm
        return {"0": source.place}
    found: dict[Path, dict[str, Path]] = {}
    for name in reversed(FILES):
        for file in sorted(source.place.rglob(name)):
            fold = re.fullmatch(r"fold_(\d+)|all", file.parent.name)
            if fold is not None:
                found.setdefault(file.parent.parent, {})[fold[1] or "all"] = file
    if not found:
        raise NotThisForm
    if len(found) > 1:
        listed = ", ".join(str(folder.relative_to(source.place)) for folder in found)
        raise ConfigError(f"{source.path}: it holds {len(found)} models: {listed}. Give one of them.")
    there = next(iter(found.values()))
    chosen = options.folds or tuple(name for name in sorted(there) if name != "all") or ("all",)
    if missing := [name for name in chosen if name not in there]:
        raise ConfigError(f"--fold {' '.join(missing)}: {source.path} has no such fold. It has: {', '.join(there)}.")
    return {name: there[name] for name in dict.fromkeys(chosen)}


def _in_folder(source: ModelSource) -> Path | None:
    if source.kind is not SourceKind.FOLDER:
        return None
    return next((file for file in sorted(source.place.rglob(PLANS[0]))), None)


def _weights(file: Path, source: ModelSource) -> Mapping[str, Tensor] | None:
    return state_dict_in(source.content if file == source.place else load_safely(file))


def _fold(file: Path, source: ModelSource, stated: _Stated) -> FoldAsRead:
    weights = _weights(file, source)
    if weights is None:
        raise ModelError(f"{file}: it holds no state dict, a table of names and tensors. Copy the file again.")
    try:
        network, strides = _network(weights, stated.plans)
    except ModelError as error:
        raise ModelError(f"{file}: {error}." if not str(error).endswith(".") else f"{file}: {error}") from None
    channels, description = _described(stated, weights)
    plans, configuration = converted_plans(
        stated.plans, network.architecture, strides, channels, stated.options.configuration, stated.file
    )
    planar = len(plans["configurations"][configuration]["patch_size"]) == 2
    axes = None if _mirrors_nothing(stated.plans.get("trainer")) else (0, 1) if planar else (0, 1, 2)
    return FoldAsRead(Checkpoint(network.weights, configuration, plans, description, STOCK_TRAINER, axes))


def _network(weights: Mapping[str, Tensor], plans: Mapping[str, Any]) -> tuple[Converted, list[list[int]]]:
    """The network that weights become, and the strides that they tell."""
    if is_version_1(weights):
        converted = convert_version_1(weights)
        return converted, [list(each) for each in converted.architecture["arch_kwargs"]["strides"][1:]]
    return Converted(dict(weights), stu_architecture(weights, [[1, 1, 1], *finest_strides(plans)])), []


def _described(stated: _Stated, weights: Mapping[str, Tensor]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Channels and ``dataset.json``, as the user, a file or the plans say them."""
    options = stated.options
    number = int(next(t for name, t in weights.items() if name.startswith("conv_blocks_context.0.")).shape[1])
    if options.dataset_json is not None:
        if options.labels is not None:
            raise ConfigError("--label and --dataset-json: both say what the outputs are. Give one of them.")
        table = as_plain_json(read_table(options.dataset_json), str(options.dataset_json))
        table["labels"] = _by_name(table.get("labels"))
        return channel_names(table), table
    if options.labels is None:
        raise ConfigError(unnamed_outputs(stated.path, weights))
    require_labels(options.labels, stated.path, weights)
    named = options.channels or channels_of(stated.plans)
    channels = named if len(named) == number else input_channels(options, number, "CT", str(stated.path))
    return channels, synthesise_dataset_json(channels, options.labels)


def _by_name(labels: Any) -> Any:
    """Labels as version 2 has them, by name: version 1 has them by value."""
    if isinstance(labels, Mapping) and labels and all(str(key).isdigit() for key in labels):
        return {str(name): int(value) for value, name in labels.items()}
    return labels

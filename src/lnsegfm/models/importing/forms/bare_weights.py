"""Weights on their own: a state dict, or a checkpoint without plans. The plans are another file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.models.importing.import_options import ImportOptions
from lnsegfm.models.importing.model_source import ModelSource, SourceKind
from lnsegfm.models.importing.recognised import FoldAsRead, NotThisForm, RecognisedFold, RecognisedModel
from lnsegfm.models.importing.validate_plans import MALFORMED, read_table, synthesise_dataset_json
from lnsegfm.models.plans import CONFIGURATION
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.lookup import STOCK_TRAINER
from lnsegfm.nnunet.plan_configuration import not_for_volumes, resolve_configuration
from lnsegfm.weights.checkpoint import Checkpoint
from lnsegfm.weights.state_dict_names import outputs, state_dict_in

TAKES = frozenset({"plans", "dataset_json", "labels", "channels", "configuration", "patch_size"})
PLANS = ("plans.json", "nnUNetPlans.json")


def read(source: ModelSource, options: ImportOptions) -> RecognisedModel:
    """Recognise weights whose plans are given, or lie next to them.

    Raises:
        NotThis: It holds no state dict, or there are no plans.
        ConfigError: Nothing says what the outputs are, or which configuration is meant.
        ModelError: Plans or dataset.json are not JSON.
    """
    weights = weights_of(source, "it holds no state dict: a table of names and tensors")
    content = source.content
    file = options.plans or source.beside(*PLANS)
    if file is None:
        heads = outputs(weights)
        of = f" and {heads} outputs" if heads else ""
        raise NotThisForm(f"{len(weights)} tensors{of}, but no plans: give --plans FILE, an nnUNetPlans.json")
    facts = content if isinstance(content, Mapping) else {}
    arguments = facts.get("init_args")
    arguments = arguments if isinstance(arguments, Mapping) else {}
    plans = read_table(file)
    configuration = _configuration(plans, options, arguments.get("configuration"), file, weights)
    description, used = _description(source, options, arguments, weights, plans, configuration)
    trainer, axes = facts.get("trainer_name"), facts.get("inference_allowed_mirroring_axes")
    notes = [] if options.plans else [f"Its plans are those of {file.name} beside it."]
    if not isinstance(axes, (tuple, list)):
        axes = (0, 1, 2)
        notes.append("It does not say along which axes prediction may mirror: all three were taken.")
    checkpoint = Checkpoint(
        weights=weights,
        configuration=configuration,
        plans=plans,
        dataset_json=description,
        trainer_name=trainer if isinstance(trainer, str) else STOCK_TRAINER,
        mirroring_axes=tuple(axes),
    )
    fold = RecognisedFold("0", source.place, lambda: FoldAsRead(checkpoint))
    return RecognisedModel(form="state dict with a plans file", folds=(fold,), files=(file, *used), notes=tuple(notes))


def _configuration(plans: Any, options: ImportOptions, inside: Any, file: Path, weights: Mapping[str, Tensor]) -> str:
    """The chosen configuration, else the checkpoint's own, else the plans' only one of the weights' dimensions."""
    try:
        names = [str(name) for name in plans["configurations"]]
        if options.configuration or (isinstance(inside, str) and inside in names):
            return options.configuration or str(inside)
        with nnunet_environment():
            settings = {name: resolve_configuration(plans, name) for name in names}
        planar = max((tensor.ndim for tensor in weights.values()), default=0) == 4  # kernels are (out, in, y, x)
        fit = [
            name
            for name, each in settings.items()
            if (len(each["patch_size"]) == 2 if planar else not_for_volumes(each) is None)
        ]
    except MALFORMED as error:
        raise ModelError(f"{file}: not nnU-Net plans ({error!r}). Give an nnUNetPlans.json.") from None
    if not fit:
        kind = "slices" if planar else "volumes on its own"
        raise ModelError(
            f"{file}: none of its configurations ({', '.join(names)}) is for {kind}, as these weights are. "
            "Choose with --configuration, or give the plans they came with."
        )
    if len(fit) > 1 and CONFIGURATION not in fit:
        raise ConfigError(f"{file}: it has the configurations {', '.join(fit)}. Choose with --configuration.")
    return CONFIGURATION if CONFIGURATION in fit else fit[0]


def _description(
    source: ModelSource,
    options: ImportOptions,
    arguments: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    plans: Any,
    configuration: str,
) -> tuple[Any, tuple[Path, ...]]:
    """What its channels and outputs are: as the user or the checkpoint says, or as a dataset.json beside it does."""
    if options.labels is not None:
        if options.dataset_json is not None:
            raise ConfigError("--label and --dataset-json: both say what the outputs are. Give one of them.")
        require_labels(options.labels, source.path, weights)
        return synthesise_dataset_json(options.channels or _likely_channels(plans, configuration), options.labels), ()
    file = options.dataset_json
    if file is None and isinstance(arguments.get("dataset_json"), Mapping):
        return dict(arguments["dataset_json"]), ()
    file = file or source.beside("dataset.json")
    if file is not None:
        if options.channels:
            raise ConfigError("--channel: dataset.json names the channels. Leave it out, or name the labels too.")
        return read_table(file), (file,)
    raise ConfigError(unnamed_outputs(source.path, weights))


def unnamed_outputs(path: Path, weights: Mapping[str, Tensor], *, by_label_alone: bool = False) -> str:
    """One line that says how many outputs weights have and how to name them.

    Args:
        path: What is imported.
        weights: Its state dict.
        by_label_alone: The form takes no ``dataset.json``.
    """
    heads = outputs(weights)
    number = f"{heads} outputs, background included" if heads else "outputs"
    each = f"each of the {heads - 1} labels" if heads else "each label"
    return (
        f"{path}: its weights have {number}, and nothing names them. "
        f"Give {'' if by_label_alone else '--dataset-json FILE, or '}--label NAME=VALUE for {each}."
    )


def require_labels(labels: LabelMap, path: Path, weights: Mapping[str, Tensor]) -> None:
    """Refuse labels of another number than the weights' outputs.

    Raises:
        ConfigError: With both numbers.
    """
    heads = outputs(weights)
    if heads is not None and heads != len(labels.names) + 1:
        raise ConfigError(
            f"{path}: its weights have {heads} outputs, background included, but --label names {len(labels.names)}. "
            f"Name {heads - 1}."
        )


def _likely_channels(plans: Any, configuration: str) -> tuple[str, ...]:
    try:
        with nnunet_environment():
            schemes = resolve_configuration(plans, configuration)["normalization_schemes"]
    except MALFORMED as error:
        raise ModelError(f"Plans: not nnU-Net's ({error!r}). Give an nnUNetPlans.json.") from None
    return tuple("CT" if scheme == "CTNormalization" else f"image_{i}" for i, scheme in enumerate(schemes))


def weights_of(source: ModelSource, reason: str = "") -> Mapping[str, Tensor]:
    """The state dict that a file of weights is or holds, with plain names (`state_dict_in`).

    Args:
        source: What a user gave.
        reason: Why it is none, where a file of weights holds no state dict.

    Raises:
        NotThisForm: It is no file of weights, or holds none.
    """
    if source.kind not in (SourceKind.CHECKPOINT, SourceKind.TENSORS):
        raise NotThisForm
    weights = state_dict_in(source.content)
    if weights is None:
        raise NotThisForm(reason)
    return weights

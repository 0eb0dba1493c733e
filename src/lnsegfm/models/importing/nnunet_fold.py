"""The checkpoint that a fold's file holds, under the plans of its folder, in whichever container its weights came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lnsegfm.datasets.nnunet_layout import plain_description
from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.models.importing.recognised import FoldAsRead
from lnsegfm.models.model_layout import FolderName
from lnsegfm.nnunet.lookup import STOCK_TRAINER
from lnsegfm.nnunet.plan_configuration import patch_dimensions
from lnsegfm.weights.checkpoint import Checkpoint, checkpoint_of
from lnsegfm.weights.state_dict_names import VERSION_1, state_dict_in

__all__ = ["FoldAsRead", "fold_of", "is_nnunets"]

MIRRORING = "inference_allowed_mirroring_axes"
ALL_AXES = "It does not say along which axes prediction may mirror: all of them were taken."


def fold_of(
    content: Any,
    file: Path,
    plans: Mapping[str, Any],
    dataset_json: Mapping[str, Any],
    configuration: str | None = None,
) -> FoldAsRead:
    """The checkpoint that a fold's file holds, under the plans of its folder, its names as they are.

    Args:
        content: What `load_safely` read.
        file: The file, for the messages and for what the folders' names say.
        plans: The folder's.
        dataset_json: The folder's.
        configuration: The one that is asked for.

    Raises:
        ModelError: It holds no weights.
        ConfigError: It is of another configuration, or nothing says of which it is.
    """
    notes: tuple[str, ...] = ()
    facts = content if isinstance(content, Mapping) else {}
    if is_nnunets(content):
        read = checkpoint_of(content, file)
    elif (weights := state_dict_in(content)) is None and "init_args" in facts:
        read = checkpoint_of(content, file)  # says what is wrong with it
    else:
        read, notes = _bare(facts, weights, file, plans, configuration)
    if configuration not in (None, read.configuration):
        raise ConfigError(
            f"--configuration {configuration}: {file} is of {read.configuration}. Leave it out, or give the folder of "
            f"{configuration}."
        )
    described = described_plainly(replace(read, plans=plans, dataset_json=dataset_json))
    return FoldAsRead(described.checkpoint, (*notes, *described.notes))


def described_plainly(fold: Checkpoint) -> FoldAsRead:
    """A fold with its description in nnU-Net's own form, and no mirroring along axes that its patch has not."""
    fold = replace(fold, dataset_json=plain_description(fold.dataset_json))
    axes, within = fold.mirroring_axes, patch_dimensions(fold.plans, fold.configuration)
    if axes is None or within != 2 or not set(axes) <= {0, 1, 2} or max(axes, default=0) < within:
        return FoldAsRead(fold)
    kept = tuple(axis for axis in axes if axis < within)
    note = f"It would mirror along the axes {axes} of slices, which have two: {kept} are taken."
    return FoldAsRead(replace(fold, mirroring_axes=kept), (note,))


def is_nnunets(content: Any) -> bool:
    """Whether a file's content is a checkpoint with nnU-Net's description of itself."""
    if not isinstance(content, Mapping) or not {"network_weights", "init_args", "trainer_name"} <= content.keys():
        return False
    weights = content["network_weights"]
    return isinstance(weights, Mapping) and all(isinstance(tensor, Tensor) for tensor in weights.values())


def _bare(
    facts: Mapping[str, Any],
    weights: Mapping[str, Tensor] | None,
    file: Path,
    plans: Mapping[str, Any],
    configuration: str | None,
) -> FoldAsRead:
    """Weights that come without nnU-Net's description of them: the folder's name says what the file does not."""
    if weights is None:
        raise ModelError(
            f"{file}: it holds no state dict, a table of names and tensors, in none of its entries "
            f"({', '.join(map(str, list(facts)[:8])) or 'it has none'}). Copy the file again."
        )
    if any(name.startswith(VERSION_1) for name in weights):
        raise ModelError(
            f"{file}: its weights are those of nnU-Net version 1. Import it first, with its plans as JSON (lnsegfm "
            "models import; docs/models.md, nnU-Net version 1)."
        )
    folder = FolderName.of(file.parent.parent)
    if not isinstance(plans, Mapping) or not isinstance(plans.get("configurations"), Mapping):
        raise ModelError(f"{file}: plans.json beside it is not nnU-Net's. Copy the folder again.")
    names = list(plans["configurations"])
    arguments = facts.get("init_args")
    inside = arguments.get("configuration") if isinstance(arguments, Mapping) else None
    stated = (str(inside) if inside else None) or (folder.configuration if folder is not None else configuration)
    if stated is None and len(names) != 1:
        raise ConfigError(
            f"{file}: it does not say which configuration it is of. Choose with --configuration: {', '.join(names)}."
        )
    trainer = facts.get("trainer_name") or (folder.trainer if folder is not None else STOCK_TRAINER)
    axes, said = facts.get(MIRRORING), MIRRORING in facts
    chosen = stated or names[0]
    every = range(patch_dimensions(plans, chosen) or 3)
    checkpoint = Checkpoint(
        weights=weights,
        configuration=chosen,
        plans=plans,
        dataset_json={},
        trainer_name=str(trainer),
        mirroring_axes=(None if axes is None else tuple(axes)) if said else tuple(every),
    )
    return FoldAsRead(checkpoint, () if said else (ALL_AXES,))

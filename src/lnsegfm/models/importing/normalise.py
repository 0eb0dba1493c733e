"""A fold as it was read becomes one that stock nnU-Net predicts with: checked, fitted, its trainer one that exists."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.models.importing.match_weights import DoesNotFit, empty_network, match_weights
from lnsegfm.models.importing.stu_plans import with_stu_plans
from lnsegfm.models.importing.swin_plans import with_swin_plans
from lnsegfm.models.importing.validate_plans import MALFORMED, as_plain_json, require_usable
from lnsegfm.networks.architectures import SWIN
from lnsegfm.networks.stu_net import is_stu_net
from lnsegfm.nnunet.lookup import STOCK_TRAINER, knows_trainer
from lnsegfm.nnunet.plan_configuration import network_class, patch_dimensions
from lnsegfm.weights.checkpoint import Checkpoint
from lnsegfm.weights.state_dict_names import is_swin


def normalise_fold(
    read: Checkpoint,
    where: Path,
    covers: tuple[str, ...] = (),
    patch_size: tuple[int, int, int] | None = None,
) -> tuple[Checkpoint, tuple[str, ...]]:
    """Check a fold and make it fit its network to the last tensor.

    Args:
        read: As its form read it.
        where: Its file, for the messages.
        covers: First parts of the names of the weights of an encoder; empty for a whole model.
        patch_size: Voxels (z, y, x) of the patches that it is applied to; None for those of its plans.

    Returns:
        The fold, and what had to be done, one line each.

    Raises:
        ModelError: It cannot be used, or its weights are not its network's; the first differences are named.
        ConfigError: A patch that the network cannot take.
    """
    plans, description = (
        as_plain_json(read.plans, f"{where}: plans"),
        as_plain_json(read.dataset_json, f"{where}: dataset.json"),
    )
    fold = replace(read, plans=plans, dataset_json=description)
    if read.mirroring_axes is not None and not set(read.mirroring_axes) <= {0, 1, 2}:
        raise ModelError(f"{where}: its mirroring axes {read.mirroring_axes} are none of a volume. Copy it again.")
    notes: list[str] = []
    swin = is_swin(fold.weights, whole=not covers)
    if swin:
        fold, notes = with_swin_plans(fold, where)
    elif is_stu_net(fold.weights) and not covers:
        fold, notes = with_stu_plans(fold, where)
    if patch_size is not None:
        fold = with_patch(fold, patch_size, where)
    fold = replace(
        fold, plans=as_plain_json(fold.plans, f"{where}: plans")
    )  # pickled lists may be one object in several places
    require_usable(fold.plans, fold.configuration, fold.dataset_json, str(where), encoder=bool(covers))
    if not swin and network_class(fold.plans, fold.configuration) == SWIN:
        raise ModelError(
            f"{where}: its plans are for a SwinUNETR, and its weights are not. Give the plans it came with."
        )
    fold, said = _in_its_network(fold, where, covers, computes=swin)
    return fold, (*notes, *said)


def _in_its_network(
    fold: Checkpoint, where: Path, covers: tuple[str, ...], *, computes: bool
) -> tuple[Checkpoint, tuple[str, ...]]:
    """The weights as the network's own, under a trainer that nnU-Net has."""
    known = knows_trainer(fold.trainer_name)
    ours = fold if known else replace(fold, trainer_name=STOCK_TRAINER)
    try:
        weights, said = match_weights(fold.weights, empty_network(ours, computes=computes), covers)
    except DoesNotFit as error:
        if known:
            raise ModelError(
                f"{where}: its weights do not fit its plans, {error}. Give the plans it came with."
            ) from None
        raise ModelError(
            f"{where}: its trainer {fold.trainer_name} is none of nnU-Net's, and nnU-Net's own builds another network "
            f"from these plans, {error}. Ask who trained it for plans that describe the network, or use its "
            "folder in place with that of the trainer named in nnUNet_extTrainer."
        ) from None
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None
    if not known:
        said = (
            f"Its trainer {fold.trainer_name} is none of nnU-Net's; the network is the one that nnU-Net's own trainer "
            f"builds, so {STOCK_TRAINER} stands in its place and stock tools predict.",
            *said,
        )
    return replace(ours, weights=weights), said


def with_patch(fold: Checkpoint, patch_size: tuple[int, int, int], where: Path) -> Checkpoint:
    """The fold with another patch in its plans.

    Raises:
        ConfigError: Its patches are slices.
        ModelError: Its plans are not nnU-Net's.
    """
    if patch_dimensions(fold.plans, fold.configuration) == 2:
        raise ConfigError(f"--patch-size: {where} is of {fold.configuration}, whose patches are slices. Leave it out.")
    plans = copy.deepcopy(dict(fold.plans))
    try:
        axes = plans.get("transpose_forward") or (0, 1, 2)
        plans["configurations"][fold.configuration]["patch_size"] = [patch_size[axis] for axis in axes]
    except MALFORMED as error:
        raise ModelError(f"{where}: not nnU-Net plans ({error!r}). Copy the file again.") from None
    return replace(fold, plans=plans)

"""A fold of a model folder: whatever its file holds becomes a checkpoint that fits the folder's plans, or says why not.

nnU-Net's own checkpoints are taken as they are. Wrapped names, other containers and trainers that nnU-Net lacks go
through the checks of an import (`lnsegfm.models.importing.normalise`), so that both read the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lnsegfm.models.importing.match_weights import empty_network
from lnsegfm.models.importing.nnunet_fold import FoldAsRead, fold_of, is_nnunets
from lnsegfm.models.importing.normalise import normalise_fold
from lnsegfm.models.importing.stu_plans import DESCRIBED
from lnsegfm.networks.architectures import SWIN
from lnsegfm.networks.spatial_adapter import adapted_class
from lnsegfm.networks.stu_net import is_stu_net
from lnsegfm.nnunet.lookup import finds_trainer
from lnsegfm.nnunet.plan_configuration import network_class
from lnsegfm.weights.checkpoint import load_safely
from lnsegfm.weights.state_dict_names import is_swin, plain_names

__all__ = ["FoldAsRead", "read_fold"]


def read_fold(
    file: Path,
    plans: Mapping[str, Any],
    dataset_json: Mapping[str, Any],
    *,
    configuration: str | None = None,
    covers: tuple[str, ...] = (),
) -> FoldAsRead:
    """Read a fold and make it fit its network.

    Args:
        file: Its file, in ``fold_X`` of a model's folder.
        plans: The folder's: as in nnU-Net these count, and not those inside a checkpoint.
        dataset_json: The folder's.
        configuration: The one that is asked for; None where its file or folder says it.
        covers: First parts of the names of the weights of an encoder; empty for a whole model.

    Raises:
        UnsafeFile: Reading it would execute something.
        ModelError: It holds no weights, or weights that are not its network's.
        ConfigError: It is of another configuration, or nothing says of which it is.
    """
    content = load_safely(file)
    read, notes = fold_of(content, file, plans, dataset_json, configuration)
    if read.configuration not in plans["configurations"]:
        return FoldAsRead(read, notes)
    plain = plain_names(read.weights)
    wrapped = list(plain) != list(read.weights)
    single = all(tensor.dtype is torch.float32 for tensor in plain.values() if tensor.is_floating_point())
    own = is_nnunets(content) and single and finds_trainer(read.trainer_name)
    by_trainer = _built_in_code(plain, plans, read.configuration)
    if own and not wrapped and not by_trainer:
        return FoldAsRead(read, notes)
    if own and not by_trainer and set(empty_network(read, computes=is_swin(plain)).state_dict()) == set(read.weights):
        return FoldAsRead(read, notes)  # a network that has such names itself
    fitted, said = normalise_fold(replace(read, weights=plain), file, covers)
    if wrapped:
        first, now = (next(iter(names)) for names in (read.weights, plain))
        said = (f"Its weights' names have prefixes of training frameworks: {first} is {now}.", *said)
    return FoldAsRead(fitted, (*notes, *said))


def _built_in_code(weights: Mapping[str, Any], plans: Mapping[str, Any], configuration: str) -> bool:
    """Whether weights are of a network that its trainer built in code, so that its plans name another."""
    if is_stu_net(weights):
        return network_class(plans, configuration) not in DESCRIBED
    return is_swin(weights) and network_class(plans, configuration) not in (SWIN, adapted_class(SWIN))

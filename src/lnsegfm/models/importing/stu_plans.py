"""The STU-Net that weights are of, put into plans that name another network.

Its trainers build it in code and leave a U-Net in the plans, of which they take the strides: the first stages', as many
as the network has, with strides of 1 where the plans have fewer.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lnsegfm.errors import LnSegFmError, ModelError
from lnsegfm.models.importing.validate_plans import MALFORMED
from lnsegfm.networks.architectures import STU_NET
from lnsegfm.networks.spatial_adapter import adapted_class
from lnsegfm.networks.stu_net import arguments_of
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.lookup import STOCK_TRAINER
from lnsegfm.nnunet.plan_configuration import resolve_configuration
from lnsegfm.weights.checkpoint import Checkpoint

DESCRIBED = (STU_NET, adapted_class(STU_NET))
"""Networks that plans may name for such weights; else a trainer built it in code."""


def with_stu_plans(fold: Checkpoint, where: Path) -> tuple[Checkpoint, list[str]]:
    """The fold with the STU-Net in its plans that its weights are of, where they name another network.

    Args:
        fold: Weights of a STU-Net.
        where: Its file, for the messages.

    Returns:
        The fold, and what was changed, one line each.

    Raises:
        ModelError: The weights are not complete, or the plans not nnU-Net's.
    """
    plans = copy.deepcopy(dict(fold.plans))
    try:
        with nnunet_environment():
            named = dict(resolve_configuration(plans, fold.configuration)["architecture"])
        if named["network_class_name"] in DESCRIBED:
            return fold, []
        planned = named["arch_kwargs"]["strides"]
        architecture = stu_architecture(fold.weights, planned)
        plans["configurations"][fold.configuration]["architecture"] = architecture
    except MALFORMED as error:
        if isinstance(error, LnSegFmError):
            raise ModelError(f"{where}: {error}") from None
        raise ModelError(f"{where}: not nnU-Net plans ({error!r}). Copy the file again.") from None
    notes = ["Its plans name another network, but its weights are a STU-Net's: the plans now say so."]
    stages = len(architecture["arch_kwargs"]["strides"])
    if stages != len(planned):
        notes.append(
            f"Its plans have {len(planned)} stages and its weights {stages}: the strides are those that STU-Net's "
            "trainers take then."
        )
    return replace(fold, plans=plans, trainer_name=STOCK_TRAINER), notes


def stu_architecture(weights: Mapping[str, Tensor], planned: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The plans' entry of the STU-Net that weights are of.

    Args:
        weights: Its state dict.
        planned: Strides of the U-Net that the plans name, the first of which is 1.

    Raises:
        ModelError: The weights are not complete, or of a network for images.
    """
    found = arguments_of(weights)
    arguments = {key: value for key, value in found.items() if key not in ("input_channels", "num_classes")}
    below = len(arguments["features_per_stage"]) - 1
    strides = [[int(n) for n in stride] for stride in list(planned)[1 : below + 1]]
    strides += [[1, 1, 1]] * (below - len(strides))
    arguments["strides"] = [[1, 1, 1], *strides]
    return {"network_class_name": STU_NET, "arch_kwargs": arguments, "_kw_requires_import": []}

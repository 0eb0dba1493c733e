"""Networks built from nnU-Net plans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from lnsegfm.errors import ModelError
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.lookup import STOCK_TRAINER, trainer_class
from lnsegfm.weights.checkpoint import Checkpoint


def build_network(checkpoint: Checkpoint, *, deep_supervision: bool) -> nn.Module:
    """Build the network of a checkpoint's plans, freshly initialised, on the CPU.

    Raises:
        ModelError: Its trainer or its architecture cannot be found.
    """
    with nnunet_environment():
        from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        plans = PlansManager(dict(checkpoint.plans))
        configuration = plans.get_configuration(checkpoint.configuration)
        dataset_json = dict(checkpoint.dataset_json)
        build = _builder(checkpoint.trainer_name)
        try:
            return build(
                plans,
                configuration,
                determine_num_input_channels(plans, configuration, dataset_json),
                plans.get_label_manager(dataset_json).num_segmentation_heads,
                deep_supervision,
            )
        except Exception as error:  # the plans may ask for anything
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ModelError(
                f"Architecture {configuration.network_arch_class_name}: it cannot be built ({reason}). "
                "Use the plans.json that the model was trained with."
            ) from None


def _builder(trainer: str) -> Callable[[Any, Any, int, int, bool], nn.Module]:
    """What builds a trainer's network; the stock trainer needs the plans alone, without nnU-Net's training code."""
    if trainer != STOCK_TRAINER:
        build: Callable[[Any, Any, int, int, bool], nn.Module] = trainer_class(trainer).build_network_architecture
        return build

    def from_plans(_: Any, configuration: Any, channels: int, heads: int, deep_supervision: bool) -> nn.Module:
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

        network: nn.Module = get_network_from_plans(
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
            channels,
            heads,
            allow_init=True,
            deep_supervision=deep_supervision,
        )
        return network

    return from_plans

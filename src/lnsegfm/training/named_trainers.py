"""The trainers that ``nnUNetv2_train -tr`` knows after ``eval "$(lnsegfm env)"``.

There is one for each method that trains and one for each architecture that names a trainer; `__getattr__` makes its
class when it is first asked for by name. ``DGST``, ``bias``, ``norm``, ``lora``, ``SwinUNETR`` and ``SwinUNETRv2`` are
names of the paper's release (https://github.com/Zihaoluoh/LN-Seg-FM). The zero-shot method trains nothing, so it has no
trainer: predict with the base.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from lnsegfm.errors import ConfigError
from lnsegfm.methods.table import METHODS
from lnsegfm.methods.trainer_names import architecture_trainers, method_trainers
from lnsegfm.networks.architectures import TRAINER_PREFIX, find_architecture, require_patch
from lnsegfm.nnunet.plan_configuration import resolve_configuration
from lnsegfm.training.nnunet_trainer import NamedTrainer


class SwinTrainer(NamedTrainer):
    """Everything of a SwinUNETR, whatever network the plans name, from nothing unless told, for nnU-Net's 1000 epochs.

    Settings are the release's: feature size 48, activation checkpointing, no deep supervision. The patch is the plans'
    (64x128x192 in the release). The plans it leaves name the network, so its models predict under nnU-Net's own trainer
    wherever this package is installed.

    Attributes:
        architecture: Card of the network.
        features: Channels of its first stage.
    """

    name = "full"
    epochs = 1000
    architecture: ClassVar[str]
    features: ClassVar[int] = 48

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net records this very signature
    ) -> None:
        plans = _with_network(plans, configuration, self.network_plan())
        super().__init__(plans, configuration, fold, dataset_json, device)

    @classmethod
    def network_plan(cls) -> dict[str, Any]:
        """The network as plans name it."""
        return find_architecture(cls.architecture).build_plan((cls.features,), (), checkpointing=True)

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: Any,  # noqa: ARG003
        configuration_manager: Any,  # noqa: ARG003
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The network, for checkpoints too that bear this trainer's name beside plans of another network."""
        from lnsegfm.networks.swin_unetr import SwinUNETR

        arguments = cls.network_plan()["arch_kwargs"]
        return SwinUNETR(num_input_channels, num_output_channels, deep_supervision=enable_deep_supervision, **arguments)


def _of_method(method: str) -> type[NamedTrainer]:
    cls = METHODS[method]
    content = {"__module__": __name__, "__doc__": f"Method {method}: {cls.summary}.", "name": method}
    return type(cls.trainer_name(), (NamedTrainer,), content)


def _of_architecture(architecture: str) -> type[NamedTrainer]:
    card = find_architecture(architecture)
    content = {"__module__": __name__, "__doc__": f"{card.name}: {card.summary}.", "architecture": architecture}
    return type(card.trainer_name(), (SwinTrainer,), content)


def __getattr__(name: str) -> type[NamedTrainer]:
    """The trainer of that name.

    Raises:
        AttributeError: There is none.
        PluginError: It is a plugin's, and cannot be used.
    """
    if name.startswith(TRAINER_PREFIX):
        if method := method_trainers().get(name):
            return globals().setdefault(name, _of_method(method))  # a process has one class of a name
        if architecture := architecture_trainers().get(name):
            return globals().setdefault(name, _of_architecture(architecture))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *method_trainers(), *architecture_trainers()})


def _with_network(plans: Mapping[str, Any], name: str, network: Mapping[str, Any]) -> dict[str, Any]:
    """Plans with another network in a configuration.

    Raises:
        ConfigError: The configuration is 2D, or its patch is none that the network takes.
    """
    configuration = resolve_configuration(plans, name)
    if len(configuration["patch_size"]) != 3:
        raise ConfigError(f"Configuration {name}: it is 2D, and a SwinUNETR takes volumes. Use 3d_fullres.")
    require_patch(configuration["patch_size"], network["arch_kwargs"]["strides"])
    configuration["architecture"] = copy.deepcopy(dict(network))
    return {**plans, "configurations": {**plans["configurations"], name: configuration}}

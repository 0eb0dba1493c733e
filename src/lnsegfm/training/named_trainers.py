"""The trainers that ``nnUNetv2_train -tr`` knows after ``eval "$(lnsegfm env)"``, one for each method that trains.

``DGST``, ``bias``, ``norm``, ``lora``, ``SwinUNETR`` and ``SwinUNETRv2`` are names of the paper's release
(https://github.com/Zihaoluoh/LN-Seg-FM). The zero-shot method trains nothing, so it has no trainer: predict with the
base.
"""
# ruff: noqa: N801

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from lnsegfm.errors import ConfigError
from lnsegfm.networks.architectures import find_architecture, require_patch
from lnsegfm.nnunet.plan_configuration import resolved
from lnsegfm.training.nnunet_trainer import NamedTrainer


class nnUNetTrainer_DGST(NamedTrainer):
    """Dynamic gradient sparsification training."""

    name = "dgst"


class nnUNetTrainer_dgst_bounded(NamedTrainer):
    """The same with a bounded step."""

    name = "dgst-bounded"


class nnUNetTrainer_random_dynamic(NamedTrainer):
    """DGST's control: random entries, drawn afresh each step."""

    name = "random-dynamic"


class nnUNetTrainer_gps(NamedTrainer):
    """Gradient-based parameter selection."""

    name = "gps"


class nnUNetTrainer_random_static(NamedTrainer):
    """Its control: random entries, drawn once."""

    name = "random-static"


class nnUNetTrainer_full(NamedTrainer):
    """Everything, from a base or from nothing."""

    name = "full"
    from_nothing = True


class nnUNetTrainer_scratch(NamedTrainer):
    """Everything, from nothing."""

    name = "scratch"
    from_nothing = True


class nnUNetTrainer_l2sp(NamedTrainer):
    """Everything, pulled back to the base."""

    name = "l2-sp"


class nnUNetTrainer_head(NamedTrainer):
    """Head."""

    name = "head"


class nnUNetTrainer_decoder(NamedTrainer):
    """Decoder and head."""

    name = "decoder"


class nnUNetTrainer_bias(NamedTrainer):
    """Biases and head."""

    name = "bias"


class nnUNetTrainer_norm(NamedTrainer):
    """Scale and shift of norms, and head."""

    name = "affine"


class nnUNetTrainer_ssf(NamedTrainer):
    """Scale and shift of features, and head."""

    name = "ssf"


class nnUNetTrainer_lora(NamedTrainer):
    """Low-rank adaptation of kernels, and head."""

    name = "lora"


class nnUNetTrainer_dora(NamedTrainer):
    """Weight-decomposed low-rank adaptation, and head."""

    name = "dora"


class nnUNetTrainer_spatial_adapter(NamedTrainer):
    """A residual module before the head, and head. The plans it leaves name the network with the module in it."""

    name = "spatial-adapter"


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
    from_nothing = True
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


class nnUNetTrainer_SwinUNETR(SwinTrainer):
    """SwinUNETR."""

    architecture = "swinunetr"


class nnUNetTrainer_SwinUNETRv2(SwinTrainer):
    """SwinUNETR with a convolution block before each stage."""

    architecture = "swinunetr-v2"


def _with_network(plans: Mapping[str, Any], name: str, network: Mapping[str, Any]) -> dict[str, Any]:
    """Plans with another network in a configuration.

    Raises:
        ConfigError: The configuration is 2D, or its patch is none that the network takes.
    """
    configuration = resolved(plans, name)
    if len(configuration["patch_size"]) != 3:
        raise ConfigError(f"Configuration {name}: it is 2D, and a SwinUNETR takes volumes. Use 3d_fullres.")
    require_patch(configuration["patch_size"], network["arch_kwargs"]["strides"])
    configuration["architecture"] = copy.deepcopy(dict(network))
    return {**plans, "configurations": {**plans["configurations"], name: configuration}}

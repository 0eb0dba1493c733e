"""nnU-Net trainers that adapt by a method. They enter by `configure_optimizers`; the rest is nnU-Net's.

`MethodTrainer` and the four named trainers run under ``nnUNetv2_train`` (see `lnsegfm env`). Their settings come from
the environment, because nnU-Net's command has no place for them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.optim import Optimizer

from lnsegfm.errors import ConfigError
from lnsegfm.methods.method import Method
from lnsegfm.methods.table import load_method
from lnsegfm.networks.architectures import has_deep_supervision
from lnsegfm.nnunet.model import STOCK_TRAINER
from lnsegfm.weights.checkpoint import load_safely, save


class MethodTrainer(nnUNetTrainer):
    """nnU-Net's trainer with the optimizer of a method."""

    method: Method

    def initialize(self) -> None:
        """Initialise as nnU-Net does, with as many outputs as the network has."""
        self.set_outputs()
        super().initialize()

    def set_outputs(self) -> None:
        """Switch deep supervision off for a network that has one output."""
        if not has_deep_supervision(self.configuration_manager.network_arch_class_name):
            self.enable_deep_supervision = False

    def configure_optimizers(self) -> tuple[Optimizer, PolyLRScheduler]:
        """The method's optimizer under nnU-Net's schedule."""
        optimizer = self.method.optimizer(self.network, lr=self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def save_checkpoint(self, filename: str) -> None:
        """Save as nnU-Net does, under the name of its own trainer: stock nnU-Net then predicts without this package."""
        super().save_checkpoint(filename)
        if self.local_rank == 0 and not self.disable_checkpointing:
            save(Path(filename), load_safely(Path(filename)) | {"trainer_name": STOCK_TRAINER})


class NamedTrainer(MethodTrainer):
    """A trainer for ``nnUNetv2_train -tr``, set by the environment.

    ``LNSEGFM_EPOCHS`` (default 50, as in the paper's release), ``LNSEGFM_ITERATIONS`` per epoch (250),
    ``LNSEGFM_LR`` (0.01), ``LNSEGFM_SET`` (settings of the method, such as ``gamma=2 mode=momentum``).
    """

    name: str

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net records this very signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        settings = dict(_pair(text) for text in os.environ.get("LNSEGFM_SET", "").split())
        self.method = load_method(self.name, settings)
        self.num_epochs = _number("LNSEGFM_EPOCHS", 50, int)
        self.num_iterations_per_epoch = _number("LNSEGFM_ITERATIONS", 250, int)
        self.num_val_iterations_per_epoch = max(1, self.num_iterations_per_epoch // 5)
        self.initial_lr = _number("LNSEGFM_LR", 1e-2, float)


class nnUNetTrainer_DGST(NamedTrainer):  # noqa: N801
    """Dynamic gradient sparsification training."""

    name = "dgst"


class nnUNetTrainer_bias(NamedTrainer):  # noqa: N801
    """Biases and head."""

    name = "bias"


class nnUNetTrainer_norm(NamedTrainer):  # noqa: N801
    """Scale and shift of norms, and head."""

    name = "affine"


class nnUNetTrainer_full(NamedTrainer):  # noqa: N801
    """Everything."""

    name = "full"


def _number(variable: str, default: Any, kind: type) -> Any:
    text = os.environ.get(variable)
    if text is None:
        return default
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if not value > 0:
        raise ConfigError(f"{variable}={text}: a number above 0 is needed there.")
    return value


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"LNSEGFM_SET {text}: not NAME=VALUE. Write for example gamma=2.")
    return name, value

"""nnU-Net trainers that adapt by a method.

`MethodTrainer` is the least that any of them needs. `NamedTrainer` is what ``nnUNetv2_train -tr NAME`` runs; the names
are in `lnsegfm.training.named_trainers`. Its settings come from the environment, because nnU-Net's command has no place
for them.

nnU-Net loads ``-pretrained_weights`` after it built network and optimizer, by the plain names of the weights. So a
named trainer begins with the method only when training starts, or when a checkpoint is loaded: what the method adds
then stands on the base's weights, and what it keeps is theirs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from lnsegfm.datasets.sided_labels import MIRROR_ALL
from lnsegfm.errors import ConfigError, RunMismatch
from lnsegfm.methods.dense import Dense
from lnsegfm.methods.method import Method
from lnsegfm.methods.table import METHODS, load_method
from lnsegfm.models.plans import adapted_architecture
from lnsegfm.networks.cards import has_deep_supervision, unwrap
from lnsegfm.networks.reparametrize import is_reparametrized
from lnsegfm.nnunet.lookup import STOCK_TRAINER
from lnsegfm.storage import atomic_write
from lnsegfm.training.side_aware_trainer import MIRROR, SideAwareTrainer, mirror_of_environment
from lnsegfm.weights.checkpoint import load_safely, save

SGD_LR, ADAMW_LR = 1e-2, 1e-3
SAVE_EVERY = 10
"""Epochs from one ``checkpoint_latest.pth`` to the next: nnU-Net's 50 are a whole training here."""
SETTINGS = "LNSEGFM_SET"
NUMBERS = {
    "epochs": ("LNSEGFM_EPOCHS", "num_epochs", int),
    "iterations": ("LNSEGFM_ITERATIONS", "num_iterations_per_epoch", int),
    "lr": ("LNSEGFM_LR", "initial_lr", float),
}
"""What a variable sets: its name in a checkpoint, the variable, the trainer's attribute, its kind."""
TRAINING = "lnsegfm"
"""Entry of a checkpoint that holds what continuing needs; nnU-Net does not look at it."""


class MethodTrainer(nnUNetTrainer):
    """nnU-Net's trainer with the optimizer of a method."""

    method: Method
    network: Any

    def set_outputs(self) -> None:
        """Switch deep supervision off for a network that has one output."""
        planned = self.configuration_manager
        if not has_deep_supervision(planned.network_arch_class_name, planned.network_arch_init_kwargs):
            self.enable_deep_supervision = False

    def configure_optimizers(self) -> tuple[Optimizer, PolyLRScheduler]:
        """The method's optimizer under nnU-Net's schedule; what the method adds is put into the network."""
        optimizer = self.method.optimizer(self.network, lr=self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)


class NamedTrainer(MethodTrainer, SideAwareTrainer):
    """A trainer for ``nnUNetv2_train -tr``, set by the environment.

    ``LNSEGFM_EPOCHS`` (default 50, as in the paper's release), ``LNSEGFM_ITERATIONS`` per epoch (250), ``LNSEGFM_LR``
    (0.01 for SGD, 0.001 for AdamW), ``LNSEGFM_SET`` (settings of the method, such as ``gamma=2 mode=momentum``),
    ``LNSEGFM_MIRROR_AXES`` (``auto``; as ``--mirror`` of ``lnsegfm finetune``).

    Attributes:
        name: Of the method.
        epochs: Epochs unless the environment sets them.
    """

    name: ClassVar[str]
    epochs: ClassVar[int] = 50

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net records this very signature
    ) -> None:
        method = load_method(self.name, dict(_pair(text) for text in os.environ.get(SETTINGS, "").split()))
        given = {key: _number(variable, kind) for key, (variable, _, kind) in NUMBERS.items()}
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.method = method
        self.has_begun = False
        self.mirror = mirror_of_environment()
        self.save_every = SAVE_EVERY
        self._set_numbers({"epochs": self.epochs, "iterations": 250, "lr": default_lr(method)})
        self._set_numbers({key: number for key, number in given.items() if number is not None})

    def initialize(self) -> None:
        """Initialise as nnU-Net does, with as many outputs as the network has."""
        self.set_outputs()
        super().initialize()
        self._fresh = next(unwrap(self.network).parameters()).detach().clone()

    def configure_optimizers(self) -> tuple[Optimizer, PolyLRScheduler]:
        """nnU-Net's own, which no step is taken with: `begin` replaces it."""
        optimizer, schedule = nnUNetTrainer.configure_optimizers(self)
        return optimizer, schedule

    def on_train_start(self) -> None:
        """Begin with the weights that are in the network now, unless a checkpoint was loaded.

        Raises:
            ConfigError: Weights were loaded that the method leaves aside, or none were that it keeps.
        """
        if not self.was_initialized:
            self.initialize()
        if not self.has_begun:
            self._require_start()
            self.begin()
        super().on_train_start()

    def begin(self) -> None:
        """Put the method into the network, whose weights are its start."""
        if self.is_ddp:
            self.network = self.network.module  # it holds on to the parameters that it found
        self.optimizer, self.lr_scheduler = super().configure_optimizers()
        if self.is_ddp:
            places = [self.local_rank] if self.device.type == "cuda" else None
            self.network = DistributedDataParallel(self.network, device_ids=places)
        self.has_begun = True
        plans = adapted_architecture(self.plans_manager.plans, self.configuration_name, self.method)
        plans = self.settled_mirroring((0, 1, 2)).in_plans(plans)
        self.plans_manager.plans = self.my_init_kwargs["plans"] = plans
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in self.network.parameters()]
        trained = [size for size, trains in sizes if trains]
        self.print_to_log_file(
            f"Method {self.name}: {sum(trained)} of {sum(size for size, _ in sizes)} parameters train, in "
            f"{len(trained)} tensors; lr {self.initial_lr}, settings {self.method.settings()}"
        )

    def _require_start(self) -> None:
        fresh = torch.equal(next(unwrap(self.network).parameters()), self._fresh)
        if self.method.starts_fresh and not fresh:
            raise ConfigError(
                f"{type(self).__name__}: it starts from fresh weights, and others were loaded. "
                "Leave -pretrained_weights out, or use nnUNetTrainer_full."
            )
        if fresh and self.method.needs_base:
            raise ConfigError(
                f"{type(self).__name__}: method {self.name} adapts a base, and the network's weights are fresh. "
                "Give -pretrained_weights FILE, or use nnUNetTrainer_scratch."
            )

    def save_checkpoint(self, filename: str) -> None:
        """Save as nnU-Net does, with plain weights under the name of its own trainer.

        Stock nnU-Net then predicts with it without this package, as far as the network is one of its own. What
        continuing needs besides lies in an entry of its own.
        """
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)
            return
        with atomic_write(Path(filename)) as place:
            super().save_checkpoint(str(place))
            save(place, self._shared(load_safely(place)))

    def _shared(self, content: dict[str, Any]) -> dict[str, Any]:
        numbers = {key: getattr(self, attribute) for key, (_, attribute, _) in NUMBERS.items()}
        network = content["network_weights"]
        training = {"method": self.name, "settings": self.method.settings(), **numbers, "network": network}
        training |= {"mirror": self.mirror}
        return content | {
            "trainer_name": STOCK_TRAINER,
            "network_weights": self._plain_weights(network),
            TRAINING: training,
        }

    def _plain_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        network = unwrap(self.network)
        if not is_reparametrized(network):
            return weights
        copy = deepcopy(network).cpu()
        self.method.merge(copy)
        return copy.state_dict()

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Load as nnU-Net does, the method's own state included: ``--c``, ``--val`` and ``--val_best``.

        Raises:
            RunMismatch: It is none of this method, or ``LNSEGFM_SET`` says other settings than it was started with.
            UnsafeFile: Reading it would execute something.
        """
        file = Path(filename_or_checkpoint)
        content = load_safely(file)
        training = content.get(TRAINING) if isinstance(content, dict) else None
        if not isinstance(training, Mapping) or training.get("method") != self.name:
            raise RunMismatch(
                f"{file}: it holds no training by method {self.name}. "
                "Start one without --c, with -pretrained_weights FILE."
            )
        if not self.has_begun:
            self._continue(training)
            if not self.was_initialized:
                self.initialize()
            self.begin()
        with _loads_instead(unwrap(self.network), training["network"]):
            super().load_checkpoint(filename_or_checkpoint)

    def _continue(self, training: Mapping[str, Any]) -> None:
        """Take settings from a checkpoint, so that a training goes on in a shell that does not know them."""
        settings = training["settings"]
        given = self.method.settings()
        if os.environ.get(SETTINGS) and given != settings:
            was = " ".join(f"{key}={value}" for key, value in settings.items() if given.get(key) != value)
            raise RunMismatch(
                f"{SETTINGS} {os.environ[SETTINGS]}: the training was started with {was}. "
                f"Unset {SETTINGS}, or start another one."
            )
        self.method = METHODS[self.name](**settings)
        if MIRROR not in os.environ:
            self.mirror = training.get("mirror", MIRROR_ALL)  # older trainings were mirrored whatever labels are called
        self._set_numbers({key: training[key] for key, (variable, *_) in NUMBERS.items() if variable not in os.environ})

    def _set_numbers(self, numbers: Mapping[str, Any]) -> None:
        for key, number in numbers.items():
            setattr(self, NUMBERS[key][1], number)
        self.num_val_iterations_per_epoch = max(1, self.num_iterations_per_epoch // 5)


@contextmanager
def _loads_instead(network: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Have a network load these weights, whichever it is given: nnU-Net's loader takes the plain ones of the file."""

    def exchange(_: nn.Module, given: dict[str, Any], *__: Any) -> None:
        given.clear()
        given.update(weights)

    hook = network.register_load_state_dict_pre_hook(exchange)
    try:
        yield
    finally:
        hook.remove()


def default_lr(method: Method) -> float:
    """The default learning rate: Adam's steps have the length of the rate, SGD's that of the gradient."""
    return ADAMW_LR if isinstance(method, Dense) and method.rule == "adamw" else SGD_LR


def _number(variable: str, kind: type) -> Any:
    """The number that a variable holds; None where it is not set."""
    text = os.environ.get(variable)
    if text is None:
        return None
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
        raise ConfigError(f"{SETTINGS} {text}: not NAME=VALUE. Write for example gamma=2.")
    return name, value

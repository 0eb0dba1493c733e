"""The training loop: resumable at any iteration, the same bytes whether or not it was interrupted."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch.optim import Optimizer

from lnsegfm.methods.method import Method
from lnsegfm.networks.quick_layers import quick_layers
from lnsegfm.nnunet.augmentation_settings import augmentation_settings
from lnsegfm.nnunet.environment import seed_everything
from lnsegfm.nnunet.mirroring import swap_of_plans
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.training.nnunet_trainer import MethodTrainer
from lnsegfm.training.partial_loss import PartialLoss
from lnsegfm.training.precision import autocast_to, needs_scaling
from lnsegfm.training.schedule import Schedule, WarmUp
from lnsegfm.transforms.augmentation.augmented_batches import AugmentedBatches
from lnsegfm.transforms.augmentation.prepared_case import PreparedCase
from lnsegfm.weights.checkpoint import Checkpoint
from lnsegfm.weights.state import load_weights


class InMemoryTrainer(MethodTrainer):
    """nnU-Net's trainer as the owner of network, loss and augmentation; the scans lie in memory, the loop is ours."""

    start: Checkpoint
    warm_up: int
    precision: str | None
    partial_loss: PartialLoss | None = None
    time_used: float = 0.0
    """Share of the time limit that is used, which the rate follows where it is further; 0 without a limit."""

    @classmethod
    def ready(cls, start: Checkpoint, method: Method, schedule: Schedule, device: str) -> Self:
        """A trainer with network, weights, optimizer and loss; nnU-Net's ``__init__`` takes no more arguments."""
        plans = copy.deepcopy(dict(start.plans)) | {"continue_training": False}
        trainer = cls(plans, start.configuration, 0, dict(start.dataset_json), torch.device(device))
        if trainer.is_ddp:  # nnU-Net takes it that only GPUs train together, and those of one node
            trainer.device = (
                torch.device(device, torch.cuda.current_device()) if device == "cuda" else torch.device(device)
            )
        trainer.start = start
        trainer.method = method
        trainer.initial_lr = schedule.lr
        trainer.num_epochs = schedule.iterations  # the learning rate falls at every iteration
        trainer.warm_up = schedule.warm_up
        trainer.precision = schedule.precision
        if not needs_scaling(schedule.precision):
            trainer.grad_scaler = None
        trainer.initialize()
        return trainer

    def initialize(self) -> None:
        """Build network and loss; there are no preprocessed files to look for, and compiling outlasts a short run."""
        self._set_batch_size_and_oversample()
        self.set_outputs()
        network = build_network(self.start, deep_supervision=self.enable_deep_supervision)
        if self.is_ddp and self.device.type == "cuda":
            network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
        load_weights(network, self.start.weights)
        self.network = network.to(self.device)
        self.optimizer, self.lr_scheduler = self.configure_optimizers()
        if self.is_ddp:
            places = [self.device.index] if self.device.type == "cuda" else None
            self.network = torch.nn.parallel.DistributedDataParallel(self.network, device_ids=places)
        self.loss = self._build_loss()
        self.was_initialized = True

    def configure_optimizers(self) -> tuple[Optimizer, PolyLRScheduler]:
        """The method's optimizer under nnU-Net's schedule, after the warm-up, if any."""
        optimizer, schedule = super().configure_optimizers()
        if self.warm_up:
            schedule = WarmUp(optimizer, self.initial_lr, self.num_epochs, self.warm_up)
        return optimizer, schedule

    def feed(self, shots: Sequence[PreparedCase], seed: int) -> AugmentedBatches:
        """Switch to training mode and give the batches, which are made on the device of the scans."""
        scales = self._get_deep_supervision_scales()
        batches = AugmentedBatches(
            shots, augmentation_settings(self), self.batch_size, seed, scales=scales, rank=self.rank or 0
        )
        self.set_deep_supervision_enabled(self.enable_deep_supervision)
        self.network.train()
        self._judge_annotated(shots)
        return batches

    def _judge_annotated(self, shots: Sequence[PreparedCase]) -> None:
        """Leave labels out of the loss of the scans in which nobody annotated them."""
        if not any(shot.unlabelled for shot in shots):
            return
        deep = self.enable_deep_supervision
        self.partial_loss = PartialLoss(self.loss.loss if deep else self.loss)
        if deep:
            self.loss.loss = self.partial_loss
        else:
            self.loss = self.partial_loss

    @property
    def rank(self) -> int | None:
        """Which of several processes that train together this is."""
        return self.local_rank if self.is_ddp else None

    def take(self, iteration: int, batch: dict[str, Any], seed: int) -> float:
        """Take training step number ``iteration`` and give its loss.

        What the network draws at random depends on seed and iteration alone, not on who made the batch.
        """
        self.lr_scheduler.step(max(iteration, self.time_used * self.num_epochs) if self.time_used else iteration)
        seed_everything(seed, iteration, self.rank or 0, 1)
        if self.partial_loss is not None:
            self.partial_loss.unlabelled = batch["unlabelled"]
        with quick_layers(self.network), autocast_to(self.precision):
            return float(self.train_step(batch)["loss"])

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, Any, Any, Any]:
        """Mirror along the axes that prediction may mirror, and where left and right labels change places with it."""
        rotation, dummy_2d, patch, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = axes = self.start.mirroring_axes
        swap = swap_of_plans(self.start.plans)
        if swap is not None:
            axes = tuple(sorted({*(axes or ()), swap.axis}))
        return rotation, dummy_2d, patch, axes

    def _do_i_compile(self) -> bool:
        return False

    def print_to_log_file(self, *args: Any, also_print_to_console: bool = True, add_timestamp: bool = True) -> None:
        """Print nothing: the run's own files hold the log."""

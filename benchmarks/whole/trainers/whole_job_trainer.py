"""nnU-Net's trainer for a job of a few iterations: lengths, start, mirroring at prediction, and when the rate falls."""

from __future__ import annotations

import os
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class WholeJobTrainer(nnUNetTrainer):
    """Length from ``WHOLE_EPOCHS``, ``WHOLE_ITERATIONS`` and ``WHOLE_VALIDATION``, weights from ``WHOLE_BASE``."""

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net records this very signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = int(os.environ["WHOLE_EPOCHS"])
        self.num_iterations_per_epoch = int(os.environ["WHOLE_ITERATIONS"])
        self.num_val_iterations_per_epoch = int(os.environ["WHOLE_VALIDATION"])
        self.initial_lr = float(os.environ["WHOLE_LR"])

    def initialize(self) -> None:
        """Start from all of the base: ``-pretrained_weights`` leaves the head out and keeps the one it finds."""
        super().initialize()
        base = torch.load(os.environ["WHOLE_BASE"], map_location=self.device, weights_only=False)
        self.network.load_state_dict(base["network_weights"])

    def on_train_epoch_start(self) -> None:
        """Count the epoch's iterations."""
        super().on_train_epoch_start()
        self.taken = 0

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Let nnU-Net's polynomial fall at every iteration: in four steps it ends at 29 % of the rate, not near 0."""
        self.lr_scheduler.step(self.current_epoch + self.taken / self.num_iterations_per_epoch)
        self.taken += 1
        return super().train_step(batch)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Predict without mirrored copies where the other arms do."""
        if os.environ["WHOLE_MIRRORING"] == "0":
            self.inference_allowed_mirroring_axes = None
        super().perform_actual_validation(save_probabilities)

"""Files as their real producers write them: nnU-Net's trainer and export, MONAI's networks."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from lnsegfm.nnunet.environment import FOLDERS, nnunet_environment
from tests.scenes import FINGERPRINT, scene, small_plans

DATASET = "Dataset007_Scenes"
DATASET_JSON = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "node": 1},
    "numTraining": 4,
    "file_ending": ".nii.gz",
}


@dataclass(frozen=True)
class Trained:
    """What nnU-Net leaves of a training.

    Args:
        results: ``nnUNet_results``.
        folder: The model's folder there.
        weights: Of the trained network.
    """

    results: Path
    folder: Path
    weights: dict[str, Tensor]

    @property
    def checkpoint(self) -> Path:
        return self.folder / "fold_0" / "checkpoint_final.pth"


def trained_by_nnunet(
    work: Path,
    plans: dict[str, Any] | None = None,
    steps: int = 60,
    fold: int = 0,
    *,
    dataset: str = DATASET,
    description: dict[str, Any] = DATASET_JSON,
    mirrored: bool = True,
) -> Trained:
    """A network trained a little on the scenes, saved by nnU-Net's trainer with optimizer, logs and all.

    Where it is not mirrored, the trainer is nnU-Net's ``nnUNetTrainerNoMirroring``.
    """
    plans = {**(plans or small_plans()), "dataset_name": dataset}
    with nnunet_environment(work):
        from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module
        from nnunetv2.training.nnUNetTrainer.variants.data_augmentation import nnUNetTrainerNoMirroring as without

        kind = module.nnUNetTrainer if mirrored else without.nnUNetTrainerNoMirroring
        with patch.object(module, "infer_dataset_class", lambda _: None):  # there are no preprocessed scans
            trainer = kind({**plans, "continue_training": False}, "3d_fullres", fold, description, torch.device("cpu"))
            with patch.object(trainer, "_do_i_compile", lambda: False):
                torch.manual_seed(fold)
                trainer.initialize()
        train(trainer.network, trainer.optimizer, steps)
        trainer.logger.log("train_losses", np.float32(-0.5), 0)
        trainer.logger.log("ema_fg_dice", np.float64(0.25), 0)
        # known once its data loaders are made
        trainer.inference_allowed_mirroring_axes = (0, 1, 2) if mirrored else None
        file = Path(trainer.output_folder) / "checkpoint_final.pth"
        file.parent.mkdir(parents=True, exist_ok=True)
        trainer.save_checkpoint(str(file))
        weights = {name: tensor.detach().clone() for name, tensor in trainer.network.state_dict().items()}
    folder = file.parent.parent
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(description))
    return Trained(work / "nnUNet_results", folder, weights)


def train(
    network: nn.Module, optimizer: torch.optim.Optimizer | None, steps: int, size: tuple[int, ...] = (16,) * 3
) -> None:
    """Let a network see some balls, so that its masks are not all background."""
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3) if steps else optimizer
    properties = FINGERPRINT["foreground_intensity_properties_per_channel"]["0"]
    for step in range(steps):
        image, mask = scene(step)
        image = (
            image.clip(properties["percentile_00_5"], properties["percentile_99_5"]) - properties["mean"]
        ) / properties["std"]
        pad = [(0, max(0, n - m)) for n, m in zip(size, image.shape, strict=True)]
        image, mask = (np.pad(a, pad)[: size[0], : size[1], : size[2]] for a in (image, mask))
        output = network(torch.from_numpy(image.astype(np.float32))[None, None])
        output = output[0] if isinstance(output, (list, tuple)) else output
        loss = nn.functional.cross_entropy(
            output, torch.from_numpy(mask.astype(np.int64))[None], torch.tensor([1.0] + [5.0] * (output.shape[1] - 1))
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()


def exported_by_nnunet(trained: Trained, file: Path, folds: tuple[int, ...] = (0,)) -> Path:
    """``nnUNetv2_export_model_to_zip``; what else it wants of a training is put there empty."""
    for fold in folds:
        for name in ("progress.png", "validation/summary.json"):
            place = trained.folder / f"fold_{fold}" / name
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(b"")
    (trained.folder / "dataset_fingerprint.json").write_text("{}")
    with nnunet_environment(trained.results.parent), patch.dict(os.environ, {FOLDERS[2]: str(trained.results)}):
        from nnunetv2.model_sharing.model_export import export_pretrained_model

        dataset, trainer = trained.folder.parent.name, trained.folder.name.partition("__")[0]
        export_pretrained_model(dataset, str(file), configurations=("3d_fullres",), trainer=trainer, folds=folds)
    return file

"""Model folders, whole and hostile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lnsegfm.models.model_folder import write_model
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.weights.checkpoint import Checkpoint
from tests.scenes import small_plans


def description(channels: tuple[str, ...] = ("CT",)) -> dict[str, Any]:
    return {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": {"background": 0, "node": 1},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }


def write_machine(folder: Path, channels: tuple[str, ...] = ("CT",)) -> Path:
    """A model folder as nnU-Net lays it out, for a network of a few thousand random weights."""
    torch.manual_seed(0)
    plans = small_plans() | {"axes": "LPS"}
    configuration = plans["configurations"]["3d_fullres"]
    configuration["normalization_schemes"] = ["CTNormalization"] * len(channels)
    configuration["use_mask_for_norm"] = [False] * len(channels)
    intensities = plans["foreground_intensity_properties_per_channel"]
    plans["foreground_intensity_properties_per_channel"] = {str(n): intensities["0"] for n in range(len(channels))}
    start = Checkpoint({}, "3d_fullres", plans, description(channels), "nnUNetTrainer", None)
    write_model(folder, replace(start, weights=build_network(start, deep_supervision=True).state_dict()))
    return folder

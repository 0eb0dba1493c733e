"""Scans small enough for a test: bright balls on a noisy ground, and plans for a network of a few thousand weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from lnsegfm.models.planning import TrainingPreset, preset_plans

SHAPE = (20, 24, 28)
SPACING_XYZ = (1.5, 1.0, 2.0)
PRESET = TrainingPreset(features=(4, 8, 8), patch_size=(16, 16, 16), batch_size=2, iterations=30, lr=1e-2)
FINGERPRINT = {
    "spacings": [[2.0, 1.0, 1.5]],
    "shapes_after_crop": [list(SHAPE)],
    "foreground_intensity_properties_per_channel": {
        "0": {
            "mean": 60.0,
            "median": 60.0,
            "std": 25.0,
            "min": -50.0,
            "max": 200.0,
            "percentile_99_5": 150.0,
            "percentile_00_5": -30.0,
        }
    },
}


def write_image(path: Path, array: np.ndarray) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING_XYZ)
    image.SetOrigin((-12.5, 4.0, 100.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), True)


def scene(seed: int, contrast: float = 80.0, balls: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A CT-like image in HU and its mask, (z, y, x)."""
    random = np.random.default_rng(seed)
    z, y, x = np.indices(SHAPE)
    mask = np.zeros(SHAPE, dtype=np.uint8)
    for _ in range(balls):
        centre = [random.uniform(4, n - 4) for n in SHAPE]
        mask[sum((a - c) ** 2 for a, c in zip((z, y, x), centre, strict=True)) < random.uniform(2.5, 4) ** 2] = 1
    image = random.normal(0, 12, SHAPE) + contrast * mask
    return image.astype(np.int16), mask


def write_scenes(root: Path, cases: int, *, seed: int = 0, contrast: float = 80.0, label: str = "node") -> Path:
    """An nnU-Net raw dataset."""
    for case in range(cases):
        image, mask = scene(seed + case, contrast)
        write_image(root / "imagesTr" / f"case_{case}_0000.nii.gz", image)
        write_image(root / "labelsTr" / f"case_{case}.nii.gz", mask)
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, label: 1},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def small_plans() -> dict[str, Any]:
    return preset_plans(PRESET, "Dataset001_Scenes", FINGERPRINT, ("CT",))

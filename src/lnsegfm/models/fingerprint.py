"""nnU-Net's fingerprint of a data set, computed in one process, and a run of its planners."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lnsegfm.datasets.dataset import Case, Dataset
from lnsegfm.errors import DataError
from lnsegfm.messages import counted
from lnsegfm.models.plans import dataset_json
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.planners import read_cropped, run_planner
from lnsegfm.progress import Progress
from lnsegfm.storage import read_json, write_json

VOXELS = 10_000_000
"""Foreground voxels that are looked at, over the whole data set: of a case that has more than its share, so many."""


def fingerprint(cases: Sequence[Case], progress: Progress, axes: str | None = None) -> dict[str, Any]:
    """Spacings (mm) and shapes (voxels), both (z, y, x), and statistics of foreground intensities by channel.

    nnU-Net draws as many voxels of every case, with replacement; here stands what such draws come to in the limit:
    every case counts alike, and of its voxels each one.

    Args:
        cases: Labelled scans.
        progress: Where progress is reported.
        axes: The axis code to which scans are turned; None leaves them as they are stored.

    Raises:
        DataError: Nothing is labelled.
    """
    progress.stage(f"Reading {counted(len(cases), 'case')} for the plans")
    spacings, shapes, sizes = [], [], []
    found: list[np.ndarray] = []
    for done, case in enumerate(cases, 1):
        if case.label is None:
            raise DataError(f"Case {case.name}: it has no reference. Label it, or leave it out.")
        cropped, labels, spacing, share = read_cropped(case.images, case.label, axes)
        spacings.append(spacing)
        shapes.append([int(v) for v in cropped.shape[1:]])
        sizes.append(share)
        found.append(_some(cropped[:, labels[0] > 0], VOXELS // len(cases)))
        progress.advance(done, len(cases))
    seen = [values for values in found if values.shape[1]]
    if not seen:
        raise DataError(f"Labels of {counted(len(cases), 'case')}: no voxel of a label is in them. Label some scans.")
    return {
        "spacings": spacings,
        "shapes_after_crop": shapes,
        "foreground_intensity_properties_per_channel": {
            str(channel): _statistics([values[channel] for values in seen]) for channel in range(len(found[0]))
        },
        "median_relative_size_after_cropping": float(np.median(sizes)),
    }


def _some(values: np.ndarray, most: int) -> np.ndarray:
    """All columns of (channels, voxels), or some where there are many."""
    if values.shape[1] <= most:
        return values
    return values[:, np.random.default_rng(0).choice(values.shape[1], most, replace=False)]


def run_nnunet_planner(
    data: Dataset,
    cases: Sequence[Case],
    name: str,
    found: dict[str, Any],
    work: Path,
    *,
    planner: str = "ExperimentPlanner",
    gpu_memory_gb: float = 8,
) -> dict[str, Any]:
    """Plans by one of nnU-Net's own planners for a data set that lies anywhere.

    Args:
        data: The data set.
        cases: Those of its scans that train.
        name: Its name, ``DatasetXXX_Name``.
        found: Its fingerprint.
        work: A folder for the planner; removed afterwards.
        planner: Class of the planner.
        gpu_memory_gb: GPU memory that it plans for.
    """
    raw, preprocessed = work / "nnUNet_raw" / name, work / "nnUNet_preprocessed" / name
    listing = {
        case.name: {"images": [str(image.resolve()) for image in case.images], "label": str(case.label.resolve())}
        for case in cases
        if case.label is not None
    }
    write_json(raw / "dataset.json", dataset_json(data, len(cases)) | {"dataset": listing})
    write_json(preprocessed / "dataset_fingerprint.json", found)
    try:
        with nnunet_environment(work):
            identifier = run_planner(planner, name, gpu_memory_gb)
        plans: dict[str, Any] = read_json(preprocessed / f"{identifier}.json")
        return plans
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _statistics(cases: Sequence[np.ndarray]) -> dict[str, float]:
    """Of values by case; every case weighs the same, however many it has."""
    values = np.concatenate(cases).astype(np.float64)
    weights = np.concatenate([np.full(len(case), 1 / (len(case) * len(cases))) for case in cases])
    mean = float(weights @ values)
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    low, median, high = values[order[np.searchsorted(below, np.array((0.005, 0.5, 0.995)) * below[-1])]]
    return {
        "mean": mean,
        "median": float(median),
        "std": float(np.sqrt(weights @ (values - mean) ** 2)),
        "min": float(values.min()),
        "max": float(values.max()),
        "percentile_99_5": float(high),
        "percentile_00_5": float(low),
    }

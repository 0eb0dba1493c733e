"""nnU-Net's fingerprint of a data set, computed in one process, and a run of its planners."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
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
    found = []
    for done, case in enumerate(cases, 1):
        if case.label is None:
            raise DataError(f"Case {case.name}: it has no reference. Label it, or leave it out.")
        cropped = read_cropped(case.images, case.label, axes)
        found.append(CaseFingerprint.of(*cropped, most=foreground_share(len(cases))))
        progress.advance(done, len(cases))
    return fingerprint_of(found)


@dataclass(frozen=True, eq=False)
class CaseFingerprint:
    """What the fingerprint of a data set takes of one scan.

    Args:
        spacing: In mm (z, y, x).
        shape: Voxels (z, y, x) of its non-zero box.
        share: Of its voxels that lie in that box.
        intensities: Of the foreground, or of a part of it (channels, voxels).
    """

    spacing: list[float]
    shape: list[int]
    share: float
    intensities: np.ndarray

    @classmethod
    def of(
        cls, cropped: np.ndarray, labels: np.ndarray, spacing: list[float], share: float, most: int
    ) -> CaseFingerprint:
        """That of a scan as `lnsegfm.nnunet.planners.cropped_scan` gives it, of so many foreground voxels at most."""
        shape = [int(n) for n in cropped.shape[1:]]
        return cls(spacing, shape, share, _some(cropped[:, labels[0] > 0], most))


def foreground_share(cases: int) -> int:
    """Foreground voxels that are looked at in each of so many scans."""
    return VOXELS // max(1, cases)


def fingerprint_of(cases: Sequence[CaseFingerprint]) -> dict[str, Any]:
    """The fingerprint of a data set (`fingerprint`) from those of its scans.

    Raises:
        DataError: Nothing is labelled.
    """
    seen = [case.intensities for case in cases if case.intensities.shape[1]]
    if not seen:
        raise DataError(f"Labels of {counted(len(cases), 'case')}: no voxel of a label is in them. Label some scans.")
    return {
        "spacings": [case.spacing for case in cases],
        "shapes_after_crop": [case.shape for case in cases],
        "foreground_intensity_properties_per_channel": {
            str(channel): _statistics([values[channel] for values in seen]) for channel in range(len(seen[0]))
        },
        "median_relative_size_after_cropping": float(np.median([case.share for case in cases])),
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
    """Of values by case; every case weighs the same, however many it has.

    Sums are exact until they are rounded: those of a BLAS depend on the number of threads, and with it plans would.
    """
    values = np.concatenate(cases).astype(np.float64)
    weights = np.concatenate([np.full(len(case), 1 / (len(case) * len(cases))) for case in cases])
    mean = math.fsum((weights * values).data)
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    low, median, high = values[order[np.searchsorted(below, np.array((0.005, 0.5, 0.995)) * below[-1])]]
    return {
        "mean": mean,
        "median": float(median),
        "std": math.sqrt(math.fsum((weights * (values - mean) ** 2).data)),
        "min": float(values.min()),
        "max": float(values.max()),
        "percentile_99_5": float(high),
        "percentile_00_5": float(low),
    }

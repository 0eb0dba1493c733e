"""What nnU-Net wants to know of a data set before it plans, gathered in one process."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lnsegfm.datasets.dataset import Case, Dataset
from lnsegfm.nnunet.engine import engine
from lnsegfm.nnunet.plans import dataset_json
from lnsegfm.progress import Progress, counted
from lnsegfm.storage import read_json, write_json

VOXELS = 10_000_000
"""Foreground voxels drawn over the whole data set for the intensity statistics."""


def fingerprint(cases: Sequence[Case], progress: Progress) -> dict[str, Any]:
    """Spacings (mm) and shapes (voxels), both (z, y, x), and statistics of foreground intensities by channel."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    progress.stage(f"Reading {counted(len(cases), 'case')} for the plans")
    found = []
    for done, case in enumerate(cases, 1):
        with engine():
            images = [str(image) for image in case.images]
            found.append(
                DatasetFingerprintExtractor.analyze_case(images, str(case.label), SimpleITKIO, VOXELS // len(cases))
            )
        progress.advance(done, len(cases))
    shapes, spacings, intensities, _, sizes = zip(*found, strict=True)
    return {
        "spacings": [[float(v) for v in spacing] for spacing in spacings],
        "shapes_after_crop": [[int(v) for v in shape] for shape in shapes],
        "foreground_intensity_properties_per_channel": {
            str(channel): _statistics(np.concatenate(values))
            for channel, values in enumerate(zip(*intensities, strict=True))
        },
        "median_relative_size_after_cropping": float(np.median(sizes)),
    }


def planned(
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
        with engine(work):
            import nnunetv2
            from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

            folder = Path(nnunetv2.__path__[0]) / "experiment_planning" / "experiment_planners"
            planner_class = recursive_find_python_class(
                str(folder), planner, current_module="nnunetv2.experiment_planning.experiment_planners"
            )
            planning = planner_class(name, gpu_memory_target_in_gb=gpu_memory_gb)
            planning.plan_experiment()
        plans: dict[str, Any] = read_json(preprocessed / f"{planning.plans_identifier}.json")
        return plans
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _statistics(values: np.ndarray) -> dict[str, float]:
    low, median, high = np.percentile(values, (0.5, 50.0, 99.5))
    return {
        "mean": float(np.mean(values)),
        "median": float(median),
        "std": float(np.std(values)),
        "min": float(np.min(values)),
        "max": float(np.max(values)),
        "percentile_99_5": float(high),
        "percentile_00_5": float(low),
    }

"""Small made-up patients: soft tissue in air, bone, fat and a few blobs that make each one unlike the others."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.datasets.doctor import Diagnosis, Finding, diagnose
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.imaging.files import write_mask, write_volume
from lnsegfm.imaging.grid import Grid

GRID = Grid((32, 64, 64), (3.0, 3.0, 3.0), (-96.0, -96.0, 0.0))
LABELS = LabelMap({"node": 1, "gland_left": 2, "gland_right": 3})


def ball(centre: tuple[float, float, float], radius: float, shape: tuple[int, ...] = GRID.shape) -> np.ndarray:
    """Voxels within a radius of a centre (z, y, x), in voxels."""
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    return sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) <= radius**2


def patient(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    _, y, x = np.ogrid[tuple(slice(n) for n in GRID.shape)]
    wide, deep = rng.uniform(18, 27), rng.uniform(14, 22)
    inside = np.broadcast_to(((x - 32) / wide) ** 2 + ((y - 32) / deep) ** 2 <= 1, GRID.shape)
    hu = np.where(inside, 40.0, -1000.0)
    for value in (-100, -100, 120, 250, -850, 600):
        blob = ball((rng.uniform(4, 28), 32 + rng.uniform(-7, 7), 32 + rng.uniform(-10, 10)), rng.uniform(3, 5))
        hu[blob & inside] = value
    hu[:, 40:44, 30:34] = 700
    return np.rint(hu + rng.normal(0, 10, GRID.shape)).clip(-1024, 3071).astype(np.int16)


def mask() -> np.ndarray:
    voxels = np.zeros(GRID.shape, np.uint8)
    voxels[ball((16, 30, 32), 3)] = 1
    voxels[ball((16, 30, 42), 3)] = 2  # larger x is the patient's left
    voxels[ball((16, 30, 22), 3)] = 3
    return voxels


def make(folder: Path, cases: int = 3) -> Path:
    for k in range(cases):
        write_volume(folder / "images" / f"{'abcdefghij'[k]}.nii.gz", patient(k), GRID)
        write_mask(folder / "labels" / f"{'abcdefghij'[k]}.nii.gz", mask(), GRID)
    return folder


def image(folder: Path, case: str, voxels: np.ndarray, **grid: object) -> None:
    write_volume(folder / "images" / f"{case}.nii.gz", voxels, dataclasses.replace(GRID, **grid))


def label(folder: Path, case: str, voxels: np.ndarray, **grid: object) -> None:
    write_mask(folder / "labels" / f"{case}.nii.gz", voxels, dataclasses.replace(GRID, **grid))


def doctored(folder: Path) -> Diagnosis:
    return diagnose(open_dataset(folder, LABELS))


def kinds(diagnosis: Diagnosis) -> list[tuple[str, str, str]]:
    return [(f.kind, f.severity, f.case) for f in diagnosis.findings]


def only(folder: Path, kind: str, severity: str, case: str) -> Finding:
    """The one thing that is found in the folder, after making sure what it is and that it is told in one line."""
    diagnosis = doctored(folder)
    assert kinds(diagnosis) == [(kind, severity, case)], [str(f) for f in diagnosis.findings]
    finding = diagnosis.findings[0]
    assert "\n" not in str(finding)
    assert str(finding).endswith(f"{finding.remedy}.")
    return finding

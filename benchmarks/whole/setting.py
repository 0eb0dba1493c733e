"""What all arms share: scans, split, base model and plans; made once and not counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.datasets.phantom import preset, write_dataset
from lnsegfm.datasets.shots import Split, draw_shots
from lnsegfm.errors import ConfigError
from lnsegfm.storage import content_hash

SPACING_MM = (3.0, 2.0, 2.0)
"""Spacing (z, y, x) of the clinic's scans; the base was trained at 2.5 x 2 x 2 mm, so they are resampled."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One few-shot job.

    Args:
        shots: Scans trained on.
        held_out: Scans predicted and scored.
        shape: Voxels of a scan (z, y, x).
        iterations: Training steps.
        epochs: Of nnU-Net's; they divide the iterations.
        lr: Learning rate of all arms: nnU-Net's.
        mirroring: Average over mirrored copies at prediction.
        preset: Size of network and patch, as of `lnsegfm pretrain`.
        base_cases: Scans that the base is trained on.
        base_iterations: Its training steps.
        cores: That every arm may use.
    """

    shots: int = 5
    held_out: int = 3
    shape: tuple[int, int, int] = (96, 128, 128)
    iterations: int = 200
    epochs: int = 4
    lr: float = 1e-2
    mirroring: bool = False
    preset: str = "tiny"
    base_cases: int = 24
    base_iterations: int = 800
    cores: int = 2

    def __post_init__(self) -> None:
        if self.iterations % self.epochs:
            raise ConfigError(f"iterations {self.iterations}: {self.epochs} epochs do not divide them. Use a multiple.")

    @property
    def identity(self) -> str:
        """Of everything that a run depends on."""
        return content_hash(asdict(self))[:12]


@dataclass(frozen=True)
class Prepared:
    """Where what the arms start from lies.

    Args:
        data: Labelled scans, an nnU-Net raw dataset.
        base: Folder of the base model, which nnU-Net loads.
        split: The scans trained on and held out, as ``lnsegfm finetune --shots`` draws them.
    """

    data: Path
    base: Path
    split: Split

    @property
    def weights(self) -> Path:
        """The base's checkpoint."""
        return self.base / "fold_0" / "checkpoint_final.pth"

    @property
    def plans(self) -> dict[str, Any]:
        """The base's plans, which all arms follow."""
        plans: dict[str, Any] = json.loads((self.base / "plans.json").read_text())
        return plans


def prepare(setting: Setting, work: Path) -> Prepared:
    """Make scans and base where they are not there yet."""
    far, spacing = preset("far"), SPACING_MM
    extent = tuple(float(n * s) for n, s in zip(setting.shape, spacing, strict=True))
    clinic = replace(far, spacing_mm=spacing, size_mm=extent)  # type: ignore[arg-type]
    write_dataset(work / "clinic", cases=setting.shots + setting.held_out, domain=clinic, seed=1)
    if not (work / "base" / "run.json").is_file():
        write_dataset(work / "base-scans", cases=setting.base_cases, domain=preset("base"), seed=0)
        words = ["pretrain", work / "base-scans", "--out", work / "base", "--preset", setting.preset]
        lnsegfm = [sys.executable, "-m", "lnsegfm", *map(str, words)]
        subprocess.run([*lnsegfm, "--iterations", str(setting.base_iterations), "--device", "cpu"], check=True)
    names = [case.name for case in open_dataset(work / "clinic").cases]
    return Prepared(work / "clinic", work / "base" / "model", draw_shots(names, setting.shots))


def bare(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a user who has set nothing, and then these variables."""
    ours = ("nnUNet", "LNSEGFM", "OMP_", "MKL_", "OPENBLAS_")
    return {key: value for key, value in os.environ.items() if not key.startswith(ours)} | {
        "PYTHONUNBUFFERED": "1",
        **environment,
    }

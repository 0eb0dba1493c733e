"""CPU seconds that a training sample costs, nnU-Net's data loader and transforms beside ours, in turn in one run.

    python -m benchmarks.augmentation --out results/augmentation_cpu.json

Both draw from the same scans in memory, on one thread. Rounds alternate: a batch of one, a batch of the other. The mean
counts, because rare transforms cost the most; medians and quartiles are given beside it. Stock's blur is let choose its
implementation before anything is counted.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from benchmarks.machine import machine
from lnsegfm.storage import write_json
from lnsegfm.transforms.augmentation.augmentation_parameters import AugmentationSettings
from lnsegfm.transforms.augmentation.augmented_batches import AugmentedBatches
from lnsegfm.transforms.augmentation.prepared_case import PreparedCase

REQUIRED = 5.0
"""Times less CPU time a sample."""
ANGLE = np.pi / 6
HALVINGS = 5
QUARTILES = (0.25, 0.5, 0.75)


class Scans:
    """Prepared scans as nnU-Net's data loader asks for them; what it cuts out is a copy, which its transforms change.

    Args:
        cases: Image (C, z, y, x), labels (1, z, y, x) and properties of each.
    """

    def __init__(self, cases: Mapping[str, tuple[np.ndarray, np.ndarray, dict[str, Any]]]) -> None:
        self._cases = cases
        self.identifiers = sorted(cases)

    def load_case(self, identifier: str) -> tuple[np.ndarray, np.ndarray, None, dict[str, Any]]:
        """Image, labels, no earlier stage, properties."""
        image, labels, properties = self._cases[identifier]
        return image.view(Copied), labels.view(Copied), None, properties


class Copied(np.ndarray):
    """An array whose parts are copies, as those of nnU-Net's own files are."""

    def __getitem__(self, key: Any) -> Any:
        return np.array(self.view(np.ndarray)[key])


def scans(number: int, shape: tuple[int, int, int], nodes: int) -> Scans:
    """Smooth noise with round nodes of 2 to 8 voxels radius, as nnU-Net's preprocessing leaves scans."""
    random = np.random.default_rng(0)
    cases = {}
    for i in range(number):
        image = random.standard_normal((1, *shape), dtype=np.float32)
        labels = np.zeros((1, *shape), np.int16)
        for _ in range(nodes):
            radius = int(random.integers(2, 9))
            at = [int(random.integers(radius, n - radius)) for n in shape]
            ball = sum(g**2 for g in np.ogrid[tuple(slice(-radius, radius + 1) for _ in shape)]) <= radius**2
            labels[(0, *(slice(a - radius, a + radius + 1) for a in at))][ball] = 1
        found = np.argwhere(labels == 1)
        cases[f"scan{i}"] = (image, labels, {"class_locations": {1: found}})
    return Scans(cases)


def stock_batches(dataset: Scans, patch: tuple[int, int, int], size: int) -> nnUNetDataLoader:
    """nnU-Net's loader with its default training transforms."""
    scales = [[0.5**level] * 3 for level in range(HALVINGS)]
    limits = (-ANGLE, ANGLE)
    transforms = nnUNetTrainer.get_training_transforms(
        patch, limits, scales, (0, 1, 2), False, use_mask_for_norm=[False], foreground_labels=[1]
    )
    labels = SimpleNamespace(all_labels=[0, 1], has_ignore_label=False)
    return nnUNetDataLoader(dataset, size, box_of(patch), patch, labels, 0.33, transforms=transforms)


def box_of(patch: tuple[int, int, int]) -> tuple[int, int, int]:
    """What nnU-Net reads for a patch."""
    limits = (-ANGLE, ANGLE)
    z, y, x = (int(n) for n in get_patch_size(patch, limits, limits, limits, (0.85, 1.25)))
    return z, y, x


def our_batches(dataset: Scans, patch: tuple[int, int, int], size: int) -> AugmentedBatches:
    """Ours, drawn from the same."""
    shots = []
    for name in dataset.identifiers:
        image, labels, _, properties = dataset.load_case(name)
        shots.append(PreparedCase.prepared(name, image, labels, properties["class_locations"]))
    settings = AugmentationSettings(patch=patch, box=box_of(patch), angle=ANGLE)
    return AugmentedBatches(shots, settings, size, seed=0, scales=[[0.5**level] * 3 for level in range(HALVINGS)])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(1)
    np.random.seed(0)
    torch.manual_seed(0)
    patch = tuple(options.patch)
    dataset = scans(options.scans, tuple(options.scan), options.nodes)
    stock, ours = stock_batches(dataset, patch, options.batch), our_batches(dataset, patch, options.batch)
    sides: dict[str, Callable[[int], Any]] = {"stock": lambda _: next(stock), "ours": ours.__getitem__}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(-options.warm_up, options.rounds):
        for name, make in sides.items():
            start = time.process_time()
            make(i + options.warm_up)
            if i >= 0:
                seconds[name].append((time.process_time() - start) / options.batch)
    found = {
        name: {"mean_s": float(np.mean(s))}
        | dict(zip(("q1_s", "median_s", "q3_s"), np.quantile(s, QUARTILES).tolist(), strict=True))
        for name, s in seconds.items()
    }
    ratio = found["stock"]["mean_s"] / found["ours"]["mean_s"]
    return {
        "machine": machine(),
        "settings": {k: v for k, v in vars(options).items() if k != "out"},
        "cpu_seconds_a_sample": found,
        "ratio_of_means": ratio,
        "required": {f"at least {REQUIRED:g} times less CPU time a sample than stock": ratio >= REQUIRED},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch", type=int, nargs=3, default=(80, 112, 224))
    parser.add_argument("--scan", type=int, nargs=3, default=(150, 260, 360), help="voxels of a prepared scan")
    parser.add_argument("--scans", type=int, default=2)
    parser.add_argument("--nodes", type=int, default=30, help="in a scan")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--warm-up", type=int, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = measure(options)
    for name, found in result["cpu_seconds_a_sample"].items():
        print(f"{name:6s}", "  ".join(f"{what} {1e3 * value:7.1f} ms" for what, value in found.items()))
    print(f"ratio of means {result['ratio_of_means']:.1f}")
    for what, shown in result["required"].items():
        print(f"{'yes' if shown else 'NO '}  {what}")
    if options.out:
        write_json(options.out, result)
    return 0 if all(result["required"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())

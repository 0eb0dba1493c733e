"""Time, memory and result of resampling and export, beside nnU-Net's default resampler on the same arrays.

    python -m benchmarks.resampling --out results/resampling_cpu.json

Volumes of 100x256x256 voxels become 130x330x330: an image of one channel, labels (background and nodes), logits of two
and of five classes in single precision, so that neither side rounds. *Export* is from those to the mask:
nnU-Net resamples all logits and takes the largest, ours goes slab by slab. Every round measures one side in a process
of its own (Linux), each for the first time in it, in an order that alternates. The exit code is 1 when image or export
is less than 10 times faster or a result differs by more than is stated.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lnsegfm.storage import write_json

SHAPE, NEW_SHAPE = (100, 256, 256), (130, 330, 330)
SPACING_MM, NEW_SPACING_MM = (1.3, 1.289, 1.289), (1.0, 1.0, 1.0)
TASKS = ("image", "labels", "export_2", "export_5")
FASTER = 10.0
"""How many times faster image and export have to be."""
BOUNDS = {"image": 1e-4, "labels": 0.0, "export": 1e-5}
"""Largest difference: of the range (image) or share of voxels (labels, export)."""


def made_up(task: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Smooth noise with sharp noise on it as an image or as logits, and ellipsoid nodes as labels."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    if task == "labels":
        grid = np.ogrid[tuple(slice(0, n) for n in shape)]
        labels = np.zeros((1, *shape), dtype=np.int8)
        for centre, radii in zip(rng.uniform(0, shape, (60, 3)), rng.uniform(2, 8, (60, 3)), strict=True):
            labels[0] |= sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True)) <= 1
        return labels
    channels = 1 if task == "image" else int(task[-1])
    made = np.empty((channels, *shape), dtype=np.float32)
    for channel in made:
        smooth = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 4)
        channel[...] = 4 * smooth / smooth.std() + rng.standard_normal(shape, dtype=np.float32) / 4
    return made


def stock(task: str, data: np.ndarray, new_shape: tuple[int, ...]) -> np.ndarray:
    """nnU-Net's functions with the arguments of its planner."""
    import torch
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    order = {"is_seg": task == "labels", "order": 3 if task == "image" else 1, "order_z": 0, "force_separate_z": None}
    made = resample_data_or_seg_to_shape(data, new_shape, SPACING_MM, NEW_SPACING_MM, **order)
    return torch.from_numpy(made).argmax(0).numpy() if task.startswith("export") else made


def ours(task: str, data: np.ndarray, new_shape: tuple[int, ...]) -> np.ndarray:
    import torch

    from lnsegfm.inference.logits_to_mask import InversePreprocessing, mask_from_logits
    from lnsegfm.transforms.resampling.anisotropy import separate_axis
    from lnsegfm.transforms.resampling.resample_images import resample_image, resample_labels

    if task.startswith("export"):
        z, y, x = new_shape
        nearest = separate_axis(SPACING_MM, NEW_SPACING_MM)
        way = InversePreprocessing(shape=(z, y, x), whole=(z, y, x), box=((0, z), (0, y), (0, x)), nearest=nearest)
        logits = torch.from_numpy(data)
        return mask_from_logits(logits[1:] - logits[:1] if len(logits) == 2 else logits, way)
    resample = resample_image if task == "image" else resample_labels
    return resample(data, new_shape, SPACING_MM, NEW_SPACING_MM)


SIDES: dict[str, Callable[[str, np.ndarray, tuple[int, ...]], np.ndarray]] = {"ours": ours, "stock": stock}


def measured(
    side: str, task: str, shape: tuple[int, ...], new_shape: tuple[int, ...], threads: int, seed: int, keep: Path
) -> dict[str, float]:
    """One call in a fresh process; its result is left at ``keep``."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (side, task, shape, new_shape, threads, seed, keep))


def _measure(
    side: str, task: str, shape: tuple[int, ...], new_shape: tuple[int, ...], threads: int, seed: int, keep: Path
) -> dict[str, float]:
    ours = "lnsegfm.transforms.resampling.resample_images"
    for name in ("nnunetv2.preprocessing.resampling.default_resampling", ours):
        importlib.import_module(name)  # both sides start with all that either needs
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    data = made_up(task, shape, seed)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, start = _mib("VmRSS"), time.perf_counter()
    made = SIDES[side](task, data, new_shape)
    told = {"seconds": time.perf_counter() - start, "peak_mib": _mib("VmHWM"), "before_mib": before}
    np.save(keep, made)
    return told


def _mib(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"{field}: /proc/self/status does not tell it. Measure memory on Linux.")


def difference(task: str, one: np.ndarray, other: np.ndarray) -> float:
    """Of the range (image), or the share of voxels that differ (labels, export)."""
    if task == "labels" or task.startswith("export"):
        return float((one != other).mean())
    one, other = one.astype(np.float64), other.astype(np.float64)
    return float(np.abs(one - other).max() / np.ptp(other))


def compared(task: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """Both sides of one task in turn."""
    rounds: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    with TemporaryDirectory() as folder:
        kept = {side: Path(folder) / f"{side}.npy" for side in SIDES}
        for turn in range(chosen.repeats):
            for side in sorted(SIDES, reverse=bool(turn % 2)):
                told = measured(side, task, chosen.shape, chosen.new_shape, chosen.threads, chosen.seed, kept[side])
                rounds[side].append(told)
                print(f"{task} {side}: {told['seconds']:.2f} s", flush=True)
        gap = difference(task, *(np.load(kept[side], mmap_mode="r") for side in ("ours", "stock")))
    sides = {side: _summary(told) for side, told in rounds.items()}
    pairs = [s["seconds"] / o["seconds"] for o, s in zip(rounds["ours"], rounds["stock"], strict=True)]
    return {
        **sides,
        "times_faster": round(statistics.median(pairs), 1),
        "peak_ratio": round(sides["ours"]["peak_above_input_mib"] / sides["stock"]["peak_above_input_mib"], 3),
        "difference": float(f"{gap:.3g}"),
        "difference_allowed": BOUNDS[task.partition("_")[0]],
    }


def _summary(rounds: list[dict[str, float]]) -> dict[str, Any]:
    seconds = [told["seconds"] for told in rounds]
    return {
        "seconds_median": round(statistics.median(seconds), 3),
        "seconds_range": [round(min(seconds), 3), round(max(seconds), 3)],
        "peak_mib": round(max(told["peak_mib"] for told in rounds)),
        "peak_above_input_mib": round(max(told["peak_mib"] - told["before_mib"] for told in rounds)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/resampling_cpu.json"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE)
    parser.add_argument("--new-shape", type=int, nargs=3, default=NEW_SHAPE)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--only-results", action="store_true", help="Small volumes on a busy machine: let times be.")
    chosen = parser.parse_args()
    chosen.shape, chosen.new_shape = tuple(chosen.shape), tuple(chosen.new_shape)
    from benchmarks.machine import machine

    tasks = {task: compared(task, chosen) for task in chosen.tasks}
    write_json(
        chosen.out,
        {
            "machine": machine() | {"threads": chosen.threads},
            "shape": chosen.shape,
            "new_shape": chosen.new_shape,
            "repeats": chosen.repeats,
            "seed": chosen.seed,
            "required": {"times_faster": FASTER, "of": ["image", "export"]},
            **tasks,
        },
    )
    slow = [t for t in tasks if t.startswith(("image", "export")) and tasks[t]["times_faster"] < FASTER]
    wrong = [t for t in tasks if tasks[t]["difference"] > tasks[t]["difference_allowed"]]
    return int(bool(wrong) or bool(slow and not chosen.only_results))


if __name__ == "__main__":
    sys.exit(main())

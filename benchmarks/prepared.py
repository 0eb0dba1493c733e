"""What a set of thousands of scans asks for: preparing in several processes, disk, samples a second, and how it grows.

    python -m benchmarks.prepared --out results/prepared_cpu.json

- `workers`: scans prepared to files by one process and by two, in turn; the fastest of each counts. On a machine that
  others use as well two processes get no second core: the CPU seconds of the busier one say what they would give.
- `disk`: bytes of those files as a share of images in float32 and labels in int16, stored in half precision and
  exactly, and the largest difference of an intensity.
- `samples`: seconds a training sample, at the patch of the paper's release, from our files and from nnU-Net's own by
  nnU-Net's loader and transforms, one process and one thread each, in turn; the fastest batches count.
- `growth`: seconds, bytes and peak memory of preparing 30, 100 and 300 scans, and of training iterations on them, and
  the straight line through them at 3,346 scans, as many as RADCURE has. All are of the benchmark's size.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.machine import machine
from lnsegfm.storage import write_json

SHAPE = (64, 144, 144)
"""Voxels of a phantom (z, y, x)."""
SPACING_MM = (2.5, 1.5, 1.5)
FINER = 0.85
"""Spacing after resampling, as a share."""
DIFFERENT = 10
"""Phantoms that are made; the others are copies, for making one takes longer than preparing it."""
COUNTS = (30, 100, 300)
COHORT = 3346
ITERATIONS = 50
REQUIRED_RATIO, REQUIRED_SHARE = 1.7, 0.4


def make_phantoms(folder: Path, number: int, shape: Sequence[int]) -> None:
    """Phantoms of one size."""
    from lnsegfm.datasets.phantom import preset, write_dataset

    size = tuple(n * s for n, s in zip(shape, SPACING_MM, strict=True))
    domain = replace(preset("base"), size_mm=size, node_count=(4, 8))  # type: ignore[arg-type]
    write_dataset(folder, cases=min(number, DIFFERENT), domain=domain, seed=0)
    files = [sorted((folder / place).glob("*.nii.gz")) for place in ("imagesTr", "labelsTr")]
    for copy in range(DIFFERENT, number):
        for of_kind in files:
            original = of_kind[copy % DIFFERENT]
            name = original.name.replace(f"_{copy % DIFFERENT:03d}", f"_{copy:03d}", 1)
            shutil.copyfile(original, original.with_name(name))


def start_of(folder: Path, number: int) -> tuple[Any, Any]:
    """Scans and plans, of a spacing that is not the scans'."""
    from lnsegfm.datasets.dataset import open_dataset
    from lnsegfm.progress import Silent
    from lnsegfm.workflows.pretrain_plan import PretrainSettings, plan_pretrain

    data = open_dataset(folder)
    some = ",".join(case.name for case in data.cases[:4])
    with TemporaryDirectory() as name:
        plan = plan_pretrain(
            folder, PretrainSettings(cases=tuple(some.split(","))), Path(name) / "w", progress=Silent()
        )
    plans = dict(plan.start.plans)
    configuration = plans["configurations"][plan.start.configuration]
    configuration["spacing"] = [FINER * s for s in configuration["spacing"]]
    return data.cases[:number], replace(plan.start, plans=plans)


def prepared(cases: Any, start: Any, folder: Path, stored: str, processes: int) -> float:
    """Seconds of preparing."""
    from lnsegfm.progress import Silent
    from lnsegfm.training.prepared_cases import prepare_in_files
    from lnsegfm.training.prepared_files import PreparedFiles

    shutil.rmtree(folder, ignore_errors=True)
    begin = time.perf_counter()
    prepare_in_files(cases, start, PreparedFiles(folder, stored), Silent(), processes=processes)
    return time.perf_counter() - begin


def workers(folder: Path, number: int, repeats: int) -> dict[str, Any]:
    """One process and two, in turn."""
    cases, start = start_of(folder / "phantoms", number)
    prepared(cases[:2], start, folder / "warm", "half", 1)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    busier: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(repeats):
        for processes, found in seconds.items():
            before = _cpu_seconds()
            found.append(round(prepared(cases, start, folder / f"by-{processes}", "half", processes), 2))
            busier[processes].append(round(max(a - b for a, b in zip(_cpu_seconds(), before, strict=True)), 2))
            print(f"prepared by {processes}: {found[-1]} s, {busier[processes][-1]} s of CPU", flush=True)
    return {
        "scans": number,
        "seconds": seconds,
        "cpu_seconds_of_the_busier": busier,
        "ratio_of_fastest": round(min(seconds[1]) / min(seconds[2]), 3),
        "ratio_of_cpu_seconds": round(min(busier[1]) / min(busier[2]), 3),
    }


def _cpu_seconds() -> tuple[float, float]:
    """Of this process, and of those that it started and that have ended."""
    theirs = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time(), theirs.ru_utime + theirs.ru_stime


def disk(folder: Path) -> dict[str, Any]:
    """Shares of what float32 would take."""
    from lnsegfm.storage import read_json
    from lnsegfm.training.prepared_files import LOSS

    cases, start = start_of(folder / "phantoms", 10)
    found: dict[str, Any] = {"bound": LOSS}
    for stored in ("half", "float32"):
        prepared(cases, start, folder / stored, stored, 1)
        facts = [read_json(file) for file in (folder / stored).glob("*.json")]
        voxels = sum(int(np.prod(fact["shape"])) for fact in facts)
        taken = sum(file.stat().st_size for file in (folder / stored).iterdir())
        found[stored] = {
            "share_of_float32_images_and_int16_labels": round(taken / (6 * voxels), 4),
            "image_bytes_a_voxel": round(
                sum(file.stat().st_size for file in (folder / stored).glob("*.image.b2nd")) / voxels, 3
            ),
            "largest_difference": max(fact["largest_difference"] for fact in facts),
            "in_half_precision": sum(fact["stored"] == "half" for fact in facts),
            "scans": len(facts),
        }
    return found


def samples(folder: Path, scan: Sequence[int], batches: int) -> dict[str, Any]:
    """Ours and nnU-Net's, each from its own files."""
    import torch
    from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

    from benchmarks.augmentation import ANGLE, HALVINGS, Copied, box_of, scans, stock_batches
    from lnsegfm.training.prepared_files import PreparedFiles
    from lnsegfm.transforms.augmentation.augmentation_parameters import AugmentationSettings
    from lnsegfm.transforms.augmentation.augmented_batches import AugmentedBatches
    from lnsegfm.transforms.augmentation.prepared_case import PreparedCase

    torch.set_num_threads(1)
    np.random.seed(0)
    torch.manual_seed(0)
    patch = (80, 112, 224)
    made = scans(4, tuple(scan), 20)  # type: ignore[arg-type]
    own, theirs = PreparedFiles(folder / "ours", "half"), folder / "nnunet"
    theirs.mkdir()
    for name in made.identifiers:
        image, labels, _, properties = made.load_case(name)
        image, labels = image.view(np.ndarray), labels.view(np.ndarray)
        own.write(PreparedCase.prepared(name, image, labels, properties["class_locations"]))
        blocks, chunks = comp_blosc2_params(image.shape, patch, image.itemsize)
        blocks_seg, chunks_seg = comp_blosc2_params(labels.shape, patch, labels.itemsize)
        nnUNetDatasetBlosc2.save_case(
            image, labels, properties, str(theirs / name), chunks, blocks, chunks_seg, blocks_seg
        )
    del Copied
    stock = stock_batches(nnUNetDatasetBlosc2(str(theirs)), patch, 2)  # type: ignore[arg-type]
    settings = AugmentationSettings(patch=patch, box=box_of(patch), angle=ANGLE)
    scales = [[0.5**level] * 3 for level in range(HALVINGS)]
    ours = AugmentedBatches([own.read(name) for name in made.identifiers], settings, 2, seed=0, scales=scales)
    seconds: dict[str, list[float]] = {"ours": [], "nnunet": []}
    for number in range(-1, batches):
        for side, make in (("ours", lambda i: ours[i + 1]), ("nnunet", lambda _: next(stock))):
            begin = time.process_time()
            make(number)
            if number >= 0:
                seconds[side].append((time.process_time() - begin) / 2)
    mean = {side: statistics.fmean(found) for side, found in seconds.items()}
    return {
        "patch": patch,
        "scan": list(scan),
        "batches": batches,
        "cpu_seconds_a_sample": {side: round(value, 4) for side, value in mean.items()},
        "samples_a_second_and_core": {side: round(1 / value, 2) for side, value in mean.items()},
        "ratio": round(mean["nnunet"] / mean["ours"], 2),
    }


def growth(folder: Path, counts: Sequence[int]) -> dict[str, Any]:
    """Each size in a process of its own."""
    found: dict[str, list[float]] = {}
    for number in counts:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            measured = pool.apply(_grown, (folder, number))
        for name, value in measured.items():
            found.setdefault(name, []).append(value)
        print(f"{number} scans: {measured}", flush=True)
    lines = {}
    for name, values in found.items():
        slope, offset = np.polyfit(counts, values, 1)
        lines[name] = {"a_scan": float(slope), "at_none": float(offset), f"at_{COHORT}": float(slope * COHORT + offset)}
    return {"scans": list(counts), "iterations": ITERATIONS, **found, "straight_line": lines}


def _grown(folder: Path, number: int) -> dict[str, float]:
    import torch

    from benchmarks.growth import _mib
    from lnsegfm.methods.full import Full
    from lnsegfm.progress import Silent
    from lnsegfm.training.schedule import Schedule
    from lnsegfm.training.train_model import train_model
    from lnsegfm.training.training_job import TrainingJob

    torch.set_num_threads(1)
    cases, start = start_of(folder / "phantoms", number)
    out = folder / f"run-{number}"
    prepared(cases[:1], start, out / "work" / "prepared", "half", 1)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, begin = _mib("VmRSS"), time.perf_counter()
    prepared(cases, start, out / "work" / "prepared", "half", 1)
    preparing, peak = time.perf_counter() - begin, _mib("VmHWM")
    size = sum(file.stat().st_size for file in (out / "work" / "prepared").iterdir())
    schedule = Schedule(lr=1e-3, iterations=ITERATIONS, seed=0)
    job = TrainingJob(
        start=start, method=Full(rule="adamw"), cases=cases, schedule=schedule, out=out, device="cpu", on_disk=True,
        stored="half",
    )  # fmt: skip
    Path("/proc/self/clear_refs").write_text("5")
    history = train_model(job, Silent())
    return {
        "preparing_s": round(preparing, 2),
        "preparing_above_start_mib": round(peak - before),
        "disk_mib": round(size / 2**20, 2),
        "iterations_s": round(float(history["seconds"]), 2),
        "training_peak_mib": round(_mib("VmHWM")),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/prepared_cpu.json"))
    parser.add_argument("--work", nargs="+", default=["workers", "disk", "samples", "growth"])
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE, metavar=("Z", "Y", "X"))
    parser.add_argument("--scan", type=int, nargs=3, default=(150, 300, 300), metavar=("Z", "Y", "X"))
    parser.add_argument("--scans", type=int, default=100)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", type=int, default=20)
    chosen = parser.parse_args()
    found: dict[str, Any] = {"machine": machine(), "shape": list(chosen.shape)}
    with TemporaryDirectory() as name:
        folder = Path(name)
        number = max(chosen.scans, max(chosen.counts) if "growth" in chosen.work else 0)
        make_phantoms(folder / "phantoms", number, chosen.shape)
        print(f"{number} phantoms", flush=True)
        required = {}
        if "samples" in chosen.work:
            found["samples"] = samples(folder, chosen.scan, chosen.batches)
            required["samples a second at least nnU-Net's"] = found["samples"]["ratio"] >= 1
        if "disk" in chosen.work:
            found["disk"] = disk(folder)
            share = found["disk"]["half"]["share_of_float32_images_and_int16_labels"]
            required[f"disk at most {REQUIRED_SHARE} of float32"] = share <= REQUIRED_SHARE
        if "workers" in chosen.work:
            found["workers"] = workers(folder, chosen.scans, chosen.repeats)
            ratio = found["workers"]["ratio_of_fastest"]
            required[f"two processes at least {REQUIRED_RATIO} times as fast"] = ratio >= REQUIRED_RATIO
        if "growth" in chosen.work:
            found["growth"] = growth(folder, chosen.counts)
    write_json(chosen.out, found | {"required": required})
    print(required)
    return 0 if all(required.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

"""What a scan costs beyond the network when many are predicted in one go.

    python -m benchmarks.cohort --out results/cohort_cpu.json
    python -m benchmarks.cohort --sizes 1 2 4 8 16 32 --threads 1 --out cohort.json

Made-up CT scans (body, nodes, air) and a plain nnU-Net network of three stages that takes seconds for each. Every
cohort is predicted as `lnsegfm predict` does it, with flags and nodes, in a process of its own (Linux), both ways one
after the other in an order that turns with each repeat: `overlapping`, and `in_turn`, where a scan begins when the one
before is written. `program` says which of the two the program takes with so many threads.

Seconds on the network are those inside the sliding window. `later_scan` is what each of the second to the last scan
cost in all, from the first mask's appearance to the last one's. It is given as a multiple of two things, both a scan:

- `over_own_network`: the seconds on the network of the same run. Threads that read and write beside the network slow
  it down, and what they cost so is not seen here.
- `over_network_alone`: the median seconds on the network where scans go in turn and nothing runs beside it.

The exit code is 1 where what the program takes is above 1.15 times the network alone in a cohort of 16 or more.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.evaluation import peak_mib
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.storage import read_json, write_json

SHAPE, SPACING_MM, NETWORK_MM = (96, 128, 128), (2.0, 1.2, 1.2), (2.2, 1.35, 1.35)
LIMIT = 1.15


def scan(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A CT-like scan in HU, a body with nodes and fat in air, and the mask of its nodes."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij", sparse=True)
    radius = y**2 / 0.7 + x**2 / 0.8 + 0 * z
    image = np.where(radius < 1, rng.normal(40, 12, shape), -1000)
    image[(radius > 0.85) & (radius < 1)] = -100
    mask = np.zeros(shape, dtype=np.uint8)
    for _ in range(12):
        centre, size = rng.uniform(-0.5, 0.5, 3), rng.uniform(6, 14, 3) / SPACING_MM / shape
        mask |= (sum(((p - c) / a) ** 2 for p, c, a in zip((z, y, x), centre, size, strict=True)) < 1).astype(np.uint8)
    return (image + 90 * mask).astype(np.int16), mask


def write_scan(path: Path, shape: tuple[int, ...], seed: int) -> None:
    from lnsegfm.imaging.files import write_volume
    from lnsegfm.imaging.grid import Grid

    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, scan(shape, seed)[0], Grid(shape, SPACING_MM))


def write_network(folder: Path, features: tuple[int, ...], patch: tuple[int, ...], steps: int) -> None:
    """A model folder."""
    import torch

    from lnsegfm.models.model_folder import write_model
    from lnsegfm.models.planning import TrainingPreset, preset_plans
    from lnsegfm.nnunet.network_building import build_network
    from lnsegfm.weights.checkpoint import Checkpoint

    torch.manual_seed(0)
    intensities = {"mean": 60.0, "median": 60.0, "std": 40.0, "min": -200.0, "max": 300.0}
    fingerprint = {
        "spacings": [list(NETWORK_MM)],
        "shapes_after_crop": [list(SHAPE)],
        "foreground_intensity_properties_per_channel": {
            "0": intensities | {"percentile_00_5": -160.0, "percentile_99_5": 240.0}
        },
    }
    preset = TrainingPreset(features=features, patch_size=patch, batch_size=2, iterations=1, lr=1e-2)
    plans = preset_plans(preset, "Dataset001_Cohort", fingerprint, ("CT",))
    told = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "node": 1}, "file_ending": ".nii.gz"}
    start = Checkpoint({}, "3d_fullres", plans, told | {"numTraining": 1}, "nnUNetTrainer", (0, 1, 2))
    network = build_network(start, deep_supervision=True)
    teach(network, plans["foreground_intensity_properties_per_channel"]["0"], steps)
    write_model(folder, replace(start, weights=network.state_dict()))


def teach(network: Any, intensities: dict[str, float], steps: int) -> None:
    """Have a network find nodes: a random one finds thousands of fragments, whose measuring takes all the time."""
    import torch
    from torch.nn.functional import cross_entropy

    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    hu, mask = scan((48, 64, 64), 1000)
    image = np.clip(hu, intensities["percentile_00_5"], intensities["percentile_99_5"])
    volume = torch.from_numpy(((image - intensities["mean"]) / intensities["std"]).astype(np.float32))[None, None]
    wanted = torch.from_numpy(mask).long()[None]
    for _ in range(steps):
        logits = network(volume)[0]
        likely = logits.softmax(1)[:, 1]
        overlap = 1 - (2 * (likely * wanted).sum() + 1) / (likely.sum() + wanted.sum() + 1)
        optimizer.zero_grad()
        (cross_entropy(logits, wanted) + overlap).backward()
        optimizer.step()


def predicted(folder: Path, scans: int, overlap: bool, settings: dict[str, Any]) -> dict[str, Any]:
    """One cohort, in this process."""
    import torch

    from lnsegfm.models.model_folder import read_model
    from lnsegfm.prediction import predict_cases as predicting
    from lnsegfm.prediction.predictor import Predictor
    from lnsegfm.prediction.scans import find_scans

    torch.set_num_threads(settings["threads"])
    on_network: list[float] = []
    window = Predictor._window

    def timed(self: Predictor, *arguments: Any) -> torch.Tensor:
        start = time.perf_counter()
        found = window(self, *arguments)
        on_network.append(time.perf_counter() - start)
        return found

    Predictor._window = timed  # type: ignore[method-assign]
    each = predicting.each
    predicting.each = lambda *a, **_: each(*a, overlap=overlap)  # type: ignore[assignment]
    model, cases = read_model(folder / "model"), find_scans(folder / "scans", 1).cases[:scans]
    with TemporaryDirectory(dir=folder) as name:
        out, before, start = Path(name), peak_mib(), time.time()
        found = predicting.predict_cases(model, cases, out, PredictOptions(mirroring=settings["mirroring"], nodes=True))
        seconds = time.time() - start
        assert not found.failed, found.failed
        # a file's ctime is that of its renaming to a mask
        written = sorted((out / f"{case.name}.nii.gz").stat().st_ctime for case in cases)
        nodes = statistics.fmean(len(read_json(out / f"{one.name}.nodes.json")["labels"]["node"]) for one in cases)
    later = max(1, len(cases) - 1)
    return {
        "seconds": seconds,
        "first_scan": written[0] - start,
        "later_scan": (written[-1] - written[0]) / later,
        "network_later": sum(on_network[1:]) / later,
        "nodes_a_scan": nodes,
        "peak_mib": peak_mib(),
        "before_mib": before,
    }


def measured(*arguments: Any) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(predicted, arguments)


def summary(rounds: list[dict[str, Any]], alone: float) -> dict[str, Any]:
    """Medians over rounds, the largest memory; what a later scan costs as multiples of the network's seconds."""
    found = {
        name: max(values) if name.endswith("mib") else statistics.median(values)
        for name in rounds[0]
        if (values := [one[name] for one in rounds])
    }
    if alone:  # a cohort of one has no later scan
        found["over_own_network"] = statistics.median(one["later_scan"] / one["network_later"] for one in rounds)
        found["over_network_alone"] = found["later_scan"] / alone
    return {name: round(value, 3) for name, value in found.items()}


def compared(rounds: dict[bool, list[dict[str, Any]]], threads: int) -> dict[str, Any]:
    """Both ways of one cohort, and which the program takes."""
    from lnsegfm.prediction.pipeline import worthwhile

    alone = statistics.median(one["network_later"] for one in rounds[False])
    return {
        "program": "overlapping" if worthwhile("cpu", threads) else "in_turn",
        "overlapping": summary(rounds[True], alone),
        "in_turn": summary(rounds[False], alone),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/cohort_cpu.json"))
    parser.add_argument("--sizes", type=int, nargs="+", default=(16,))
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE, metavar=("Z", "Y", "X"))
    parser.add_argument("--features", type=int, nargs="+", default=(8, 16, 32))
    parser.add_argument("--patch", type=int, nargs=3, default=(48, 64, 64), metavar=("Z", "Y", "X"))
    parser.add_argument("--mirroring", action="store_true", help="Average over eight copies of each tile.")
    parser.add_argument("--steps", type=int, default=60, help="Training steps that teach the network nodes.")
    chosen = parser.parse_args()
    import torch

    from benchmarks.machine import machine

    sides = [(threads, size, way) for threads in chosen.threads for size in chosen.sizes for way in (True, False)]
    rounds: dict[tuple[int, int, bool], list[dict[str, Any]]] = {side: [] for side in sides}
    with TemporaryDirectory() as name:
        folder = Path(name)
        torch.set_num_threads(max(chosen.threads))
        write_network(folder / "model", tuple(chosen.features), tuple(chosen.patch), chosen.steps)
        for number in range(max(chosen.sizes)):
            write_scan(folder / "scans" / f"scan_{number:02d}.nii.gz", tuple(chosen.shape), number)
        for turn in range(chosen.repeats):
            for threads, size, way in sides if turn % 2 == 0 else sides[::-1]:
                found = measured(folder, size, way, {"threads": threads, "mirroring": chosen.mirroring})
                rounds[threads, size, way].append(found)
                told = {name: round(value, 3) for name, value in found.items()}
                print(
                    f"threads {threads}, {size}, {'overlapping' if way else 'in turn'}:", json.dumps(told), flush=True
                )
    cohorts = [
        {"threads": threads, "scans": size}
        | compared({way: rounds[threads, size, way] for way in (True, False)}, threads)
        for threads in chosen.threads
        for size in chosen.sizes
    ]
    case = {name: list(getattr(chosen, name)) for name in ("shape", "features", "patch")}
    case |= {"mirroring": chosen.mirroring}
    write_json(chosen.out, {"machine": machine(), "case": case, "repeats": chosen.repeats, "cohorts": cohorts})
    large = [one[one["program"]]["over_network_alone"] for one in cohorts if one["scans"] >= 16]
    print("over the network alone, as the program does it:", large)
    return int(any(over > LIMIT for over in large))


if __name__ == "__main__":
    sys.exit(main())

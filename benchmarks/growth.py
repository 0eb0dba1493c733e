"""How what we do grows: resampling and prediction with the volume of a scan, preparation and training with the shots.

    python -m benchmarks.growth --out results/growth_cpu.json

Every figure is of a process of its own (Linux) that has done the same once at the smallest size, so that loading counts
nowhere: the median of --repeats rounds that go through all sizes in turn, and the peak memory above what the process
held before. A base of the smallest network that learns on a CPU is made first. It has taken one step, so it marks much
as nodes, and flags and export work on more of them than usual. How cost grows with the number of scans is measured by
`benchmarks.cohort`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.machine import machine
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.storage import write_json

VOLUMES = (0.5, 1.0, 2.0, 4.0, 8.0)
SHOTS = (1, 2, 5, 10, 20)
SHAPE = (48, 96, 96)
"""Voxels of the scan of volume 1 (z, y, x)."""
FINER = 1.25
"""Times more voxels along each axis after resampling."""
ITERATIONS = 20
SPACING_MM = (2.5, 2.0, 2.0)


def shape_of(times: float, shape: Sequence[int] = SHAPE) -> tuple[int, int, int]:
    """A volume so many times as large, of the same proportions."""
    z, y, x = (round(n * times ** (1 / 3)) for n in shape)
    return z, y, x


@dataclass(frozen=True)
class Scene:
    """What the measurements work on.

    Args:
        folder: Where scans and base lie.
        shape: Voxels of the scan of volume 1 (z, y, x).
        threads: That torch may use.
    """

    folder: Path
    shape: tuple[int, int, int]
    threads: int


def make_world(scene: Scene, volumes: Sequence[float], shots: int) -> None:
    """Phantoms of every size, the shots, and a base that has taken one step."""
    from lnsegfm.datasets.phantom import preset, write_dataset
    from lnsegfm.workflows.pretrain import pretrain
    from lnsegfm.workflows.pretrain_plan import PretrainSettings

    def phantoms(name: str, voxels: Sequence[int], cases: int) -> Path:
        size = tuple(n * s for n, s in zip(voxels, SPACING_MM, strict=True))
        domain = replace(preset("base"), size_mm=size, node_count=(4, 8))  # type: ignore[arg-type]
        write_dataset(scene.folder / name, cases=cases, domain=domain, seed=0)
        return scene.folder / name

    for times in volumes:
        phantoms(f"volume-{times:g}", shape_of(times, scene.shape), 1)
    scans = phantoms("shots", scene.shape, shots)
    pretrain(scans, scene.folder / "base", PretrainSettings(iterations=1), device="cpu")


def resampling(scene: Scene, times: float) -> tuple[Callable[[], Any], int]:
    """An image to a finer grid, by a cubic spline."""
    import numpy as np

    from lnsegfm.transforms.resampling.resample_images import resample_image

    voxels = shape_of(times, scene.shape)
    image = np.random.default_rng(0).standard_normal((1, *voxels), dtype=np.float32)
    finer = tuple(round(n * FINER) for n in voxels)
    return lambda: resample_image(image, finer, (FINER,) * 3, (1.0,) * 3), 1


def prediction(scene: Scene, times: float) -> tuple[Callable[[], Any], int]:
    """A scan from its file to its mask's file."""
    from lnsegfm.datasets.dataset import open_dataset
    from lnsegfm.models.model_folder import read_model
    from lnsegfm.prediction.predict_cases import predict_cases

    model = read_model(scene.folder / "base")
    case = open_dataset(scene.folder / f"volume-{times:g}").cases[0]
    out = scene.folder / f"masks-{times:g}"

    def predict() -> None:
        found = predict_cases(model, [case], out, PredictOptions(mirroring=False, overwrite=True))
        if found.failed:
            raise RuntimeError(f"Prediction at {times:g} times the volume: {found.failed[0]}.")

    return predict, 1


def preparation(scene: Scene, shots: float) -> tuple[Callable[[], Any], int]:
    """Shots read, resampled and normalised."""
    from lnsegfm.progress import Silent
    from lnsegfm.training.train_process import prepare_scans

    job = job_of(plan_of(scene.folder, int(shots)), scene.folder / "none")
    return lambda: prepare_scans(job, Silent()), 1


def iteration(scene: Scene, shots: float) -> tuple[Callable[[], Any], int]:
    """A training step of the full method, batch included."""
    from lnsegfm.progress import Silent
    from lnsegfm.training.train_model import train_model

    planned = plan_of(scene.folder, int(shots))

    def train() -> float:
        with TemporaryDirectory() as name:
            history = train_model(job_of(planned, Path(name) / "run"), Silent())
        return float(history["seconds"])

    return train, ITERATIONS


def job_of(planned: Any, out: Path) -> Any:
    """The training of a plan on the CPU."""
    from lnsegfm.training.schedule import Schedule
    from lnsegfm.training.training_job import TrainingJob

    schedule = Schedule(lr=1e-3, iterations=ITERATIONS, seed=0)
    return TrainingJob(
        start=planned.start, method=planned.method, cases=planned.shots, schedule=schedule, out=out, device="cpu"
    )


def plan_of(folder: Path, shots: int) -> Any:
    from lnsegfm.methods.table import load_method
    from lnsegfm.recipe import Recipe
    from lnsegfm.workflows.finetune_plan import plan

    recipe = Recipe(method="full", settings=load_method("full").settings(), shots=shots, iterations=ITERATIONS, lr=1e-3)
    return plan(folder / "shots", folder / "base", recipe)


WORK: dict[str, Callable[[Scene, float], tuple[Callable[[], Any], int]]] = {
    "resampling": resampling,
    "prediction": prediction,
    "preparation": preparation,
    "iteration": iteration,
}


def measured(what: str, size: float, smallest: float, scene: Scene) -> dict[str, float]:
    """One piece of work in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (what, size, smallest, scene))


def _measure(what: str, size: float, smallest: float, scene: Scene) -> dict[str, float]:
    import torch

    os.environ["LNSEGFM_CACHE_GB"] = "0"  # every scan is prepared, none is found
    torch.set_num_threads(scene.threads)
    WORK[what](scene, smallest)[0]()
    work, times = WORK[what](scene, size)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, start = _mib("VmRSS"), time.perf_counter()
    told = work()
    seconds = told if isinstance(told, float) else time.perf_counter() - start
    peak = _mib("VmHWM")
    return {"seconds": seconds / times, "peak_mib": peak, "above_start_mib": peak - before}


def _mib(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"{field}: /proc/self/status does not tell it. Measure memory on Linux.")


def measure(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures, by what is done and how large it is."""
    scene = Scene(folder, tuple(chosen.shape), chosen.threads)
    make_world(scene, chosen.volumes, max(chosen.shots))
    sizes = {name: chosen.volumes if name in ("resampling", "prediction") else chosen.shots for name in chosen.work}
    rounds: dict[tuple[str, float], list[dict[str, float]]] = {}
    for _ in range(chosen.repeats):
        for what, of_what in sizes.items():
            for size in of_what:
                found = measured(what, size, min(of_what), scene)
                rounds.setdefault((what, size), []).append(found)
                print(f"{what} {size:g}: {found['seconds']:.3f} s, {found['peak_mib']:.0f} MiB", flush=True)
    return {
        what: {
            "grows with": "volume" if what in ("resampling", "prediction") else "shots",
            "sizes": list(of_what),
            "seconds": [round(statistics.median(r["seconds"] for r in rounds[what, size]), 4) for size in of_what],
            "peak_mib": [round(max(r["peak_mib"] for r in rounds[what, size])) for size in of_what],
            "above_start_mib": [round(max(r["above_start_mib"] for r in rounds[what, size])) for size in of_what],
        }
        for what, of_what in sizes.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/growth_cpu.json"))
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE, metavar=("Z", "Y", "X"))
    parser.add_argument("--volumes", type=float, nargs="+", default=VOLUMES)
    parser.add_argument("--shots", type=int, nargs="+", default=SHOTS)
    parser.add_argument("--work", nargs="+", choices=list(WORK), default=list(WORK))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    with TemporaryDirectory() as name:
        found = measure(chosen, Path(name))
    settings = {"shape": list(chosen.shape), "repeats": chosen.repeats, "threads": chosen.threads}
    write_json(chosen.out, {"machine": machine(), **settings, "mirroring": False, "growth": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())

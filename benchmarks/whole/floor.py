"""What no implementation of this job goes below: the network's own arithmetic, in a process of its own."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.whole.setting import Prepared, Setting, bare
from benchmarks.whole.watch import watched

ROUNDS = 15


def floor(setting: Setting, prepared: Prepared, place: Path) -> dict[str, Any]:
    """Seconds of the network alone for the job's training steps and for one prediction of its held-out scans."""
    words = [prepared.base, "--data", prepared.data, "--cores", setting.cores]
    words += ["--scans", *(case for case in prepared.split.held_out)]
    done = watched(
        [sys.executable, "-m", "benchmarks.whole.floor", *words],
        bare({"OMP_WAIT_POLICY": "PASSIVE"}),
        place / "floor.txt",
    )
    found: dict[str, Any] = json.loads(next(line for _, line in reversed(done.lines) if line.startswith("{")))
    passes = found["tiles_of_all_held_out_scans"] * (8 if setting.mirroring else 1)
    return found | {
        "training_s": setting.iterations * found["forward_backward_s"],
        "prediction_s": passes * found["forward_s"],
    }


def measure(base: Path, data: Path, scans: list[str], cores: int) -> dict[str, Any]:
    from lnsegfm.models.model_folder import read_model
    from lnsegfm.nnunet.network_building import build_network
    from lnsegfm.weights.state import load_weights

    model = read_model(base)
    configuration = model.plans["configurations"][model.configuration]
    patch = configuration["patch_size"]
    network: Any = build_network(model.first, deep_supervision=True)
    load_weights(network, model.first.weights)
    batch = torch.randn(configuration["batch_size"], model.channels, *patch)

    def step() -> None:
        network.zero_grad()
        sum(output.square().mean() for output in network(batch)).backward()

    def forward() -> None:
        with torch.inference_mode():
            network(batch[:1])

    forward_backward = least(step, cores)
    network.decoder.deep_supervision = False
    network.eval()
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "features": configuration["architecture"]["arch_kwargs"].get("features_per_stage"),
        "patch_size": patch,
        "batch_size": configuration["batch_size"],
        "spacing_mm": configuration["spacing"],
        "forward_backward_s": forward_backward,
        "forward_s": least(forward, cores),
        "tiles_of_all_held_out_scans": sum(tiles(data, scan, configuration) for scan in scans),
    }


def tiles(data: Path, scan: str, configuration: dict[str, Any]) -> int:
    """Tiles of nnU-Net's sliding window, half a patch apart."""
    import SimpleITK as sitk
    from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window
    from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

    image = sitk.ReadImage(str(next((data / "imagesTr").glob(f"{scan}_0000.*"))))
    shape = compute_new_shape(image.GetSize()[::-1], image.GetSpacing()[::-1], configuration["spacing"])
    patch = configuration["patch_size"]
    at_least = tuple(max(int(n), p) for n, p in zip(shape, patch, strict=True))
    number = 1
    for steps in compute_steps_for_sliding_window(at_least, tuple(patch), 0.5):
        number *= len(steps)
    return number


def least(work: Callable[[], None], cores: int) -> float:
    """Fewest seconds that a piece of work took, warmed up, on one thread or on all."""
    seconds = []
    for threads in {1, cores}:
        torch.set_num_threads(threads)
        work()
        for _ in range(ROUNDS):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scans", nargs="+", required=True)
    parser.add_argument("--cores", type=int, required=True)
    chosen = parser.parse_args()
    print(json.dumps(measure(chosen.base, chosen.data, chosen.scans, chosen.cores)))


if __name__ == "__main__":
    main()

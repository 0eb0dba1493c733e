"""Time and memory of predicting one scan, beside nnU-Net's predictor on the same preprocessed scan and weights.

    python -m benchmarks.prediction --out results/prediction_cpu.json

The scan is made up: 133x420x420 voxels of 1.5x0.98x0.98 mm, a noisy body with bright nodes in air. It is normalised as
CT is (cut at a lower bound) and drawn on the network's grid straight away, so that no side pays for preprocessing. The
network is nnU-Net's plain one of three stages; a few steps on such scans teach it nodes, since masks of random weights
are all border. Every round measures each side in a process of its own (Linux), in an order that rotates:

- `stock`: `nnUNetPredictor` and `convert_predicted_logits_to_segmentation_with_correct_shape`;
- `stock_single`: nnU-Net's predictor made to sum tiles in single precision, with `--single` and in one round only: its
  mask tells which differences come from nnU-Net's sums in half precision;
- `ours`: `sliding_window` and `mask_from_logits`, at identical settings (tiles, weights, mirroring);
- `ours_air`: the same with air tiles skipped.

`seconds` are tiles and export, told apart as well; imports are not in them, and `before_mib` is what they hold.
`floor` is the time of the convolutions alone: each layer's on its own input, times the number of tiles.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.evaluation import peak_mib
from lnsegfm.storage import write_json

SPACING_MM, HERE_MM = (2.0, 1.6, 1.6), (1.5, 0.98, 0.98)
"""The network's spacing and the scan's."""
FEATURES, PATCH = (8, 16, 32), (64, 64, 64)
AIR = -2.0
"""The lower bound of the normalised scan."""
SHARE = 1e-5
"""Of the voxels may differ."""


def grids(shape: Sequence[int]) -> tuple[int, ...]:
    """The network's grid for a scan's shape."""
    return tuple(round(n * a / b) for n, a, b in zip(shape, HERE_MM, SPACING_MM, strict=True))


def phantom(shape: Sequence[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A normalised image and its mask on the network's grid: body with noise, fat around it, 24 nodes, air outside."""
    rng = np.random.default_rng(seed)
    place = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij", sparse=True)
    radius = place[1] ** 2 / 0.45 + place[2] ** 2 / 0.7 + 0 * place[0]
    image = np.where(radius < 1, rng.normal(0, 0.25, shape).astype(np.float32), np.float32(AIR))
    image[(radius > 0.85) & (radius < 1)] -= 1
    mask = np.zeros(shape, dtype=np.uint8)
    for _ in range(24):
        centre = [rng.uniform(-0.8, 0.8), *(0.5 * rng.uniform(-1, 1, 2))]
        axes = [rng.uniform(3, 8) * 2 / n for n in shape]
        mask |= (sum(((p - c) / a) ** 2 for p, c, a in zip(place, centre, axes, strict=True)) < 1).astype(np.uint8)
    return np.maximum(image + 1.2 * mask, AIR).astype(np.float32), mask


def build(weights: Path | None = None) -> Any:
    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from torch import nn

    torch.manual_seed(0)
    stages = len(FEATURES)
    network = PlainConvUNet(
        1,
        stages,
        list(FEATURES),
        nn.Conv3d,
        3,
        [1, *[2] * (stages - 1)],
        2,
        2,
        2,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=False,
    )
    if weights is not None:
        network.load_state_dict(torch.load(weights, weights_only=True))
    return network.eval()


def taught(weights: Path, steps: int) -> float:
    """Write weights that know nodes; gives the last step's loss."""
    import torch
    from torch.nn.functional import cross_entropy

    network = build().train()
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, steps)
    image, mask = (torch.from_numpy(each) for each in phantom((96, 192, 192), 1000))
    found = mask.nonzero()
    for step in range(steps):
        rng = np.random.default_rng(step)  # every other patch has a node in its middle
        middle = found[rng.integers(len(found))].numpy() if step % 2 else rng.integers(mask.shape)
        low = [int(np.clip(m - p // 2, 0, n - p)) for m, p, n in zip(middle, PATCH, mask.shape, strict=True)]
        at = tuple(slice(a, a + p) for a, p in zip(low, PATCH, strict=True))
        logits, wanted = network(image[at][None, None]), mask[at]
        likely = logits.softmax(1)[:, 1]
        overlap = 1 - (2 * (likely * wanted).sum() + 1) / (likely.sum() + wanted.sum() + 1)
        loss = cross_entropy(logits, wanted[None].long()) + overlap
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    torch.save(network.state_dict(), weights)
    return loss.item()


def case(shape: Sequence[int]) -> tuple[Any, Any, dict[str, Any]]:
    """Plans, configuration and properties as nnU-Net has them."""
    kwargs = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = SimpleNamespace(
        spacing=list(SPACING_MM),
        patch_size=list(PATCH),
        configuration={
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities_kwargs": kwargs,
        },
    )
    plans = SimpleNamespace(transpose_forward=[0, 1, 2], transpose_backward=[0, 1, 2])
    properties = {
        "spacing": list(HERE_MM),
        "shape_after_cropping_and_before_resampling": tuple(shape),
        "shape_before_cropping": tuple(shape),
        "bbox_used_for_cropping": [[0, n] for n in shape],
    }
    return plans, configuration, properties


class InSingle:
    """torch as nnU-Net's predictor would have to see it to sum tiles in single precision."""

    def __getattr__(self, name: str) -> Any:
        import torch

        return torch.float32 if name == "half" else getattr(torch, name)


def stock_single(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    from nnunetv2.inference import predict_from_raw_data

    predict_from_raw_data.torch = InSingle()
    return stock(folder, settings, name="stock_single")


def stock(folder: Path, settings: dict[str, Any], *, name: str = "stock") -> dict[str, Any]:
    """nnU-Net's predictor; logits lie in memory and every core that we may use is used."""
    from functools import partial

    import torch
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    torch.set_num_threads(settings["threads"])
    plans, configuration, properties = case(settings["shape"])
    configuration.resampling_fn_probabilities = partial(
        resample_data_or_seg_to_shape, **configuration.configuration["resampling_fn_probabilities_kwargs"]
    )
    network, volume = build(folder / "weights.pt"), torch.from_numpy(np.load(folder / "volume.npy"))
    labels = LabelManager({"background": 0, "node": 1}, None)
    predictor = nnUNetPredictor(
        use_mirroring=settings["mirroring"], device=torch.device("cpu"), allow_tqdm=False, tile_step_size=0.5
    )
    predictor.network, predictor.configuration_manager, predictor.label_manager = network, configuration, labels
    predictor.allowed_mirroring_axes = (0, 1, 2)
    before, start = peak_mib(), time.perf_counter()
    logits = predictor.predict_sliding_window_return_logits(volume)
    middle = time.perf_counter()
    mask = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, plans, configuration, labels, properties, num_threads_torch=settings["threads"]
    )
    return told(folder / f"{name}.npy", mask, before, start, middle)


def ours(folder: Path, settings: dict[str, Any], *, air: bool = False) -> dict[str, Any]:
    import torch

    from lnsegfm.inference.logits_to_mask import InversePreprocessing, mask_from_logits
    from lnsegfm.inference.sliding_window import Air, sliding_window
    from lnsegfm.inference.tile_positions import tile_positions

    torch.set_num_threads(settings["threads"])
    way = InversePreprocessing.read(*case(settings["shape"]))
    network, volume = build(folder / "weights.pt"), torch.from_numpy(np.load(folder / "volume.npy"))
    before, start = peak_mib(), time.perf_counter()
    logits = sliding_window(
        network,
        volume,
        PATCH,
        mirror_axes=(0, 1, 2) if settings["mirroring"] else (),
        difference=True,
        air=Air(AIR) if air else None,
    )
    middle = time.perf_counter()
    mask = mask_from_logits(logits, way)
    found = told(folder / ("ours_air.npy" if air else "ours.npy"), mask, before, start, middle)
    tiles = len(tile_positions(volume.shape[1:], PATCH)) * (8 if settings["mirroring"] else 1)
    return found if air else found | {"floor": tiles * convolutions(network)}


def convolutions(network: Any, repeats: int = 7) -> float:
    """Seconds of one tile's convolutions: each layer's alone, on its own input, median."""
    import torch
    from torch import nn

    from lnsegfm.inference.tile_forward import quick_forward
    from lnsegfm.networks.cpu_allocator import reused_memory

    inputs: list[tuple[Any, Any]] = []
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d)]
    watches = [layer.register_forward_hook(lambda one, x, _: inputs.append((one, x[0]))) for layer in layers]
    cpu = torch.device("cpu")
    with torch.inference_mode(), reused_memory(cpu), quick_forward(cpu):
        network(torch.zeros(1, 1, *PATCH))
        for watch in watches:
            watch.remove()
        each = []
        for layer, image in inputs:
            rounds = []
            for _ in range(repeats):
                start = time.perf_counter()
                layer(image)
                rounds.append(time.perf_counter() - start)
            each.append(statistics.median(rounds))
    return sum(each)


def ours_air(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    return ours(folder, settings, air=True)


def told(path: Path, mask: np.ndarray, before: float, start: float, middle: float) -> dict[str, Any]:
    end, peak = time.perf_counter(), peak_mib()
    np.save(path, mask)
    parts = {"tiles": middle - start, "export": end - middle}
    return {"seconds": end - start, **parts, "peak_mib": peak, "before_mib": before}


SIDES: dict[str, Callable[[Path, dict[str, Any]], dict[str, Any]]] = {
    "stock": stock,
    "stock_single": stock_single,
    "ours": ours,
    "ours_air": ours_air,
}


def measured(side: str, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """One round of one side, in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(SIDES[side], (folder, settings))


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of seconds, their range, largest memory."""
    found: dict[str, Any] = {
        name: round(statistics.median(one[name] for one in rounds), 3) for name in ("seconds", "tiles", "export")
    }
    found["seconds_range"] = [round(pick(one["seconds"] for one in rounds), 3) for pick in (min, max)]
    if "floor" in rounds[0]:
        found["floor"] = round(statistics.median(one["floor"] for one in rounds), 3)
    return found | {name: round(max(one[name] for one in rounds)) for name in ("peak_mib", "before_mib")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/prediction_cpu.json"))
    parser.add_argument("--shape", type=int, nargs=3, default=(133, 420, 420), metavar=("Z", "Y", "X"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=80, help="Training steps that teach the network nodes.")
    parser.add_argument("--mirroring", action="store_true", help="Average over eight copies of each tile.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=["stock", "ours", "ours_air"])
    parser.add_argument("--single", action="store_true", help="One round of stock_single too.")
    chosen = parser.parse_args()
    import torch

    from benchmarks.machine import machine

    torch.set_num_threads(chosen.threads)
    settings = {name: getattr(chosen, name) for name in ("shape", "threads", "mirroring")}
    with TemporaryDirectory() as name:
        folder = Path(name)
        image, reference = phantom(grids(chosen.shape), chosen.seed)
        np.save(folder / "volume.npy", image[None])
        loss = taught(folder / "weights.pt", chosen.steps)
        rounds: dict[str, list[dict[str, Any]]] = {side: [] for side in chosen.sides}
        for turn in range(chosen.repeats):
            first = turn % len(chosen.sides)
            for side in chosen.sides[first:] + chosen.sides[:first]:
                rounds[side].append(measured(side, folder, settings))
                print(side, {name: round(value, 2) for name, value in rounds[side][-1].items()}, flush=True)
        if chosen.single:
            rounds["stock_single"] = [measured("stock_single", folder, settings)]
        masks = {side: np.load(folder / f"{side}.npy") for side in rounds}
    result: dict[str, Any] = {
        "machine": machine(),
        "case": settings | {"grid": image.shape, "patch": PATCH, "features": FEATURES, "last_loss": round(loss, 3)},
        "repeats": chosen.repeats,
        "nodes": {"reference_share": round(float(reference.mean()), 6)}
        | {f"{side}_share": round(float((mask > 0).mean()), 6) for side, mask in masks.items()},
        **{side: summary(of_side) for side, of_side in rounds.items()},
    }
    apart = {f"{side}_{other}": int((masks[side] != masks[other]).sum()) for side, other in _pairs(list(masks))}
    result["voxels"], result["voxels_that_differ"] = int(np.prod(chosen.shape)), apart
    if {"stock", "ours", "ours_air"} <= set(rounds):
        result["ratios"] = {
            f"{side}_{what}": round(statistics.median(a[name] / b[name] for a, b in zip(*both, strict=True)), 2)
            for side in ("ours", "ours_air")
            for what, name in (("faster", "seconds"), ("less_memory", "peak_mib"))
            for both in [(rounds["stock"], rounds[side])]
        }
    print(result["voxels"], apart, result["nodes"], result.get("ratios"))
    write_json(chosen.out, result)
    wanted = [number for pair, number in apart.items() if "single" not in pair]
    return int(any(number > SHARE * result["voxels"] for number in wanted))


def _pairs(sides: Sequence[str]) -> list[tuple[str, str]]:
    return [(a, b) for number, a in enumerate(sides) for b in sides[number + 1 :]]


if __name__ == "__main__":
    sys.exit(main())

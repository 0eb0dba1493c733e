"""Sizes of every method's adapter against the full checkpoint, on nnU-Net's default network of 31.2 M parameters.

    python benchmarks/adapters.py --threads 1 --out results/adapters.json

Each method takes real steps: forward and backward on random images and labels of 32x32x64 voxels, batch 1. What moves
whole tensors has the same size after any number of steps; the adapter of a sparse method holds every entry that ever
moved, so it is written after several numbers of steps. base + adapter = model is checked, bit for bit, every time.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from lnsegfm.methods.method import Method
from lnsegfm.methods.table import METHODS
from lnsegfm.models.model_folder import CHECKPOINT, write_model
from lnsegfm.models.planning import TrainingPreset, preset_plans
from lnsegfm.storage import write_json
from lnsegfm.weights.adapter import CARD, TENSORS, Adapter
from lnsegfm.weights.checkpoint import Checkpoint, read_checkpoint
from lnsegfm.weights.state import raw
from machine import machine
from workload import deep_loss, default_unet

PATCH = (32, 32, 64)
ENOUGH: dict[str, tuple[int, ...]] = {"l2-sp": (20,)}
"""Steps of a method that moves whole tensors; two, where not told. SGD's first ones round to nothing in many places."""
SPARSE = ("gps", "random-static", "dgst", "random-dynamic", "dgst-bounded")
LR = 1e-3

PRESET = TrainingPreset(
    features=(32, 64, 128, 256, 320, 320), patch_size=(96, 160, 160), batch_size=2, iterations=1, lr=1e-3
)
FINGERPRINT = {
    "spacings": [[2.0, 1.0, 1.0]],
    "shapes_after_crop": [[96, 160, 160]],
    "foreground_intensity_properties_per_channel": {
        "0": dict.fromkeys(("mean", "median", "std", "min", "max", "percentile_99_5", "percentile_00_5"), 40.125)
    },
}
"""For an ``adapter.json`` of the usual length."""


def checkpoint_of(network: nn.Module) -> Checkpoint:
    """A network as a model holds it."""
    plans = preset_plans(PRESET, "Dataset001_Clinic", FINGERPRINT, ("CT",))
    labels = {"background": 0, "lymph_node": 1}
    description = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 5, "file_ending": ".nii.gz"}
    return Checkpoint(network.state_dict(), "3d_fullres", plans, description, "nnUNetTrainer", (0, 1, 2))


def through_a_file(network: nn.Module, folder: Path) -> tuple[Mapping[str, Tensor], int]:
    """A network's weights as a model folder gives them back, and the bytes of its checkpoint."""
    write_model(folder, checkpoint_of(network))
    file = folder / "fold_0" / CHECKPOINT
    return read_checkpoint(file).weights, file.stat().st_size


def step(network: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    """One step on images and labels drawn for it."""
    draw = torch.Generator().manual_seed(number)
    images = torch.randn(1, 1, *PATCH, generator=draw)
    labels = (torch.rand(1, *PATCH, generator=draw) > 0.9).long()
    optimizer.zero_grad()
    deep_loss(network(images), labels).backward()
    nn.utils.clip_grad_norm_([p for p in network.parameters() if p.grad is not None], 12)
    optimizer.step()


def measure(base: Mapping[str, Tensor], network: nn.Module, method: Method) -> dict[str, Any]:
    """Size and time of a method's adapter as the network is now, which is copied, merged and left alone."""
    merged = copy.deepcopy(network)
    factors = method.merge(merged)
    card = {
        "method": method.name,
        "settings": method.settings(),
        "configuration": "3d_fullres",
        "trainer_name": "nnUNetTrainer",
        "plans": checkpoint_of(merged).plans,
        "dataset_json": checkpoint_of(merged).dataset_json,
    }
    with TemporaryDirectory() as name:
        folder = Path(name)
        model, _ = through_a_file(merged, folder / "model")
        started = time.perf_counter()
        Adapter.between(base, model, card, factors).save(folder)
        written = time.perf_counter()
        adapter = Adapter.load(folder)
        rebuilt = adapter.apply(base)
        applied = time.perf_counter()
        if not all(torch.equal(raw(rebuilt[key]), raw(model[key])) for key in model):
            raise RuntimeError(f"{method.name}: base + adapter is not the model.")
        return {
            "bytes": {file: (folder / file).stat().st_size for file in (TENSORS, CARD)},
            "new_values": adapter.entries,
            "tensors": {
                form: sum(tensor.form == form for tensor in adapter.stored) for form in ("whole", "entries", "factors")
            },
            "write_s": round(written - started, 2),
            "apply_s": round(applied - written, 2),
        }


def run(name: str, base: Mapping[str, Tensor], start: nn.Module, steps: tuple[int, ...]) -> dict[str, Any]:
    """A method, measured after so many steps."""
    method = METHODS[name]()
    network = copy.deepcopy(start)
    if method.starts_fresh:
        torch.manual_seed(1)
        network = default_unet()
    moved = method.trainable(network)
    found: dict[str, Any] = {
        "settings": method.settings(),
        "may_move": moved.parameters,
        "one_step_moves": moved.per_step,
        "after_steps": {},
    }
    if not method.learns:
        return found | {"after_steps": {"0": measure(base, network, method)}}
    optimizer = method.optimizer(network, lr=LR)
    for number in range(1, max(steps) + 1):
        step(network, optimizer, number)
        if number in steps:
            found["after_steps"][str(number)] = measure(base, network, method)
    return found


def table(result: Mapping[str, Any]) -> str:
    """What the documents show."""
    full = result["checkpoint_bytes"]
    lines = [
        "| method | steps | stored | new values | adapter, MB | share of the checkpoint |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in result["methods"].items():
        for steps, at in found["after_steps"].items():
            size = sum(at["bytes"].values())
            forms = {"whole": "whole", "entries": "entries", "factors": "by factors"}
            held = ", ".join(f"{at['tensors'][form]} {word}" for form, word in forms.items() if at["tensors"][form])
            shown = steps if name in SPARSE or name in ENOUGH else "any"
            share = f"{100 * size / full:.2g} %" if size < 0.99 * full else "100 %"
            lines.append(
                f"| `{name}` | {shown} | {held or 'nothing'} | {at['new_values']:,} | {size / 1e6:.2f} | {share} |"
            )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[1, 10, 50], help="at which sparse methods are measured"
    )
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    start = default_unet()
    with TemporaryDirectory() as folder:
        base, size = through_a_file(start, Path(folder))
    result: dict[str, Any] = {
        "what": "bytes of each method's adapter on nnU-Net's default network, after steps on random images",
        "parameters": sum(p.numel() for p in start.parameters()),
        "patch": PATCH,
        "batch": 1,
        "lr": LR,
        "checkpoint_bytes": size,
        "machine": machine(),
        "methods": {},
    }
    for name in arguments.methods:
        steps = tuple(arguments.steps) if name in SPARSE else ENOUGH.get(name, (2,))
        result["methods"][name] = run(name, base, start, steps)
        last = list(result["methods"][name]["after_steps"].values())[-1]
        print(f"{name}: {sum(last['bytes'].values())} bytes", file=sys.stderr, flush=True)
    write_json(arguments.out, result)
    print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Time of 250 training iterations and peak memory of each architecture, beside what the paper's release reports.

    python benchmarks/architectures.py --device cuda --out results/architectures_cuda.json
    python benchmarks/architectures.py --reduced --threads 1 --out results/architectures_cpu.json

At full size: the release's patch, batch 2, SGD and nnU-Net's loss, in float16 with loss scaling (as nnU-Net trains),
bfloat16 and float32. Reduced, for CPUs: the same networks with an eighth of their channels on small patches, in float32
and bfloat16. Data augmentation is left out: batches lie on the device. Each architecture and precision runs in a
process of its own, for its peak of memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import Tensor, nn

from lnsegfm.methods.method import MOMENTUM, WEIGHT_DECAY
from lnsegfm.networks.architectures import ARCHITECTURES, SWIN, has_deep_supervision
from lnsegfm.nnunet.planners import topology
from lnsegfm.storage import write_json
from machine import machine
from memory import peak_mib

RELEASE_ITERATIONS = 250
PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": None}


def plan_of(name: str, *, reduced: bool, checkpointing: bool) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Patch (z, y, x) and architecture entry of the plans."""
    card = ARCHITECTURES[name]
    if card.network == SWIN:
        patch, features = ((32, 32, 64), 12) if reduced else (card.release_patch, 48)
        return patch, card.build_plan((features,), (), checkpointing=checkpointing)
    strides, kernels = topology((1.0, 1.0, 1.0), card.release_patch)
    features = card.stage_features(len(strides))
    features = tuple(width // 8 for width in features) if reduced else features
    patch = (32, 32, 64) if reduced else card.release_patch
    return patch, card.build_plan(features, strides, kernels)


def loss_of(network_class: str) -> nn.Module:
    """nnU-Net's loss, over several resolutions where the network gives them."""
    loss = DC_and_CE_loss(
        {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False},
        {},
        weight_ce=1,
        weight_dice=1,
        dice_class=MemoryEfficientSoftDiceLoss,
    )
    if not has_deep_supervision(network_class):
        return loss
    weights = [1 / 2**i for i in range(5)]
    weights[-1] = 0.0
    return DeepSupervisionWrapper(loss, [weight / sum(weights) for weight in weights])


def measure(name: str, precision: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds an iteration (median, quartiles) and peak memory in MiB, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (name, precision, dict(options)))


def _measure(name: str, precision: str, options: dict[str, Any]) -> dict[str, Any]:
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    torch.manual_seed(0)
    device = torch.device(options["device"])
    patch, plan = plan_of(name, reduced=options["reduced"], checkpointing=options["checkpointing"])
    names = (plan["network_class_name"], plan["arch_kwargs"], plan["_kw_requires_import"])
    network = get_network_from_plans(*names, 1, 2, deep_supervision=True).to(device).train()
    loss = loss_of(names[0])
    optimizer = torch.optim.SGD(
        network.parameters(), lr=1e-3, momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
    image = torch.randn(options["batch"], 1, *patch, device=device)
    dtype = PRECISIONS[precision]
    targets: list[Tensor] | None = None

    def step() -> float:
        nonlocal targets
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            outputs = network(image)
            many = isinstance(outputs, (list, tuple))
            targets = targets or [
                (torch.rand(o.shape[0], 1, *o.shape[2:], device=device) < 0.02).float()
                for o in (outputs if many else [outputs])
            ]
            value = loss(outputs, targets if many else targets[0])
        scaler.scale(value).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(network.parameters(), 12)
        scaler.step(optimizer)
        scaler.update()
        return float(value.detach())

    try:
        step()  # allocates state, and lets cuDNN choose
        seconds = []
        for _ in range(options["repeats"]):
            started = time.perf_counter()
            last = step()  # reading the loss waits for the device
            seconds.append(time.perf_counter() - started)
    except torch.OutOfMemoryError:
        return {"patch": list(patch), "out_of_memory": True}
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return {
        "patch": list(patch),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "median_s": round(median, 5),
        "quartiles_s": [round(low, 5), round(high, 5)],
        "seconds_of_250_iterations": round(RELEASE_ITERATIONS * median, 2),
        "peak_mib": round(peak_mib(device.type), 1),
        "loss_is_finite": last == last and abs(last) != float("inf"),
    }


def table(result: dict[str, Any]) -> str:
    """The result as a Markdown table, the release's figures beside it where the sizes are the release's."""
    beside = not result["settings"]["reduced"]
    head = ["architecture", "patch", "M parameters", "precision", "250 iterations, s", "peak, GiB"]
    head += ["release, V100S: s", "GB"] if beside else []
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, rows in result["architectures"].items():
        told = ARCHITECTURES[name].reported
        release = ([f"{told.seconds}", f"{told.gpu_gb}"] if told else ["", ""]) if beside else []
        for precision, row in rows.items():
            cells = [name, "x".join(map(str, row["patch"]))]
            if row.get("out_of_memory"):
                cells += ["", precision, "out of memory", ""]
            else:
                finite = "" if row["loss_is_finite"] else " (loss not finite)"
                seconds, peak = f"{row['seconds_of_250_iterations']:.1f}", f"{row['peak_mib'] / 1024:.2f}"
                cells += [f"{row['parameters'] / 1e6:.1f}", precision + finite, seconds, peak]
            lines.append(f"| {' | '.join([*cells, *release])} |")
    return "\n".join(lines)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--reduced", action="store_true", help="an eighth of the channels, small patches: for CPUs")
    parser.add_argument("--architecture", action="append", choices=ARCHITECTURES, help="only these; repeat for more")
    parser.add_argument("--precision", action="append", choices=PRECISIONS, help="only these; repeat for more")
    parser.add_argument("--no-checkpointing", action="store_true", help="keep SwinUNETR's activations")
    parser.add_argument("--batch", type=int, default=2, help="patches in a batch")
    parser.add_argument("--repeats", type=int, default=20, help="iterations that count")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args()
    if options.device == "cpu" and not options.reduced:
        parser.error("--device cpu: full-size networks take minutes a step there. Add --reduced.")
    usual = ["float32", "bfloat16"] if options.device == "cpu" else list(PRECISIONS)
    settings = {key: getattr(options, key) for key in ("device", "reduced", "batch", "repeats", "threads")}
    settings["checkpointing"] = not options.no_checkpointing
    if options.threads:
        torch.set_num_threads(options.threads)
    described = machine(options.device)
    found: dict[str, dict[str, Any]] = {}
    for name in options.architecture or ARCHITECTURES:
        found[name] = {}
        for precision in options.precision or usual:
            swin = ARCHITECTURES[name].network == SWIN
            row = measure(name, precision, settings | {"checkpointing": swin and settings["checkpointing"]})
            found[name][precision] = row
            print(f"{name} {precision}: {row}", file=sys.stderr, flush=True)
    release = {
        name: vars(card.reported) if card.reported else None for name, card in ARCHITECTURES.items() if name in found
    }
    result = {
        "machine": described,
        "settings": settings,
        "architectures": found,
        "reported_by_the_release_on_V100S": release,
    }
    print(table(result))
    if options.out:
        write_json(options.out, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a whole training iteration of each method costs on nnU-Net's default network: seconds and peak memory.

    python benchmarks/iteration.py --threads 1 --out results/iteration_cpu.json
    python benchmarks/iteration.py --threads 1 --methods full decoder --plain   # layers and memory as torch has them
    python benchmarks/iteration.py --device cuda --patch 128 --repeats 20 --out iteration_cuda.json

Every method runs in a process of its own, so that its memory is its own; methods take turns, round by round. Layers
are computed, and memory is kept, as `lnsegfm finetune` does. Time on the processor is given next to the clock's, which
counts what neighbours take, too.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lnsegfm.methods.table import METHODS
from lnsegfm.networks.cpu_allocator import reused_memory
from lnsegfm.networks.quick_layers import quick_layers
from lnsegfm.storage import write_json
from machine import machine
from memory import peak_mib
from workload import Workload

LR = 1e-5
"""Small, so that weights stay finite; no cost depends on it."""


def measure(
    name: str, device: str, patch: int, batch: int, repeats: int, threads: int | None, plain: bool
) -> dict[str, Any]:
    """Seconds of iterations of one method, and MiB at their peak; the first iteration, which allocates, is left out."""
    if threads:
        torch.set_num_threads(threads)
    work = Workload(device, patch, batch)
    optimizer = METHODS[name]().optimizer(work.network, lr=LR)
    work.network.train()
    seconds, cpu_seconds = [], []
    with contextlib.ExitStack() as stack:
        if not plain:
            stack.enter_context(reused_memory(work.device))
        for _ in range(repeats + 1):
            started, cpu_started = time.perf_counter(), time.process_time()
            optimizer.zero_grad(set_to_none=True)
            with contextlib.nullcontext() if plain else quick_layers(work.network):
                work.forward_backward()
            work.scaler.step(optimizer)
            work.scaler.update()
            if work.amp:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
            cpu_seconds.append(time.process_time() - cpu_started)
    state = sum(t.nbytes for entry in optimizer.state.values() for t in entry.values() if isinstance(t, Tensor))
    return {
        "seconds": seconds[1:],
        "cpu_seconds": cpu_seconds[1:],
        "peak_mib": peak_mib("cuda" if work.amp else "cpu"),
        "state_mib": state / 2**20,
    }


def main() -> int:
    """Measure, print, write."""
    learning = [name for name, method in METHODS.items() if method.learns]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (with AMP, as nnU-Net trains)")
    parser.add_argument("--patch", type=int, default=64, help="edge of the cubic patch: 64 voxels or more")
    parser.add_argument("--batch", type=int, default=1, help="patches in a batch")
    parser.add_argument("--repeats", type=int, default=2, help="iterations a round that count")
    parser.add_argument("--rounds", type=int, default=2, help="rounds over all methods")
    parser.add_argument("--threads", type=int, help="CPU threads; on a busy machine 1 is disturbed the least")
    parser.add_argument(
        "--methods", nargs="+", choices=learning, default=learning, metavar="NAME", help="which of them"
    )
    parser.add_argument("--plain", action="store_true", help="layers and memory as torch has them")
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args()
    names = options.methods
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    context = multiprocessing.get_context("spawn")
    for round_ in range(options.rounds):
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            told = (name, options.device, options.patch, options.batch, options.repeats, options.threads, options.plain)
            with context.Pool(1) as pool:
                found[name].append(pool.apply(measure, told))
            print(f"{name}: {found[name][-1]}", file=sys.stderr, flush=True)
    rows = {
        name: {
            "median_s": round(statistics.median(s for round_ in rounds for s in round_["seconds"]), 4),
            "cpu_s": round(statistics.median(s for round_ in rounds for s in round_["cpu_seconds"]), 4),
            "fastest_s": round(min(s for round_ in rounds for s in round_["seconds"]), 4),
            "peak_mib": round(max(round_["peak_mib"] for round_ in rounds)),
            "state_mib": round(rounds[-1]["state_mib"], 2),
        }
        for name, rounds in found.items()
    }
    result = {
        "machine": machine(options.device) | {"threads": options.threads},
        "network": "PlainConvUNet, 31.2 million parameters",
        "settings": {
            "patch": [options.patch] * 3,
            "batch": options.batch,
            "iterations": options.repeats * options.rounds,
            "plain": options.plain,
        },
        "methods": rows,
    }
    full = rows.get("full", rows[names[0]])
    print(
        "| method | seconds an iteration | on the processor | of full's | peak memory, MiB | optimizer's state, MiB |"
    )
    print("|---|---|---|---|---|---|")
    for name, row in rows.items():
        figures = f"{row['median_s']:.2f} | {row['cpu_s']:.2f} | {row['cpu_s'] / full['cpu_s']:.2f}"
        print(f"| {name} | {figures} | {row['peak_mib']} | {row['state_mib']:.1f} |")
    if options.out:
        write_json(options.out, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())

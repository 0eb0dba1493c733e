"""What a step of each method costs on nnU-Net's default network, beside forward and backward, in one run.

    python benchmarks/step.py --threads 1 --out results/step_cpu.json
    python benchmarks/step.py --device cuda --patch 128 --repeats 20 --out step_cuda.json

Rounds are interleaved: each does one forward and backward, then one step of every arm on these very gradients, in an
order that rotates. Medians and quartiles are given. Exit code 1 if DGST costs more than it may.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lnsegfm.methods.method import MOMENTUM, WEIGHT_DECAY
from lnsegfm.methods.table import load_method
from lnsegfm.networks.parameter_roles import parameters_of
from lnsegfm.networks.role import Role
from lnsegfm.storage import write_json
from machine import machine
from memory import memory_of
from workload import Workload

LR = 1e-5
"""Small, so that weights stay finite however many rounds are run; no cost depends on it."""

SHARE_ALLOWED = 0.02
"""Of forward and backward, for selection and update together in mode paper."""

ARGSORT_ROUNDS = 3
WHOLE = "forward and backward"
DGST_ARMS: dict[str, dict[str, str]] = {
    f"dgst {mode} gamma {gamma}": {"mode": mode, "gamma": str(gamma)}
    for mode in ("paper", "momentum", "masked-gradient")
    for gamma in (1, 2)
}


def argsort_step(network: nn.Module) -> None:
    """The selection as the paper's release formulates it, gamma 1: a full argsort and rows of an identity matrix.

    Written from its description, tensor by tensor; the release keeps all masks at once.
    """
    with torch.no_grad():
        for parameter in parameters_of(network):
            if parameter.role is Role.WEIGHT and parameter.tensor.grad is not None:
                gradient = parameter.layout.rows(parameter.tensor.grad)
                order = gradient.abs().argsort(dim=1, descending=True)
                mask = torch.eye(gradient.shape[1], device=gradient.device)[order[:, :1]].sum(1)
                parameter.tensor.sub_(parameter.layout.unrows(gradient * mask, parameter.tensor), alpha=LR)


def arms_of(work: Workload) -> dict[str, tuple[nn.Module, Callable[[], Any]]]:
    """Every arm with a network of its own and its step."""
    arms: dict[str, tuple[nn.Module, Callable[[], Any]]] = {}
    network = copy.deepcopy(work.network)
    sgd = torch.optim.SGD(network.parameters(), lr=LR, momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY)
    arms["plain SGD"] = (network, sgd.step)
    methods: dict[str, tuple[str, dict[str, str]]] = {f"method {n}": (n, {}) for n in ("head", "bias", "affine")}
    methods |= {name: ("dgst", settings) for name, settings in DGST_ARMS.items()}
    for name, (method, settings) in methods.items():
        network = copy.deepcopy(work.network)
        arms[name] = (network, load_method(method, settings).optimizer(network, lr=LR).step)
    network = copy.deepcopy(work.network)
    arms["argsort and eye, gamma 1"] = (network, partial(argsort_step, network))
    return arms


def measure_time(work: Workload, repeats: int) -> dict[str, list[float]]:
    """Seconds of every arm in every round; the first round, which allocates state, is left out."""
    arms = arms_of(work)
    seconds: dict[str, list[float]] = {name: [] for name in (WHOLE, *arms)}
    names = list(arms)
    gradients = torch.optim.SGD(work.network.parameters())  # never steps: every arm takes its gradients, unscaled
    for round_ in range(repeats + 1):
        taken = {WHOLE: work.seconds(work.forward_backward)}
        work.scaler.unscale_(gradients)
        work.scaler.update()
        shift = round_ % len(names)
        for name in names[shift:] + names[:shift]:
            if name.startswith("argsort") and round_ > ARGSORT_ROUNDS:
                continue
            network, step = arms[name]
            for parameter, fresh in zip(network.parameters(), work.network.parameters(), strict=True):
                parameter.grad = fresh.grad if parameter.requires_grad else None
            taken[name] = work.seconds(step)
        for name, value in taken.items():
            seconds[name] += [value] * (round_ > 0)
        print(f"round {round_} of {repeats}: {WHOLE} {taken[WHOLE]:.3f} s", file=sys.stderr, flush=True)
    return seconds


def summary(values: list[float], whole: float) -> dict[str, Any]:
    """Median and quartiles in seconds, and the median's share of forward and backward."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {
        "median_s": round(median, 6),
        "quartiles_s": [round(low, 6), round(high, 6)],
        "rounds": len(values),
        "share_of_forward_backward": round(median / whole, 6),
    }


def verdict(times: dict[str, Any], memory: dict[str, dict[str, float]]) -> dict[str, bool]:
    """What is required of DGST's default mode, and whether this run shows it."""
    sgd = memory["plain SGD"]
    paper = {name: need for name, need in memory.items() if name.startswith("dgst paper")}
    return {
        f"dgst paper takes at most {SHARE_ALLOWED:.0%} of {WHOLE}": all(
            times[name]["share_of_forward_backward"] <= SHARE_ALLOWED for name in paper
        ),
        "dgst paper peaks no higher than plain SGD": all(
            need["peak_of_training_mib"] <= sgd["peak_of_training_mib"] for need in paper.values()
        ),
        "a step of dgst paper with its state needs no more than plain SGD's": all(
            need["state_mib"] + need["step_transient_mib"] <= sgd["state_mib"] + sgd["step_transient_mib"]
            for need in paper.values()
        ),
    }


def table(result: dict[str, Any]) -> str:
    """The result as a Markdown table."""
    lines = ["| work | median, ms | quartiles, ms | of forward and backward |", "|---|---|---|---|"]
    for name, row in result["time"].items():
        low, high = (f"{1000 * value:.1f}" for value in row["quartiles_s"])
        share = row["share_of_forward_backward"]
        lines.append(f"| {name} | {1000 * row['median_s']:.1f} | {low} to {high} | {share:.2%} |")
    lines += ["", "| optimizer | state, MiB | step on top, MiB | peak of training, MiB |", "|---|---|---|---|"]
    for name, row in result["memory"].items():
        need = (row["state_mib"], row["step_transient_mib"], row["peak_of_training_mib"])
        lines.append(f"| {name} | {need[0]:.1f} | {need[1]:.1f} | {need[2]:.0f} |")
    return "\n".join(lines)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (with AMP, as nnU-Net trains)")
    parser.add_argument("--patch", type=int, default=64, help="edge of the cubic patch: 64 voxels or more")
    parser.add_argument("--batch", type=int, default=2, help="patches in a batch")
    parser.add_argument("--repeats", type=int, default=11, help="rounds that count")
    parser.add_argument("--threads", type=int, help="CPU threads; on a busy machine 1 is disturbed the least")
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    described = machine(options.device)
    where = (options.device, options.patch, options.batch)
    arms: dict[str, dict[str, str] | None] = {"plain SGD": None}
    arms |= {name: settings for name, settings in DGST_ARMS.items() if name.endswith("gamma 1") or "paper" in name}
    memory = {name: memory_of(settings, LR, *where) for name, settings in arms.items()}
    work = Workload(*where)
    seconds = measure_time(work, options.repeats)
    whole = statistics.median(seconds[WHOLE])
    times = {name: summary(values, whole) for name, values in seconds.items()}
    result = {
        "machine": described,
        "network": {"class": "PlainConvUNet", "parameters": sum(p.numel() for p in work.network.parameters())},
        "settings": {"device": options.device, "patch": [options.patch] * 3, "batch": options.batch, "amp": work.amp},
        "time": times,
        "memory": memory,
        "required": verdict(times, memory),
    }
    print(table(result))
    for what, shown in result["required"].items():
        print(f"{'yes' if shown else 'NO '}  {what}")
    if options.out:
        write_json(options.out, result)
    return 0 if all(result["required"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())

"""What an optimizer needs in memory, measured in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lnsegfm.methods.method import MOMENTUM, WEIGHT_DECAY
from lnsegfm.methods.table import load_method
from workload import Workload

ITERATIONS = 3


def memory_of(settings: Mapping[str, str] | None, lr: float, device: str, patch: int, batch: int) -> dict[str, float]:
    """MiB that DGST with some settings needs, or plain SGD for None.

    Returns:
        ``state_mib``: the optimizer's state. ``step_transient_mib``: how far tensors allocated during one step rise
        above what was held before it, state of earlier steps included. ``peak_of_training_mib``: the peak of whole
        iterations; resident memory of the process on a CPU, allocated memory of the device on CUDA.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (settings, lr, device, patch, batch))


def _measure(settings: Mapping[str, str] | None, lr: float, device: str, patch: int, batch: int) -> dict[str, float]:
    work = Workload(device, patch, batch)
    parameters = work.network.parameters()
    optimizer = (
        torch.optim.SGD(parameters, lr=lr, momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY)
        if settings is None
        else load_method("dgst", settings).optimizer(work.network, lr=lr)
    )
    for _ in range(ITERATIONS):
        work.forward_backward()
        work.scaler.step(optimizer)
        work.scaler.update()
    peak = peak_mib(
        "cuda" if work.amp else "cpu"
    )  # before a profiler, which takes memory of its own, looks at one more step
    work.forward_backward()
    work.scaler.unscale_(optimizer)
    transient = _transient_mib(work, partial(work.scaler.step, optimizer))
    state = sum(t.nbytes for entry in optimizer.state.values() for t in entry.values() if isinstance(t, Tensor))
    return {
        "state_mib": round(state / 2**20, 2),
        "step_transient_mib": round(transient, 1),
        "peak_of_training_mib": round(peak, 1),
    }


def _transient_mib(work: Workload, step: Callable[[], Any]) -> float:
    """How far tensors allocated during a step rise above what was held before it."""
    if work.amp:
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        highest = max(highest, held)
    return highest / 2**20


def peak_mib(device: str) -> float:
    """Peak of this process so far: allocated memory of a CUDA device, resident memory beside a CPU."""
    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else _status_mib("VmHWM")


def _status_mib(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"{field}: /proc/self/status does not tell it. Measure memory on Linux.")

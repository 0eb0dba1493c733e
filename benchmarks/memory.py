"""What an optimizer needs in memory, measured in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lnsegfm.methods.method import MOMENTUM, WEIGHT_DECAY
from lnsegfm.methods.table import load_method
from workload import Workload

ITERATIONS = 3


def memory_of(settings: Mapping[str, str] | None, lr: float, device: str, patch: int, batch: int) -> dict[str, float]:
    """MiB that DGST with some settings needs, or plain SGD for None.

    Returns:
        ``state_mib``: the optimizer's state. ``step_transient_mib``: how far the peak during the last step lies above
        what was held before it. ``peak_of_training_mib``: the peak of whole iterations; resident memory of the process
        on a CPU, allocated memory of the device on CUDA.
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
    peak = transient = 0.0
    for _ in range(ITERATIONS):  # the first step allocates the state, so the last one's own need is looked at
        work.forward_backward()
        work.scaler.unscale_(optimizer)
        peak = max(peak, _peak_mib(work))
        before = _held_mib_from_now(work)
        work.scaler.step(optimizer)
        transient = _peak_mib(work) - before
        peak = max(peak, before + transient)
        work.scaler.update()
    state = sum(t.nbytes for entry in optimizer.state.values() for t in entry.values() if isinstance(t, Tensor))
    return {
        "state_mib": round(state / 2**20, 2),
        "step_transient_mib": round(transient, 1),
        "peak_of_training_mib": round(peak, 1),
    }


def _held_mib_from_now(work: Workload) -> float:
    """Memory held now; the peak is counted afresh from here."""
    if work.amp:
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the high-water mark
    return _status_mib("VmRSS")


def _peak_mib(work: Workload) -> float:
    return torch.cuda.max_memory_allocated() / 2**20 if work.amp else _status_mib("VmHWM")


def _status_mib(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"{field}: /proc/self/status does not tell it. Measure memory on Linux.")

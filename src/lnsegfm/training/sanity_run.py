"""The sanity check of a run: its method's first steps on a second trainer, which is discarded."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from lnsegfm.methods.method import Method
from lnsegfm.methods.sanity_check import SanityReport, run_sanity_check
from lnsegfm.networks.cpu_allocator import reused_memory
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.progress import Progress
from lnsegfm.training.in_memory_trainer import InMemoryTrainer
from lnsegfm.training.schedule import Schedule
from lnsegfm.transforms.augmentation.prepared_case import PreparedCase
from lnsegfm.weights.checkpoint import Checkpoint


def sanity_run(
    start: Checkpoint,
    method: Method,
    shots: Sequence[PreparedCase],
    schedule: Schedule,
    work: Path,
    device: str,
    progress: Progress,
) -> SanityReport:
    """Take a run's first steps on its first batches and see that its method moves what it says.

    The run itself is not affected: weights, optimizer, scaler and random numbers are its own. Processes
    that train together do it in step.

    Args:
        start: Plans, description and weights that the run starts from.
        method: What moves.
        shots: Its prepared scans, on one device.
        schedule: How long and how fast.
        work: Folder for what nnU-Net puts down.
        device: ``cpu``, ``cuda`` or ``mps``.
        progress: Where the result is reported.

    Raises:
        ConfigError: The method does not do what it says.
    """
    with _random_numbers_kept():
        with nnunet_environment(work):
            trainer = InMemoryTrainer.ready(start, method, schedule, device)
        with reused_memory(trainer.device):
            report = _check(trainer, shots, schedule)
    del trainer
    gc.collect()  # the run's own trainer takes its place in memory
    if device == "cuda":
        torch.cuda.empty_cache()
    progress.stage(f"Sanity check: {report.line()}")
    return report


def _check(trainer: InMemoryTrainer, shots: Sequence[PreparedCase], schedule: Schedule) -> SanityReport:
    batches = trainer.feed(shots, schedule.seed)

    def step(number: int) -> None:
        iteration = number % schedule.iterations
        trainer.take(iteration, batches[iteration], schedule.seed)

    return run_sanity_check(trainer.method, trainer.network, trainer.optimizer, step)


@contextmanager
def _random_numbers_kept() -> Iterator[None]:
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    on_gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
        if on_gpu:
            torch.cuda.set_rng_state_all(on_gpu)

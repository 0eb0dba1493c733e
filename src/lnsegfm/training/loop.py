"""The training loop: resumable at any iteration, the same bytes whether or not it was interrupted."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from lnsegfm.errors import Diverged, Interrupted, ModelError, RunMismatch
from lnsegfm.networks.cards import unwrap
from lnsegfm.networks.cpu_allocator import reused_memory
from lnsegfm.progress import Progress
from lnsegfm.training.in_memory_trainer import MemoryTrainer
from lnsegfm.training.loss_history import Course, warning
from lnsegfm.training.schedule import Schedule
from lnsegfm.transforms.augmentation.prepared_case import Shot
from lnsegfm.weights.checkpoint import load_safely, save

SAVE_EVERY_S = 20.0


def fit(
    trainer: MemoryTrainer,
    shots: Sequence[Shot],
    schedule: Schedule,
    state_file: Path,
    *,
    workers: int,
    progress: Progress,
) -> Course:
    """Train; continue from ``state_file`` where there is one.

    Args:
        trainer: Initialised, with the weights to start from.
        shots: Prepared scans, on one device.
        schedule: How long.
        state_file: Where the state is kept; saved now and then, and when SIGINT or SIGTERM arrives.
        workers: Processes that make batches; 0 makes them here.
        progress: Told loss, rate and time left.

    Raises:
        Interrupted: A signal arrived; the state is saved.
        Diverged: The loss is no number any more.
    """
    course = _restore(trainer, state_file)
    batches = trainer.feed(shots, schedule.seed)
    started, saved = time.monotonic() - course.seconds, time.monotonic()
    first = course.iteration
    progress.stage(f"Training: {schedule.iterations} iterations" + (f", continued at {first}" if first else ""))
    remaining = range(first, schedule.iterations)
    feed = iter(batches.over(remaining, workers, pin=trainer.device.type == "cuda"))
    with signals() as arrived, reused_memory(trainer.device):
        for iteration in remaining:
            if _over(course, schedule):
                break
            loss = trainer.take(iteration, next(feed), schedule.seed)
            stopped, loss, seconds = agree(bool(arrived), loss, time.monotonic() - started, trainer.device)
            if not math.isfinite(loss):
                raise Diverged(
                    f"Loss at iteration {iteration}: not a finite number. Lower --lr, or check the images' intensities."
                )
            course.iteration = iteration + 1
            course.add(loss)
            course.seconds = seconds
            if stopped:
                _store(trainer, course, state_file)
                raise Interrupted(f"Interrupted at iteration {course.iteration}; the same command continues.")
            if time.monotonic() - saved > SAVE_EVERY_S:
                _store(trainer, course, state_file)
                saved = time.monotonic()
            progress.advance(course.iteration, schedule.iterations, f"loss {course.curve[-1]:.3f}")
    _over(course, schedule)
    _store(trainer, course, state_file)
    told = warning(course.ran_away())
    if told is not None:
        progress.stage(told)
    return course


def _over(course: Course, schedule: Schedule) -> bool:
    if schedule.time_limit_s is not None and course.seconds >= schedule.time_limit_s:
        course.stopped_by = "time limit"
        return True
    if schedule.early_stop is not None and len(course.losses) > schedule.early_stop:
        lowest = min(range(len(course.curve)), key=course.curve.__getitem__)
        if len(course.curve) - 1 - lowest >= schedule.early_stop:
            course.stopped_by = "plateau"
            return True
    return False


def _store(trainer: MemoryTrainer, course: Course, file: Path) -> None:
    scaler = trainer.grad_scaler.state_dict() if trainer.grad_scaler is not None else None
    if trainer.local_rank != 0:
        return
    content = {
        "network": unwrap(trainer.network).state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": scaler,
        "iteration": course.iteration,
        "losses": course.losses,
        "seconds": course.seconds,
    }
    save(file, content)


def _restore(trainer: MemoryTrainer, file: Path) -> Course:
    if not file.is_file():
        return Course(0, [], 0.0)
    content = load_safely(file)
    try:
        unwrap(trainer.network).load_state_dict(content["network"])
        trainer.optimizer.load_state_dict(content["optimizer"])
        if trainer.grad_scaler is not None and content["scaler"] is not None:
            trainer.grad_scaler.load_state_dict(content["scaler"])
        return Course(content["iteration"], content["losses"], content["seconds"])
    except (KeyError, TypeError, ValueError, RuntimeError, ModelError) as error:
        raise RunMismatch(f"{file}: not a training state of this run ({error}). Remove it to start anew.") from None


def agree(stop: bool, loss: float, seconds: float, device: torch.device) -> tuple[bool, float, float]:
    """What several processes that train together hold of a step: whether any stops, mean loss, longest time."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return stop, loss, seconds
    own = torch.tensor([float(stop), loss, seconds], dtype=torch.float64, device=device)
    every = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(every, own)
    found = torch.stack(every)
    return bool(found[:, 0].any()), float(found[:, 1].mean()), float(found[:, 2].max())


@contextmanager
def signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; the list is empty until one arrives."""
    arrived: list[int] = []
    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, lambda n, _: arrived.append(n))
    except ValueError:  # not the main thread: whoever owns it handles signals
        pass
    try:
        yield arrived
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

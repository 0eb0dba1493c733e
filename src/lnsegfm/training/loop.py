"""The training loop: resumable at any iteration, the same bytes whether or not it was interrupted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lnsegfm.errors import Diverged, Interrupted, ModelError, RunMismatch
from lnsegfm.expected_time import Clock, TimedProgress, TimePlan
from lnsegfm.networks.cards import unwrap
from lnsegfm.networks.cpu_allocator import reused_memory
from lnsegfm.progress import Progress
from lnsegfm.training.in_memory_trainer import InMemoryTrainer
from lnsegfm.training.loss_history import LossHistory, divergence_warning
from lnsegfm.training.schedule import TIME_LIMIT, Schedule
from lnsegfm.training.whole_steps import WholeSteps
from lnsegfm.transforms.augmentation.prepared_case import PreparedCase
from lnsegfm.weights.checkpoint import load_safely, save

SAVE_EVERY_S = 20.0


def fit(
    trainer: InMemoryTrainer,
    shots: Sequence[PreparedCase],
    schedule: Schedule,
    state_file: Path,
    *,
    workers: int,
    progress: Progress,
    clock: Clock = time.monotonic,
    time_plan: TimePlan | None = None,
) -> LossHistory:
    """Train; continue from ``state_file`` where there is one.

    Args:
        trainer: Initialised, with the weights to start from.
        shots: Prepared scans, on one device.
        schedule: How long.
        state_file: Where the state is kept; saved now and then, and when training is stopped.
        workers: Processes that make batches; 0 makes them here.
        progress: Reported to, and asked after each step whether to stop (`Progress.stoppable`).
        clock: Seconds of a clock that never goes back.
        time_plan: What is known of the time that the run takes: it is said after the first steps; None says nothing.

    Raises:
        Interrupted: Asked to stop; the state is saved.
        KeyboardInterrupt: It arrived; the state after the last whole step is saved, or, where the optimizer was just
            changing weights, that which was saved before is left. The same call continues to the same bytes.
        Diverged: The loss is no number any more.
    """
    history = _restore(trainer, state_file)
    batches = trainer.feed(shots, schedule.seed)
    first = history.iteration
    progress.stage(f"Training: {schedule.iterations} iterations" + (f", continued at {first}" if first else ""))
    feed = iter(batches.over(range(first, schedule.iterations), workers, pin=trainer.device.type == "cuda"))
    steps = WholeSteps(trainer)
    timed = _timed(progress, time_plan, schedule, history, clock)
    try:
        with progress.stoppable() as stop, reused_memory(trainer.device), steps.watching(trainer):
            _iterate(trainer, feed, history, schedule, state_file, steps=steps, stop=stop, progress=timed, clock=clock)
    except KeyboardInterrupt:
        if steps.whole:
            _store(trainer, history, state_file)
        raise
    _is_finished(history, schedule)
    _store(trainer, history, state_file)
    warning = divergence_warning(history.divergence())
    if warning is not None:
        progress.stage(warning)
    return history


def _timed(
    progress: Progress, time_plan: TimePlan | None, schedule: Schedule, history: LossHistory, clock: Clock
) -> Progress:
    """A progress that says how long the run takes, within its time limit, once the first steps were measured."""
    if time_plan is None:
        return progress
    limit = schedule.time_limit_s
    left = None if limit is None else max(0.0, limit - history.seconds)
    return TimedProgress(progress, replace(time_plan, limit_s=left, further_limit_s=limit), clock)


def _iterate(
    trainer: InMemoryTrainer,
    feed: Iterator[dict[str, Any]],
    history: LossHistory,
    schedule: Schedule,
    state_file: Path,
    *,
    steps: WholeSteps,
    stop: Callable[[], bool],
    progress: Progress,
    clock: Clock,
) -> None:
    """Take the steps that are left, saving now and then."""
    started, saved = clock() - history.seconds, clock()
    for iteration in range(history.iteration, schedule.iterations):
        if _is_finished(history, schedule):
            break
        batch = next(feed)
        steps.start()
        trainer.time_used = schedule.time_used(history.seconds)
        loss = trainer.take(iteration, batch, schedule.seed)
        stopped, loss, seconds = synchronise(stop(), loss, clock() - started, trainer.device)
        if not math.isfinite(loss):
            raise Diverged(
                f"Loss at iteration {iteration}: not a finite number. Lower --lr, or check the images' intensities."
            )
        history.add(loss)
        history.iteration, history.seconds = iteration + 1, seconds
        steps.finish()
        if stopped:
            _store(trainer, history, state_file)
            raise Interrupted(f"Interrupted at iteration {history.iteration}; the same command continues.")
        if clock() - saved > SAVE_EVERY_S:
            _store(trainer, history, state_file)
            saved = clock()
        progress.advance(history.iteration, schedule.iterations, f"loss {history.curve[-1]:.3f}")


def _is_finished(history: LossHistory, schedule: Schedule) -> bool:
    if schedule.time_limit_s is not None and history.seconds >= schedule.time_limit_s:
        history.stopped_by = TIME_LIMIT
        return True
    if schedule.early_stop is not None and len(history.losses) > schedule.early_stop:
        lowest = min(range(len(history.curve)), key=history.curve.__getitem__)
        if len(history.curve) - 1 - lowest >= schedule.early_stop:
            history.stopped_by = "plateau"
            return True
    return False


def _store(trainer: InMemoryTrainer, history: LossHistory, file: Path) -> None:
    scaler = trainer.grad_scaler.state_dict() if trainer.grad_scaler is not None else None
    if trainer.local_rank != 0:
        return
    content = {
        "network": unwrap(trainer.network).state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": scaler,
        "iteration": history.iteration,
        "losses": history.losses,
        "seconds": history.seconds,
    }
    save(file, content)


def _restore(trainer: InMemoryTrainer, file: Path) -> LossHistory:
    if not file.is_file():
        return LossHistory(0, [], 0.0)
    content = load_safely(file)
    try:
        unwrap(trainer.network).load_state_dict(content["network"])
        trainer.optimizer.load_state_dict(content["optimizer"])
        if trainer.grad_scaler is not None and content["scaler"] is not None:
            trainer.grad_scaler.load_state_dict(content["scaler"])
        return LossHistory(content["iteration"], content["losses"], content["seconds"])
    except (KeyError, TypeError, ValueError, RuntimeError, ModelError) as error:
        raise RunMismatch(f"{file}: not a training state of this run ({error}). Remove it to start anew.") from None


def synchronise(stop: bool, loss: float, seconds: float, device: torch.device) -> tuple[bool, float, float]:
    """What several processes that train together hold of a step: whether any stops, mean loss, longest time."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return stop, loss, seconds
    own = torch.tensor([float(stop), loss, seconds], dtype=torch.float64, device=device)
    every = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(every, own)
    found = torch.stack(every)
    return bool(found[:, 0].any()), float(found[:, 1].mean()), float(found[:, 2].max())

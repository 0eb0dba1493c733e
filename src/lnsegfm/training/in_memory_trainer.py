"""The training loop: resumable at any iteration, the same bytes whether or not it was interrupted."""

from __future__ import annotations

import copy
import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch.optim import Optimizer

from lnsegfm.errors import Diverged, Interrupted, ModelError, RunMismatch
from lnsegfm.methods.method import Method
from lnsegfm.models.model_folder import build_network, load_weights
from lnsegfm.networks.cards import unwrap
from lnsegfm.networks.cpu_allocator import reused_memory
from lnsegfm.networks.quick_layers import quick_layers
from lnsegfm.nnunet.augmentation_settings import settings_of
from lnsegfm.nnunet.environment import seed_everything
from lnsegfm.progress import Progress
from lnsegfm.training.loss_history import Course, warning
from lnsegfm.training.nnunet_trainer import MethodTrainer
from lnsegfm.training.precision import autocast_to, needs_scaling
from lnsegfm.training.prepared_cases import Shot
from lnsegfm.transforms.augmentation.augmented_batches import AugmentedBatches
from lnsegfm.weights.checkpoint import Checkpoint, load_safely, save

SAVE_EVERY_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast to train.

    Args:
        lr: Learning rate; falls to 0 by nnU-Net's polynomial schedule.
        iterations: Optimizer steps.
        seed: Of patches and augmentation.
        warm_up: Iterations over which the rate rises to ``lr`` before it falls.
        time_limit_s: Stop after this many seconds of training.
        early_stop: Stop after this many iterations without a lower smoothed loss.
        precision: Numbers that the network trains in (`lnsegfm.training.precision`); None leaves it to nnU-Net.
    """

    lr: float
    iterations: int
    seed: int
    warm_up: int = 0
    time_limit_s: float | None = None
    early_stop: int | None = None
    precision: str | None = None


class WarmUp(PolyLRScheduler):
    """A linear rise over the first iterations, then nnU-Net's polynomial fall over the rest.

    The rate of iteration i is lr (i + 1) / rise, from i = rise on what nnU-Net's schedule gives for i - rise.
    """

    def __init__(self, optimizer: Optimizer, lr: float, iterations: int, rise: int) -> None:
        self.rise = rise
        super().__init__(optimizer, lr, iterations - rise)

    def step(self, current_step: int | None = None) -> None:
        """Set the rate of every group for an iteration."""
        if current_step is None or current_step < 0:
            current_step = self.ctr
            self.ctr += 1
        if current_step >= self.rise:
            super().step(current_step - self.rise)
            return
        for group in self.optimizer.param_groups:
            group["lr"] = self.initial_lr * (current_step + 1) / self.rise
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


class MemoryTrainer(MethodTrainer):
    """nnU-Net's trainer as the owner of network, loss and augmentation; the scans lie in memory, the loop is ours."""

    start: Checkpoint
    warm_up: int
    precision: str | None

    @classmethod
    def ready(cls, start: Checkpoint, method: Method, schedule: Schedule, device: str) -> Self:
        """A trainer with network, weights, optimizer and loss; nnU-Net's ``__init__`` takes no more arguments."""
        plans = copy.deepcopy(dict(start.plans)) | {"continue_training": False}
        trainer = cls(plans, start.configuration, 0, dict(start.dataset_json), torch.device(device))
        if trainer.is_ddp and device == "cpu":  # nnU-Net takes it that only GPUs train together
            trainer.device = torch.device(device)
        trainer.start = start
        trainer.method = method
        trainer.initial_lr = schedule.lr
        trainer.num_epochs = schedule.iterations  # the learning rate falls at every iteration
        trainer.warm_up = schedule.warm_up
        trainer.precision = schedule.precision
        if not needs_scaling(schedule.precision):
            trainer.grad_scaler = None
        trainer.initialize()
        return trainer

    def initialize(self) -> None:
        """Build network and loss; there are no preprocessed files to look for, and compiling outlasts a short run."""
        self._set_batch_size_and_oversample()
        self.set_outputs()
        network = build_network(self.start, deep_supervision=self.enable_deep_supervision)
        if self.is_ddp and self.device.type == "cuda":
            network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
        load_weights(network, self.start.weights)
        self.network = network.to(self.device)
        self.optimizer, self.lr_scheduler = self.configure_optimizers()
        if self.is_ddp:
            places = [self.device.index] if self.device.type == "cuda" else None
            self.network = torch.nn.parallel.DistributedDataParallel(self.network, device_ids=places)
        self.loss = self._build_loss()
        self.was_initialized = True

    def configure_optimizers(self) -> tuple[Optimizer, PolyLRScheduler]:
        """The method's optimizer under nnU-Net's schedule, after a warm-up where one is asked for."""
        optimizer, schedule = super().configure_optimizers()
        if self.warm_up:
            schedule = WarmUp(optimizer, self.initial_lr, self.num_epochs, self.warm_up)
        return optimizer, schedule

    def feed(self, shots: Sequence[Shot], seed: int) -> AugmentedBatches:
        """Get ready to train, and give the batches, which are made where the scans lie."""
        scales = self._get_deep_supervision_scales()
        batches = AugmentedBatches(shots, settings_of(self), self.batch_size, seed, scales=scales, rank=self.rank or 0)
        self.set_deep_supervision_enabled(self.enable_deep_supervision)
        self.network.train()
        return batches

    @property
    def rank(self) -> int | None:
        """Which of several processes that train together this is."""
        return self.local_rank if self.is_ddp else None

    def take(self, iteration: int, batch: dict[str, Any], seed: int) -> float:
        """Take training step number ``iteration`` and give its loss.

        What the network draws at random depends on seed and iteration alone, not on who made the batch.
        """
        self.lr_scheduler.step(iteration)
        seed_everything(seed, iteration, self.rank or 0, 1)
        with quick_layers(self.network), autocast_to(self.precision):
            return float(self.train_step(batch)["loss"])

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, Any, Any, Any]:
        """Mirror along the axes that the base was mirrored along: one that was not may tell left from right."""
        rotation, dummy_2d, patch, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = axes = self.start.mirroring_axes
        return rotation, dummy_2d, patch, axes

    def _do_i_compile(self) -> bool:
        return False

    def print_to_log_file(self, *args: Any, also_print_to_console: bool = True, add_timestamp: bool = True) -> None:
        """Say nothing: the run's own files tell what happened."""


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

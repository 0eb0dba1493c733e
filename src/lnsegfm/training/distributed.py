"""Several processes that train one model, a GPU each: nnU-Net's data-parallel training (DDP) around our loop.

Each process makes its share of every batch; gradients are averaged. The first process writes all files.
"""

from __future__ import annotations

import contextlib
import queue
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.multiprocessing as mp

from lnsegfm import errors
from lnsegfm.errors import ConfigError, Interrupted, LnSegFmError
from lnsegfm.progress import Progress, StoppedBySignals
from lnsegfm.training.launched import cpu_threads
from lnsegfm.training.train_process import train_in_process
from lnsegfm.training.training_job import TrainingJob

WAIT = timedelta(minutes=30)
SAVING_S, LEAVING_S = 600.0, 1.0


def require_processes(processes: int, batch_size: int, device: str, *, here: int | None = None) -> None:
    """Refuse more processes than there is work or hardware for.

    Args:
        processes: That train together.
        batch_size: Patches a step.
        device: ``cpu``, ``cuda`` or ``mps``.
        here: How many of them run on this machine; None is all.

    Raises:
        ConfigError: Fewer patches a step than processes, or fewer GPUs, or a device that trains alone.
    """
    if processes < 2:
        return
    if batch_size < processes:
        raise ConfigError(f"--gpus {processes}: a step has {batch_size} patches only. Use --batch-size {processes}.")
    if device == "cuda" and torch.cuda.device_count() < (here or processes):
        raise ConfigError(f"--gpus {processes}: this machine has {torch.cuda.device_count()}. Use as many at most.")
    if device == "mps":
        raise ConfigError(f"--gpus {processes}: mps trains alone. Use --gpus 1.")


@dataclass(frozen=True)
class WorkerTask:
    """What each process is started with.

    Args:
        job: The training; its prepared scans lie in files.
        processes: Number of processes.
        rendezvous: File by which they find each other.
    """

    job: TrainingJob
    processes: int
    rendezvous: str


def train_distributed(job: TrainingJob, processes: int, progress: Progress) -> None:
    """Train in several processes; returns when the model is written.

    Args:
        job: The training; its prepared scans lie in files.
        processes: Number of processes.
        progress: Where the first of them reports progress.

    Raises:
        Interrupted: Asked to stop (`Progress.stoppable`); the state is saved.
        KeyboardInterrupt: It arrived; the state is saved.
        LnSegFmError: The error of the first process to fail.
        RuntimeError: A process died without a message.
    """
    context = mp.get_context("spawn")
    messages = context.Queue()
    with TemporaryDirectory(prefix="lnsegfm-") as folder:
        task = WorkerTask(job, processes, f"{folder}/rendezvous")
        workers = [
            context.Process(target=_work, args=(rank, task, messages), daemon=False) for rank in range(processes)
        ]
        try:
            with progress.stoppable() as stop:
                for process in workers:
                    process.start()
                try:
                    _watch(workers, messages, stop, progress)
                except KeyboardInterrupt:
                    with contextlib.suppress(Interrupted, RuntimeError):
                        _watch(workers, messages, lambda: True, progress)
                    raise
        finally:
            for process in workers:
                if process.is_alive():
                    process.kill()
                process.join()


def _watch(workers: Sequence[Any], messages: Any, stop: Callable[[], bool], progress: Progress) -> None:
    stopped = False
    while True:
        if not stopped and stop():
            stopped = True
            for process in workers:
                process.terminate()
        try:
            kind, *content = messages.get(timeout=0.2)
        except queue.Empty:
            codes = [process.exitcode for process in workers]
            if all(code == 0 for code in codes):
                return
            if any(code not in (None, 0) for code in codes):
                if stopped:
                    raise Interrupted("Interrupted; the same command continues.") from None
                raise RuntimeError(f"A training process died (exit codes {codes}).") from None
            continue
        if kind == "stage":
            progress.stage(*content)
        elif kind == "advance":
            progress.advance(*content)
        else:
            name, text = content
            for process in workers:  # all stop at the same step; the first is perhaps still saving
                process.join(timeout=SAVING_S if name == Interrupted.__name__ else LEAVING_S)
            error = getattr(errors, name, None)
            raise error(text) if error is not None else RuntimeError(text)


class ProgressRelay(StoppedBySignals):
    """Passes the progress of the first process to the one that started it."""

    def __init__(self, messages: Any) -> None:
        self._messages = messages

    def stage(self, text: str) -> None:
        """Pass on."""
        self._messages.put(("stage", text))

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Pass on."""
        self._messages.put(("advance", done, total, note))


def _work(rank: int, task: WorkerTask, messages: Any) -> None:
    cuda = task.job.device == "cuda"
    if cuda:
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(cpu_threads(task.processes))
    try:
        torch.distributed.init_process_group(
            "nccl" if cuda else "gloo",
            init_method=f"file://{task.rendezvous}",
            rank=rank,
            world_size=task.processes,
            timeout=WAIT,
        )
        progress: Progress = ProgressRelay(messages) if rank == 0 else StoppedBySignals()
        train_in_process(task.job, progress)
        torch.distributed.barrier()  # nobody leaves before the model is written
    except LnSegFmError as error:
        messages.put(("error", type(error).__name__, str(error)))
    except BaseException:
        messages.put(("error", "", traceback.format_exc()))
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

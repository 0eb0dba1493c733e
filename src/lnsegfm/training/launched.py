"""Processes on one node or several that torchrun or srun started, to train one model together.

Each runs the same command. The first one does all that a run does; the others wait for its training, take their share
of it, and end. The folder of the run, and the data, lie where all nodes see them.

Environments: https://docs.pytorch.org/docs/stable/elastic/run.html, https://slurm.schedmd.com/srun.html.
"""

from __future__ import annotations

import os
import pickle
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from lnsegfm.errors import ConfigError, LnSegFmError, ProcessLost

if TYPE_CHECKING:
    from lnsegfm.training.training_job import TrainingJob

READY = "lnsegfm/ready"
"""Under this key the first process says whether there is a training to join."""
GO, NOTHING = b"go", b"nothing"
LEFT = "lnsegfm/left"
"""Under this key they count who has seen that there is none."""
LEAVING_S = 20.0
PREPARING = timedelta(days=30)
"""The others wait so long for the first one, which reads and prepares all scans; where it ends, they end."""
STEP = timedelta(minutes=30)
"""Processes wait so long for one another in training."""
_PORTS = (20000, 40000)


@dataclass(frozen=True)
class LaunchedProcess:
    """One of several processes that were started to train together.

    Args:
        rank: Its number among all, from 0.
        processes: How many there are.
        local_rank: Its number on its node.
        local_processes: How many its node has.
        address: Host of the first one.
        port: On which it listens, or the launcher does for it.
    """

    rank: int
    processes: int
    local_rank: int
    local_processes: int
    address: str
    port: int

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] | None = None) -> LaunchedProcess | None:
        """What torchrun or srun says of this process; None where neither started several.

        Raises:
            ConfigError: A part of it is missing or no number.
        """
        said = os.environ if environment is None else environment
        try:
            if int(said.get("WORLD_SIZE", "1")) > 1:
                return cls(
                    int(said["RANK"]),
                    int(said["WORLD_SIZE"]),
                    int(said.get("LOCAL_RANK", "0")),
                    int(said.get("LOCAL_WORLD_SIZE", "1")),
                    said["MASTER_ADDR"],
                    int(said["MASTER_PORT"]),
                )
            if int(said.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
                low, high = _PORTS
                port = low + (int(said["SLURM_JOB_ID"]) * 7 + int(said.get("SLURM_STEP_ID", "0"))) % (high - low)
                nodes = said["SLURM_STEP_NODELIST"] if "SLURM_STEP_NODELIST" in said else said["SLURM_JOB_NODELIST"]
                return cls(
                    int(said["SLURM_PROCID"]),
                    int(said["SLURM_STEP_NUM_TASKS"]),
                    int(said.get("SLURM_LOCALID", "0")),
                    _first_number(said.get("SLURM_STEP_TASKS_PER_NODE", "1")),
                    said.get("MASTER_ADDR") or first_host(nodes),
                    int(said.get("MASTER_PORT", port)),
                )
        except (KeyError, ValueError) as error:
            raise ConfigError(
                f"Environment of torchrun or srun: {error} is missing or no number. Start all processes by one of them."
            ) from None
        return None

    @contextmanager
    def training(self, device: str) -> Iterator[Any]:
        """The group of all processes while the block lasts.

        Args:
            device: ``cpu`` or ``cuda``.

        Raises:
            ProcessLost: Another process is gone, or does not answer.
        """
        import torch
        from torch.distributed import PrefixStore  # type: ignore[attr-defined]

        cuda = device == "cuda"
        if cuda:
            torch.cuda.set_device(self.local_rank)
        else:
            torch.set_num_threads(cpu_threads(self.local_processes))
        try:
            torch.distributed.init_process_group(
                "nccl" if cuda else "gloo",
                store=PrefixStore("lnsegfm/group", self.store),
                rank=self.rank,
                world_size=self.processes,
                timeout=STEP,
            )
            yield torch.distributed
        except RuntimeError as error:
            if isinstance(error, LnSegFmError) or not _is_of_the_network(error):
                raise
            raise self.lost(error) from None
        finally:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()

    def lost(self, error: Exception) -> ProcessLost:
        """That another process is gone, by what the network says."""
        why = re.sub(r"^\[\S*\]\s*", "", (str(error).splitlines() or [type(error).__name__])[0]).split(". ")[0]
        return ProcessLost(
            f"Process {self.rank} of {self.processes}: another one is gone, or does not come ({why}). "
            "Start all of them again; the same command continues."
        )

    @property
    def store(self) -> Any:
        """What all of them read and write; made once."""
        if self not in _STORES:
            from torch.distributed import rendezvous  # type: ignore[attr-defined]

            mine = {"RANK": self.rank, "WORLD_SIZE": self.processes, "MASTER_ADDR": self.address}
            os.environ |= {name: str(value) for name, value in (mine | {"MASTER_PORT": self.port}).items()}
            try:
                _STORES[self], _, _ = next(rendezvous("env://", timeout=STEP))
            except RuntimeError as error:
                raise self.lost(error) from None
        return _STORES[self]


_STORES: dict[LaunchedProcess, Any] = {}


def train_launched(job: TrainingJob, process: LaunchedProcess, progress: Any) -> None:
    """In the first process: train with the others; returns when the model is written.

    Args:
        job: The training; its prepared scans lie in files.
        process: This one.
        progress: Where progress is reported.

    Raises:
        Interrupted: Asked to stop; the state is saved.
        ProcessLost: Another process is gone; the same command continues.
    """
    from lnsegfm.training.train_process import train_in_process

    process.store.set(READY, GO)
    with process.training(job.device) as group:
        group.broadcast_object_list([job], src=0)
        own = pickle.loads(pickle.dumps(job))  # as in a process of our own, so that checkpoints have the same bytes
        train_in_process(own, progress)
        group.barrier()  # nobody leaves before the model is written


def join_training(process: LaunchedProcess, device: str, progress: Any) -> bool:
    """In every other process: wait for the first one, and train with it.

    Args:
        process: This one.
        device: ``cpu`` or ``cuda``.
        progress: Asked whether to stop.

    Returns:
        Whether there was a training.

    Raises:
        Interrupted: Asked to stop; the state is saved.
        ProcessLost: Another process is gone; the same command continues.
    """
    from lnsegfm.training.train_process import train_in_process

    try:
        process.store.wait([READY], PREPARING)
        said = process.store.get(READY)
    except RuntimeError as error:
        raise process.lost(error) from None
    if said != GO:
        process.store.add(LEFT, 1)
        return False
    with process.training(device) as group:
        received: list[Any] = [None]
        group.broadcast_object_list(received, src=0)
        train_in_process(received[0], progress)
        group.barrier()
    return True


@contextmanager
def others_waiting(process: LaunchedProcess | None) -> Iterator[None]:
    """Around the first process's work: where it ends without a training, those that wait for one end as well."""
    try:
        yield
    finally:
        if process is not None and not process.store.check([READY]):
            process.store.set(READY, NOTHING)
            until = time.monotonic() + LEAVING_S  # the store may go with this process
            while process.store.add(LEFT, 0) < process.processes - 1 and time.monotonic() < until:
                time.sleep(0.1)


def cpu_threads(processes: int) -> int:
    """Threads of each of several processes on one node: as many as OMP_NUM_THREADS says, else a share of the cores."""
    from lnsegfm.cores import THREADS, usable_cores

    said = os.environ.get(THREADS, "")
    return int(said) if said.isdigit() and int(said) else max(1, usable_cores() // processes)


def first_host(nodes: str) -> str:
    """The first of a list of hosts as SLURM writes it, such as ``gpu[03-05,9],login``."""
    match = re.match(r"([^,\[]+)(?:\[(\d+)[^\]]*\]([^,]*))?", nodes)
    if match is None:
        raise ValueError(f"SLURM_STEP_NODELIST {nodes!r}")
    return "".join(part or "" for part in match.groups())


def _first_number(text: str) -> int:
    match = re.match(r"\d+", text)
    return int(match[0]) if match else 1


def _is_of_the_network(error: RuntimeError) -> bool:
    import torch

    words = ("gloo", "NCCL", "Connection", "connection", "timed out", "Timed out", "Broken pipe")
    return isinstance(error, torch.distributed.DistError) or any(word in str(error) for word in words)

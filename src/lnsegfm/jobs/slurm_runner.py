"""Jobs on a SLURM cluster, as arrays that submitit hands in."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import time
from collections.abc import Sequence
from typing import Any

from lnsegfm.errors import ConfigError
from lnsegfm.jobs.engine_package import engine_package
from lnsegfm.jobs.engines import OnSlurm
from lnsegfm.jobs.job_folder import JobFolder
from lnsegfm.jobs.local_runner import Report
from lnsegfm.jobs.slurm_states import SlurmState, SlurmUnreachable, by_array, largest_array, slurm_states
from lnsegfm.jobs.slurm_task import SlurmTask
from lnsegfm.messages import counted
from lnsegfm.progress import Progress

SHORTEST_POLL_S, LONGEST_POLL_S = 1.0, 15.0
SETTLING_S = 10.0
"""Seconds after a job's end in which its files may still arrive on a shared drive."""


def run_on_slurm(names: Sequence[str], folder: JobFolder, engine: OnSlurm, report: Report, progress: Progress) -> None:
    """Hand jobs in and wait for them; those that an earlier call handed in and that still wait or run are waited for.

    Raises:
        ConfigError: There is no SLURM, or it refuses.
        KeyboardInterrupt: It arrived; the jobs go on.
    """
    if shutil.which("sbatch") is None:
        raise ConfigError("--on slurm: there is no sbatch here. Run it on a login node, or use --on local.")
    submitit = engine_package("submitit", "slurm")
    ids = _still_there(names, folder)
    if ids:
        progress.stage(f"SLURM: {counted(len(ids), 'job')} of an earlier call still there")
    new = [name for name in names if name not in ids]
    if new:
        ids |= _hand_in(new, folder, engine, submitit)
        progress.stage(f"SLURM: {counted(len(new), 'job')} handed in ({by_array(ids)})")
    try:
        _watch(ids, folder, report, progress)
    except KeyboardInterrupt:
        progress.stage(f"The jobs stay on SLURM; the same command waits for them. To end them: scancel {by_array(ids)}")
        raise


def _title(folder: JobFolder) -> str:
    """What SLURM calls the jobs of a list, so that a number that it uses again is not taken for one of them."""
    return f"lnsegfm-{hashlib.sha256(str(folder.place).encode()).hexdigest()[:8]}"


def _still_there(names: Sequence[str], folder: JobFolder) -> dict[str, str]:
    handed_in = {name: str(folder.submission(name).get("slurm", "")) for name in names}
    handed_in = {name: number for name, number in handed_in.items() if number}
    try:
        states = slurm_states(handed_in.values())
    except SlurmUnreachable as error:
        raise ConfigError(f"--on slurm: it does not answer ({error}). Try again later.") from None
    title = _title(folder)
    return {
        name: number
        for name, number in handed_in.items()
        if number in states and states[number].under_way and states[number].job_name == title
    }


def _hand_in(names: Sequence[str], folder: JobFolder, engine: OnSlurm, submitit: Any) -> dict[str, str]:
    logs = folder.place / "slurm" / secrets.token_hex(4)
    executor = submitit.SlurmExecutor(folder=logs, max_num_timeout=engine.timeouts)
    executor.update_parameters(**_parameters(folder, engine))
    ids: dict[str, str] = {}
    size = largest_array()
    for start in range(0, len(names), size):
        chunk = names[start : start + size]
        for name in chunk:
            folder.forget_failure(name)
        try:
            with executor.batch():
                jobs = [executor.submit(SlurmTask(str(folder.place), name)) for name in chunk]
        except Exception as error:  # sbatch refused, and submitit passes on what it said
            last = next((line for line in reversed(str(error).splitlines()) if line.strip()), repr(error))
            raise ConfigError(f"--on slurm: sbatch refuses: {_plain(last)}. Change the settings of --on.") from None
        for name, job in zip(chunk, jobs, strict=True):
            ids[name] = str(job.job_id)
            folder.record_submission(name, slurm=ids[name], log=str(job.paths.stdout))
    return ids


def _plain(line: str) -> str:
    return line.strip().removeprefix("sbatch: ").removeprefix("error: ").rstrip(".")


def _parameters(folder: JobFolder, engine: OnSlurm) -> dict[str, Any]:
    threads = "export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"
    asked: dict[str, Any] = {
        "job_name": _title(folder),
        "time": engine.minutes,
        "mem": f"{round(engine.memory_gb * 1024)}M",
        "cpus_per_task": engine.cpus,
        "signal_delay_s": min(engine.signal_s, engine.minutes * 60 // 4),
        "stderr_to_stdout": True,
        "setup": [threads],
        "additional_parameters": {"requeue": True, **engine.further},
    }
    if engine.partition is not None:
        asked["partition"] = engine.partition
    if engine.gpus:
        asked["gpus_per_node"] = engine.gpus
    if engine.at_once is not None:
        asked["array_parallelism"] = engine.at_once
    return asked


def _watch(ids: dict[str, str], folder: JobFolder, report: Report, progress: Progress) -> None:
    """Until each job is done or has ended without a result."""
    waiting, ended, told = dict(ids), dict[str, float](), set[tuple[str, str]]()
    poll_s, answered = SHORTEST_POLL_S, True
    while waiting:
        try:
            states = slurm_states(waiting.values())
            answered = True
        except SlurmUnreachable as error:
            if answered:
                progress.stage(f"SLURM does not answer ({error}); waiting")
            states, answered = {}, False
        before = len(waiting)
        for name, number in list(waiting.items()):
            state = states.get(number)
            if folder.is_done(name):
                reason = None
            elif not answered or (state is not None and state.under_way):
                ended.pop(name, None)
                if state is not None and state.held and (name, state.held) not in told:
                    told.add((name, state.held))
                    progress.stage(f"{name} waits: {state.held} (SLURM job {number})")
                continue
            elif time.monotonic() - ended.setdefault(name, time.monotonic()) < SETTLING_S:
                continue
            else:
                reason = _reason(folder, name, state)
            del waiting[name]
            folder.forget_submission(name)
            report(name, reason)
        poll_s = SHORTEST_POLL_S if len(waiting) < before or ended else min(1.5 * poll_s, LONGEST_POLL_S)
        if waiting:
            time.sleep(poll_s)


def _reason(folder: JobFolder, name: str, state: SlurmState | None) -> str | None:
    """Why a job that SLURM has no more left no result."""
    if folder.failure(name) is None:
        said = state.words() if state is not None else "SLURM does not know it any more, and it left no result"
        log = folder.submission(name).get("log", folder.log(name))
        folder.record_failure(name, f"{said}: see {log}")
    return folder.failure(name)

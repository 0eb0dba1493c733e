"""Do a list of jobs, wherever it is asked: what is done already is not done again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lnsegfm.jobs.engines import Engine, OnRay, OnSlurm, engine_of
from lnsegfm.jobs.job import Job
from lnsegfm.jobs.job_folder import JobFolder, JobResult
from lnsegfm.jobs.local_runner import Report, run_here, run_in_processes
from lnsegfm.jobs.parts import ListPart
from lnsegfm.progress import Progress, Silent


@dataclass(frozen=True)
class JobOutcomes:
    """What became of a list of jobs.

    Args:
        done: Results by name, in the order of the list, whoever did them and when.
        failed: Why jobs failed, by name.
        lacking: Jobs that are neither: those of other parts.
    """

    done: Mapping[str, JobResult]
    failed: Mapping[str, str]
    lacking: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every job is done."""
        return not self.failed and not self.lacking


def run_jobs(
    jobs: Sequence[Job],
    place: Path,
    *,
    on: Engine | str = "local",
    part: ListPart | None = None,
    progress: Progress | None = None,
) -> JobOutcomes:
    """Do the jobs that are not done; one that fails is reported with its reason, and the others are done.

    A second call does only what lacks, and what failed. Several calls at the same time do each job once where locks
    hold between their machines, and else no harm: a result appears once.

    Args:
        jobs: The list, in the order in which its jobs are begun.
        place: Folder of their records and results (`lnsegfm.jobs.job_folder`); on a cluster all nodes see it.
        on: Where they run, as `engine_of` reads it.
        part: Only these of them.
        progress: Reported to after each job; a job that is done in this process reports to it, too.

    Raises:
        ConfigError: A place that cannot be used, or a scheduler that refuses.
        RunMismatch: ``place`` holds another job of the same name.
        Interrupted: Asked to stop; the same call goes on.
        KeyboardInterrupt: As above. On SLURM jobs that are queued stay, and the next call waits for them.
    """
    progress, engine = progress or Silent(), engine_of(on) if isinstance(on, str) else on
    folder = JobFolder(place.resolve())
    folder.claim(jobs)
    mine = part.take(jobs) if part is not None else list(jobs)
    todo = [job.name for job in mine if not folder.is_done(job.name)]
    ended = len(mine) - len(todo)

    def report(name: str, reason: str | None) -> None:
        nonlocal ended
        ended += 1
        if reason is not None:
            progress.stage(f"{name}: failed: {reason}")
        progress.advance(ended, len(mine), name)

    if todo:
        _run(todo, folder, engine, report, progress)
    done = {job.name: found for job in jobs if (found := folder.result(job.name)) is not None}
    failed = {job.name: why for job in jobs if job.name not in done and (why := folder.failure(job.name)) is not None}
    lacking = tuple(job.name for job in jobs if job.name not in done and job.name not in failed)
    return JobOutcomes(done, failed, lacking)


def _run(todo: Sequence[str], folder: JobFolder, engine: Engine, report: Report, progress: Progress) -> None:
    if isinstance(engine, OnSlurm):
        from lnsegfm.jobs.slurm_runner import run_on_slurm  # submitit loads only now

        run_on_slurm(todo, folder, engine, report, progress)
        return
    for name in todo:
        folder.forget_failure(name)
    if isinstance(engine, OnRay):
        from lnsegfm.jobs.ray_runner import run_on_ray

        run_on_ray(todo, folder, engine, report, progress)
    elif engine.at_once > 1:
        run_in_processes(todo, folder, engine.at_once, report)
    else:
        run_here(todo, folder, report, progress)

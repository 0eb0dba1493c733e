"""The folder of a list of jobs, which any number of processes and machines share.

    jobs/NAME.json           the frozen record of a job
    attempts/NAME/001-…/     the place of one attempt: attempt.json, and files/ for what it makes
    results/NAME/            an attempt that ended well, renamed as a whole; done.json was written into it last
    failures/NAME.json       why the last attempt failed
    logs/NAME.log            what attempts said
    submissions/NAME.json    where a job was handed to a scheduler

A job is done when its result is there, whatever a scheduler says of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from lnsegfm.errors import ConfigError, DataError, RunMismatch
from lnsegfm.jobs.job import Job
from lnsegfm.messages import differences
from lnsegfm.storage import LOCK, PARTIAL, HeldLock, read_json, try_lock, write_json

DONE, ATTEMPT, FILES = "done.json", "attempt.json", "files"
DONE_FORMAT, FAILURE_FORMAT = "lnsegfm.job-done/1", "lnsegfm.job-failure/1"


@dataclass(frozen=True)
class JobResult:
    """What a job that is done gave.

    Args:
        name: The job.
        content: What its body returned.
        files: Folder of the files it made.
    """

    name: str
    content: Mapping[str, Any]
    files: Path


@dataclass(frozen=True)
class JobFolder:
    """The folder of a list of jobs.

    Args:
        place: Where it is; on a cluster every node sees it under this path.
    """

    place: Path

    def claim(self, jobs: Sequence[Job]) -> None:
        """Write the records of jobs; further ones may come later, and those of earlier calls stay.

        Raises:
            ConfigError: Two have one name, or the place is a file.
            RunMismatch: A job of this name is there with another body or other inputs.
        """
        if len({job.name for job in jobs}) < len(jobs):
            names = sorted(job.name for job in jobs)
            twice = next(a for a, b in pairwise(names) if a == b)
            raise ConfigError(f"Job {twice}: two have this name. Name each differently.")
        if self.place.exists() and not self.place.is_dir():
            raise ConfigError(f"{self.place}: it is a file. Name a folder.")
        for job in jobs:
            if (earlier := self._known(job.name)) is None:
                write_json(self._record(job.name), job.to_json())
            elif earlier != job:
                changed = "; ".join(differences(earlier.inputs, job.inputs)) or "other inputs"
                raise RunMismatch(f"{self.place}: job {job.name} is there with {changed}. Choose another folder.")

    def job(self, name: str) -> Job:
        """The record of a job.

        Raises:
            DataError: There is none, or a damaged one.
        """
        found = Job.from_json(read_json(self._record(name)))
        if found.name != name:
            raise DataError(f"{self._record(name)}: it is the record of job {found.name}. Remove it.")
        return found

    def result(self, name: str) -> JobResult | None:
        """What a job gave; None while it is not done."""
        folder = self.place_of_result(name)
        if not (folder / DONE).is_file():
            return None
        content = read_json(folder / DONE)
        if content.get("format") != DONE_FORMAT or content.get("job") != self.job(name).identity:
            raise RunMismatch(f"{folder}: it is the result of another job. Remove it, or choose another folder.")
        return JobResult(name, content["result"], folder / FILES)

    def is_done(self, name: str) -> bool:
        """Whether a job's result is there."""
        return (self.place_of_result(name) / DONE).is_file()

    def place_of_result(self, name: str) -> Path:
        """Where the result of a job appears."""
        return self.place / "results" / name

    def place_of_attempts(self, name: str) -> Path:
        """Where attempts at a job lie."""
        return self.place / "attempts" / name

    def log(self, name: str) -> Path:
        """Where attempts at a job say how they go; its folder is made."""
        file = self.place / "logs" / f"{name}.log"
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    def failure(self, name: str) -> str | None:
        """Why the last attempt at a job failed; None where none did, or the job is done."""
        try:
            return str(read_json(self._failure(name))["reason"]) if not self.is_done(name) else None
        except (DataError, KeyError, TypeError):
            return None

    def record_failure(self, name: str, reason: str) -> None:
        """Write why an attempt failed, in one line."""
        write_json(self._failure(name), {"format": FAILURE_FORMAT, "reason": " ".join(reason.split())})

    def forget_failure(self, name: str) -> None:
        """The job is tried again, or is done."""
        self._failure(name).unlink(missing_ok=True)

    def submission(self, name: str) -> dict[str, Any]:
        """Where a job was handed to a scheduler; empty where it was not."""
        with suppress(DataError):
            content = read_json(self._submission(name))
            return content if isinstance(content, dict) else {}
        return {}

    def record_submission(self, name: str, **facts: Any) -> None:
        """Write where a job was handed to a scheduler."""
        write_json(self._submission(name), facts)

    def forget_submission(self, name: str) -> None:
        """The scheduler has it no more."""
        self._submission(name).unlink(missing_ok=True)

    def take(self, name: str) -> HeldLock | None:
        """Keep a job to this process; None while another one has it. It goes with the process, however that ends."""
        self.place.mkdir(parents=True, exist_ok=True)
        return try_lock(self.place / f"{PARTIAL}job-{name}{LOCK}")

    def _known(self, name: str) -> Job | None:
        return self.job(name) if self._record(name).is_file() else None

    def _record(self, name: str) -> Path:
        return self.place / "jobs" / f"{name}.json"

    def _failure(self, name: str) -> Path:
        return self.place / "failures" / f"{name}.json"

    def _submission(self, name: str) -> Path:
        return self.place / "submissions" / f"{name}.json"

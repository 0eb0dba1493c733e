"""One attempt at a job, in a folder of its own, which becomes the result by one rename.

Nothing but the rename decides: of two copies of a job that run at the same time, because a scheduler took one of them
for dead, the first to end has its result in place, and the other finds it there and leaves. Neither writes where the
other does. An attempt begins with the finished files that the newest earlier one left, so that work that saves its
state goes on.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lnsegfm.errors import RunMismatch
from lnsegfm.jobs.job import Job
from lnsegfm.jobs.job_folder import ATTEMPT, DONE, DONE_FORMAT, FILES, JobFolder
from lnsegfm.storage import PARTIAL, write_json

_NEWEST = 2
"""Earlier attempts that are kept while a new one runs; older ones go."""


@dataclass(frozen=True)
class Attempt:
    """A place to do a job in.

    Args:
        job: The job.
        root: The folder of this attempt.
        folder: The list that the job is of.
    """

    job: Job
    root: Path
    folder: JobFolder

    @property
    def files(self) -> Path:
        """Where the files of the result are made; what an earlier attempt had finished is there."""
        return self.root / FILES

    def publish(self, result: Mapping[str, Any]) -> None:
        """Make this attempt the job's result, unless another one was faster; attempts at the job are removed.

        Raises:
            RunMismatch: The attempt's folder was removed meanwhile.
        """
        target = self.folder.place_of_result(self.job.name)
        if not (self.root / ATTEMPT).is_file():
            if self.folder.is_done(self.job.name):
                return
            raise RunMismatch(f"{self.root}: the folder of this attempt is gone. Run the same command again.")
        done = {"format": DONE_FORMAT, "job": self.job.identity, "result": dict(result)}
        write_json(self.root / DONE, done)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.root.rename(target)  # refused where a result, a folder that is not empty, is there already
        except OSError:
            if not self.folder.is_done(self.job.name):
                raise
        self.folder.forget_failure(self.job.name)
        _discard(self.folder.place_of_attempts(self.job.name))


def begin_attempt(folder: JobFolder, job: Job) -> Attempt:
    """A new attempt, which goes on with what the newest earlier one had finished.

    It appears under its name once all of that is copied, so an attempt that was killed before is none.
    """
    place = folder.place_of_attempts(job.name)
    place.mkdir(parents=True, exist_ok=True)
    earlier = attempts_in(place)
    name = f"{_number(earlier[-1]) + 1 if earlier else 1:03d}-{secrets.token_hex(4)}"
    staging = place / f"{PARTIAL}{name}"
    (staging / FILES).mkdir(parents=True)
    if earlier:
        copy_finished(earlier[-1] / FILES, staging / FILES)
    facts = {"attempt": name, "machine": socket.gethostname(), "process": os.getpid(), "started": time.time()}
    write_json(staging / ATTEMPT, facts)
    staging.rename(place / name)
    for old in earlier[:-_NEWEST]:
        _discard(old)
    return Attempt(job, place / name, folder)


def attempts_in(place: Path) -> list[Path]:
    """The attempts at a job, the newest last."""
    names = [each for each in place.iterdir() if not each.name.startswith(".") and (each / ATTEMPT).is_file()]
    return sorted(names, key=lambda each: (_number(each), each.stat().st_mtime))


def copy_finished(source: Path, target: Path) -> None:
    """Copy the files below a folder that may be written to meanwhile, without those that are under way.

    Files of the project appear whole, in an order that can be stopped anywhere; what is there when the copy begins is
    copied, as it is then or newer, and what goes meanwhile is left out.
    """
    files = [file for file in sorted(source.rglob("*")) if file.is_file() and not file.is_symlink()]
    for file in files:
        inner = file.relative_to(source)
        if any(part.startswith(PARTIAL) for part in inner.parts):
            continue
        (target / inner).parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copy2(file, target / inner)
        except FileNotFoundError:
            (target / inner).unlink(missing_ok=True)


def _number(attempt: Path) -> int:
    number = attempt.name.partition("-")[0]
    return int(number) if number.isdigit() else 0


def _discard(folder: Path) -> None:
    """Remove a folder, out of its place first: who still writes by its name finds nothing there."""
    away = folder.with_name(f"{PARTIAL}{folder.name}-{secrets.token_hex(4)}")
    try:
        folder.rename(away)
    except OSError:
        return
    shutil.rmtree(away, ignore_errors=True)

"""Do one job: ``python -m lnsegfm.jobs.perform_job FOLDER NAME``, or in this process.

Exit code 0: it is done; 1: it failed, and its reason is recorded; 3: another process is at it; 130: it was asked to
stop, and what it had finished is kept.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from lnsegfm.cores import share_threads
from lnsegfm.errors import Interrupted, LnSegFmError
from lnsegfm.jobs.attempt import begin_attempt
from lnsegfm.jobs.job_bodies import body_named
from lnsegfm.jobs.job_folder import JobFolder
from lnsegfm.jobs.job_log import JobProgress
from lnsegfm.progress import Progress

FAILED, BUSY, STOPPED = 1, 3, 130


def perform(folder: JobFolder, name: str, progress: Progress) -> str | None:
    """Do a job, unless it is done; whatever goes wrong is recorded and does not leave this function.

    Args:
        folder: The list.
        name: The job.
        progress: Reported to.

    Returns:
        Why it failed, in one line; None when it is done.

    Raises:
        Interrupted: It was asked to stop. A later attempt goes on with what is finished.
        KeyboardInterrupt: As above.
    """
    if folder.is_done(name):
        return None
    try:
        job = folder.job(name)
        attempt = begin_attempt(folder, job)
        attempt.publish(body_named(job.body)(job.inputs, attempt, progress))
    except Interrupted:
        raise
    except Exception as error:
        if folder.is_done(name):  # another copy was faster, and removed what this one worked on
            return None
        reason = str(error) if isinstance(error, LnSegFmError) else f"{type(error).__name__}: {error}"
        with folder.log(name).open("a", encoding="utf-8") as log:
            traceback.print_exc(file=log)
        folder.record_failure(name, reason)
        return folder.failure(name)
    return None


def main(arguments: list[str]) -> int:
    """Do the job that the command line names, kept to this process."""
    share_threads()
    place, name = arguments
    folder, progress = JobFolder(Path(place)), JobProgress()
    lock = folder.take(name)
    if lock is None:
        return BUSY
    try:
        with lock, progress.listening():
            reason = perform(folder, name, progress)
    except (Interrupted, KeyboardInterrupt):
        print("Interrupted.", flush=True)
        return STOPPED
    if reason is not None:
        print(reason, flush=True)
    return FAILED if reason is not None else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

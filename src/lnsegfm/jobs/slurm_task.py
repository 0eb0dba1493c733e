"""What a job of SLURM runs on its node.

SLURM sends SIGUSR2 before the time limit and, where the cluster is configured to
(``SlurmctldParameters=preempt_send_user_signal``), when the job has to make room. The job then saves its state, and
submitit queues it again. Where SIGTERM comes alone, SLURM itself decides: it queues a job again that it preempts, if
that has not ended by itself before. So the job saves its state and waits for its end.
"""

from __future__ import annotations

import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from lnsegfm.errors import Interrupted
from lnsegfm.jobs.job_folder import JobFolder
from lnsegfm.jobs.job_log import JobProgress
from lnsegfm.jobs.perform_job import perform

_UNTIL_KILLED_S = 600.0


class SlurmTask:
    """A job of a list, as submitit calls it.

    Args:
        place: Folder of the list.
        name: The job.
    """

    def __init__(self, place: str, name: str) -> None:
        self.place, self.name = place, name

    def __call__(self) -> None:
        """Do the job.

        Raises:
            RuntimeError: It failed; SLURM then says so, too.
        """
        folder, progress = JobFolder(Path(self.place)), JobProgress()
        queue_again: Any = signal.getsignal(signal.SIGUSR2)
        reason, stopped = None, False
        try:
            with progress.listening():
                reason = perform(folder, self.name, progress)
        except (Interrupted, KeyboardInterrupt):
            stopped = True
        if not stopped:
            if reason is not None:
                raise RuntimeError(reason)
            return
        print("Stopped; what was finished is kept.", flush=True)
        if signal.SIGUSR2 not in progress.arrived:
            time.sleep(_UNTIL_KILLED_S)
            sys.exit(128 + signal.SIGTERM)
        try:
            queue_again(signal.SIGUSR2, None)  # counts time limits, queues this job again and leaves
        except Exception as error:
            folder.record_failure(self.name, f"it reached its time limit too often ({error})")
            raise

    def checkpoint(self) -> Any:
        """What submitit runs when the job is queued again: the same, since its state is in the folder."""
        return import_module("submitit.helpers").DelayedSubmission(self)

"""Prepares scans as the project does, in such a way that this process and another one both take some."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lnsegfm.case_processes import Work
from lnsegfm.training.prepared_cases import preparer as of_the_project


def preparer(setup: Mapping[str, Any]) -> Work:
    """In the process that asks, each scan waits until the other one has done something; the other may be killed."""
    prepare = of_the_project(setup)
    killed = Path(setup["folder"]).with_name("killed")
    other = "pytest" not in sys.modules

    def slowly(case: Any) -> Any:
        if other and "KILLED" in os.environ:
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        result = prepare(case)
        for _ in range(0 if other else 300):
            if killed.exists() or len(list(Path(setup["folder"]).glob("*.json"))) > 1:
                break
            time.sleep(0.1)
        return result

    return slowly

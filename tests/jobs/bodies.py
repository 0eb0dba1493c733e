"""Bodies of jobs for tests, as a plugin brings them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lnsegfm.errors import DataError, Interrupted
from lnsegfm.jobs.attempt import Attempt
from lnsegfm.progress import Progress
from lnsegfm.storage import read_json, write_json, write_text

ENTRY_POINTS = {"lnsegfm.jobs": {name: f"tests.jobs.bodies:{name}" for name in ("add", "count", "fail", "die", "tell")}}


def add(inputs: Mapping[str, Any], attempt: Attempt, progress: Progress) -> Mapping[str, Any]:
    """The sum of two numbers, also as a file; every call leaves a line where ``log`` says."""
    _log(inputs)
    time.sleep(inputs.get("seconds", 0))
    write_text(attempt.files / "sum.txt", str(inputs["a"] + inputs["b"]))
    return {"sum": inputs["a"] + inputs["b"]}


def count(inputs: Mapping[str, Any], attempt: Attempt, progress: Progress) -> Mapping[str, Any]:
    """A sum over steps that saves its state after each, so that it goes on; says where each attempt began."""
    state = attempt.files / "state.json"
    step, total = read_json(state) if state.is_file() else (0, 0)
    _log(inputs, f"from {step}")
    with progress.stoppable() as stop:
        while step < inputs["steps"]:
            time.sleep(inputs.get("seconds", 0))
            step, total = step + 1, total + step * step
            write_json(state, [step, total])
            progress.advance(step, inputs["steps"])
            if stop():
                raise Interrupted("Interrupted; the same command continues.")
            if inputs.get("killed_at") == step and not Path(inputs["log"] + ".killed").exists():
                Path(inputs["log"] + ".killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
    return {"total": total}


def fail(inputs: Mapping[str, Any], attempt: Attempt, progress: Progress) -> Mapping[str, Any]:
    """Fails until the file ``unless`` is there."""
    _log(inputs)
    if not Path(inputs.get("unless", "/nowhere")).exists():
        raise (DataError("Scan 7: it is torn.\nExport it again.") if inputs.get("told") else ZeroDivisionError("by 0"))
    return {}


def die(inputs: Mapping[str, Any], attempt: Attempt, progress: Progress) -> Mapping[str, Any]:
    """Is killed until the file ``unless`` is there."""
    _log(inputs)
    if not Path(inputs["unless"]).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return {"alive": True}


def tell(inputs: Mapping[str, Any], attempt: Attempt, progress: Progress) -> Mapping[str, Any]:
    """What of the environment a job sees."""
    return {name: os.environ.get(name) for name in inputs["names"]}


def _log(inputs: Mapping[str, Any], text: str = "") -> None:
    if "log" in inputs:
        with Path(inputs["log"]).open("a") as log:
            log.write(f"{os.getpid()} {text}\n")

"""A command with its wall time, the times of its lines, and the peak memory of all its processes (Linux)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_S = 1.0
"""Asking the kernel for shared memory takes it some milliseconds a GiB, so it is not asked more often."""
SESSION = 3
"""Field of ``/proc/PID/stat`` after the name in brackets: state, parent, group, session."""


@dataclass(frozen=True)
class Watched:
    """What became of a command.

    Args:
        seconds: Wall time.
        peak_mib: Largest sum of proportional set sizes over all its processes: what several share counts once.
        processes: Most that were there at a time.
        lines: What it said on stdout and stderr, each with the second after its start at which it was said.
    """

    seconds: float
    peak_mib: float
    processes: int
    lines: tuple[tuple[float, str], ...]

    def at(self, beginning: str) -> float | None:
        """The second at which a line that begins so was said; None where none was."""
        return next((second for second, line in self.lines if line.startswith(beginning)), None)


def watched(command: Sequence[object], environment: Mapping[str, str], log: Path) -> Watched:
    """Run a command to its end.

    Args:
        command: Program and words.
        environment: All its variables.
        log: Where its lines are kept.

    Raises:
        RuntimeError: It failed; the message ends with its last lines.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=dict(environment),
        start_new_session=True,
    )
    lines: list[tuple[float, str]] = []
    found = [0.0, 0.0]
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, found, over), daemon=True)
    watcher.start()
    try:
        assert process.stdout is not None  # it is a pipe
        for line in process.stdout:
            lines.append((time.perf_counter() - start, line.rstrip("\n")))
        process.wait()
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        over.set()
        watcher.join()
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("".join(f"{second:8.2f} {line}\n" for second, line in lines))
    seconds = time.perf_counter() - start
    if process.returncode:
        last = "\n".join(line for _, line in lines[-15:])
        raise RuntimeError(f"{command[0]} {command[1]}: it ended with {process.returncode}. Its last lines:\n{last}")
    return Watched(seconds, found[0], int(found[1]), tuple(lines))


def _watch(session: int, found: list[float], over: threading.Event) -> None:
    while not over.is_set():
        sizes = [pss_mib(member) for member in members(session)]
        found[0], found[1] = max(found[0], sum(sizes)), max(found[1], len(sizes))
        over.wait(POLL_S)


def members(session: int) -> list[int]:
    """Processes of a session."""
    inside = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[SESSION]) == session:
                inside.append(int(folder.name))
    return inside


def pss_mib(process: int) -> float:
    """Proportional set size: own memory, and of what several processes share, this one's part."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0

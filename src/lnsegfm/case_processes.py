"""Work on many cases, shared out among this process and others that join it where there is enough to do.

What is done to a case is a function of JSON alone, ``module:function``, so that it can run anywhere. The processes take
no part in ``multiprocessing``: scripts need no guard. A case's result must not depend on which process made it.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

from lnsegfm import errors
from lnsegfm.errors import DataError, LnSegFmError

JOIN_AFTER_S = 4.0
"""Other processes join once this one has worked so long, and if as much is left: they need as long to load."""
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from lnsegfm.case_processes import serve; serve(sys.argv[2])"
)
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")

Work = Callable[[Any], Any]
"""What is done to a case: from a JSON-able value to one."""


def shared_out(
    function: str,
    setup: Any,
    tasks: Sequence[Any],
    *,
    names: Sequence[str],
    processes: int,
    join_after_s: float = JOIN_AFTER_S,
) -> Iterator[tuple[int, Any]]:
    """Do all tasks; give the number of each and its result, in the order in which they finish.

    Args:
        function: ``module:function`` that takes ``setup`` and gives the `Work`.
        setup: What all tasks share, JSON-able.
        tasks: JSON-able values.
        names: What the tasks are called.
        processes: At most so many, this one counted.
        join_after_s: Seconds that this one works alone, and that must be left for others to join it.

    Raises:
        LnSegFmError: That of the first task to fail; what is under way elsewhere is ended.
        DataError: A process died.
    """
    work = load_work(function)(setup)
    waiting, results = deque(range(len(tasks))), queue.Queue[tuple[int, Any]]()
    others: list[_Other] = []
    start, done = time.monotonic(), 0
    try:
        while done < len(tasks):
            if waiting and (number := _taken(waiting)) is not None:
                results.put((number, {"result": work(tasks[number])}))
            with suppress(queue.Empty):
                while done < len(tasks):
                    number, answer = results.get(block=not waiting)
                    done += 1
                    yield number, _result(answer, names[number])
            used = time.monotonic() - start
            if not others and processes > 1 and used >= join_after_s and used / done * len(waiting) >= join_after_s:
                count = min(processes - 1, len(waiting))
                others = [_Other(function, setup, tasks, waiting, results) for _ in range(count)]
    finally:
        for other in others:
            other.end()


def load_work(function: str) -> Callable[[Any], Work]:
    """A function by its ``module:function``."""
    module, _, name = function.partition(":")
    found: Callable[[Any], Work] = getattr(import_module(module), name)
    return found


def serve(function: str) -> None:
    """Do the tasks that come on standard input, one JSON a line, the setup first; answers go to standard output."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner has it as well, and ends this process
    work: Work | None = None
    for line in sys.stdin:
        content = json.loads(line)
        answer: dict[str, Any]
        try:
            if work is None:
                work = load_work(function)(content)
                continue
            answer = {"result": work(content)}
        except LnSegFmError as error:
            answer = {"error": type(error).__name__, "lines": [str(a) for a in error.args]}
        except Exception as error:
            answer = {"fault": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class _Other:
    """A process that takes its share of the tasks, and the thread that hands them to it."""

    def __init__(
        self,
        function: str,
        setup: Any,
        tasks: Sequence[Any],
        waiting: deque[int],
        results: queue.Queue[tuple[int, Any]],
    ) -> None:
        command = [sys.executable or "python3", "-c", _START, json.dumps([str(p) for p in sys.path]), function]
        environment = os.environ | dict.fromkeys(_ONE_THREAD, "1")
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        self._thread = threading.Thread(target=self._hand_out, args=(setup, tasks, waiting, results), daemon=True)
        self._thread.start()

    def _hand_out(
        self, setup: Any, tasks: Sequence[Any], waiting: deque[int], results: queue.Queue[tuple[int, Any]]
    ) -> None:
        sent, received = self._child.stdin, self._child.stdout
        assert sent is not None
        assert received is not None
        with suppress(OSError, ValueError):
            sent.write(json.dumps(setup) + "\n")
        while (number := _taken(waiting)) is not None:
            line = ""
            with suppress(OSError, ValueError):
                sent.write(json.dumps(tasks[number]) + "\n")
                sent.flush()
                line = received.readline()
            whole = line.endswith("\n")
            results.put((number, json.loads(line) if whole else {"died": self._child.wait()}))
            if not whole:
                return

    def end(self) -> None:
        """End it, also in the middle of a task."""
        self._child.kill()
        self._child.wait()
        self._thread.join()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def _taken(waiting: deque[int]) -> int | None:
    """The next task; None where none is left. Taking is atomic."""
    try:
        return waiting.popleft()
    except IndexError:
        return None


def _result(answer: dict[str, Any], name: str) -> Any:
    if "error" in answer:
        raise getattr(errors, answer["error"], DataError)(*answer["lines"])
    if "died" in answer:
        raise DataError(
            f"Case {name}: the process that worked on it ended with code {answer['died']}, perhaps for lack of memory. "
            "Use fewer --workers; the same command goes on."
        )
    if "fault" in answer:
        raise RuntimeError(f"Case {name}: {answer['fault']}")
    return answer["result"]

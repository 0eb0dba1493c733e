"""Scans one after the other through three steps, of which only the middle one needs the network.

While one scan is on the network, a thread prepares the next and another writes what became of the one before: never
more than these three are there. The network's step stays in the caller's thread, where signals arrive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Generic, TypeVar

from lnsegfm.cores import usable_cores
from lnsegfm.datasets.dataset import Case
from lnsegfm.errors import Interrupted
from lnsegfm.prediction.inputs import one_line
from lnsegfm.prediction.scans import Failure

T = TypeVar("T")
P = TypeVar("P")
M = TypeVar("M")


class Passed(Exception):
    """A scan that this process has nothing to do for, now at least: it leaves the pipeline without having failed.

    Args:
        later: It has to be tried again, for another process is at it.
    """

    def __init__(self, *, later: bool) -> None:
        super().__init__("another process is at it" if later else "it is done")
        self.later = later


Report = Callable[[Case, Failure | Passed | None], None]
"""Called for each scan that leaves the pipeline, in the caller's thread; None: all is done for it."""


@dataclass(frozen=True)
class Steps(Generic[P, M]):
    """What is done with each scan. ``prepare`` and ``write`` get the scan as ``opened`` gives it.

    Args:
        held: Keeps a scan to this process from before it is opened until it is finished or has failed, or raises
            `Passed`; what fails in between is raised within it.
        opened: Opens a scan's files; they are closed once it is written or has failed.
        prepare: Reads a scan; may run in a thread.
        run: Evaluates the network; runs in the caller's thread.
        write: Writes the prediction; may run in a thread.
        finish: What is left to do once the scan is closed; may run in a thread.
    """

    held: Callable[[Case], AbstractContextManager[None]]
    opened: Callable[[Case], AbstractContextManager[Case]]
    prepare: Callable[[Case], P]
    run: Callable[[P], M]
    write: Callable[[Case, M], None]
    finish: Callable[[Case], None]


@dataclass(frozen=True)
class _Open(Generic[T]):
    """A scan under way, which whoever leaves it has to close."""

    case: Case
    scan: Case
    value: T
    closing: ExitStack
    holding: ExitStack

    def close(self) -> None:
        with self.holding, self.closing:
            pass


def each(cases: Sequence[Case], steps: Steps[P, M], report: Report, *, overlap: bool = True) -> None:
    """Put scans through the steps; one that fails in any of them does not stop the others.

    An interruption (`KeyboardInterrupt`, `Interrupted`) stops all: what is predicted is written, every scan is closed,
    and then it is raised.

    Args:
        cases: The scans.
        steps: What is done with each.
        report: Called for each scan, in their order.
        overlap: Whether the next scan is prepared and the last one written while one is on the network. Without, a
            scan is there alone, and no thread is started.
    """
    if not overlap or len(cases) < 2:
        for case in cases:
            report(case, _written(steps, _run(steps, _prepared(steps, case))))
        return
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer, ExitStack() as left:
        ahead = [reader.submit(_prepared, steps, cases[0])]
        behind: list[Future[Failure | Passed | None]] = []
        left.callback(_close, ahead)
        for number in range(len(cases)):
            prepared = ahead[0].result()
            ahead[:] = [reader.submit(_prepared, steps, following) for following in cases[number + 1 : number + 2]]
            made = _run(steps, prepared)
            behind.append(writer.submit(_written, steps, made))
            del prepared, made  # from here on the scan is the writer's, which lets go of it in the end
            if number:
                report(cases[number - 1], behind.pop(0).result())  # waits: there is room for one scan behind
        report(cases[-1], behind.pop().result())


def prepared_ahead(items: Iterable[T], prepare: Callable[[T], P], threads: int) -> Iterator[P]:
    """Prepare what comes while the caller works on what came: at most so many are prepared and not taken.

    Args:
        items: What to prepare, taken one after the other.
        prepare: Prepares one of them; what it raises is raised when its turn comes.
        threads: Threads that prepare; with 0 the caller's does, when the next one is asked for.
    """
    if not threads:
        yield from map(prepare, items)
        return
    with ThreadPoolExecutor(threads, "read") as reader:
        waiting: deque[Future[P]] = deque()
        try:
            for item in items:
                waiting.append(reader.submit(prepare, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def worthwhile(device: str, threads: int) -> bool:
    """Whether steps of several scans at once are faster than one after the other: where a core is left for them.

    Args:
        device: What the network runs on.
        threads: That its computations take on a CPU.
    """
    return device != "cpu" or threads < usable_cores()


def _prepared(steps: Steps[P, M], case: Case) -> _Open[P] | Failure | Passed:
    def prepare() -> _Open[P]:
        with ExitStack() as holding:
            holding.enter_context(steps.held(case))
            with ExitStack() as closing:
                scan = closing.enter_context(steps.opened(case))
                return _Open(case, scan, steps.prepare(scan), closing.pop_all(), holding.pop_all())

    return attempt(case, prepare)


def _run(steps: Steps[P, M], prepared: _Open[P] | Failure | Passed) -> _Open[M] | Failure | Passed:
    if not isinstance(prepared, _Open):
        return prepared

    def run() -> _Open[M]:
        with prepared.holding as holding, prepared.closing as closing:
            value = steps.run(prepared.value)
            return _Open(prepared.case, prepared.scan, value, closing.pop_all(), holding.pop_all())

    return attempt(prepared.case, run)


def _written(steps: Steps[P, M], made: _Open[M] | Failure | Passed) -> Failure | Passed | None:
    if not isinstance(made, _Open):
        return made

    def write() -> None:
        with made.holding:
            with made.closing:
                steps.write(made.scan, made.value)
            steps.finish(made.case)

    return attempt(made.case, write)


def attempt(case: Case, function: Callable[[], T]) -> T | Failure | Passed:
    """Do something for a case; what is wrong with it becomes a failure, an interruption goes through."""
    try:
        return function()
    except Interrupted:
        raise
    except Passed as passed:
        return passed
    except Exception as error:  # whatever is wrong with one scan, the others are wanted
        return Failure(case.name, one_line(error))


def _close(ahead: Sequence[Future[_Open[P] | Failure | Passed]]) -> None:
    """Close what was prepared and will not be run."""
    for future in ahead:
        prepared = future.result()
        if isinstance(prepared, _Open):
            prepared.close()

"""Scans that overlap in time come out as they would one after the other."""

from __future__ import annotations

import io
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field

import pytest

from lnsegfm.datasets.dataset import Case
from lnsegfm.errors import DataError, Interrupted
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.prediction import pipeline
from lnsegfm.prediction.pipeline import Passed, Steps, each
from lnsegfm.prediction.scans import Failure

CASES = [Case(f"case_{n}", ()) for n in range(6)]
both = pytest.mark.parametrize("overlap", [True, False])


@dataclass
class Work:
    """Steps that note who is where, and fail where they are told to."""

    fails: dict[tuple[str, str], BaseException] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    events: list[tuple[str, str]] = field(default_factory=list)
    threads: dict[str, set[int]] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)
    lost: dict[str, str] = field(default_factory=dict)
    passes: dict[str, Passed] = field(default_factory=dict)
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def step(self, what: str, case: str) -> str:
        with self.lock:
            assert what in ("open", "finish", "told") or case in self.open, f"{what} of {case} after it was closed"
            assert what == "told" or case in self.kept, f"{what} of {case} while others may have it"
            self.events.append((what, case))
            self.threads.setdefault(what, set()).add(threading.get_ident())
        time.sleep(self.seconds.get(what, 0))
        if (what, case) in self.fails:
            raise self.fails[what, case]
        return case

    @contextmanager
    def held(self, case: Case) -> Iterator[None]:
        if case.name in self.passes:
            raise self.passes[case.name]
        self.kept.add(case.name)
        try:
            yield
        except Exception as error:
            self.lost[case.name] = str(error)
            raise
        finally:
            self.kept.discard(case.name)

    @contextmanager
    def opened(self, case: Case) -> Iterator[Case]:
        self.step("open", case.name)
        with self.lock:
            self.open.add(case.name)
            self.most = max(self.most, len(self.open))
        try:
            yield case
        except DataError as error:
            raise DataError(f"seen by what opened it: {error}") from None
        finally:
            with self.lock:
                self.open.discard(case.name)

    def run(self, overlap: bool = True, cases: list[Case] = CASES) -> list[tuple[str, Failure | Passed | None]]:
        told: list[tuple[str, Failure | Passed | None]] = []
        steps: Steps[str, str] = Steps(
            self.held,
            self.opened,
            prepare=lambda scan: self.step("prepare", scan.name),
            run=lambda value: self.step("run", value),
            write=lambda scan, _: self.step("write", scan.name) and None,
            finish=lambda case: self.step("finish", case.name) and None,
        )
        each(cases, steps, lambda case, failure: told.append((self.step("told", case.name), failure)), overlap=overlap)
        return told


@both
@pytest.mark.parametrize("number", [0, 1, 2, 6])
def test_every_scan_goes_through_every_step_once_and_in_order(overlap, number):
    work = Work()
    assert work.run(overlap, CASES[:number]) == [(case.name, None) for case in CASES[:number]]
    for what in ("open", "prepare", "run", "write", "finish", "told"):
        assert [case for step, case in work.events if step == what] == [case.name for case in CASES[:number]]
    for case in CASES[:number]:
        assert [step for step, name in work.events if name == case.name] == [
            *("open", "prepare", "run", "write", "finish", "told")
        ]
    assert not work.open


def test_network_and_caller_share_a_thread_and_the_others_have_their_own():
    work = Work()
    work.run()
    here = {threading.get_ident()}
    assert work.threads["run"] == work.threads["told"] == here
    assert work.threads["prepare"] == work.threads["open"]
    assert not work.threads["prepare"] & (work.threads["write"] | here)
    assert not work.threads["write"] & here
    alone = Work()
    alone.run(overlap=False)
    assert set.union(*alone.threads.values()) == here


@pytest.mark.parametrize("slow", ["prepare", "run", "write"])
def test_no_more_than_three_scans_are_there_at_once(slow):
    work = Work(seconds={slow: 0.02})
    work.run()
    assert work.most <= 3
    alone = Work()
    alone.run(overlap=False)
    assert alone.most == 1


def test_steps_overlap():
    work = Work(seconds={"prepare": 0.1, "run": 0.1, "write": 0.1})
    start = time.perf_counter()
    work.run()
    assert time.perf_counter() - start < 0.1 * (len(CASES) + 2) + 0.4  # in turn: 1.8 s


@both
@pytest.mark.parametrize("what", ["open", "prepare", "run", "write", "finish"])
def test_a_scan_that_fails_stops_no_other_and_is_told_in_its_turn(overlap, what):
    work = Work(fails={(what, "case_0"): ValueError("odd"), (what, "case_3"): DataError("bad. Mend it.")})
    told = work.run(overlap)
    assert [name for name, _ in told] == [case.name for case in CASES]
    failures = {name: str(failure) for name, failure in told if failure is not None}
    seen = "seen by what opened it: " if what in ("prepare", "run", "write") else ""
    assert failures == {"case_0": "Case case_0: ValueError: odd", "case_3": f"Case case_3: {seen}bad. Mend it."}
    assert not work.open
    assert not work.kept
    assert {
        name: f"Case {name}: {reason}".replace(": odd", ": ValueError: odd") for name, reason in work.lost.items()
    } == (failures)
    finished = [case for step, case in work.events if step == "finish"]
    assert len(finished) == (6 if what == "finish" else 4)


@both
@pytest.mark.parametrize("kind", [KeyboardInterrupt, Interrupted])
@pytest.mark.parametrize("what", ["prepare", "run", "write", "finish", "told"])
def test_an_interruption_stops_all_and_leaves_nothing_open(overlap, kind, what):
    threads = threading.active_count()
    work = Work(fails={(what, "case_2"): kind("stop")}, seconds={"write": 0.01})
    with pytest.raises(kind):
        work.run(overlap)
    assert not work.open
    assert not work.kept
    assert threading.active_count() == threads
    steps = set(work.events)
    assert ("finish", "case_1") in steps  # what was under way before is finished
    assert ("run", "case_5") not in steps
    assert not [case for step, case in work.events if step == "write" and ("finish", case) not in steps] or what in (
        "write",
        "finish",
    )


@both
def test_scans_that_others_are_at_go_by_without_being_opened(overlap):
    work = Work(passes={"case_0": Passed(later=True), "case_3": Passed(later=False)})
    told = work.run(overlap)
    assert [name for name, _ in told] == [case.name for case in CASES]
    assert {name: passed.later for name, passed in told if isinstance(passed, Passed)} == {
        "case_0": True,
        "case_3": False,
    }
    assert [outcome for name, outcome in told if name not in work.passes] == [None] * 4
    assert {case for step, case in work.events if step != "told"} == {"case_1", "case_2", "case_4", "case_5"}
    assert not work.kept
    assert not work.lost


def test_scans_overlap_where_the_network_leaves_a_core(monkeypatch):
    monkeypatch.setattr(pipeline, "usable_cores", lambda: 4)
    assert [pipeline.worthwhile("cpu", threads) for threads in (1, 3, 4, 8)] == [True, True, False, False]
    assert pipeline.worthwhile("cuda", 4)


def test_threads_in_the_engine_leave_the_program_its_voice():
    """The first one in goes out first: what it found must not be what the last one puts back."""
    out = io.StringIO()
    inside, go = threading.Barrier(3, timeout=10), threading.Event()

    def work(last: bool) -> None:
        with nnunet_environment():
            inside.wait()
            print("unheard")
            if last:
                go.wait(10)

    with redirect_stdout(out):
        stdout, filters = sys.stdout, list(warnings.filters)
        threads = [threading.Thread(target=work, args=(last,)) for last in (False, True)]
        for thread in threads:
            thread.start()
        inside.wait()
        threads[0].join()
        print("heard")
        go.set()
        threads[1].join()
        print("heard again")
        assert sys.stdout is stdout
        assert warnings.filters == filters
    assert out.getvalue() == "heard\nheard again\n"

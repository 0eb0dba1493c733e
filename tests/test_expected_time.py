"""What is said of the time that work takes, by a clock that the test sets."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from lnsegfm.expected_time import PredictionsAhead, TimedProgress, TimePlan, duration
from tests.listening import SetClock, Stages

AHEAD = PredictionsAhead("predictions of 6 held-out scans by both models, mirrored", 900.0, copies=8, scans=12)
TRAINING = TimePlan(
    predictions=AHEAD, fewer_steps=("fewer --iterations", "--time-limit SECONDS"), fewer_scans=("--held-out N",)
)


def said(plan: TimePlan, seconds: Iterable[float], total: int, told_s: float | None = None) -> list[tuple[int, str]]:
    """What is said, and after which step, when the steps take so many seconds."""
    clock, heard = SetClock(), Stages()
    timed, found = TimedProgress(heard, plan, clock, told_s), []
    for number, each in enumerate(seconds, 1):
        clock.now += each
        timed.advance(number, total)
        found += [(number, line) for line in heard.lines]
        heard.lines.clear()
    return found


def test_a_training_is_measured_on_five_steps_after_the_first_and_told_once():
    """The first step takes 30 s, which says nothing of the others; 994 of 0.1 s are left."""
    assert said(TRAINING, [30.0] + [0.1] * 999, 1000) == [
        (
            6,
            "Time: about 17 min: 994 steps of 0.1 s (2 min), then predictions of 6 held-out scans by both models, "
            "mirrored (15 min). Shorter: --no-mirroring (about 4 min), --held-out N",
        )
    ]


def test_what_takes_longest_is_what_is_made_shorter():
    (_, line), *others = said(TRAINING, [10.0] * 1000, 1000)
    assert not others
    assert line.endswith("(15 min). Shorter: fewer --iterations, --time-limit SECONDS")
    assert line.startswith("Time: about 3.0 h: 994 steps of 10 s (2.8 h), then")


def test_what_was_wrong_is_corrected_once():
    """From the hundredth step on each takes ten times as long: 99 s were expected, and it takes 900 s."""
    plan = TimePlan(fewer_steps=("fewer --iterations",))
    first, second = said(plan, [0.1] * 100 + [1.0] * 900, 1000)
    assert first == (6, "Time: about 2 min: 994 steps of 0.1 s. Shorter: fewer --iterations")
    assert second[0] > 100
    assert second[1].startswith("Time: about ")
    assert second[1].endswith("in place of the 2 min that were expected")


def test_a_small_error_is_not_spoken_of():
    assert len(said(TimePlan(), [0.1] * 100 + [0.13] * 900, 1000)) == 1


def test_a_limit_cuts_what_is_told():
    (_, line), *_ = said(TimePlan(limit_s=60.0), [1.0] * 70, 1000)
    assert line == "Time: about 60 s: 994 steps of 1 s, cut after 60 s"


def test_further_trainings_count():
    plan = TimePlan(further=(1000, 1000), further_limit_s=50.0)
    (_, line), *_ = said(plan, [0.1] * 50, 1000)
    assert line == "Time: about 3 min: 994 steps of 0.1 s (2 min), then 2 further trainings (2 min)"


SCANS = TimePlan(unit="scan", sample=1, skip=0, fewer_steps=("--no-mirroring",))


def test_scans_are_measured_on_the_first():
    assert said(SCANS, [30.0] * 24, 24) == [(1, "Time: about 12 min: 23 scans of 30 s. Shorter: --no-mirroring")]


def test_where_scans_overlap_the_first_is_reported_when_two_were_on_the_network():
    plan = TimePlan(unit="scan", sample=1, skip=0, under_way=1)
    (at, line), *others = said(plan, [60.0] + [30.0] * 22, 24)
    assert (at, line) == (1, "Time: about 11 min: 22 scans of 30 s")
    assert not others


def test_what_was_told_before_is_corrected_over_the_parts_of_the_work():
    """Two models predict three scans each, which were thought to take 30 s in all."""
    clock, heard = SetClock(), Stages()
    timed = TimedProgress(heard, TimePlan(unit="scan", sample=1, skip=0, total=6), clock, told_s=30.0)
    for _ in range(2):
        for number in range(1, 4):
            clock.now += 20.0
            timed.advance(number, 3)
    assert heard.lines == ["Time: about 2 min more; 2 min in place of the 30 s that were expected"]


def test_short_work_is_not_spoken_of():
    assert said(TimePlan(), [0.005] * 1000, 1000) == []
    assert said(SCANS, [30.0], 1) == []


def test_two_steps_alone_and_what_follows_are_told_at_the_end():
    ((at, line),) = said(TRAINING, [1.0, 1.0], 2)
    assert at == 2
    assert "then predictions of 6 held-out scans" in line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (89.4, "89 s"), (90, "2 min"), (3600, "60 min"), (5400, "1.5 h"), (86400 * 3, "3.0 days")],
)
def test_a_duration_for_a_person(seconds: float, text: str):
    assert duration(seconds) == text

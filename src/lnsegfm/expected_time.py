"""About how long work takes: measured on its first steps, said in a line, and once more where that was wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lnsegfm.progress import Progress

Clock = Callable[[], float]
"""Seconds of a clock that never goes back."""
OFF = 1.5
"""How many times too long, or too short, what was said may be before it is corrected."""
SHORT_S = 10.0
"""Work that takes less is not spoken of."""
MATTERS = 0.2
"""Least share of the time from which on it is said how a part of the work is made shorter."""


@dataclass(frozen=True)
class PredictionsAhead:
    """Predictions that come after a training.

    Args:
        what: In words: ``predictions of 6 held-out scans by both models, mirrored``.
        seconds: About how long they take.
        copies: Mirrored copies that each is an average of; 1 without mirroring.
        scans: How many there are, each model's counted.
    """

    what: str
    seconds: float
    copies: int = 1
    scans: int = 0


@dataclass(frozen=True, kw_only=True)
class TimePlan:
    """What is known of work of many like steps before it starts.

    Args:
        unit: What a step is called: ``step`` or ``scan``.
        sample: Steps that are measured.
        skip: Steps before them that are not, since the first takes longer than the others.
        under_way: Steps that are being worked on when one is reported.
        total: Steps in all, where they are reported in several parts; None takes what is reported.
        limit_s: Seconds after which the steps end at the latest.
        further: Steps of each training of the same kind that comes later.
        predictions: What comes after all trainings.
        fewer_steps: Options that make the steps fewer or shorter.
        fewer_scans: Options that make the predictions fewer.
        further_limit_s: Seconds after which each further training ends at the latest.
    """

    unit: str = "step"
    sample: int = 5
    skip: int = 1
    under_way: int = 0
    total: int | None = None
    limit_s: float | None = None
    further: tuple[int, ...] = ()
    predictions: PredictionsAhead | None = None
    fewer_steps: tuple[str, ...] = ()
    fewer_scans: tuple[str, ...] = ()
    further_limit_s: float | None = None

    def steps_s(self, steps: int, each_s: float) -> float:
        """Seconds of the steps that are left."""
        return min(steps * each_s, math.inf if self.limit_s is None else self.limit_s)

    def further_s(self, each_s: float) -> float:
        """Seconds of the trainings that come later."""
        longest = math.inf if self.further_limit_s is None else self.further_limit_s
        return sum(min(steps * each_s, longest) for steps in self.further)

    def all_s(self, steps: int, each_s: float) -> float:
        """Seconds of everything that is left."""
        predictions_s = self.predictions.seconds if self.predictions is not None else 0.0
        return self.steps_s(steps, each_s) + self.further_s(each_s) + predictions_s

    def line(self, steps: int, each_s: float) -> str:
        """What is left and about how long it takes, part by part, and what would make it shorter."""
        left = self.steps_s(steps, each_s)
        limited = self.limit_s is not None and left >= self.limit_s
        parts = [
            f"{steps} {self.unit}{'' if steps == 1 else 's'} of {_short(each_s)}"
            + (f", cut after {duration(left)}" if limited else "")
        ]
        if self.further:
            number = len(self.further)
            more = f"{number} further training{'' if number == 1 else 's'}"
            parts.append(f"then {more} ({duration(self.further_s(each_s))})")
        if self.predictions is not None:
            parts.append(f"then {self.predictions.what} ({duration(self.predictions.seconds)})")
        if len(parts) > 1 and not limited:
            parts[0] += f" ({duration(left)})"
        shorter = self._shorter(steps, each_s)
        return f"about {duration(self.all_s(steps, each_s))}: {', '.join(parts)}" + (
            f". Shorter: {', '.join(shorter)}" if shorter else ""
        )

    def _shorter(self, steps: int, each_s: float) -> list[str]:
        total = self.all_s(steps, each_s)
        ahead = self.predictions
        share = ahead.seconds / total if ahead is not None and total else 0.0
        found: list[str] = []
        if ahead is not None and share >= MATTERS:
            if ahead.copies > 1:
                without = total - ahead.seconds * (1 - 1 / ahead.copies)
                found.append(f"--no-mirroring (about {duration(without)})")
            found += self.fewer_scans
        if 1 - share >= MATTERS:
            found += self.fewer_steps
        return found


class TimedProgress(Progress):
    """Passes on what is reported to it, and says how long the work takes once its first steps were measured.

    Args:
        progress: Reported to.
        plan: What is known of the work.
        clock: Seconds of a clock that never goes back.
        told_s: Seconds that were said before; None where nothing was, so that it is said now.
    """

    def __init__(self, progress: Progress, plan: TimePlan, clock: Clock, told_s: float | None = None) -> None:
        self._progress, self._plan, self._clock = progress, plan, clock
        self._told_s, self._corrected = told_s, False
        self._since: tuple[int, float] | None = (0, clock()) if not plan.skip else None
        self._told_at = self._since
        self._before = self._last = self._last_total = 0

    def stage(self, text: str) -> None:
        """Pass on."""
        self._progress.stage(text)

    @contextmanager
    def stoppable(self) -> Iterator[Callable[[], bool]]:
        """Pass on."""
        with self._progress.stoppable() as stop:
            yield stop

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Pass on, and say how long the rest takes where it is known now."""
        if done < self._last:  # the next part of the work
            self._before += self._last_total
        self._last, self._last_total = done, total
        line = self._news(self._before + done, self._plan.total or total)
        if line is not None:
            self._progress.stage(f"Time: {line}")
        self._progress.advance(done, total, note)

    def _news(self, done: int, total: int) -> str | None:
        now, plan = self._clock(), self._plan
        if self._since is None:
            self._since = (done + plan.skip - 1, now)
            if done < total:
                return None
        first, started = self._since
        steps = done - first
        if self._corrected or (steps < plan.sample and done < total):
            return None
        left, each_s = max(0, total - done - plan.under_way), (now - started) / max(1, steps + plan.under_way)
        if self._told_s is None:
            self._told_s, self._told_at = plan.all_s(left, each_s), (done, now)
            return plan.line(left, each_s) if self._told_s >= SHORT_S else None
        return self._correction(done, now, left, plan.skip)

    def _correction(self, done: int, now: float, left: int, skip: int) -> str | None:
        """What is to be said where the time since then shows that what was said is wrong."""
        assert self._told_s is not None
        assert self._told_at is not None
        at, when = self._told_at
        gone, steps = now - when, done - at
        enough = steps >= max(self._plan.sample, (steps + left) / 10) or (gone > OFF * self._told_s and steps > 0)
        if not enough or not left:
            return None
        rest = self._plan.all_s(left, gone / (steps + (0 if skip else self._plan.under_way)))
        real = gone + rest
        if rest < SHORT_S or self._told_s / OFF <= real <= self._told_s * OFF:
            return None
        self._corrected = True
        return (
            f"about {duration(rest)} more; {duration(real)} in place of the {duration(self._told_s)} that were expected"
        )


def duration(seconds: float) -> str:
    """Seconds for a person, in two figures or so: ``40 s``, ``12 min``, ``3.5 h``, ``2.1 days``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def _short(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else duration(seconds)

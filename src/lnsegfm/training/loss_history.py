"""How a training goes: its losses, their smoothed curve, and whether it ran away."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

SMOOTHING = 0.95
FEWEST = 50
"""Losses below which nothing is said: their spread is not known well enough."""
CLEARLY = 6.0
"""Standard errors that count as a clear rise. In trainings that went well the largest was 2.2."""
LEAP = 2.0
"""Rise over the first step that needs no statistics: where a network works, the loss lies about -1 to 1."""


@dataclass
class Course:
    """How training went.

    Args:
        iteration: Steps done.
        losses: Loss of each step.
        seconds: Seconds of training, interruptions left out.
        stopped_by: ``iterations``, ``time limit`` or ``plateau``.
    """

    iteration: int
    losses: list[float]
    seconds: float
    stopped_by: str = "iterations"

    def __post_init__(self) -> None:
        losses, self.losses = self.losses, []
        self.curve: list[float] = []
        for loss in losses:
            self.add(loss)

    def add(self, loss: float) -> None:
        """Append a loss, and to ``curve`` the exponential mean of the losses, corrected for its start."""
        self.losses.append(loss)
        weight = 1 - SMOOTHING ** len(self.losses)
        before = self.curve[-1] * (1 - SMOOTHING ** (len(self.losses) - 1)) if self.curve else 0.0
        self.curve.append((SMOOTHING * before + (1 - SMOOTHING) * loss) / weight)

    def ran_away(self) -> dict[str, float] | None:
        """From which iteration and value the smoothed loss rose to its end, if it rose clearly.

        Clearly is by more than `CLEARLY` standard errors, those of both values counted, or by `LEAP` over the first
        step. The spread of a step's loss is estimated from the differences of neighbours, which neither a slow fall
        nor one jump moves much.
        """
        number = len(self.losses)
        if number < FEWEST:
            return None
        steps = [after - before for before, after in zip(self.losses, self.losses[1:], strict=False)]
        spread = math.sqrt(statistics.fmean(step * step for step in steps) / 2)
        last = self.curve[-1]
        end = _error(number)
        rises = [last - value - CLEARLY * spread * math.hypot(_error(k), end) for k, value in enumerate(self.curve, 1)]
        steepest = max(range(len(rises)), key=rises.__getitem__)
        if last - self.losses[0] > LEAP:
            steepest = 0
        elif not rises[steepest] > 0:
            return None
        return {"iteration": steepest, "loss": round(self.curve[steepest], 6), "end": round(last, 6)}


def _error(number: int) -> float:
    """Standard error of the smoothed value after so many independent losses of unit spread."""
    decayed = SMOOTHING**number
    return math.sqrt((1 - SMOOTHING) / (1 + SMOOTHING) * (1 + decayed) / (1 - decayed))


def summary(course: Course) -> dict[str, Any]:
    """How training went, as plain values."""
    return {
        "iterations": course.iteration,
        "seconds": round(course.seconds, 3),
        "seconds_per_iteration": round(course.seconds / max(course.iteration, 1), 5),
        "stopped_by": course.stopped_by,
        "ran_away": course.ran_away(),
        "losses": [round(loss, 6) for loss in course.losses],
    }


def warning(ran_away: dict[str, float] | None) -> str | None:
    """What to tell of a training that ran away, in a line; None of any other."""
    if ran_away is None:
        return None
    return (
        f"Training ran away: the smoothed loss ended at {ran_away['end']:.3f}, clearly above its "
        f"{ran_away['loss']:.3f} at iteration {ran_away['iteration']}. Lower --lr, or use --method dgst-bounded"
    )

"""The loss history of a training: its losses, their smoothed curve, and whether it diverged."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

SMOOTHING = 0.95
MIN_LOSSES = 50
"""Fewest losses from which divergence is judged: of fewer the spread is not known well enough."""
CLEAR_RISE_SE = 6.0
"""Standard errors that count as a clear rise. In trainings that went well the largest was 2.2."""
IMMEDIATE_RISE = 2.0
"""Rise over the first step that needs no statistics: where a network works, the loss lies about -1 to 1."""


@dataclass
class LossHistory:
    """The losses of a training.

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

    def divergence(self) -> dict[str, float] | None:
        """Where the smoothed loss began to rise to its end, and both values; None unless it rose clearly.

        A clear rise exceeds `CLEAR_RISE_SE` standard errors (of both values together), or `IMMEDIATE_RISE` over the
        first step. The spread of a step's loss is estimated from differences of neighbours, which neither a slow fall
        nor one jump moves much.
        """
        number = len(self.losses)
        if number < MIN_LOSSES:
            return None
        steps = [after - before for before, after in zip(self.losses, self.losses[1:], strict=False)]
        spread = math.sqrt(statistics.fmean(step * step for step in steps) / 2)
        last = self.curve[-1]
        end = _error(number)
        rises = [
            last - value - CLEAR_RISE_SE * spread * math.hypot(_error(k), end) for k, value in enumerate(self.curve, 1)
        ]
        steepest = max(range(len(rises)), key=rises.__getitem__)
        if last - self.losses[0] > IMMEDIATE_RISE:
            steepest = 0
        elif not rises[steepest] > 0:
            return None
        return {"iteration": steepest, "loss": round(self.curve[steepest], 6), "end": round(last, 6)}


def _error(number: int) -> float:
    """Standard error of the smoothed value after so many independent losses of unit spread."""
    decayed = SMOOTHING**number
    return math.sqrt((1 - SMOOTHING) / (1 + SMOOTHING) * (1 + decayed) / (1 - decayed))


def summary(history: LossHistory) -> dict[str, Any]:
    """The training in numbers, as plain values."""
    return {
        "iterations": history.iteration,
        "seconds": round(history.seconds, 3),
        "seconds_per_iteration": round(history.seconds / max(history.iteration, 1), 5),
        "stopped_by": history.stopped_by,
        "divergence": history.divergence(),
        "losses": [round(loss, 6) for loss in history.losses],
    }


def divergence_warning(divergence: dict[str, float] | None) -> str | None:
    """One line of warning for a training that diverged; None for any other."""
    if divergence is None:
        return None
    return (
        f"Training diverged: the smoothed loss ended at {divergence['end']:.3f}, clearly above its "
        f"{divergence['loss']:.3f} at iteration {divergence['iteration']}. Lower --lr, or use --method dgst-bounded"
    )

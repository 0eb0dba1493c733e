"""How long and how fast to train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch.optim import Optimizer

TIME_LIMIT = "time limit"
"""What a training was stopped by."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast to train.

    Args:
        lr: Learning rate; falls to 0 by nnU-Net's polynomial schedule.
        iterations: Optimizer steps.
        seed: Of patches and augmentation.
        warm_up: Iterations over which the rate rises to ``lr`` before it falls.
        time_limit_s: Stop after this many seconds of training; the rate falls to 0 with the share of them that is used
            where that is further than the share of the iterations.
        early_stop: Stop after this many iterations without a lower smoothed loss.
        precision: Numbers that the network trains in (`lnsegfm.training.precision`); None leaves it to nnU-Net.
    """

    lr: float
    iterations: int
    seed: int
    warm_up: int = 0
    time_limit_s: float | None = None
    early_stop: int | None = None
    precision: str | None = None

    def time_used(self, seconds: float) -> float:
        """The share of the time limit that so many seconds are, at most 1; 0 where there is no limit."""
        return min(seconds / self.time_limit_s, 1.0) if self.time_limit_s is not None else 0.0

    def cut(self, history: Mapping[str, Any]) -> dict[str, Any]:
        """What ``run.json`` says of the time limit of a training; nothing where there was none.

        Args:
            history: The training in numbers (`lnsegfm.training.loss_history.summary`).
        """
        if self.time_limit_s is None:
            return {}
        done, stopped = history["iterations"], history["stopped_by"] == TIME_LIMIT
        where = f"at {done} of {self.iterations} steps"
        ended = (
            f"stopped by the time limit {where}; the rate had fallen to 0" if stopped else f"not reached: ended {where}"
        )
        return {
            "time_limit": {
                "seconds": self.time_limit_s,
                "of_iterations": self.iterations,
                "ended": ended,
                "deterministic": False,
                "note": "The rate falls with the time used: the same command gives another model each time.",
            }
        }


class WarmUp(PolyLRScheduler):
    """A linear rise over the first iterations, then nnU-Net's polynomial fall over the rest.

    The rate of iteration i is lr (i + 1) / rise, from i = rise on what nnU-Net's schedule gives for i - rise.
    """

    def __init__(self, optimizer: Optimizer, lr: float, iterations: int, rise: int) -> None:
        self.rise = rise
        super().__init__(optimizer, lr, iterations - rise)

    def step(self, current_step: int | None = None) -> None:
        """Set the rate of every group for an iteration."""
        if current_step is None or current_step < 0:
            current_step = self.ctr
            self.ctr += 1
        if current_step >= self.rise:
            super().step(current_step - self.rise)
            return
        for group in self.optimizer.param_groups:
            group["lr"] = self.initial_lr * (current_step + 1) / self.rise
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

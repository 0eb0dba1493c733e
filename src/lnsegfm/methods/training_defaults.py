"""How a method is trained unless the user says otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lnsegfm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TrainingDefaults:
    """Iterations and learning rates.

    Args:
        iterations: Optimizer steps.
        lr: Learning rate.
        lr_grid: Rates that ``--lr auto`` tries.
        warm_up: Iterations over which the rate rises to ``lr``.

    Raises:
        ConfigError: A value that cannot be.
    """

    iterations: int = 1000
    lr: float = 1e-2
    lr_grid: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    warm_up: int = 0

    def __post_init__(self) -> None:
        require_training(self.iterations, self.lr, self.warm_up)
        require_lr_grid(self.lr_grid)


def require_training(iterations: int, lr: float, warm_up: int) -> None:
    """Refuse a schedule that cannot be.

    Raises:
        ConfigError: No iterations, a rate that is none, or a warm-up as long as the training.
    """
    if iterations < 1:
        raise ConfigError(f"iterations {iterations}: it must be at least 1.")
    _require_lr("lr", lr)
    if warm_up < 0:
        raise ConfigError(f"warm_up {warm_up}: iterations are counted from 0. Use 0 for none.")
    if warm_up >= iterations:
        raise ConfigError(f"warm_up {warm_up}: training has {iterations} iterations only. Leave some for the fall.")


def require_lr_grid(grid: tuple[float, ...]) -> None:
    """Refuse rates that cannot be chosen from.

    Raises:
        ConfigError: None, one that is no rate, or one that is listed twice.
    """
    for rate in grid:
        _require_lr("lr_grid", rate)
    if not grid or len(set(grid)) < len(grid):
        raise ConfigError(f"lr_grid {list(grid)}: rates to choose from are needed, each once. Use for example three.")


def _require_lr(name: str, rate: float) -> None:
    if not rate > 0:
        raise ConfigError(f"{name} {rate}: a step needs a length above 0. Use for example 0.01.")
    if rate == math.inf:
        raise ConfigError(f"{name} {rate}: a step needs a length that ends. Use for example 0.01.")


def require_time_limit(seconds: float | None) -> None:
    """Refuse a time in which nothing can be trained; None is no limit.

    Raises:
        ConfigError: It is not above 0, or without an end.
    """
    if seconds is not None and not 0 < seconds < math.inf:
        raise ConfigError(f"time limit {seconds} s: training needs some time. Leave it out for no limit.")

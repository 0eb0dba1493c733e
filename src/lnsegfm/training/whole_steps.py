"""Whether a trainer's state is that after a whole number of steps, so that it may be saved at any moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lnsegfm.training.in_memory_trainer import InMemoryTrainer


class WholeSteps:
    """Watches the steps of a trainer.

    A step that is given up during its forward or backward pass has changed nothing that is saved, unless the network
    counts running statistics or the loss is scaled. From the optimizer's step on the state is half of the next one.

    Attributes:
        whole: Whether what is in memory is the state after a whole number of steps.
    """

    def __init__(self, trainer: InMemoryTrainer) -> None:
        self.whole = True
        self._changes_early = trainer.grad_scaler is not None or any(True for _ in trainer.network.buffers())

    @contextmanager
    def watching(self, trainer: InMemoryTrainer) -> Iterator[None]:
        """Be told when the optimizer changes weights."""
        hook = trainer.optimizer.register_step_pre_hook(self._begin)
        try:
            yield
        finally:
            hook.remove()

    def start(self) -> None:
        """A step starts."""
        if self._changes_early:
            self.whole = False

    def finish(self) -> None:
        """A step is done and counted."""
        self.whole = True

    def _begin(self, *_: Any) -> None:
        self.whole = False

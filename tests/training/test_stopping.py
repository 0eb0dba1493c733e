"""Training that is stopped: by who owns the process, or by a `KeyboardInterrupt`, as in a notebook."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lnsegfm
from lnsegfm.errors import Interrupted
from lnsegfm.methods.sanity_check import STEPS
from lnsegfm.progress import Progress, Silent, StoppedBySignals
from lnsegfm.training.in_memory_trainer import InMemoryTrainer
from lnsegfm.weights.checkpoint import load_safely
from lnsegfm.workflows.finetune import finetune
from lnsegfm.workflows.finetune_plan import plan
from tests.listening import OnAdvance
from tests.workflows.test_finetune import model_bytes

STATE = Path("work/training.pt")


def tuned(world: Any, out: Path, progress: Progress | None = None) -> Any:
    return finetune(plan(world.clinic, world.base, world.recipe()), out, device="cpu", workers=0, progress=progress)


def at(iteration: int) -> Progress:
    def interrupt(done: int, total: int, note: str) -> None:
        if note.startswith("loss") and done == iteration:
            raise KeyboardInterrupt

    return OnAdvance(interrupt)


def test_a_keyboard_interrupt_between_two_steps_saves_and_the_same_call_continues(world, run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        tuned(world, tmp_path / "run", at(4))
    assert load_safely(tmp_path / "run" / STATE)["iteration"] == 4
    assert not (tmp_path / "run" / "run.json").exists()
    tuned(world, tmp_path / "run")
    assert model_bytes(tmp_path / "run") == model_bytes(run.folder)


@pytest.mark.parametrize("buffer", [False, True], ids=["weights only", "running statistics"])
def test_a_keyboard_interrupt_within_a_step_saves_what_is_whole(world, run, tmp_path, monkeypatch, buffer):
    """The forward pass changes nothing that is saved, unless the network counts running statistics."""
    real, seen = InMemoryTrainer.feed, 0

    def feed(self: InMemoryTrainer, *args: Any) -> Any:
        def interrupt(*_: Any) -> None:
            nonlocal seen
            seen += 1
            if seen == STEPS + 4:  # the sanity check takes some before
                raise KeyboardInterrupt

        self.network.register_forward_hook(interrupt)
        if buffer:
            self.network.register_buffer("counted", torch.zeros(1))
        return real(self, *args)

    monkeypatch.setattr(InMemoryTrainer, "feed", feed)
    with pytest.raises(KeyboardInterrupt):
        tuned(world, tmp_path / "run")
    monkeypatch.undo()
    if buffer:
        assert not (tmp_path / "run" / STATE).exists()
    else:
        assert load_safely(tmp_path / "run" / STATE)["iteration"] == 3
    tuned(world, tmp_path / "run")
    assert model_bytes(tmp_path / "run") == model_bytes(run.folder)


def test_a_keyboard_interrupt_while_weights_change_keeps_the_state_that_was_saved(world, run, tmp_path, monkeypatch):
    real, seen = InMemoryTrainer.feed, 0

    def feed(self: InMemoryTrainer, *args: Any) -> Any:
        def interrupt(*_: Any) -> None:
            nonlocal seen
            seen += 1
            if seen == 2:
                raise KeyboardInterrupt

        self.optimizer.register_step_post_hook(interrupt)
        return real(self, *args)

    with pytest.raises(KeyboardInterrupt):
        tuned(world, tmp_path / "run", at(3))
    saved = (tmp_path / "run" / STATE).read_bytes()
    monkeypatch.setattr(InMemoryTrainer, "feed", feed)
    with pytest.raises(KeyboardInterrupt):
        tuned(world, tmp_path / "run")
    monkeypatch.undo()
    assert (tmp_path / "run" / STATE).read_bytes() == saved
    tuned(world, tmp_path / "run")
    assert model_bytes(tmp_path / "run") == model_bytes(run.folder)


def test_a_program_stops_training_between_two_steps(world, run, tmp_path):
    class Window(Progress):
        closed = False

        def advance(self, done: int, total: int, note: str = "") -> None:  # noqa: ARG002
            self.closed = self.closed or (note.startswith("loss") and done == 2)

        @contextmanager
        def stoppable(self) -> Iterator[Callable[[], bool]]:
            yield lambda: self.closed

    with pytest.raises(Interrupted, match=r"^Interrupted at iteration 3; the same command continues.$"):
        tuned(world, tmp_path / "run", Window())
    tuned(world, tmp_path / "run")
    assert model_bytes(tmp_path / "run") == model_bytes(run.folder)


def test_training_leaves_the_hosts_signals_and_threads_alone(world, tmp_path):
    """Handlers are looked at in the middle of the loop, and afterwards."""

    def mine(*_: Any) -> None:
        pass

    seen: list[Any] = []
    before = {number: signal.signal(number, mine) for number in (signal.SIGINT, signal.SIGTERM)}
    threads = torch.get_num_threads()
    try:
        tuned(
            world,
            tmp_path / "run",
            OnAdvance(lambda *_: seen.append((signal.getsignal(2), signal.getsignal(15), torch.get_num_threads()))),
        )
        assert set(seen) == {(mine, mine, threads)}
        assert signal.getsignal(signal.SIGINT) is mine
        assert torch.get_num_threads() == threads
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_who_owns_the_process_stops_by_signals():
    before = signal.getsignal(signal.SIGTERM)
    with StoppedBySignals().stoppable() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
    assert signal.getsignal(signal.SIGTERM) is before
    with Silent().stoppable() as stop:
        assert not stop()


def test_the_hosts_random_numbers_are_its_own(world, tmp_path):
    """Training seeds every generator; from Python they go on as they would have."""

    def drawn() -> list[float]:
        return [random.random(), float(np.random.random()), float(torch.rand(1))]

    settings = {"shots": 2, "iterations": 2, "mirroring": False, "device": "cpu", "workers": 0}
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    expected = drawn() + drawn()
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    found = drawn()
    lnsegfm.finetune(world.clinic, world.base, tmp_path / "run", **settings)
    assert found + drawn() == expected

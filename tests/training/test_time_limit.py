"""A time limit: the rate falls with the time used, and the run says what was cut. The clock is the test's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from lnsegfm.errors import ConfigError
from lnsegfm.progress import Progress
from lnsegfm.training.in_memory_trainer import InMemoryTrainer
from lnsegfm.training.schedule import Schedule
from lnsegfm.workflows.finetune import FinetuneRun
from lnsegfm.workflows.finetune_plan import plan
from lnsegfm.workflows.pretrain_plan import PretrainSettings
from lnsegfm.workflows.training_run import RunContext
from tests.listening import SetClock
from tests.workflows.test_finetune import model_bytes

STEP_S = 10.0


class Steps(Progress):
    """Keeps what is said, and may interrupt the training."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at, self.lines = stop_at, list[str]()

    def stage(self, text: str) -> None:
        self.lines.append(text)

    def advance(self, done: int, total: int, note: str = "") -> None:  # noqa: ARG002
        if note.startswith("loss") and done == self.stop_at:
            raise KeyboardInterrupt


def tuned(world: Any, out: Path, clock: SetClock, stop_at: int | None = None, **changes: Any) -> tuple[Any, list[str]]:
    steps = Steps(stop_at)
    context = RunContext(out=out, device="cpu", workers=0, progress=steps, clock=clock)
    run = FinetuneRun(plan(world.clinic, world.base, world.recipe(**changes)), context, 0.02)
    return run.run()[0], steps.lines


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def rates(monkeypatch, clock) -> list[float]:
    """The learning rate of each step; each takes ten seconds of the clock."""
    seen, real = [], InMemoryTrainer.train_step

    def train_step(self: InMemoryTrainer, batch: Any) -> Any:
        seen.append(self.optimizer.param_groups[0]["lr"])
        clock.now += STEP_S
        return real(self, batch)

    monkeypatch.setattr(InMemoryTrainer, "train_step", train_step)
    return seen


def stock_rates(lr: float, iterations: int) -> list[float]:
    """The rates that nnU-Net's own scheduler gives."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    schedule = PolyLRScheduler(optimizer, lr, iterations)
    found = []
    for number in range(iterations):
        schedule.step(number)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_a_run_that_time_cuts_has_the_schedule_of_a_run_of_as_many_steps(world, rates, clock, tmp_path):
    """Ten steps of ten seconds in a limit of 100 s: the rates are those of nnU-Net's schedule over ten steps."""
    settings: dict[str, Any] = {"iterations": 1000, "lr": 0.01, "time_limit_s": 100.0}
    record, lines = tuned(world, tmp_path / "run", clock, **settings)
    assert rates[-10:] == pytest.approx(stock_rates(0.01, 10), rel=1e-12)
    training = record["training"]
    said = "stopped by the time limit at 10 of 1000 steps; the rate had fallen to 0"
    assert (training["iterations"], training["stopped_by"]) == (10, "time limit")
    assert training["time_limit"]["ended"] == said
    assert training["time_limit"]["deterministic"] is False
    assert f"Time limit: {said}" in lines
    assert said in record["facts"]["Time limit"]
    assert said in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")

    with pytest.raises(KeyboardInterrupt):  # interrupted, it has the time that it has left
        tuned(world, tmp_path / "stopped", clock, stop_at=6, **settings)
    again = rates[-6:]
    tuned(world, tmp_path / "stopped", clock, **settings)
    assert again + rates[-4:] == rates[2:12]
    assert model_bytes(tmp_path / "stopped") == model_bytes(tmp_path / "run")


def test_where_the_iterations_are_further_they_decide(world, rates, clock, tmp_path):
    record, _ = tuned(world, tmp_path / "run", clock, iterations=4, lr=0.01, time_limit_s=10_000.0)
    assert rates[-4:] == stock_rates(0.01, 4)
    assert record["training"]["time_limit"]["ended"] == "not reached: ended at 4 of 4 steps"


def test_without_a_limit_nothing_is_said_and_nothing_changes(world, run, clock, tmp_path):
    record, lines = tuned(world, tmp_path / "run", clock)
    assert "time_limit" not in record["training"]
    assert "time_limit" not in json.loads((tmp_path / "run" / "loss_history.json").read_text())
    assert not [line for line in lines if line.startswith("Time")]
    assert model_bytes(tmp_path / "run") == model_bytes(run.folder)


def test_the_share_of_the_time_is_never_more_than_all_of_it():
    limited = Schedule(lr=0.01, iterations=10, seed=0, time_limit_s=5.0)
    assert [limited.time_used(seconds) for seconds in (0.0, 2.5, 5.0, 9.0)] == [0.0, 0.5, 1.0, 1.0]
    assert Schedule(lr=0.01, iterations=10, seed=0).time_used(1e9) == 0.0


@pytest.mark.parametrize("seconds", [0.0, -3.0, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(world, seconds):
    for settings in (PretrainSettings, world.recipe):
        with pytest.raises(ConfigError, match=r"^time limit .* training needs some time. Leave it out for no limit.$"):
            settings(time_limit_s=seconds)

"""One protocol for all methods: sanity check, recipes, warm-up, rates chosen on the shots, runs that diverged."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch.optim import SGD

import lnsegfm
from lnsegfm.cli.finetune_lines import announce
from lnsegfm.errors import Diverged, Interrupted
from lnsegfm.methods.lora import LoRA
from lnsegfm.methods.sanity_check import STEPS
from lnsegfm.methods.table import METHODS
from lnsegfm.recipe import AUTO
from lnsegfm.training import loop as fitting
from lnsegfm.training import train_process as training
from lnsegfm.training.in_memory_trainer import InMemoryTrainer
from lnsegfm.training.loss_history import MIN_LOSSES, LossHistory, divergence_warning
from lnsegfm.training.schedule import Schedule, WarmUp
from lnsegfm.workflows import lr_search as choosing
from lnsegfm.workflows.finetune import finetune
from lnsegfm.workflows.finetune_plan import plan
from lnsegfm.workflows.lr_search import LrSearch, best_rate, lr_choice_text
from tests.listening import Stages
from tests.methods.test_sanity_check import DeadLoRA
from tests.workflows.test_finetune import command, model_bytes

# -- sanity check at the start ---------------------------------------------------------------------------------------


def test_a_method_that_trains_nothing_is_refused_before_training(world, tmp_path, monkeypatch, lnsegfm_here):
    """The release's LoRA, as a method of the table: exit code 2, one line, no model."""
    monkeypatch.setitem(METHODS.builtin, "lora", DeadLoRA)
    out = tmp_path / "run"
    options = ("--shots", 1, "--iterations", 3, "--no-mirroring", "--device", "cpu", "--method", "lora")
    done = lnsegfm_here("finetune", world.clinic, "--model", world.base, "--out", out, *options)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("lnsegfm:")]
    assert "Method lora:" in line
    assert "without a gradient in 6 steps (encoder.stages.0.0.convs.0.conv.a," in line
    assert not (out / "model").exists()
    assert not (out / "run.json").exists()
    assert not (out / "work" / "training.pt").exists()
    assert "Training:" not in done.stderr


@pytest.mark.parametrize("workers", [0, 2])
def test_the_sanity_check_leaves_no_trace_in_the_run(world, tmp_path, monkeypatch, workers):
    """With dropout, whose random numbers a trial would use up."""
    recipe = world.recipe("lora", settings=LoRA(dropout=0.5).settings(), iterations=4, shots=1)
    planned = plan(world.clinic, world.base, recipe)
    checked = finetune(planned, tmp_path / "checked", device="cpu", workers=workers)
    monkeypatch.setattr(training, "sanity_run", lambda *_: Mock(to_json=lambda: None))
    plain = finetune(planned, tmp_path / "plain", device="cpu", workers=0)
    assert plain.record["sanity_check"] is None
    assert checked.record["sanity_check"]["steps"] == 2
    assert plain.record["losses"] == checked.record["losses"]
    assert model_bytes(plain.folder) == model_bytes(checked.folder)


@contextmanager
def power_cut(monkeypatch: pytest.MonkeyPatch, after: int) -> Iterator[None]:
    """Training that saves at every step and is stopped after so many of them, those of trials included."""
    taken = []
    real = InMemoryTrainer.take

    def take(self: Any, iteration: int, batch: Any, seed: int) -> float:
        taken.append(iteration)
        if len(taken) > after:
            raise Interrupted("Power cut.")
        return real(self, iteration, batch, seed)

    with monkeypatch.context() as patch:
        patch.setattr(InMemoryTrainer, "take", take)
        patch.setattr(fitting, "SAVE_EVERY_S", -1.0)
        with pytest.raises(Interrupted):
            yield


def test_a_training_that_goes_on_keeps_its_first_sanity_check(world, tmp_path, monkeypatch):
    planned = plan(world.clinic, world.base, world.recipe(iterations=4, shots=1))
    whole = finetune(planned, tmp_path / "whole", device="cpu", workers=0)
    out = tmp_path / "run"
    with power_cut(monkeypatch, after=STEPS + 2):
        finetune(planned, out, device="cpu", workers=0)
    file = out / "work" / "sanity_check.json"
    report = json.loads(file.read_text())
    assert report == whole.record["sanity_check"]
    file.write_text(json.dumps(report | {"changed": 12345}))
    again = finetune(planned, out, device="cpu", workers=0)
    assert again.record["sanity_check"] == report | {"changed": 12345}
    assert again.record["losses"] == whole.record["losses"]
    assert model_bytes(out) == model_bytes(whole.folder)


def test_the_report_and_the_record_hold_the_sanity_check(run):
    record = json.loads((run.folder / "run.json").read_text())
    report = record["sanity_check"]
    assert report["share"] == report["parameters"] / report["total"] == 1
    assert sum(report["roles"].values()) == report["tensors"]
    page = (run.folder / "report.html").read_text()
    assert "Sanity check" in page
    assert f"{report['changed']:,} entries changed" in page
    assert record["training"]["lr"] == record["recipe"]["lr"] == 0.01
    assert record["lr_choice"] is None
    assert record["training"]["divergence"] is None


# -- warm-up -------------------------------------------------------------------------------------------------------


def rates(schedule: Any, optimizer: SGD, iterations: int) -> list[float]:
    found = []
    for iteration in range(iterations):
        schedule.step(iteration)
        found.append(optimizer.param_groups[0]["lr"])
        assert optimizer.param_groups[1]["lr"] == found[-1]
    return found


def optimizer_of_two() -> SGD:
    return SGD(
        [{"params": [torch.nn.Parameter(torch.zeros(1))]}, {"params": [torch.nn.Parameter(torch.zeros(1))]}], lr=2
    )


def test_the_rate_rises_linearly_and_then_falls_as_nnunets() -> None:
    optimizer = optimizer_of_two()
    found = rates(WarmUp(optimizer, 2.0, 100, 10), optimizer, 100)
    plain = rates(PolyLRScheduler(optimizer, 2.0, 90), optimizer, 90)
    assert found[:10] == pytest.approx([2.0 * (i + 1) / 10 for i in range(10)])
    assert found[10:] == plain
    assert found[9] == found[10] == 2.0
    assert min(found) == found[-1] > 0


def test_a_warm_up_of_none_is_bit_for_bit_the_schedule_of_before() -> None:
    optimizer = optimizer_of_two()
    assert rates(WarmUp(optimizer, 2.0, 100, 0), optimizer, 100) == rates(
        PolyLRScheduler(optimizer, 2.0, 100), optimizer, 100
    )


def test_a_run_warms_up(world, tmp_path, monkeypatch):
    found: list[float] = []
    real = InMemoryTrainer.take

    def take(self: Any, iteration: int, batch: Any, seed: int) -> float:
        loss = real(self, iteration, batch, seed)
        found.append(self.optimizer.param_groups[-1]["lr"])
        return loss

    monkeypatch.setattr(InMemoryTrainer, "take", take)
    planned = plan(world.clinic, world.base, world.recipe(iterations=6, warm_up=3, shots=1))
    run = finetune(planned, tmp_path / "run", device="cpu", workers=0)
    assert found[:STEPS] == found[STEPS : 2 * STEPS]  # the trial is of these very steps
    assert found[STEPS:] == pytest.approx(
        [0.01 / 3, 0.02 / 3, 0.01, 0.01, 0.01 * (2 / 3) ** 0.9, 0.01 * (1 / 3) ** 0.9]
    )
    assert "after a rise over 3 iterations" in (run.folder / "report.html").read_text()


# -- a training that diverged --------------------------------------------------------------------------------------


def history_of(losses: Any) -> LossHistory:
    return LossHistory(len(losses), [float(loss) for loss in losses], 1.0)


def falling(number: int, seed: int, noise: float = 0.2) -> np.ndarray:
    steps = np.arange(number)
    return -0.8 + 1.0 * np.exp(-steps / (number / 5)) + np.random.default_rng(seed).normal(0, noise, number)


@pytest.mark.parametrize("number", [60, 400, 2000])
def test_trainings_that_go_well_are_not_warned_of(number: int) -> None:
    """Falling, flat, flat with a heavy tail and flat with two kinds of batches: 100 of each; 1 of 100 may err."""
    warned: dict[str, int] = {}
    for seed in range(100):
        random = np.random.default_rng(seed)
        kinds = {
            "falling": falling(number, seed),
            "flat": random.normal(0, 0.2, number),
            "heavy": 0.1 * random.standard_t(4, number),
            "two": np.where(random.random(number) < 0.1, 0.8, -0.6) + random.normal(0, 0.05, number),
        }
        for kind, losses in kinds.items():
            warned[kind] = warned.get(kind, 0) + (history_of(losses).divergence() is not None)
    assert warned["falling"] == warned["flat"] == 0
    assert max(warned.values()) <= 1


@pytest.mark.parametrize("where", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("number", [200, 1000])
def test_one_whose_base_is_gone_is(number: int, where: float) -> None:
    """A base that fits, until the loss jumps to that of a network that finds nothing, and stays there."""
    for seed in range(20):
        losses = -0.6 + np.random.default_rng(seed).normal(0, 0.12, number)
        start = int(number * where)
        losses[start:] += 0.7
        found = history_of(losses).divergence()
        assert found is not None, seed
        assert found["end"] > found["loss"] + 0.3
        assert found["iteration"] <= start + 1
        assert "Training diverged: the smoothed loss ended at" in str(divergence_warning(found))
        assert "\n" not in str(divergence_warning(found))


def test_one_that_recovers_or_is_short_is_not() -> None:
    losses = falling(600, 0)
    losses[200:230] += 3
    assert history_of(losses).divergence() is None
    assert history_of(np.linspace(0, 5, MIN_LOSSES - 1)).divergence() is None
    assert history_of(np.linspace(0, 5, MIN_LOSSES)).divergence() is not None
    assert divergence_warning(None) is None


def test_a_run_that_destroys_its_base_says_so(world, tmp_path, capsys):
    """A rate far too high; nothing is hidden in the record, the report or on the terminal."""
    from lnsegfm.cli.finetune_lines import show

    listener = Stages()
    lines = listener.lines
    settings = METHODS["full"]().settings()
    recipe = world.recipe("full", settings=settings, iterations=MIN_LOSSES, lr=100.0, shots=2)
    run = finetune(plan(world.clinic, world.base, recipe), tmp_path / "run", device="cpu", workers=0, progress=listener)
    found = run.record["training"]["divergence"]
    assert found is not None
    assert found["end"] > found["loss"] + 2
    assert [line for line in lines if line.startswith("Training diverged")]
    assert "Training diverged" in (run.folder / "report.html").read_text()
    show(run)
    assert "Training diverged" in capsys.readouterr().out


def test_a_loss_that_is_no_number_still_stops(world, tmp_path):
    recipe = world.recipe("full", settings=METHODS["full"]().settings(), iterations=20, lr=1e30, shots=1)
    with pytest.raises(Diverged, match=r"Loss at iteration \d+: not a finite number. Lower --lr"):
        finetune(plan(world.clinic, world.base, recipe), tmp_path / "run", device="cpu", workers=0)
    assert not (tmp_path / "run" / "model").exists()


# -- the learning rate ---------------------------------------------------------------------------------------------


def question(number: int) -> LrSearch:
    cases: Any = [f"case-{k}" for k in range(number)]
    schedule = Schedule(lr=0.5, iterations=3, seed=0)
    anything: Any = None
    return LrSearch(
        start=anything, method=anything, cases=cases, labels=anything, schedule=schedule, rates=(), mirroring=False
    )


@pytest.mark.parametrize(("shots", "left"), [(1, 0), (2, 1), (3, 1), (5, 2), (6, 3), (10, 5), (11, 5)])
def test_the_last_half_of_the_draw_is_left_out(shots: int, left: int) -> None:
    asked = question(shots)
    assert len(asked.left_out) == left
    assert [*asked.trained_on, *asked.left_out] == list(asked.cases)
    assert len(asked.trained_on) >= 1


def test_the_highest_dice_wins_and_of_two_that_tie_the_smaller_rate() -> None:
    assert best_rate({"0.001": 0.5, "0.003": 0.6, "0.01": 0.4}) == 0.003
    assert best_rate({"0.01": 0.6, "0.003": 0.6, "0.001": 0.4}) == 0.003
    assert best_rate({"0.001": 0.0, "0.003": None, "0.01": 0.0}) == 0.001
    assert best_rate({"0.001": None, "0.01": 0.0}) == 0.01
    with pytest.raises(Diverged, match=r"Learning rates 0\.001, 0\.01: with each of them"):
        best_rate({"0.001": None, "0.01": None})


@pytest.fixture(scope="module")
def chosen(world: Any) -> Any:
    return world.run("auto", lr=AUTO, iterations=4, shots=3)


def test_a_rate_is_chosen_on_the_shots_alone_and_trained_with_on_all_of_them(world, chosen):
    choice, record = chosen.record["lr_choice"], chosen.record
    shots = json.loads((chosen.folder / "splits.json").read_text())["shots"]
    assert choice["trained_on"] + choice["left_out"] == shots
    assert choice["left_out"] == shots[-1:]
    assert list(choice["dice"]) == ["0.001", "0.003", "0.01"]
    assert choice["lr"] == best_rate(choice["dice"]) == record["training"]["lr"]
    assert record["recipe"]["lr"] == AUTO
    plain = world.run("as-chosen", lr=choice["lr"], iterations=4, shots=3)
    assert model_bytes(plain.folder) == model_bytes(chosen.folder)
    assert plain.record["identity"] != record["identity"]
    assert (
        f"chosen by Dice on 1 of the 3 shots (0.001: {choice['dice']['0.001']:.3f}"
        in (chosen.folder / "report.html").read_text()
    )
    assert not (chosen.folder / "work").exists()


def test_the_figures_are_those_of_a_run_on_the_shots_that_remain(world, chosen, tmp_path):
    """The same found with the commands that a user has: a data set of the shots, the last of them held out."""
    choice = chosen.record["lr_choice"]
    data = tmp_path / "shots"
    for folder in ("imagesTr", "labelsTr"):
        (data / folder).mkdir(parents=True)
        for name in (*choice["trained_on"], *choice["left_out"]):
            for file in (world.clinic / folder).glob(f"{name}*"):
                shutil.copy(file, data / folder)
    shutil.copy(world.clinic / "dataset.json", data)
    for draw in range(20):
        planned = plan(data, world.base, world.recipe(lr=0.01, iterations=4, shots=2, draw=draw))
        if list(planned.split.shots) == choice["trained_on"]:
            break
    run = finetune(planned, tmp_path / "run", device="cpu", workers=0)
    assert run.evidence is not None
    assert list(planned.split.held_out) == choice["left_out"]
    (case,) = run.evidence.comparison.adapted.cases
    assert choice["dice"]["0.01"] == pytest.approx(case.mean_dice, abs=1e-12)


def test_a_finished_choice_is_not_made_again(world, chosen, monkeypatch):
    monkeypatch.setattr(choosing, "train_model", None)
    again = world.run("auto", lr=AUTO, iterations=4, shots=3)
    assert again.record["lr_choice"] == chosen.record["lr_choice"]


def test_one_shot_takes_the_recipes_rate_and_says_so(world, tmp_path):
    listener = Stages()
    lines = listener.lines
    planned = plan(world.clinic, world.base, world.recipe(lr=AUTO, lr_default=0.007, iterations=2, shots=1))
    announce(planned, lines.append)
    run = finetune(planned, tmp_path / "run", device="cpu", workers=0, progress=listener)
    assert run.record["training"]["lr"] == 0.007
    assert run.record["lr_choice"]["left_out"] == []
    assert any("one shot leaves nothing to choose by" in line for line in lines)


def test_a_rate_that_diverges_is_passed_over(world, tmp_path):
    recipe = world.recipe("full", settings=METHODS["full"]().settings(), lr=AUTO, lr_grid=(1e30, 0.003), iterations=6)
    run = finetune(plan(world.clinic, world.base, recipe), tmp_path / "run", device="cpu", workers=0)
    assert run.record["lr_choice"]["dice"]["1e+30"] is None
    assert run.record["training"]["lr"] == 0.003
    assert "1e+30: diverged" in lr_choice_text(run.record["lr_choice"])
    assert "NaN" not in (tmp_path / "run" / "run.json").read_text()


def test_a_method_that_takes_no_step_chooses_nothing(world):
    run = world.run("auto-zero", "zero-shot", lr=AUTO)
    assert run.record["lr_choice"] is None


def test_from_python_a_name_is_enough(world, tmp_path):
    run = lnsegfm.finetune(
        world.clinic,
        world.base,
        tmp_path / "run",
        method="head",
        lr=AUTO,
        lr_grid=(0.01, 0.1),
        warm_up=1,
        shots=2,
        iterations=2,
        mirroring=False,
        device="cpu",
    )
    assert run.record["recipe"]["method"] == "head"
    assert list(run.record["lr_choice"]["dice"]) == ["0.01", "0.1"]
    assert run.record["recipe"]["warm_up"] == 1


def test_a_choice_that_was_stopped_goes_on_where_it_was(world, tmp_path, monkeypatch, chosen):
    planned = plan(world.clinic, world.base, world.recipe(lr=AUTO, iterations=4, shots=3))
    out = tmp_path / "run"
    with power_cut(monkeypatch, after=(STEPS + 4) + STEPS + 2):  # in the middle of the second rate
        finetune(planned, out, device="cpu", workers=0)
    assert [file.name for file in sorted((out / "work" / "lr").iterdir())] == ["0.001.json", "0.003"]
    assert not (out / "lr_choice.json").exists()
    tried: list[Any] = []
    real = choosing.train_model
    monkeypatch.setattr(choosing, "train_model", lambda *a, **k: tried.append(a[0].schedule.lr) or real(*a, **k))
    again = finetune(planned, out, device="cpu", workers=0)
    assert tried == [0.003, 0.01]
    assert again.record["lr_choice"] == chosen.record["lr_choice"]
    assert model_bytes(out) == model_bytes(chosen.folder)


def auto_command(world: Any, out: Path) -> list[str]:
    return [*command(world, out, 60), "--lr", AUTO]


@pytest.mark.long
def test_a_choice_that_was_killed_goes_on_and_ends_in_the_same_bytes(world, tmp_path):
    undisturbed = world.run("auto-sixty", lr=AUTO, iterations=60)
    out = tmp_path / "run"
    process = subprocess.Popen(auto_command(world, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Learning rate 0.003"):
            break
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert (out / "work" / "lr" / "0.001.json").is_file()
    assert not (out / "lr_choice.json").exists()

    done = subprocess.run(auto_command(world, out), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Sanity check:") <= 3
    record = json.loads((out / "run.json").read_text())
    assert record["lr_choice"] == json.loads(json.dumps(undisturbed.record["lr_choice"]))
    assert model_bytes(out) == model_bytes(undisturbed.folder)


# -- recipes through the command -----------------------------------------------------------------------------------


def dry(world: Any, tmp_path: Path, lnsegfm_here: Any, *options: object) -> dict[str, Any]:
    done = lnsegfm_here(
        "finetune", world.clinic, "--model", world.base, "--out", tmp_path / "run", "--shots", 2, "--dry-run", *options
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["recipe"])


def test_a_recipe_file_and_options_that_win_over_it(world, tmp_path, lnsegfm_here):
    file = tmp_path / "my.toml"
    file.write_text(lnsegfm_here("methods", "--recipe", "lora").stdout, encoding="utf-8")
    packaged = dry(world, tmp_path, lnsegfm_here, "--method", "lora")
    assert dry(world, tmp_path, lnsegfm_here, "--recipe", file) == packaged
    assert packaged["lr"] == 0.003
    given = ("--recipe", file, "--iterations", 5, "--lr", "auto", "--warm-up", 2, "--set", "rank=1")
    found = dry(world, tmp_path, lnsegfm_here, *given)
    assert found["settings"] == packaged["settings"] | {"rank": 1}
    assert (found["iterations"], found["lr"], found["lr_default"], found["warm_up"]) == (5, "auto", 0.003, 2)
    assert found["lr_grid"] == [0.0003, 0.001, 0.003]
    assert dry(world, tmp_path, lnsegfm_here)["method"] == "dgst"
    assert math.isclose(dry(world, tmp_path, lnsegfm_here, "--method", "full")["lr"], 0.003)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--lr", "fast"), "--lr fast: a number such as 0.01 is needed, or auto."),
        (("--lr", "0"), "lr 0.0: a step needs a length above 0"),
        (("--warm-up", "1000"), "warm_up 1000: training has 1000 iterations only"),
        (("--recipe", "none.toml"), "none.toml: no such file"),
    ],
)
def test_options_that_cannot_be_end_in_one_line(world, tmp_path, lnsegfm_here, options, message):
    done = lnsegfm_here("finetune", world.clinic, "--model", world.base, "--out", tmp_path / "run", *options)
    assert done.returncode == 2
    assert done.stderr.startswith(f"lnsegfm: {message}")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_the_recipe_of_a_run_is_in_its_identity(world):
    changes: list[dict[str, Any]] = [{}, {"warm_up": 2}, {"lr": AUTO}, {"lr": AUTO, "lr_grid": (0.1, 0.3)}, {"lr": 0.5}]
    found = {plan(world.clinic, world.base, world.recipe(**change)).identity for change in changes}
    assert len(found) == len(changes)

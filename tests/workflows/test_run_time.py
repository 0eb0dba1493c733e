"""Runs say about how long they take; the clock is the test's, each step, tile and scan takes what the test says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from lnsegfm.inference.tile_positions import tile_positions
from lnsegfm.models.model_folder import read_model
from lnsegfm.prediction import predict_cases as predicting
from lnsegfm.prediction import prediction_time
from lnsegfm.prediction.predict_cases import predict_cases
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.prediction_time import count_tiles, mirrored_copies, tile_seconds
from lnsegfm.prediction.predictor import Predictor
from lnsegfm.training.in_memory_trainer import InMemoryTrainer
from lnsegfm.workflows import run_time
from lnsegfm.workflows.finetune import FinetuneRun
from lnsegfm.workflows.finetune_plan import plan
from lnsegfm.workflows.lr_search import LrSearch
from lnsegfm.workflows.pretrain import Afterwards, BaseTrainingRun
from lnsegfm.workflows.pretrain_plan import PretrainSettings, plan_pretrain
from lnsegfm.workflows.training_run import RunContext
from tests.listening import SetClock, Stages
from tests.workflows.test_finetune import model_bytes

STEP_S, TILE_S, SCAN_S = 10.0, 3.0, 40.0


@pytest.fixture
def clock(monkeypatch) -> SetClock:
    """A step takes 10 s, the tile that is measured 3 s, the network's share of a scan 40 s."""
    clock = SetClock()
    for module in (predicting, run_time):  # one scan after the other, on machines of any number of cores
        monkeypatch.setattr(module, "worthwhile", lambda *_: False)

    def taking(owner: Any, name: str, seconds: float) -> None:
        real = getattr(owner, name)

        def longer(*args: Any, **settings: Any) -> Any:
            clock.now += seconds
            return real(*args, **settings)

        monkeypatch.setattr(owner, name, longer)

    taking(InMemoryTrainer, "train_step", STEP_S)
    taking(prediction_time, "sliding_window", TILE_S)
    taking(Predictor, "run", SCAN_S)
    return clock


def times(heard: Stages) -> list[str]:
    return [line for line in heard.lines if line.startswith("Time: ")]


def tuned(world: Any, out: Any, clock: SetClock, **changes: Any) -> list[str]:
    heard = Stages()
    context = RunContext(out=out, device="cpu", workers=0, progress=heard, clock=clock)
    FinetuneRun(plan(world.clinic, world.base, world.recipe(**changes)), context, 0.02).run()
    return times(heard)


def test_tiles_are_counted_as_the_network_sees_the_scans(world):
    """From the sizes in the files alone; the volumes that a predictor prepares have as many."""
    model = read_model(world.base)
    cases = plan(world.clinic, world.base, world.recipe()).data.cases
    predictor = Predictor(model)
    patch = model.plans["configurations"]["3d_fullres"]["patch_size"]
    shapes = [predictor.prepare(case.images).volume.shape[1:] for case in cases]
    padded = [[max(pair) for pair in zip(shape, patch, strict=True)] for shape in shapes]
    assert count_tiles(model.first, cases) == sum(len(tile_positions(shape, patch)) for shape in padded)
    finer = {**model.plans, "configurations": {"3d_fullres": dict(model.plans["configurations"]["3d_fullres"])}}
    finer["configurations"]["3d_fullres"]["spacing"] = [
        n / 2 for n in model.plans["configurations"]["3d_fullres"]["spacing"]
    ]
    assert count_tiles(replace(model.first, plans=finer), cases) > 4 * count_tiles(model.first, cases)
    assert count_tiles(model.first, [replace(cases[0], images=(world.folder / "gone.nii.gz",))]) == 0


def test_measuring_a_tile_draws_no_random_number(world, clock):
    before = torch.get_rng_state()
    assert tile_seconds(read_model(world.base).first, "cpu", clock) == TILE_S
    assert torch.equal(torch.get_rng_state(), before)


def test_a_fine_tuning_says_what_training_and_comparison_take(world, clock, tmp_path):
    """24 steps less the first 6; then two scans by two models, 8 copies of each tile."""
    planned = plan(world.clinic, world.base, world.recipe())
    tiles = count_tiles(planned.start, planned.held_out)
    copies = mirrored_copies(planned.start)
    assert copies == 8
    predictions = tiles * 2 * copies * TILE_S
    lines = tuned(world, tmp_path / "run", clock, iterations=24, mirroring=True)
    minutes = round(predictions / 60)
    assert (
        f"18 steps of 10 s (3 min), then predictions of 2 held-out scans by both models, mirrored ({minutes} min)"
        in (lines[0])
    )
    assert "Shorter: --no-mirroring" in lines[0]
    # the comparison takes 160 s, not what the tile let expect: corrected after the first scan, once
    assert lines[1:] == [f"Time: about 2 min more; 3 min in place of the {minutes} min that were expected"]


def test_what_is_said_changes_no_byte(world, run, clock, tmp_path):
    tuned(world, tmp_path / "run", clock)
    assert model_bytes(tmp_path / "run") == model_bytes(run.folder)


def test_a_finished_training_tells_the_time_of_the_predictions_that_are_left(world, clock, tmp_path):
    settings: dict[str, Any] = {"iterations": 6}
    tuned(world, tmp_path / "run", clock, **settings)
    for file in (tmp_path / "run" / "predictions" / "adapted").glob("*.nii.gz"):
        file.unlink()
    assert tuned(world, tmp_path / "run", clock, **settings) == ["Time: about 40 s: 1 scan of 40 s"]


def test_a_search_for_the_rate_counts_the_trainings_that_come(world):
    search = LrSearch(
        start=read_model(world.base).first,
        method=plan(world.clinic, world.base, world.recipe()).method,
        cases=(),
        labels=read_model(world.base).labels,
        schedule=FinetuneRun(plan(world.clinic, world.base, world.recipe()), _context(world), 0.02).schedule().schedule,
        rates=(0.01, 0.001, 0.003),
        mirroring=False,
        time_plan=FinetuneRun(plan(world.clinic, world.base, world.recipe()), _context(world), 0.02).time_plan,
    )
    assert [len(search.whole_plan(rate).further) for rate in sorted(search.rates)] == [3, 2, 1]


def _context(world: Any) -> RunContext:
    out = world.folder / "looked-at"
    out.mkdir(exist_ok=True)
    return RunContext(out=out, device="cpu", workers=0, progress=Stages(), clock=SetClock())


def test_a_demo_counts_what_follows_its_base(world, clock, tmp_path):
    heard = Stages()
    settings = PretrainSettings(plans=world.folder / "plans.json", iterations=20, held_out=1, mirroring=False)
    planned = plan_pretrain(world.clinic, settings, tmp_path / "plans", progress=heard)
    context = RunContext(out=tmp_path / "base", device="cpu", workers=0, progress=heard, clock=clock, on_disk=True)
    BaseTrainingRun(planned, context, Afterwards(100, 12, ("fewer --iterations",))).run()
    line = times(heard)[0]
    assert "14 steps of 10 s (2 min), then 1 further training (17 min)" in line
    assert "then predictions of 1 held-out scan and 12 others" in line
    assert line.endswith("Shorter: fewer --iterations")


def test_a_prediction_says_after_the_first_scan_what_the_others_take(world, clock, tmp_path):
    heard = Stages()
    cases = plan(world.clinic, world.base, world.recipe()).data.cases
    options = PredictOptions(device="cpu", flags=False)
    how: dict[str, Any] = {"tell_time": True, "clock": clock, "progress": heard}
    predict_cases(read_model(world.base), cases, tmp_path / "masks", options, **how)
    assert times(heard) == [
        "Time: about 2 min: 3 scans of 40 s. Shorter: --no-mirroring (up to 8 times faster), --fast wide-steps"
    ]
    heard.lines.clear()
    predict_cases(read_model(world.base), cases, tmp_path / "masks", options, **how)
    assert times(heard) == []

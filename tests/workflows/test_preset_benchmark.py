"""Faster settings, what they cost, and predicting within a bound of memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lnsegfm
from lnsegfm.datasets.dataset import Case
from lnsegfm.errors import ConfigError, DataError, RunMismatch, UnknownName
from lnsegfm.evaluation.evaluation_files import read_evaluation
from lnsegfm.imaging.files import read_mask
from lnsegfm.imaging.grid import Grid
from lnsegfm.inference.coarse_to_fine import coarse_to_fine, tiles_near
from lnsegfm.inference.sliding_window import sliding_window
from lnsegfm.inference.speed_presets import FULL, PRESETS, CoarsePass, InferenceSetting, choose_setting
from lnsegfm.inference.tile_positions import tile_positions
from lnsegfm.models.model_folder import Model, read_model
from lnsegfm.prediction import memory_budget as memories
from lnsegfm.prediction import pipeline
from lnsegfm.prediction import predict_cases as predicting
from lnsegfm.prediction.memory_budget import LATE, room, scan_bytes, tile_bytes
from lnsegfm.prediction.predict_cases import predict_cases
from lnsegfm.prediction.predict_options import GB, PredictOptions
from lnsegfm.prediction.predictor import Predictor
from lnsegfm.prediction.ready_predictor import ready
from lnsegfm.prediction.scans import find_scans
from lnsegfm.workflows.preset_benchmark import FILE, benchmark_presets, preset_summary, preset_table
from tests.cli.machines import write_machine
from tests.conftest import Result
from tests.scenes import scene, write_image


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return read_model(write_machine(tmp_path_factory.mktemp("model") / "model"))


@pytest.fixture
def scans(tmp_path: Path) -> tuple[Case, ...]:
    for case in range(3):
        write_image(tmp_path / "scans" / f"case_{case}.nii.gz", scene(case)[0])
    return find_scans(tmp_path / "scans", 1).cases


# settings


def test_a_preset_and_settings_of_ones_own_exclude_each_other():
    assert choose_setting(None, mirroring=False, step=0.7) == InferenceSetting(mirroring=False, step=0.7)
    assert choose_setting("wide-steps") == InferenceSetting(mirroring=False, step=0.75)
    with pytest.raises(UnknownName, match=r"--fast quick: not known\. Use no-mirroring, wide-steps, coarse-first"):
        choose_setting("quick")
    for own in ({"mirroring": False}, {"step": 0.7}, {"exact": True}):
        with pytest.raises(ConfigError, match="Leave these out"):
            choose_setting("wide-steps", **own)
    with pytest.raises(ConfigError, match="share of the patch"):
        CoarsePass(margin=-0.1)
    with pytest.raises(ConfigError, match="less than a patch"):
        CoarsePass(step=0)


def test_every_setting_is_claimed_as_its_own(model, scans, tmp_path):
    """Masks of one setting must not pass for those of another; the full one is what it was before presets."""
    told = [json.dumps(setting.to_json(), sort_keys=True) for setting in (InferenceSetting(), *PRESETS.values())]
    assert len(set(told)) == len(PRESETS) + 1
    assert InferenceSetting().to_json() == {"mirroring": True, "step": 0.5}
    for name in PRESETS:
        out = tmp_path / name
        assert predict_cases(model, scans[:1], out, PredictOptions(fast=name)).done == ("case_0",)
        kept = json.loads((out / "masks.json").read_text())
        assert kept == {"model": [model.first.weights_sha256]} | PRESETS[name].to_json()
        with pytest.raises(RunMismatch, match="other settings"):
            predict_cases(model, scans[:1], out)
    again = predict_cases(model, scans[:1], tmp_path / "no-mirroring", PredictOptions(mirroring=False))
    assert again.skipped == ("case_0",)


# coarse first


def test_only_tiles_near_what_was_found_are_asked():
    found = torch.zeros(32, 32, 32, dtype=torch.bool)
    found[5, 20, 20] = True  # at 10, 40, 40 of the volume
    shape, patch = torch.Size((64, 64, 64)), (16, 16, 16)
    near = tiles_near(found, shape, patch, margin=0.25)
    for at in tile_positions(shape, patch):
        distance = max(max(one.start - p - 1, p - one.stop, 0) for one, p in zip(at, (10, 40, 40), strict=True))
        assert (at in near) == (distance <= 4), at
    assert tiles_near(torch.zeros_like(found), shape, patch) == []
    assert tiles_near(torch.ones_like(found), shape, patch) == tile_positions(shape, patch)


class Bright(nn.Module):
    """Finds voxels above 1; counts the tiles that it is asked of."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def forward(self, tiles: Tensor) -> Tensor:
        self.asked += len(tiles)
        return torch.cat([torch.ones_like(tiles[:, :1]), tiles[:, :1]], 1)


@pytest.mark.parametrize("mirroring", [False, True])
def test_where_the_first_look_finds_something_logits_are_those_of_the_full_pass(model, mirroring):
    torch.manual_seed(0)
    volume = torch.randn(1, 48, 64, 64) * 0.2
    volume[0, 8:16, 40:50, 10:20] += 4
    coarse, full = Predictor(model, mirroring=mirroring, coarse=CoarsePass()), Predictor(model, mirroring=mirroring)
    few, all_ = Bright(), Bright()
    ours, theirs = coarse._window(few, volume, None), full._window(all_, volume, None)
    assert few.asked < all_.asked / 2
    assert ours.shape == theirs.shape
    assert torch.equal(ours > 0, theirs > 0)
    assert (theirs > 0).sum() == 8 * 10 * 10
    near = (slice(None), slice(6, 18), slice(38, 52), slice(8, 22))
    torch.testing.assert_close(ours[near], theirs[near])


@pytest.mark.parametrize("shape", [(48, 64, 64), (8, 64, 64), (10, 12, 11)])
def test_a_scan_in_which_nothing_is_found_has_an_empty_mask_and_small_scans_are_whole_tiles(model, shape):
    predictor, full = Predictor(model, mirroring=False, coarse=CoarsePass()), Predictor(model, mirroring=False)
    empty = torch.zeros(1, *shape)
    assert (predictor._window(Bright(), empty, None) < 0).all()
    empty[0, 2:8, 2:9, 2:9] = 4
    found, known = predictor._window(Bright(), empty, None), full._window(Bright(), empty, None)
    assert found.shape == (1, *shape)
    assert torch.equal(found > 0, known > 0)


@pytest.mark.parametrize("regions", [False, True])
def test_elsewhere_more_classes_and_regions_have_the_first_looks_background(regions):
    torch.manual_seed(0)
    volume = torch.randn(1, 64, 64, 64) * 0.1
    volume[0, 8:16, 40:50, 10:20] += 4

    class Heads(nn.Module):
        def forward(self, tiles: Tensor) -> Tensor:
            above = tiles[:, :1] - 1
            return torch.cat([above, above] if regions else [-above, above, above - 3], 1)

    window = partial(sliding_window, Heads())
    ours, theirs = (
        coarse_to_fine(window, volume, (16, 16, 16), CoarsePass(), regions=regions),
        window(volume, (16, 16, 16)),
    )
    same = (ours == theirs).all(0)
    assert 0.02 < same.float().mean() < 0.5
    if regions:
        assert torch.equal(ours > 0, theirs > 0)
        assert (ours[:, ~same] < 0).all()
    else:
        assert torch.equal(ours.argmax(0), theirs.argmax(0))
        assert (ours.softmax(0)[0][~same] > 0.7).all()


def test_models_of_slices_do_not_look_coarsely(model):
    assert ready(model, PRESETS["coarse-first"]).coarse == CoarsePass()
    plans = json.loads(json.dumps(model.plans))
    plans["configurations"][model.configuration]["patch_size"] = [16, 16]
    with pytest.raises(ConfigError, match="looks at slices, not volumes"):
        ready(replace(model, plans=plans), PRESETS["coarse-first"])


# memory


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_no_amount_of_memory(value):
    with pytest.raises(ConfigError, match="it is a number of GB above 0"):
        PredictOptions(memory=value)
    assert (PredictOptions().memory_bytes, PredictOptions(memory=1.5).memory_bytes) == (None, 1_500_000_000)


def test_scans_overlap_where_there_is_room_for_three(model, scans, monkeypatch):
    monkeypatch.setattr(memories, "resident", lambda: GB)
    one = scan_bytes(model, Grid((20, 24, 28), (2.0, 1.0, 1.5)))
    alone = GB + LATE + sum(t.numel() * t.element_size() for t in model.first.weights.values()) + tile_bytes(model)
    assert room(model, scans, {}, alone + 3 * one).overlap
    assert room(model, scans, {}, alone + 5 * one).rest == 2 * one
    tight = room(model, scans, {}, alone + 3 * one - 1)
    assert (tight.overlap, tight.rest) == (False, 2 * one - 1)
    assert room(model, scans, {}, alone + one).rest == 1
    with pytest.raises(ConfigError, match=r"--memory 0.5: the program, the model and .* Give at least 1.16\."):
        room(model, scans, {}, GB // 2)
    with pytest.raises(ConfigError, match="Give at least"):
        room(model, scans, {}, alone + one - 1)
    for free, overlap in ((3 * one, False), (4 * one + alone, True), (None, True)):
        monkeypatch.setattr(memories, "available", lambda free=free: free)
        assert room(model, scans, {}, None) == memories.Room(overlap, None)


def test_a_scan_needs_more_the_larger_it_is_and_a_damaged_one_is_left_for_its_turn(model, scans, tmp_path):
    small, large = (scan_bytes(model, Grid((20, 24, n), (2.0, 1.0, 1.5))) for n in (28, 280))
    assert large == pytest.approx(10 * small, rel=1e-3)
    assert scan_bytes(model, Grid((20, 24, 28), (2.0, 1.0, 1.5)), probabilities=True) > small
    scans[0].images[0].write_bytes(b"no scan")
    assert room(model, scans, {}, None).overlap
    found = predict_cases(model, scans, tmp_path / "out", PredictOptions(fast="no-mirroring"))
    assert ([f.case for f in found.failed], found.done) == (["case_0"], ("case_1", "case_2"))


def test_a_model_of_slices_keeps_their_distance(model):
    """In the plans' order of axes, whose first the slices are stacked along."""
    plans = deepcopy(dict(model.plans))
    plans["transpose_forward"], plans["transpose_backward"] = [2, 0, 1], [1, 2, 0]
    volume = plans["configurations"]["3d_fullres"]
    volume["spacing"] = [3.0, 2.0, 1.0]  # of x, z, y
    planar = deepcopy(plans)
    planar["configurations"]["3d_fullres"] |= {"spacing": [2.0, 1.0], "patch_size": [16, 16]}
    grid = Grid((20, 24, 28), (2.0, 1.0, 3.0))
    assert scan_bytes(replace(model, plans=planar), grid) == scan_bytes(replace(model, plans=plans), grid)


def test_masks_do_not_depend_on_memory_overlap_or_air(model, scans, tmp_path, monkeypatch):
    """Nor does anything beside them."""
    overlaps = []
    real = predicting.each
    monkeypatch.setattr(predicting, "each", lambda *a, overlap: overlaps.append(overlap) or real(*a, overlap=overlap))
    monkeypatch.setattr(pipeline, "usable_cores", lambda: 2)
    predict_cases(model, scans, tmp_path / "free", PredictOptions(mirroring=False, nodes=True, probabilities=True))
    monkeypatch.setattr(memories, "resident", lambda: 0)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.first.weights.values())
    one = scan_bytes(model, Grid((20, 24, 28), (2.0, 1.0, 1.5)), probabilities=True)
    bound = LATE + weights + tile_bytes(model) + 2 * one
    predict_cases(
        model,
        scans,
        tmp_path / "bound",
        PredictOptions(mirroring=False, nodes=True, probabilities=True, memory=bound / GB, air=False),
    )
    assert overlaps == [True, False]
    files = {path.name: path.read_bytes() for path in (tmp_path / "free").iterdir()}
    assert files.keys() == {path.name for path in (tmp_path / "bound").iterdir()}
    for name in files:
        if not name.endswith(".npz"):
            assert (tmp_path / "bound" / name).read_bytes() == files[name], name


PEAK = """
import re, sys
from pathlib import Path
from lnsegfm.errors import ConfigError
from lnsegfm.models.model_folder import read_model
from lnsegfm.prediction.predict_cases import predict_cases
from lnsegfm.prediction.scans import find_scans
from lnsegfm.prediction.predict_options import PredictOptions

model, scans, out = (Path(name) for name in sys.argv[1:])
model, cases = read_model(model), find_scans(scans, 1).cases
try:
    predict_cases(model, cases, out, PredictOptions(memory=1e-9))
except ConfigError as error:
    least = float(re.search("Give at least ([0-9.]+)[.]", str(error)).group(1)) * 1e9
found = predict_cases(model, cases, out, PredictOptions(mirroring=False, step=1.0, memory=least / 1e9))
status = Path("/proc/self/status").read_text()
print(len(found.done), least, int(re.search("VmHWM:[^0-9]*([0-9]+)", status).group(1)) * 1024)
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the system tells the largest memory of a process")
def test_the_least_memory_that_is_accepted_is_kept_to(model, tmp_path):
    noise = np.random.default_rng(0).normal(-200, 20, (40, 128, 128))
    noise[20:30, 40:60, 50:80] += 300
    write_image(tmp_path / "scans" / "case_0.nii.gz", noise.astype(np.int16))
    words = [sys.executable, "-c", PEAK, model.folder, tmp_path / "scans", tmp_path / "out"]
    done, least, peak = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
    assert done == "1"
    assert int(peak) <= float(least)


# prices


@pytest.fixture(scope="module")
def priced(world, tmp_path_factory) -> Path:
    """A run of its own, since its model folder is written to."""
    run = world.run("priced")
    benchmark_presets(run.folder, device="cpu")
    return run.folder


def test_each_preset_has_its_dice_and_its_seconds(priced, world):
    found = json.loads((priced / "model" / FILE).read_text())
    assert (found["format"], found["cases"], found["device"]) == ("lnsegfm.presets/1", 2, "cpu")
    assert list(found["presets"]) == [FULL, *PRESETS]
    for one in found["presets"].values():
        assert one["seconds"] > 0
        assert one["dice"]["node"]["worst"] <= one["dice"]["node"]["mean"]
    assert world.recipe().mirroring is False  # so that the run's own evidence is what no-mirroring has to give
    evidence = read_evaluation(priced / "predictions" / "adapted")
    dice = [case.labels["node"].dice for case in evidence.cases]
    assert found["presets"]["no-mirroring"]["dice"]["node"] == {"mean": np.mean(dice), "worst": min(dice)}
    assert not (priced / "work").exists()
    assert len(preset_table(found)) == 5
    assert set(map(len, preset_table(found))) == {4}


def test_a_price_is_told_in_a_line_or_that_it_is_not_known(priced, tmp_path):
    shutil.copytree(priced / "model", tmp_path / "model")
    model = read_model(tmp_path / "model")
    told = preset_summary(model, "wide-steps")
    assert told.startswith("--fast wide-steps: ")
    assert "held-out scans" in told
    assert len(told.splitlines()) == 1
    unknown = "--fast wide-steps: its price for this model is not known. `lnsegfm presets RUN` finds it."
    assert preset_summary(replace(model, folds=model.folds * 2), "wide-steps") == unknown
    for content in ("{", "[]", '{"format": "lnsegfm.presets/1"}', "null"):
        (tmp_path / "model" / FILE).write_text(content)
        assert preset_summary(model, "wide-steps") == unknown
    (tmp_path / "model" / FILE).unlink()
    assert preset_summary(model, "wide-steps") == unknown


def test_runs_that_cannot_be_priced(priced, world, tmp_path):
    with pytest.raises(ConfigError, match="it is no finished run"):
        benchmark_presets(tmp_path, device="cpu")
    run = shutil.copytree(priced, tmp_path / "run")
    recipe = json.loads((run / "recipe.json").read_text())
    for change, kind, said in (
        ({"held_out": []}, ConfigError, "held out no scan"),
        ({"data": recipe["data"] | {"folder": str(tmp_path / "moved")}}, DataError, "are gone from"),
        ({"held_out": ["case_9"]}, DataError, r"are gone from .* \(case_9\)"),
    ):
        (run / "recipe.json").write_text(json.dumps(recipe | change))
        with pytest.raises(kind, match=said) as refused:
            benchmark_presets(run, device="cpu")
        assert len(str(refused.value).splitlines()) == 1
        assert not (run / "work").exists()


def test_the_command_and_predict_tell_it(priced, world, scans, tmp_path, lnsegfm_here):
    done: Result = lnsegfm_here("presets", priced, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    head, *body, kept, last = done.stdout.splitlines()
    assert head.split()[0] == "setting"
    assert [line.split()[0] for line in body] == [FULL, *PRESETS]
    assert (kept, last) == (f"Kept     {priced / 'model' / FILE}", "Not for clinical use.")
    words = ("predict", priced, scans[0].images[0], "--device", "cpu", "--fast", "coarse-first")
    done = lnsegfm_here(*words, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("--fast coarse-first: ")
    done = lnsegfm_here("presets", tmp_path, "--device", "cpu")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--memory", "0"), "--memory 0: it is a number of GB above 0. Use 8, or leave it out."),
        (("--memory", "nan"), "--memory nan: it is a number of GB above 0. Use 8, or leave it out."),
        (("--fast", "x"), "--fast x: not known. Use no-mirroring, wide-steps, coarse-first."),
        (("--fast", "wide-steps", "--step", "0.7"), "--fast wide-steps: it settles mirroring"),
    ],
)
def test_words_that_cannot_be(model, scans, tmp_path, lnsegfm_here, words, said):
    done = lnsegfm_here("predict", model.folder, scans[0].images[0].parent, "--out", tmp_path / "out", *words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"lnsegfm: {said}")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_from_python(model, scans, tmp_path):
    found = lnsegfm.predict(
        model.folder, scans[0].images[0], tmp_path / "out", fast="coarse-first", memory=8, device="cpu"
    )
    assert found.done == ("case_0",)
    with pytest.raises(ConfigError, match="--memory 0"):
        lnsegfm.predict(model.folder, scans[0].images[0], tmp_path / "other", memory=0, device="cpu")
    mask, _ = read_mask(tmp_path / "out" / "case_0.nii.gz")
    assert mask.shape == (20, 24, 28)

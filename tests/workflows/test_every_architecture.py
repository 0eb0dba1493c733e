"""Each architecture through the whole loop: pretrained, adapted with every method, predicted here and by nnU-Net."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.errors import ConfigError
from lnsegfm.methods.table import METHODS, load_method
from lnsegfm.models.model_folder import read_model
from lnsegfm.models.planning import RELEASE, plans_for_preset, swin_patch
from lnsegfm.networks.architectures import ARCHITECTURES, SWIN, SWIN_GB_PER_VOXEL
from lnsegfm.prediction.predict_cases import predict_cases
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.scans import find_scans
from lnsegfm.progress import Silent
from lnsegfm.recipe import Recipe
from lnsegfm.weights.adapter import Adapter
from lnsegfm.weights.state import raw
from lnsegfm.workflows.finetune import finetune
from lnsegfm.workflows.finetune_plan import plan
from lnsegfm.workflows.pretrain import PretrainRun, pretrain
from lnsegfm.workflows.pretrain_plan import PretrainSettings
from tests.nnunet.stock import stock_predict, stock_predict_here
from tests.scenes import write_scenes
from tests.training.changes import assert_changed_as_meant


@dataclass(frozen=True)
class Trained:
    """A base of one architecture, and the scans of a clinic."""

    name: str
    base: PretrainRun
    clinic: Path


SIZES = ("stunet-s", "stunet-l", "stunet-h")
"""At the size of a test these differ from stunet-b in the number of blocks alone."""
EACH = [pytest.param(name, marks=pytest.mark.long) if name in SIZES else name for name in ARCHITECTURES]
SAME = ("resenc-l", "resenc-xl")
"""Planned for more memory than resenc-m: on these scans the same network."""
TRAINED = [pytest.param(name, marks=pytest.mark.long) if name in (*SIZES, *SAME) else name for name in ARCHITECTURES]


@pytest.fixture(scope="module", params=TRAINED)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp(request.param)
    data = write_scenes(folder / "source", 3)
    training = PretrainSettings(architecture=request.param, iterations=2, lr=1e-3, mirroring=False)
    base = pretrain(data, folder / "base", training, device="cpu")
    return Trained(request.param, base, write_scenes(folder / "clinic", 3, seed=100, contrast=50.0))


ONE_OF_A_KIND = ("full", "decoder", "lora", "spatial-adapter", "dgst")
SHORT = {"swinunetr": ("full", "lora", "dgst"), "swinunetr-v2": ("dgst",)}
"""A transformer's run takes seconds; its methods are tried step by step in tests/methods as well."""
LONG = pytest.mark.long
LOOPS = [
    pytest.param(
        name, method, marks=LONG if name in (*SIZES, *SAME) or method not in SHORT.get(name, ONE_OF_A_KIND) else ()
    )
    for name in ARCHITECTURES
    for method in METHODS
]


def test_the_larger_residual_encoders_are_the_same_network_here(world: Any, tmp_path: Path) -> None:
    medium, *larger = (
        planned(name, world.clinic, tmp_path / "w", "default", 2)["architecture"] for name in ("resenc-m", *SAME)
    )
    assert all(network == medium for network in larger)


@pytest.mark.parametrize(("trained", "name"), LOOPS, indirect=["trained"], scope="module")
def test_every_method_adapts_it_and_keeps_what_it_says(trained: Trained, name: str, tmp_path: Path) -> None:
    method = load_method(name, {"passes": "1"} if name == "gps" else {})
    steps = 2 if name == "gps" else 1
    recipe = Recipe(method=name, settings=method.settings(), iterations=steps, mirroring=False)
    planned = plan(trained.clinic, trained.base.folder, recipe)
    run = finetune(planned, tmp_path / "run", device="cpu", workers=0)
    base, after = read_model(trained.base.folder).first, read_model(run.model).first.weights

    assert_changed_as_meant(method, base, run.model)
    assert planned.transfer.share == 1
    assert run.record["sanity_check"]["parameters"] == planned.trainable.parameters
    rebuilt = Adapter.load(run.folder).apply(base.weights)
    assert all((raw(rebuilt[key]) == raw(after[key])).all() for key in after)


@pytest.mark.parametrize("how", ["here", pytest.param("by its command", marks=pytest.mark.long)])
def test_it_predicts_the_voxels_that_stock_nnunet_predicts(trained: Trained, tmp_path: Path, how: str) -> None:
    images = tmp_path / "images"
    images.mkdir()
    source = sorted((trained.clinic / "imagesTr").glob("*.nii.gz"))[0]
    (images / source.name).write_bytes(source.read_bytes())
    model = read_model(trained.base.folder)
    predict_cases(model, find_scans(images, 1).cases, tmp_path / "ours", PredictOptions(mirroring=False, exact=True))
    if how == "here":
        stock_predict_here(trained.base.model, images, tmp_path / "stock", mirroring=False)
    else:
        done = stock_predict(trained.base.model, images, tmp_path / "stock", "--disable_tta")
        assert done.returncode == 0, done.stderr

    ours, theirs = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(next((tmp_path / place).glob("*.nii.gz")))))
        for place in ("ours", "stock")
    )
    assert np.array_equal(ours, theirs)
    assert len(np.unique(ours)) == 2
    assert trained.base.record["recipe"]["architecture"] == trained.name
    assert model.network_class == ARCHITECTURES[trained.name].network


def planned(name: str, data: Path, work: Path, preset: str, memory: float | None = None) -> dict[str, Any]:
    dataset = open_dataset(data)
    plans = plans_for_preset(
        preset,
        ARCHITECTURES[name],
        dataset,
        dataset.cases,
        work,
        gpu_memory_gb=memory,
        checkpointing=False,
        progress=Silent(),
    )
    assert not work.exists()
    assert list(plans["configurations"]) == ["3d_fullres"]
    json.dumps(plans)
    configuration: dict[str, Any] = plans["configurations"]["3d_fullres"]
    assert configuration["architecture"]["network_class_name"] == ARCHITECTURES[name].network
    return configuration


@pytest.mark.parametrize("name", EACH)
def test_nnunets_planner_plans_it_for_the_memory_given(name: str, world: Any, tmp_path: Path) -> None:
    small = planned(name, world.clinic, tmp_path / "w", "default", 2)
    usual = planned(name, world.clinic, tmp_path / "w", "default")
    assert math.prod(small["patch_size"]) <= math.prod(usual["patch_size"])
    assert usual["batch_size"] >= 2
    if ARCHITECTURES[name].network == SWIN:
        assert all(p % 32 == 0 for p in usual["patch_size"])
        assert usual["architecture"]["arch_kwargs"]["feature_size"] == 48


@pytest.mark.parametrize("name", EACH)
def test_the_releases_patch_and_schedule_are_a_preset(name: str, world: Any, tmp_path: Path) -> None:
    configuration = planned(name, world.clinic, tmp_path / "w", RELEASE)
    swin = name.startswith("swin")
    assert configuration["patch_size"] == ([64, 128, 192] if swin else [80, 112, 224])
    assert configuration["batch_size"] == 2
    features = configuration["architecture"]["arch_kwargs"].get("features_per_stage")
    wide = [ARCHITECTURES[name].width * factor for factor in (1, 2, 4, 8, 16, 16)]
    assert features == (None if swin else wide if name.startswith("stunet") else [32, 64, 128, 256, 320, 320])
    method, lr, iterations = PretrainSettings(architecture=name, preset=RELEASE).recipe()
    assert (method.rule, lr, iterations) == ("sgd", 1e-2, 2000 * 250)


def test_a_patch_that_a_planned_network_cannot_take_is_refused(world: Any, tmp_path: Path) -> None:
    training = PretrainSettings(preset=RELEASE, patch_size=(80, 112, 214))
    with pytest.raises(ConfigError, match=r"Patch size 80 112 214: .* Use 80 112 2"):
        pretrain(world.clinic, tmp_path / "out", training, device="cpu")
    assert not (tmp_path / "out").exists()


@given(
    patch=st.tuples(*[st.integers(16, 320)] * 3),
    image=st.tuples(*[st.integers(20, 700)] * 3),
    memory=st.floats(1, 80),
)
def test_a_swins_patch_fits_the_memory(patch: tuple[int, ...], image: tuple[int, ...], memory: float) -> None:
    found, more = swin_patch(patch, image, memory), swin_patch(patch, image, 2 * memory)
    assert all(p % 32 == 0 and p >= 32 for p in found)
    assert max(found) >= 64
    assert math.prod(found) * SWIN_GB_PER_VOXEL <= memory or sorted(found) == [32, 32, 64]
    assert math.prod(more) >= math.prod(found)
    assert all(p <= max(64, 32 * math.ceil(n / 32)) for p, n in zip(found, image, strict=True))


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.long)])
def test_two_processes_train_one_model(world: Any, tmp_path: Path, times: int) -> None:
    """Where the processes' weights differ the training itself fails; the same twice is a long test."""
    plans = world.folder / "plans.json"
    runs = [
        pretrain(
            world.clinic, tmp_path / str(number), PretrainSettings(plans=plans, iterations=3, gpus=2), device="cpu"
        )
        for number in range(times)
    ]
    losses = [run.record["losses"] for run in runs]
    assert losses[0] == losses[-1]
    weights = [read_model(run.folder).first.weights_sha256 for run in runs]
    assert weights[0] == weights[-1]
    assert len(losses[0]) == 3
    assert not (tmp_path / "0" / "work").exists()


@pytest.mark.long
def test_a_signal_stops_both_processes_and_the_same_command_continues(world: Any, tmp_path: Path) -> None:
    plans = world.folder / "plans.json"
    iterations = 300
    whole = pretrain(
        world.clinic, tmp_path / "whole", PretrainSettings(plans=plans, iterations=iterations, gpus=2), device="cpu"
    )
    out = tmp_path / "out"
    options = ("--plans", plans, "--iterations", iterations, "--gpus", 2, "--device", "cpu", "--out", out)
    words = [sys.executable, "-m", "lnsegfm", "pretrain", world.clinic, *options]
    process = subprocess.Popen([str(word) for word in words], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Training"):
            break
    time.sleep(2)
    process.terminate()
    rest = process.communicate(timeout=120)[1]
    assert process.returncode == 130, rest
    assert (out / "work" / "training.pt").is_file()
    assert not (out / "run.json").exists()

    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "continued at" in done.stderr
    assert read_model(out).first.weights_sha256 == read_model(whole.folder).first.weights_sha256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpus": 3}, "--gpus 3: a step has 2 patches only"),
        ({"held_out": 1.5}, "held-out 1.5: give a number of scans, or a share"),
        ({"held_out": float("inf")}, "held-out inf: give a number of scans, or a share"),
        ({"held_out": 0.99}, "there are only 4 cases"),
    ],
)
def test_training_that_cannot_be_is_refused(world: Any, tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pretrain(world.clinic, tmp_path / "out", PretrainSettings(**changes), device="cpu")
    assert not (tmp_path / "out").exists()


def test_a_share_of_the_scans_is_held_out() -> None:
    assert [PretrainSettings(held_out=share).count_held_out(10) for share in (0, 0.2, 0.01, 3)] == [0, 2, 1, 3]


def test_a_number_of_held_out_scans_is_the_same_run_from_python_and_the_command_line() -> None:
    counts = [PretrainSettings(held_out=number).held_out for number in (4, 4.0, 0, 0.0, 0.5)]
    assert json.dumps(counts) == "[4, 4, 0, 0, 0.5]"  # as the identity of a run has them

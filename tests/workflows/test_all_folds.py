"""Every fold of a base adapted: each as a run of its own would be, averaged in predictions as in stock nnU-Net."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lnsegfm.errors import ConfigError
from lnsegfm.imaging.files import read_mask
from lnsegfm.models.adapter_files import apply_adapter, describe_adapter
from lnsegfm.models.export_model import export_model
from lnsegfm.models.model_folder import ModelChoice, read_model
from lnsegfm.prediction.predict_cases import predict_cases
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.scans import find_scans
from lnsegfm.weights.checkpoint import read_checkpoint, write_checkpoint
from lnsegfm.workflows import member_trainings as trainings
from lnsegfm.workflows.finetune import Run, finetune
from lnsegfm.workflows.finetune_plan import plan
from tests.nnunet.stock import stock_predict_here

FINAL = "checkpoint_final.pth"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(world, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of two folds whose weights differ."""
    folder = tmp_path_factory.mktemp("two") / "base"
    shutil.copytree(world.base / "model", folder)
    one = read_checkpoint(folder / "fold_0" / FINAL)
    other = {name: tensor * 1.01 for name, tensor in one.weights.items()}
    write_checkpoint(folder / "fold_1" / FINAL, replace(one, weights=other))
    return folder


def run_on(world: Any, base: Path, out: Path, *, fold: str | None = None, **recipe: Any) -> Run:
    choice = ModelChoice(folds=(fold,) if fold is not None else ())
    planned = plan(world.clinic, base, world.recipe("lora", **recipe), choice=choice)
    return finetune(planned, out, device="cpu", workers=0)


@pytest.fixture(scope="module")
def adapted(world, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the tests: sums over several threads differ in the last bit
    try:
        return run_on(world, base, tmp_path_factory.mktemp("all") / "run", folds="all")
    finally:
        torch.set_num_threads(threads)


def test_each_fold_is_that_of_a_run_of_its_own(world, base, adapted, tmp_path):
    model = read_model(adapted.model)
    assert model.fold_names == ("0", "1")
    for number in (0, 1):
        alone = run_on(world, base, tmp_path / str(number), fold=str(number), seed=number)
        assert read_model(alone.model).first.weights_sha256 == model.weights_sha256[number]
        expected = (alone.model / "fold_0" / FINAL).read_bytes()
        assert (adapted.model / f"fold_{number}" / FINAL).read_bytes() == expected
    assert model.weights_sha256[0] != model.weights_sha256[1]


def test_the_record_holds_every_fold(base, adapted):
    record = json.loads((adapted.folder / "run.json").read_text())
    assert (record["recipe"]["folds"], record["folds"]) == ("all", 2)
    (further,) = record["further_folds"]
    assert (further["fold"], further["seed"]) == (1, 1)
    assert further["base_sha256"] == read_model(base).folds[1].weights_sha256
    assert further["adapter"]["entries"] > 0
    assert "all 2 of the base" in record["facts"]["Folds"]
    left = {path.relative_to(adapted.folder).as_posix() for path in (adapted.folder / "folds").rglob("*")}
    assert left == {f"folds/1{name}" for name in ("", "/adapter.json", "/adapter.safetensors", "/loss_history.json")}


def test_predictions_are_averaged_as_stock_nnunet_averages_them(world, adapted, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for image in sorted((world.clinic / "imagesTr").iterdir())[:2]:
        shutil.copy(image, images)
    stock_predict_here(adapted.model, images, tmp_path / "theirs", folds=(0, 1))
    ours = predict_cases(
        read_model(adapted.folder), find_scans(images, 1), tmp_path / "ours", PredictOptions(exact=True)
    )
    assert ours.failed == ()
    for case in ours.done:
        found, expected = (read_mask(tmp_path / who / f"{case}.nii.gz")[0] for who in ("ours", "theirs"))
        np.testing.assert_array_equal(found, expected)
    held_out = adapted.folder / "predictions" / "adapted" / "masks.json"
    assert json.loads(held_out.read_text())["model"] == list(read_model(adapted.model).weights_sha256)


def test_its_adapters_give_the_model_back(base, adapted, tmp_path):
    applied = apply_adapter(base, adapted.folder, tmp_path / "model")
    assert applied.written
    assert read_model(tmp_path / "model").weights_sha256 == read_model(adapted.model).weights_sha256
    assert not apply_adapter(base, adapted.folder, tmp_path / "model").written
    member = adapted.folder / "folds" / "1"
    assert describe_adapter(member, base)["given_base"]["fits"]
    apply_adapter(base, member, tmp_path / "one")
    assert read_model(tmp_path / "one").weights_sha256 == read_model(adapted.model).weights_sha256[1:]


def test_it_is_exported_as_folds(adapted, tmp_path):
    done = export_model(adapted.folder, "nnunet-zip", tmp_path / "model.zip")
    assert " -f 0 1 " in done.predict[1]
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        folds = sorted(name.split("/")[-2] for name in archive.namelist() if name.endswith(FINAL))
    assert folds == ["fold_0", "fold_1"]


def test_a_stopped_run_goes_on_with_the_fold_it_was_at(world, base, adapted, tmp_path, monkeypatch):
    real, trained = trainings.train_model, []

    def stopped(job, *rest, **more):
        trained.append(job.out.name)
        if len(trained) == 1:
            raise KeyboardInterrupt
        return real(job, *rest, **more)

    monkeypatch.setattr(trainings, "train_model", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_on(world, base, tmp_path / "run", folds="all")
    before = (tmp_path / "run" / "model" / "fold_0" / FINAL).stat().st_mtime_ns
    again = run_on(world, base, tmp_path / "run", folds="all")
    assert trained == ["1", "1"]
    assert (again.model / "fold_0" / FINAL).stat().st_mtime_ns == before
    assert read_model(again.model).weights_sha256 == read_model(adapted.model).weights_sha256
    run_on(world, base, tmp_path / "run", folds="all")
    assert trained == ["1", "1"]  # a finished run trains nothing


def test_what_all_folds_are_of_a_base_of_one(world, base):
    one, all_of_it = (plan(world.clinic, world.base, world.recipe(folds=folds)) for folds in (None, "all"))
    assert one.identity == all_of_it.identity
    assert all_of_it.further == ()
    two = plan(world.clinic, base, world.recipe(folds="all"))
    assert two.identity != plan(world.clinic, base, world.recipe()).identity
    with pytest.raises(ConfigError, match=r"folds 3: not known. Use all, or leave it out"):
        world.recipe(folds="3")

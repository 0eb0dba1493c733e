"""What stock nnU-Net says of our models, and our trainers under its commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from lnsegfm.methods.trainer_names import method_trainers
from lnsegfm.models.model_folder import read_model
from lnsegfm.networks.architectures import ARCHITECTURES
from lnsegfm.networks.parameter_roles import parameters_of
from lnsegfm.networks.role import Role
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.prediction.predict_cases import predict_cases
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.scans import find_scans
from lnsegfm.weights.checkpoint import Checkpoint, read_checkpoint
from lnsegfm.weights.state import raw
from tests.conftest import Result
from tests.nnunet.stock import NAME, nnunet_world, stock, stock_predict, stock_predict_here


def voxels(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.mark.parametrize("how", ["here", pytest.param("by its command", marks=pytest.mark.long)])
def test_masks_equal_those_of_stock_nnunet(how, world, run, tmp_path):
    model = read_model(run.folder)
    images = tmp_path / "images"
    images.mkdir()
    for image in sorted((world.clinic / "imagesTr").iterdir())[:2]:
        shutil.copy(image, images)

    coarser = sitk.ReadImage(str(images / "case_0_0000.nii.gz"))
    coarser.SetSpacing((2.3, 1.4, 1.1))  # one that has to be resampled on the way in and out
    sitk.WriteImage(coarser, str(images / "coarser_0000.nii.gz"))

    ours = predict_cases(model, find_scans(images, 1).cases, tmp_path / "ours", PredictOptions(exact=True))
    if how == "here":
        stock_predict_here(run.model, images, tmp_path / "theirs")
    else:
        done = stock_predict(run.model, images, tmp_path / "theirs")
        assert done.returncode == 0, done.stderr

    assert ours.failed == ()
    for case in ours.done:
        mask = voxels(tmp_path / "ours" / f"{case}.nii.gz")
        assert mask.any()
        np.testing.assert_array_equal(mask, voxels(tmp_path / "theirs" / f"{case}.nii.gz"))
        one, other = (sitk.ReadImage(str(tmp_path / who / f"{case}.nii.gz")) for who in ("ours", "theirs"))
        assert one.GetOrigin() == other.GetOrigin()
        assert one.GetDirection() == other.GetDirection()
        assert one.GetSpacing() == other.GetSpacing()


@pytest.fixture(scope="module")
def nnunet_folders(world, tmp_path_factory) -> dict[str, str]:
    return nnunet_world(world.base, world.clinic, tmp_path_factory.mktemp("nnunet"))


def exported(lnsegfm, *options: object) -> dict[str, str]:
    """What ``eval "$(lnsegfm env ...)"`` puts into a shell's environment."""
    lines = lnsegfm("env", *options).stdout
    script = f"{lines}\nenv -0"
    bare = {"PATH": os.environ["PATH"]}
    shell = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=bare)
    return dict(line.split("=", 1) for line in shell.stdout.split("\0") if line.startswith(("nnUNet", "LNSEGFM")))


def train(trainer: str, *words: object, **environment: str) -> Result:
    return stock("nnUNetv2_train", "1", "3d_fullres", "0", "-tr", trainer, "-device", "cpu", *words, **environment)


def left_by(trainer: str, folders: dict[str, str], plans: str = "nnUNetPlans") -> Path:
    """The model folder of a training."""
    return Path(folders["nnUNet_results"]) / NAME / f"{trainer}__{plans}__3d_fullres"


def base_file(world) -> Path:
    return world.base / "model" / "fold_0" / "checkpoint_final.pth"


def test_dgst_trains_under_nnunets_command(world, nnunet_folders, lnsegfm):
    environment = nnunet_folders | exported(lnsegfm, "--epochs", 1, "--iterations", 3, "--set", "gamma=2")
    trained = train("nnUNetTrainer_DGST", "-pretrained_weights", base_file(world), **environment)
    assert trained.returncode == 0, trained.stderr

    model = left_by("nnUNetTrainer_DGST", nnunet_folders)
    checkpoint = read_checkpoint(model / "fold_0" / "checkpoint_final.pth")
    assert checkpoint.trainer_name == "nnUNetTrainer"
    before = read_checkpoint(base_file(world)).weights
    for parameter in parameters_of(build_network(checkpoint, deep_supervision=True)):
        if parameter.role is Role.WEIGHT:
            moved = (
                (raw(checkpoint.weights[parameter.name]) != raw(before[parameter.name]))
                .any(1)
                .view(parameter.tensor.shape)
            )
            per_kernel = parameter.layout.rows(moved.float()).sum(1)
            assert 0 < per_kernel.max() <= 2 * 3, parameter.name  # gamma 2, 3 steps


@pytest.mark.long
def test_lora_is_trained_continued_and_predicts_without_this_package(world, nnunet_folders, lnsegfm, tmp_path):
    options = ("--iterations", 2, "--set", "rank=2", "--lr", 0.01)
    first = nnunet_folders | exported(lnsegfm, "--epochs", 1, *options)
    trained = train("nnUNetTrainer_lora", "-pretrained_weights", base_file(world), **first)
    assert trained.returncode == 0, trained.stderr
    model = left_by("nnUNetTrainer_lora", nnunet_folders)
    file = model / "fold_0" / "checkpoint_final.pth"
    after_one, base = read_checkpoint(file), read_checkpoint(base_file(world))
    assert after_one.trainer_name == "nnUNetTrainer"
    assert after_one.weights.keys() == base.weights.keys()
    assert_only_kernels_and_head_moved(after_one, base)
    assert list((model / "fold_0" / "validation").glob("case_*.nii.gz")) != []

    predicted = stock_predict(model, world.clinic / "imagesTr", tmp_path / "masks", "--disable_tta")
    assert predicted.returncode == 0, predicted.stderr
    assert len(list((tmp_path / "masks").glob("case_*.nii.gz"))) == 4

    continued = train("nnUNetTrainer_lora", "--c", **nnunet_folders, **exported(lnsegfm, "--epochs", 2))
    assert continued.returncode == 0, continued.stderr
    assert "Epoch 1" in continued.stdout
    assert "Epoch 0" not in continued.stdout
    assert "'rank': 2" in continued.stdout  # though this shell did not say so
    assert_only_kernels_and_head_moved(read_checkpoint(file), after_one)


def assert_only_kernels_and_head_moved(after: Checkpoint, before: Checkpoint) -> None:
    for parameter in parameters_of(build_network(after, deep_supervision=True)):
        if parameter.role is not Role.HEAD:
            kept = torch.equal(raw(after.weights[parameter.name]), raw(before.weights[parameter.name]))
            assert kept == (parameter.role is not Role.WEIGHT), parameter.name


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in method_trainers() if name != "nnUNetTrainer_lora"])
def test_every_trainer_trains_and_stock_nnunet_predicts_with_it(name, world, nnunet_folders, lnsegfm, tmp_path):
    environment = nnunet_folders | exported(lnsegfm, "--epochs", 1, "--iterations", 2)
    weights = () if name == "nnUNetTrainer_scratch" else ("-pretrained_weights", base_file(world))
    trained = train(name, *weights, **environment)
    assert trained.returncode == 0, trained.stderr
    model = left_by(name, nnunet_folders)
    predicted = stock_predict(model, world.clinic / "imagesTr", tmp_path / "masks", "--disable_tta")
    assert predicted.returncode == 0, predicted.stderr
    assert len(list((tmp_path / "masks").glob("case_*.nii.gz"))) == 4
    again = train(name, "--val", **nnunet_folders, **exported(lnsegfm))
    assert again.returncode == 0, again.stderr


@pytest.mark.long
@pytest.mark.parametrize("trainer", ["nnUNetTrainer_full", "nnUNetTrainer_SwinUNETRv2"])
def test_a_swin_trains_under_nnunets_command(trainer, world, nnunet_folders, lnsegfm, tmp_path):
    """From plans that name a small one, and at the release's size from plans that name a U-Net."""
    environment = nnunet_folders | exported(lnsegfm, "--epochs", 1, "--iterations", 1, "--lr", 0.001)
    folder = Path(nnunet_folders["nnUNet_preprocessed"]) / NAME
    plans = json.loads((folder / "nnUNetPlans.json").read_text()) | {"plans_name": "swinPlans"}
    plans["configurations"]["3d_fullres"] |= {"patch_size": [32, 32, 64], "batch_size": 1}
    if trainer == "nnUNetTrainer_full":
        plans["configurations"]["3d_fullres"]["architecture"] = ARCHITECTURES["swinunetr"].build_plan((12,), ())
    (folder / "swinPlans.json").write_text(json.dumps(plans))
    trained = train(trainer, "-p", "swinPlans", **environment)
    assert trained.returncode == 0, trained.stderr

    model = left_by(trainer, nnunet_folders, "swinPlans")
    predicted = stock_predict(model, world.clinic / "imagesTr", tmp_path / "masks", "--disable_tta")
    assert predicted.returncode == 0, predicted.stderr
    assert len(list((tmp_path / "masks").glob("case_*.nii.gz"))) == 4

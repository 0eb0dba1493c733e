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

from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.methods.table import load_method
from lnsegfm.networks.architectures import ARCHITECTURES
from lnsegfm.networks.parts import parts_of
from lnsegfm.networks.role import Role
from lnsegfm.nnunet.engine import engine
from lnsegfm.nnunet.model import build_network, read_model
from lnsegfm.nnunet.predict import find_scans, predict_cases
from lnsegfm.weights.checkpoint import read_checkpoint
from lnsegfm.weights.state import raw
from tests.nnunet.stock import QUICK, stock, stock_predict

NAME = "Dataset001_Scenes"


def voxels(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_masks_equal_those_of_stock_nnunet(world, run, tmp_path):
    model = read_model(run.folder)
    images = tmp_path / "images"
    images.mkdir()
    for image in sorted((world.clinic / "imagesTr").iterdir())[:2]:
        shutil.copy(image, images)

    coarser = sitk.ReadImage(str(images / "case_0_0000.nii.gz"))
    coarser.SetSpacing((2.3, 1.4, 1.1))  # one that has to be resampled on the way in and out
    sitk.WriteImage(coarser, str(images / "coarser_0000.nii.gz"))

    ours = predict_cases(model, find_scans(images, 1), tmp_path / "ours")
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
    """The clinic's scans as nnU-Net's commands want them: planned like the base, preprocessed by nnU-Net."""
    root = tmp_path_factory.mktemp("nnunet")
    raw_folder, preprocessed = root / "raw" / NAME, root / "preprocessed" / NAME
    shutil.copytree(world.clinic, raw_folder)
    preprocessed.mkdir(parents=True)
    base = read_model(world.base)
    plans = dict(base.plans) | {"dataset_name": NAME}
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans))
    (preprocessed / "dataset_fingerprint.json").write_text("{}")
    shutil.copy(world.clinic / "dataset.json", preprocessed)
    shutil.copytree(world.clinic / "labelsTr", preprocessed / "gt_segmentations")
    data = open_dataset(world.clinic)
    with engine():
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        manager = PlansManager(plans)
        configuration = manager.get_configuration("3d_fullres")
        folder = preprocessed / configuration.data_identifier
        folder.mkdir()
        for case in data.cases:
            configuration.preprocessor_class(verbose=False).run_case_save(
                str(folder / case.name),
                [str(case.images[0])],
                str(case.label),
                manager,
                configuration,
                json.loads((world.clinic / "dataset.json").read_text()),
            )
    names = [case.name for case in data.cases]
    (preprocessed / "splits_final.json").write_text(json.dumps([{"train": names[1:], "val": names[:1]}]))
    return {
        "nnUNet_raw": str(root / "raw"),
        "nnUNet_preprocessed": str(root / "preprocessed"),
        "nnUNet_results": str(root / "results"),
    }


def exported(lnsegfm, *options: object) -> dict[str, str]:
    """What ``eval "$(lnsegfm env ...)"`` puts into a shell's environment."""
    lines = lnsegfm("env", *options).stdout
    script = f"{lines}\nenv -0"
    bare = {"PATH": os.environ["PATH"]}
    shell = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=bare)
    return dict(line.split("=", 1) for line in shell.stdout.split("\0") if line.startswith(("nnUNet", "LNSEGFM")))


def test_dgst_trains_under_nnunets_command_and_stock_nnunet_predicts_with_it(world, nnunet_folders, lnsegfm, tmp_path):
    environment = nnunet_folders | exported(lnsegfm, "--epochs", 1, "--iterations", 3, "--set", "gamma=2")
    base = world.base / "model" / "fold_0" / "checkpoint_final.pth"

    trained = stock(
        "nnUNetv2_train",
        *("1", "3d_fullres", "0", "-tr", "nnUNetTrainer_DGST", "-pretrained_weights", base, "-device", "cpu"),
        **environment,
    )
    assert trained.returncode == 0, trained.stderr

    model = Path(nnunet_folders["nnUNet_results"]) / NAME / "nnUNetTrainer_DGST__nnUNetPlans__3d_fullres"
    checkpoint = read_checkpoint(model / "fold_0" / "checkpoint_final.pth")
    assert checkpoint.trainer_name == "nnUNetTrainer"
    before = read_checkpoint(base).weights
    for part in parts_of(build_network(checkpoint, deep_supervision=True)):
        if part.role is Role.WEIGHT:
            moved = (raw(checkpoint.weights[part.name]) != raw(before[part.name])).any(1).view(part.parameter.shape)
            per_kernel = part.layout.rows(moved.float()).sum(1)
            assert 0 < per_kernel.max() <= 2 * 3, part.name  # gamma 2, 3 steps

    predicted = stock_predict(model, world.clinic / "imagesTr", tmp_path / "masks", "--disable_tta")
    assert predicted.returncode == 0, predicted.stderr
    assert len(list((tmp_path / "masks").glob("case_*.nii.gz"))) == 4


@pytest.mark.long
def test_a_named_trainer_trains_a_swin_under_nnunets_command(world, nnunet_folders, lnsegfm, tmp_path):
    environment = nnunet_folders | exported(lnsegfm, "--epochs", 1, "--iterations", 2, "--lr", 0.001)
    folder = Path(nnunet_folders["nnUNet_preprocessed"]) / NAME
    plans = json.loads((folder / "nnUNetPlans.json").read_text()) | {"plans_name": "swinPlans"}
    plans["configurations"]["3d_fullres"] |= {
        "patch_size": [32, 32, 64],
        "architecture": ARCHITECTURES["swinunetr"].build_plan((12,), ()),
    }
    (folder / "swinPlans.json").write_text(json.dumps(plans))
    words = ("1", "3d_fullres", "0", "-p", "swinPlans", "-tr", "nnUNetTrainer_full", "-device", "cpu")
    trained = stock("nnUNetv2_train", *words, **environment)
    assert trained.returncode == 0, trained.stderr

    model = Path(nnunet_folders["nnUNet_results"]) / NAME / "nnUNetTrainer_full__swinPlans__3d_fullres"
    predicted = stock_predict(model, world.clinic / "imagesTr", tmp_path / "masks", "--disable_tta")
    assert predicted.returncode == 0, predicted.stderr
    assert len(list((tmp_path / "masks").glob("case_*.nii.gz"))) == 4


TRAINERS = {
    "nnUNetTrainer_DGST": "dgst",
    "nnUNetTrainer_bias": "bias",
    "nnUNetTrainer_norm": "affine",
    "nnUNetTrainer_full": "full",
}


@pytest.mark.parametrize(("name", "method"), TRAINERS.items())
def test_nnunet_finds_the_trainer_and_it_moves_what_it_says(name, method, world, nnunet_folders, lnsegfm, monkeypatch):
    for variable, value in (nnunet_folders | QUICK | exported(lnsegfm)).items():
        monkeypatch.setenv(variable, value)
    base = read_model(world.base)
    with engine():
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

        trainer = recursive_find_trainer_class_by_name(name)(
            dict(base.plans) | {"dataset_name": NAME, "continue_training": False},
            "3d_fullres",
            0,
            json.loads((world.clinic / "dataset.json").read_text()),
            torch.device("cpu"),
        )
        trainer.initialize()
    trains = load_method(method).trains
    assert trainer.method.name == method
    for part in parts_of(trainer.network):
        assert part.parameter.requires_grad == (part.role in trains), part.name

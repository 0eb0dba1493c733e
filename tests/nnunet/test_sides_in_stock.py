"""Models whose labels name sides: `nnUNetv2_train` and `nnUNetv2_predict` in stock processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.imaging.files import read_mask
from lnsegfm.models.model_folder import Model, read_model
from lnsegfm.nnunet.mirroring import swap_of_plans
from lnsegfm.prediction.predict_cases import predict_cases
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.predictor import Predictor
from lnsegfm.transforms.mirror_swap import MirrorSwap
from lnsegfm.weights.checkpoint import load_safely
from lnsegfm.workflows.pretrain import pretrain
from lnsegfm.workflows.pretrain_plan import PretrainSettings
from tests.nnunet.stock import nnunet_world, stock, stock_predict
from tests.nnunet.test_mirroring import write_sided
from tests.nnunet.test_stock import exported, left_by
from tests.scenes import small_plans

TRAINER = "nnUNetTrainer_full"
FINAL = "checkpoint_final.pth"
pytestmark = [pytest.mark.long, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, str]]:
    """Data, a base, and nnU-Net's folders."""
    folder = tmp_path_factory.mktemp("native")
    (folder / "plans.json").write_text(json.dumps(small_plans()))
    data = write_sided(folder / "data", 3)
    settings = PretrainSettings(plans=folder / "plans.json", iterations=12, mirroring=False)
    base = pretrain(data, folder / "base", settings, device="cpu")
    return data, base.folder, nnunet_world(base.folder, data, folder / "nnunet")


def train(base: Path, folders: dict[str, str], *words: object, **environment: str) -> str:
    given = () if "--c" in words or "--val" in words else ("-pretrained_weights", base / "model" / "fold_0" / FINAL)
    done = stock(
        "nnUNetv2_train", "1", "3d_fullres", "0", "-tr", TRAINER, "-device", "cpu", *given, *words,
        **folders, **environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def masks_of(model: Model, data: Path, axes: tuple[int, ...], swap: MirrorSwap | None) -> dict[str, np.ndarray]:
    predictor = Predictor(model, exact=True)
    predictor._axes, predictor._swap = axes, swap
    return {case.name: predictor.run(predictor.prepare(case.images)).mask for case in open_dataset(data).cases}


@pytest.mark.parametrize("mirror", ["auto", "swap"])
def test_stock_training_keeps_the_axes_and_stock_prediction_is_ours(mirror, native, lnsegfm, tmp_path):
    data, base, folders = native
    folders = folders | {"nnUNet_results": str(tmp_path / "results")}
    said = train(base, folders, **exported(lnsegfm, "--epochs", 1, "--iterations", 3, "--mirror", mirror))
    assert "labels Parotid_L/Parotid_R change places" in said or "not along left-right" in said
    place = left_by(TRAINER, folders)
    swap = MirrorSwap(2, ((1, 2),)) if mirror == "swap" else None
    for _ in range(2):  # as trained, and as continued in a shell that does not say how it was mirrored
        assert load_safely(place / "fold_0" / FINAL)["inference_allowed_mirroring_axes"] == (0, 1)
        model = read_model(place)
        assert model.first.mirroring_axes == (0, 1)
        assert swap_of_plans(model.plans) == swap
        assert "Epoch 1" in train(base, folders, "--c", **exported(lnsegfm, "--epochs", 2, "--iterations", 2)) or _
    words = ("-d", 1, "-i", data / "imagesTr", "-o", tmp_path / "theirs", "-tr", TRAINER, "-c", "3d_fullres")
    done = stock("nnUNetv2_predict", *words, "-f", 0, "-device", "cpu", "-npp", 1, "-nps", 1, **folders)
    assert done.returncode == 0, done.stderr
    same = masks_of(model, data, (0, 1), None)
    other = masks_of(model, data, (0, 1, 2), None)
    voxels, differing = 0, 0
    for name, mask in same.items():
        theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "theirs" / f"{name}.nii.gz")))
        np.testing.assert_array_equal(mask, theirs)
        voxels += int((theirs > 0).sum())
        differing += int((theirs != other[name]).sum())
    assert voxels > 100
    assert differing > 0  # the axes of the checkpoint count
    if swap is None:
        predict_cases(model, open_dataset(data).cases, tmp_path / "ours", PredictOptions(exact=True, device="cpu"))
        for name, mask in same.items():
            np.testing.assert_array_equal(read_mask(tmp_path / "ours" / f"{name}.nii.gz")[0], mask)
    print(f"{mirror}: {len(same)} scans, {voxels} foreground voxels, 0 differ; all axes: {differing} differ")
    assert stock_predict(place, data / "imagesTr", tmp_path / "folder").returncode == 0

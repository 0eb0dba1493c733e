"""Out again: stock nnU-Net installs it and predicts the same voxels; safetensors come back bit for bit."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.models.export_model import export_model
from lnsegfm.models.model_folder import read_model, write_model
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.weights.checkpoint import read_checkpoint
from lnsegfm.weights.state import weights_hash
from tests.models.importing.producers import DATASET, Trained, exported_by_nnunet
from tests.models.importing.test_monai_forms import NODE, SAID, monai
from tests.models.importing.test_nnssl_form import SPACING, network, plan, write
from tests.nnunet.stock import stock, stock_predict, stock_predict_here
from tests.scenes import scene, write_image

TARGETS = ("nnunet-zip", "safetensors", "folder")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for case in range(2):
        write_image(folder / f"case_{case}_0000.nii.gz", scene(50 + case)[0])
    return folder


def voxels(folder: Path) -> dict[str, np.ndarray]:
    return {file.name: sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in sorted(folder.glob("*.nii.gz"))}


def out(to: str, place: Path) -> Path:
    return place / ("model.zip" if to == "nnunet-zip" else to)


@pytest.mark.long
def test_stock_nnunet_s_commands_install_what_was_exported_and_predict_what_it_did_there(
    trained: Trained, images, take, tmp_path
):
    """nnU-Net's own zip -> import -> export -> nnU-Net's own install and predict: weights bit for bit, voxels equal."""
    take(exported_by_nnunet(trained, tmp_path / "theirs.zip"))
    done = export_model(Path("it"), "nnunet-zip", tmp_path / "ours.zip")
    folders = {name: str(tmp_path / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    (tmp_path / "nnUNet_results").mkdir()

    installed = stock("nnUNetv2_install_pretrained_model_from_zip", tmp_path / "ours.zip", **folders)
    assert installed.returncode == 0, installed.stderr
    command, *words = done.predict[1].split()
    assert command == "nnUNetv2_predict"
    words = [{"IN": str(images), "OUT": str(tmp_path / "after")}.get(word, word) for word in words]
    predicted = stock(command, *words, "-device", "cpu", "-npp", "1", "-nps", "1", **folders)
    assert predicted.returncode == 0, predicted.stderr
    before = stock_predict(trained.folder, images, tmp_path / "before")
    assert before.returncode == 0, before.stderr

    here, there = voxels(tmp_path / "after"), voxels(tmp_path / "before")
    assert here.keys() == there.keys() == {"case_0.nii.gz", "case_1.nii.gz"}
    for name in there:
        assert there[name].any()
        np.testing.assert_array_equal(here[name], there[name])
    assert_same_files(trained, tmp_path / "nnUNet_results")


def test_imported_and_exported_it_predicts_in_stock_nnunet_what_it_did_there(
    trained: Trained, images, take, tmp_path, monkeypatch
):
    """The same by nnU-Net's functions in this process."""
    from nnunetv2.model_sharing import model_import

    take(exported_by_nnunet(trained, tmp_path / "theirs.zip"))
    export_model(Path("it"), "nnunet-zip", tmp_path / "ours.zip")
    monkeypatch.setattr(model_import, "nnUNet_results", str(tmp_path / "results"))
    model_import.install_model_from_zip_file(str(tmp_path / "ours.zip"))
    assert_same_files(trained, tmp_path / "results")

    stock_predict_here(tmp_path / "results" / DATASET / INSTALLED, images, tmp_path / "after")
    stock_predict_here(trained.folder, images, tmp_path / "before")
    here, there = voxels(tmp_path / "after"), voxels(tmp_path / "before")
    assert here.keys() == there.keys() == {"case_0.nii.gz", "case_1.nii.gz"}
    for name in there:
        assert there[name].any()
        np.testing.assert_array_equal(here[name], there[name])


INSTALLED = "nnUNetTrainer__nnUNetPlans__3d_fullres"


def assert_same_files(trained: Trained, results: Path) -> None:
    """What nnU-Net installed holds the weights bit for bit, and the plans and description as they were."""
    folder = results / DATASET / INSTALLED
    checkpoint = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=False)
    assert weights_hash(checkpoint["network_weights"]) == weights_hash(trained.weights)
    for name in ("plans.json", "dataset.json"):
        assert json.loads((folder / name).read_text()) == json.loads((trained.folder / name).read_text())


@pytest.mark.parametrize("how", ["here", pytest.param("by its command", marks=pytest.mark.long)])
def test_a_swin_unetr_of_monai_predicts_in_stock_nnunet_what_it_does_here(images, take, tmp_path, how):
    from lnsegfm.prediction.predict_cases import predict_cases
    from lnsegfm.prediction.scans import find_scans

    torch.save(monai().state_dict(), tmp_path / "model.pt")
    take(tmp_path / "model.pt", labels=NODE, patch_size=(32, 32, 64), **SAID)
    done = export_model(Path("it"), "folder", tmp_path / "model")
    assert done.notes == (
        "Its network is lnsegfm's SwinUNETR: nnU-Net predicts with it wherever lnsegfm is installed.",
    )
    if how == "here":
        stock_predict_here(tmp_path / "model", images, tmp_path / "stock", mirroring=False)
    else:
        stocked = stock_predict(tmp_path / "model", images, tmp_path / "stock", "--disable_tta")
        assert stocked.returncode == 0, stocked.stderr
    ours = predict_cases(
        read_model(Path("it")), find_scans(images, 1).cases, tmp_path / "ours", PredictOptions(mirroring=False)
    )
    assert ours.failed == ()
    for name, mask in voxels(tmp_path / "stock").items():
        assert mask.any()
        np.testing.assert_array_equal(mask, voxels(tmp_path / "ours")[name])


@pytest.mark.parametrize("given", ["folder", "model.json", "model.safetensors"])
def test_safetensors_come_back_bit_for_bit(given, trained, take, home, tmp_path):
    take(trained.folder, licence="CC-BY-4.0", citation="Somebody 2026")
    export_model(Path("it"), "safetensors", tmp_path / "out")
    stored = take(tmp_path / "out" / ("" if given == "folder" else given), "again")

    assert stored.source.form.startswith("safetensors exported by lnsegfm, 3d_fullres, PlainConvUNet")
    assert (stored.card.licence, stored.card.citation) == ("CC-BY-4.0", "Somebody 2026")
    for file in stored.files:
        assert (home / "models" / "again" / file).read_bytes() == (home / "models" / "it" / file).read_bytes()


def test_every_fold_goes_out_and_comes_back(trained, take, home, tmp_path):
    folder = Path(shutil.copytree(trained.folder, tmp_path / "model"))
    shutil.copytree(folder / "fold_0", folder / "fold_3")
    take(folder)
    for to in TARGETS:
        done = export_model(Path("it"), to, out(to, tmp_path))
        stored = take(done.out, f"from-{to}")
        assert sorted(stored.files) == sorted(
            ["plans.json", "dataset.json"]
            + [f"fold_{n}/{file}" for n in (0, 3) for file in ("checkpoint_final.pth", "weights.safetensors")]
        )
        assert stored.weights_sha256 == (weights_hash(trained.weights),) * 2
    assert sorted(file.name for file in (tmp_path / "safetensors").iterdir()) == [
        *("fold_0.safetensors", "fold_3.safetensors", "model.json")
    ]


@pytest.mark.parametrize("to", TARGETS)
def test_the_same_model_gives_the_same_bytes(to, trained, take, tmp_path):
    take(trained.folder)
    contents = []
    for name in ("one", "two"):
        done = export_model(Path("it"), to, out(to, tmp_path / name))
        files = [done.out] if done.out.is_file() else sorted(file for file in done.out.rglob("*") if file.is_file())
        contents.append([file.read_bytes() for file in files])
    assert contents[0] == contents[1]
    assert not list(tmp_path.rglob(".partial-*"))


@pytest.mark.parametrize("to", TARGETS)
def test_an_encoder_goes_out_as_safetensors_only(to, take, tmp_path, home):
    take(write(tmp_path / "a.pth", network((4, 4, 6, 6, 8, 8)).state_dict(), plan()), **SPACING)
    if to != "safetensors":
        with pytest.raises(ModelError, match="it is a pretrained encoder without a decoder"):
            export_model(Path("it"), to, out(to, tmp_path))
        assert not out(to, tmp_path).exists()
        return
    export_model(Path("it"), to, out(to, tmp_path))
    stored = take(out(to, tmp_path), "again")
    assert (stored.parts, stored.covers) == ("encoder", ("encoder.",))
    first, second = (home / "models" / name / "fold_0" for name in ("it", "again"))
    for file in ("checkpoint_final.pth", "weights.safetensors"):
        assert (first / file).read_bytes() == (second / file).read_bytes()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    from lnsegfm.models.importing.forms import nnssl_encoder as nnssl

    monkeypatch.setattr(nnssl, "FEATURES", (4, 4, 6, 6, 8, 8))


def test_a_run_is_exported_by_its_folder(trained, tmp_path):
    write_model(tmp_path / "run" / "model", read_checkpoint(trained.checkpoint))
    done = export_model(tmp_path / "run", "folder", tmp_path / "out")
    assert sorted(file.relative_to(tmp_path / "out").as_posix() for file in done.out.rglob("*") if file.is_file()) == [
        *("dataset.json", "fold_0/checkpoint_final.pth", "plans.json")
    ]


@pytest.mark.parametrize("name", ["../../escape", "Dataset1_x", "a b/c", "", "Dataset012_Ok/../x"])
def test_names_in_a_zip_are_nnunets_whatever_the_plans_say(name, trained, tmp_path):
    checkpoint = read_checkpoint(trained.checkpoint)
    plans = {**checkpoint.plans, "dataset_name": name, "plans_name": f"{name}__more"}
    write_model(tmp_path / "model", replace(checkpoint, plans=plans))
    export_model(tmp_path / "model", "nnunet-zip", tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        tops = {tuple(member.split("/")[:2]) for member in archive.namelist()}
        assert all(member.date_time == (1980, 1, 1, 0, 0, 0) for member in archive.infolist())
    ((dataset, inner),) = tops
    assert dataset.startswith("Dataset0")
    assert dataset[7:10].isdigit()
    assert ".." not in dataset
    assert len(inner.split("__")) == 3


def test_what_is_there_is_not_touched(trained, tmp_path):
    (tmp_path / "model.zip").write_text("mine")
    with pytest.raises(ConfigError, match="there is something already"):
        export_model(trained.folder, "nnunet-zip", tmp_path / "model.zip")
    assert (tmp_path / "model.zip").read_text() == "mine"
    with pytest.raises(ConfigError, match=r"Name a file that ends in \.zip"):
        export_model(trained.folder, "nnunet-zip", tmp_path / "model")
    with pytest.raises(ConfigError, match=r"--to onnx: not known\. Use nnunet-zip, safetensors, folder"):
        export_model(trained.folder, "onnx", tmp_path / "model")


def test_changed_safetensors_are_refused(trained, take, tmp_path):
    take(trained.folder)
    export_model(Path("it"), "safetensors", tmp_path / "out")
    content = bytearray((tmp_path / "out" / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "out" / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"its weights are not those that model\.json beside it names"):
        take(tmp_path / "out", "again")

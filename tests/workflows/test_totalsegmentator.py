"""Fine-tuning a model of TotalSegmentator's form: the commands of ``docs/totalsegmentator.md``, as they stand there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lnsegfm.models.model_folder import Model, read_model
from lnsegfm.registry.manifest import find_card
from tests.models.importing.producers import exported_by_nnunet, trained_by_nnunet
from tests.nnunet.stock import stock_predict_here
from tests.registry.server import Site, serve
from tests.scenes import scene, small_plans, write_image, write_scenes

PAGE = Path(__file__).parents[2] / "docs" / "totalsegmentator.md"
TASK = "Dataset293_TotalSegmentator_part3_cardiac_1559subj"
TRAINER = "nnUNetTrainerNoMirroring"
FOLDER = f"{TRAINER}__nnUNetPlans__3d_fullres"
LABELS = {"background": 0, "heart": 1, "aorta": 2, "pulmonary_vein": 3}
DESCRIPTION = {"channel_names": {"0": "CT"}, "labels": LABELS, "numTraining": 4, "file_ending": ".nii.gz"}
QUICK = {
    "finetune": ("--iterations", "3", "--device", "cpu", "--workers", "0"),
    "predict": ("--step", "1", "--device", "cpu"),
}


def commands() -> list[list[str]]:
    lines = re.findall(r"^    lnsegfm (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(lines) == 11
    return [shlex.split(line) for line in lines]


def written_by_nnunet(work: Path) -> tuple[Path, Path]:
    """Folder and zip of a model as TotalSegmentator publishes it."""
    plans = small_plans() | {"image_reader_writer": "NibabelIOWithReorient"}
    trained = trained_by_nnunet(work, plans, steps=40, dataset=TASK, description=DESCRIPTION, mirrored=False)
    zipped = exported_by_nnunet(trained, work / f"{TASK}.zip")
    with zipfile.ZipFile(zipped) as archive:
        assert f"{TASK}/{FOLDER}/fold_0/checkpoint_final.pth" in archive.namelist()
    return trained.folder.parent, zipped


def write_data(folder: Path) -> None:
    """A clinic with one label under another name; the same with all of the base's labels; new scans, and references."""
    clinic = write_scenes(folder / "clinic", 7, seed=100, contrast=60.0, label="Aorta_thoracic")
    everything = shutil.copytree(clinic, folder / "clinic-all")
    for file in (everything / "labelsTr").iterdir():
        mask = sitk.ReadImage(str(file))
        sitk.WriteImage(mask * LABELS["aorta"], str(file), True)
    (everything / "dataset.json").write_text(json.dumps(DESCRIPTION))
    (everything / "unlabelled.csv").write_text("case,label\n*,heart\n*,pulmonary_vein\n")
    image, mask = scene(50, 60.0)
    write_image(folder / "new" / "scan_0000.nii.gz", image)
    write_image(folder / "references" / "scan.nii.gz", mask)
    (folder / "references" / "dataset.json").write_text(
        json.dumps(DESCRIPTION | {"labels": {"background": 0, "Aorta_thoracic": 1}})
    )


def walk(run, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Run every command of the page in a folder, with the zip on a mirror and the task in a user's home."""
    task, zipped = written_by_nnunet(folder / "nnunet")
    shutil.copytree(task, folder / "user" / ".totalsegmentator" / "nnunet" / "results" / TASK)
    write_data(folder)
    site = Site(files={f"/totalseg-cardiac/{find_card('totalseg-cardiac').filename}": zipped.read_bytes()})
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LNSEGFM_HOME", str(folder / "home"))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    with serve(site):
        monkeypatch.setenv("LNSEGFM_MIRROR", site.url)
        for words in commands():
            words = [word.replace("~", str(folder / "user")) for word in words]
            done = run(*words, *QUICK.get(words[0], ()))
            assert done.returncode == 0, (words, done.stderr)


def test_every_command_of_the_page(lnsegfm_here, one_thread, monkeypatch, tmp_path):
    walk(lnsegfm_here, monkeypatch, tmp_path)

    pulled_and_imported_are_the_same_model_in_ras_and_never_mirrored(tmp_path)
    the_run_keeps_the_head_by_its_name_axes_and_plans(tmp_path)
    all_labels_are_kept_where_they_are_named(tmp_path)
    stock_nnunet_makes_the_same_masks_of_the_exported_zip(tmp_path)


def base_of(page: Path) -> Model:
    return read_model(page / "home" / "models" / "totalseg-cardiac")


def pulled_and_imported_are_the_same_model_in_ras_and_never_mirrored(page: Path) -> None:
    pulled, imported = base_of(page), read_model(page / "home" / "models" / "ts-cardiac")
    for model in (pulled, imported):
        assert (model.axes, model.first.mirroring_axes, model.first.trainer_name) == ("RAS", None, TRAINER)
        assert model.first.weights_sha256 == pulled.first.weights_sha256
    assert [file.name for file in (page / "home" / "recorded").iterdir()]


def the_run_keeps_the_head_by_its_name_axes_and_plans(page: Path) -> None:
    base, run = base_of(page), read_model(page / "run")
    assert dict(run.labels.names) == {"Aorta_thoracic": 1}
    assert (run.axes, run.first.mirroring_axes) == ("RAS", None)
    kept = ("spacing", "normalization_schemes", "patch_size", "architecture")
    ours, theirs = (model.plans["configurations"]["3d_fullres"] for model in (run, base))
    assert {key: ours[key] for key in kept} == {key: theirs[key] for key in kept}
    report = json.loads((page / "run" / "run.json").read_text())
    assert report["recipe"]["iterations"] == 3
    name = next(
        name for name in base.first.weights if name.startswith("decoder.seg_layers.") and name.endswith("weight")
    )
    before, after = base.first.weights[name][LABELS["aorta"]], run.first.weights[name][1]
    others = [base.first.weights[name][value] for value in (LABELS["heart"], LABELS["pulmonary_vein"])]
    assert (after - before).abs().max() < 0.2 * min((before - other).abs().max() for other in others)


def all_labels_are_kept_where_they_are_named(page: Path) -> None:
    base, run = base_of(page), read_model(page / "run-all")
    assert dict(run.labels.names) == dict(base.labels.names)
    assert run.first.weights.keys() == base.first.weights.keys()
    moved = {name: (run.first.weights[name] - old).abs().max() for name, old in base.first.weights.items()}
    heads = [name for name in moved if name.startswith("decoder.seg_layers.")]
    assert max(moved[name] for name in heads) < 0.1 * max(base.first.weights[name].abs().max() for name in heads)
    exported = read_model(page / FOLDER)
    assert exported.dataset_json["labels"] == base.dataset_json["labels"]
    assert exported.first.weights_sha256 == run.first.weights_sha256


def stock_nnunet_makes_the_same_masks_of_the_exported_zip(page: Path) -> None:
    with zipfile.ZipFile(page / "adapted.zip") as archive:
        archive.extractall(page / "installed")
    (plans,) = (page / "installed").rglob("plans.json")
    assert json.loads(plans.read_text())["image_reader_writer"] == "NibabelIOWithReorient"
    stock_predict_here(plans.parent, page / "new", page / "stock")
    ours = sitk.GetArrayFromImage(sitk.ReadImage(str(page / "masks" / "scan.nii.gz")))
    stock = sitk.GetArrayFromImage(sitk.ReadImage(str(page / "stock" / "scan.nii.gz")))
    assert np.mean(ours != stock) < 0.001  # other resampling; voxel for voxel with --exact

"""Data sets as MSD, nnU-Net version 1 and macOS have them, which are read without being arranged."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from lnsegfm.datasets.check import check
from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.datasets.doctor.dicom_diagnosis import diagnose_tree
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.imaging.files import write_volume
from tests.datasets.test_dataset import GRID, write_json, write_label, write_scan


def listed(root: Path, names: list[tuple[str, str]], **more: object) -> Path:
    """A ``dataset.json`` in the form of MSD, and its files."""
    for image, label in names:
        write_scan(root / image, seed=len(image))
        write_label(root / label)
    entries = [{"image": f"./{image}", "label": f"./{label}"} for image, label in names]
    content = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "node"}, "training": entries, "test": []}
    write_json(root / "dataset.json", {**content, **more})
    return root


@pytest.mark.parametrize("form", ["MSD", "nnU-Net v1", "names that differ", "folders of other names"])
def test_a_list_of_training_cases_is_read(tmp_path, form):
    image, label = {
        "MSD": ("imagesTr/la_007.nii.gz", "labelsTr/la_007.nii.gz"),
        "nnU-Net v1": ("imagesTr/la_007_0000.nii.gz", "labelsTr/la_007.nii.gz"),
        "names that differ": ("imagesTr/la_007.nii.gz", "labelsTr/la_007_seg.nii.gz"),
        "folders of other names": ("scans/la_007.nii.gz", "truth/la_007.nii.gz"),
    }[form]
    root = listed(tmp_path, [(image, label)])
    if form == "nnU-Net v1":  # whose list leaves the channel out
        text = (root / "dataset.json").read_text()
        (root / "dataset.json").write_text(text.replace("la_007_0000", "la_007"))
    (root / "imagesTr").mkdir(exist_ok=True)
    (root / "imagesTr" / "._la_007.nii.gz").write_bytes(b"macOS")

    dataset = open_dataset(root)

    (case,) = dataset.cases
    assert case.images == (root / image,)
    assert case.label == root / label
    assert dataset.labels == LabelMap({"node": 1})
    assert dataset.channels == ("CT",)
    assert check(dataset) == []


def test_a_list_that_leads_out_of_the_folder_is_refused(tmp_path):
    root = listed(tmp_path / "in", [("a/x.nii.gz", "b/x_seg.nii.gz")])
    text = (root / "dataset.json").read_text()
    (root / "dataset.json").write_text(text.replace("./a/x", "../a/x"))
    with pytest.raises(DataError, match=r"entry 1 of 'training' leads out of the folder"):
        open_dataset(root)
    (root / "dataset.json").write_text(text.replace('"image"', '"scan"'))
    with pytest.raises(DataError, match=r"entry 1 of 'training' is not an image and its label"):
        open_dataset(root)


def test_several_modalities_in_one_file_name_the_command_that_splits_them(tmp_path):
    root = listed(tmp_path / "Task05 Prostate", [("imagesTr/p.nii.gz", "labelsTr/p.nii.gz")])
    content = json.loads((root / "dataset.json").read_text())
    write_json(root / "dataset.json", {**content, "modality": {"0": "T2", "1": "ADC"}})
    with pytest.raises(DataError) as error:
        open_dataset(root)
    assert str(error.value).endswith(f"Split them: lnsegfm data arrange '{root}' --out '{root}_arranged'.")


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("layout", ["folders", "list"])
def test_composed_and_decomposed_names_are_one(tmp_path, forms, layout):
    name = "Müller_é"
    image, label = (unicodedata.normalize(form, name) for form in forms)
    assert image != label
    if layout == "list":
        listing = {"x": {"images": [f"scans/{label}.nii.gz"], "label": f"truth/{image}.nii.gz"}}
        write_scan(tmp_path / "scans" / f"{image}.nii.gz")
        write_label(tmp_path / "truth" / f"{label}.nii.gz")
        write_json(tmp_path / "dataset.json", {"labels": {"background": 0, "node": 1}, "dataset": listing})
    else:
        write_volume(tmp_path / "images" / f"{image}_0000.nii.gz", np.zeros(GRID.shape, np.int16), GRID)
        write_label(tmp_path / "labels" / f"{label}.nii.gz")
        (tmp_path / "subjects.csv").write_text(f"case,subject\n{label},P1\n")
        (tmp_path / "unlabelled.csv").write_text(f"case,label\n{image},vessel\n")

    dataset = open_dataset(tmp_path, LabelMap({"node": 1, "vessel": 2}))

    (case,) = dataset.cases
    assert [path.is_file() for path in (*case.images, case.label)] == [True, True]  # type: ignore[union-attr]
    if layout == "folders":
        assert case.name == unicodedata.normalize("NFC", name)
        assert dataset.subjects == {case.name: "P1"}
        assert case.unlabelled == {"vessel"}
    assert check(dataset) == []


@pytest.mark.parametrize("kind", ["a folder a patient", "images without labels", "imagesTr without dataset.json"])
def test_other_layouts_are_refused_with_the_command_that_arranges_them(tmp_path, kind):
    root = tmp_path / "clinic"
    image = {"a folder a patient": "p1/CT_image", "images without labels": "images/p1"}.get(kind, "imagesTr/p1")
    write_scan(root / f"{image}.nii.gz")
    (root / "labelsTr").mkdir()
    with pytest.raises(DataError) as error:
        open_dataset(root)
    assert f"or: lnsegfm data arrange {root} --out {root}_arranged." in str(error.value)


def test_the_command_names_the_labels_that_were_said(tmp_path):
    write_scan(tmp_path / "p1" / "ct.nii.gz")
    with pytest.raises(DataError, match=rf"data arrange {tmp_path} --label 'lymph node=1' --label ignore=2 --out"):
        open_dataset(tmp_path, LabelMap({"lymph node": 1}, ignore=2))
    with pytest.raises(DataError, match=rf"no CT in it .*, or: lnsegfm data arrange {tmp_path} --out"):
        diagnose_tree(tmp_path)

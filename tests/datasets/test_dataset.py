from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lnsegfm.datasets.dataset import Case, open_dataset
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.imaging.files import write_mask, write_volume
from lnsegfm.imaging.grid import Grid

GRID = Grid((4, 5, 6), (2.0, 1.0, 1.0))
NODE = LabelMap({"node": 1})


def write_scan(path: Path, seed: int = 0) -> None:
    write_volume(path, np.random.default_rng(seed).integers(-1000, 1000, GRID.shape).astype(np.int16), GRID)


def write_label(path: Path, *values: int) -> None:
    mask = np.zeros(GRID.shape, dtype=np.uint8)
    for k, value in enumerate(values or (1,)):
        mask[1, 1, k] = value
    write_mask(path, mask, GRID)


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def nnunet_raw(tmp_path: Path) -> Path:
    root = tmp_path / "Dataset001_Nodes"
    for k, name in enumerate(("b", "a_0001")):
        for channel in range(2):
            write_scan(root / "imagesTr" / f"{name}_{channel:04d}.nii.gz", seed=10 * k + channel)
        write_label(root / "labelsTr" / f"{name}.nii.gz", 1, 2)
    write_json(
        root / "dataset.json",
        {
            "channel_names": {"0": "CT", "1": "PET"},
            "labels": {"background": 0, "node": 1, "ignore": 2},
            "numTraining": 2,
            "file_ending": ".nii.gz",
        },
    )
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "clinic"
    for k, name in enumerate(("a", "b")):
        write_scan(root / "images" / f"{name}.nii.gz", seed=k)
        write_label(root / "labels" / f"{name}.nii.gz")
    return root


def lines_of(root: Path, *args: object, **settings: object) -> list[str]:
    with pytest.raises(DataError) as error:
        open_dataset(root, *args, **settings)  # type: ignore[arg-type]
    lines = str(error.value).splitlines()
    assert len(lines) == len(error.value.problems)
    return lines


def test_opens_an_nnunet_dataset(nnunet_raw):
    dataset = open_dataset(nnunet_raw)

    assert [case.name for case in dataset.cases] == ["a_0001", "b"]
    assert [p.name for p in dataset.cases[0].images] == ["a_0001_0000.nii.gz", "a_0001_0001.nii.gz"]
    assert dataset.cases[0].label == nnunet_raw / "labelsTr" / "a_0001.nii.gz"
    assert dataset.labels == LabelMap({"node": 1}, ignore=2)
    assert dataset.channels == ("CT", "PET")
    assert dataset.file_ending == ".nii.gz"
    assert dataset.labels_from == "dataset.json"


def test_opens_a_dataset_json_that_names_its_files(nnunet_raw, tmp_path, monkeypatch):
    monkeypatch.setenv("LNSEGFM_TEST_ARCHIVE", str(nnunet_raw / "labelsTr"))
    listing = {"x": {"images": [f"../Dataset001_Nodes/imagesTr/b_000{c}.nii.gz" for c in (0, 1)]}}
    listing["x"]["label"] = "$LNSEGFM_TEST_ARCHIVE/b.nii.gz"  # type: ignore[assignment]
    content = json.loads((nnunet_raw / "dataset.json").read_text())
    write_json(tmp_path / "listed" / "dataset.json", {**content, "dataset": listing})

    (case,) = open_dataset(tmp_path / "listed").cases

    assert case.name == "x"
    assert len(case.images) == 2
    assert case.label == nnunet_raw / "labelsTr" / "b.nii.gz"


def test_opens_a_folder_with_images_and_labels(folder):
    dataset = open_dataset(folder, NODE)

    assert dataset.cases[1] == Case("b", (folder / "images/b.nii.gz",), folder / "labels/b.nii.gz")
    assert dataset.channels == ("CT",)
    assert dataset.labelled == dataset.cases


def test_image_and_label_may_have_different_endings(tmp_path):
    write_scan(tmp_path / "images" / "a.nrrd")
    write_label(tmp_path / "labels" / "a.mha")

    dataset = open_dataset(tmp_path, NODE)

    assert dataset.cases[0].label == tmp_path / "labels" / "a.mha"
    assert dataset.file_ending == ".nrrd"


def test_a_channel_suffix_is_not_part_of_the_name(tmp_path):
    write_scan(tmp_path / "images" / "a_0000.nii.gz")
    write_label(tmp_path / "labels" / "a.nii.gz")
    write_scan(tmp_path / "images" / "unlabelled_0000.nii.gz", 1)

    assert [case.name for case in open_dataset(tmp_path, NODE).cases] == ["a", "unlabelled"]


@pytest.mark.parametrize("names", [["p_0001", "p_0002"], ["p", "p_0001"]])
def test_a_name_that_ends_in_four_digits_is_a_name_when_its_label_has_it(tmp_path, names):
    for name in names:
        write_scan(tmp_path / "images" / f"{name}.nii.gz")
        write_label(tmp_path / "labels" / f"{name}.nii.gz")

    assert [case.name for case in open_dataset(tmp_path, NODE).cases] == names


def test_images_and_labels_without_their_other_half_are_cases_too(folder):
    (folder / "labels" / "a.nii.gz").unlink()
    (folder / "images" / "b.nii.gz").unlink()

    dataset = open_dataset(folder, NODE)

    assert dataset.cases == (
        Case("a", (folder / "images/a.nii.gz",), None),
        Case("b", (), folder / "labels/b.nii.gz"),
    )
    assert [case.name for case in dataset.labelled] == ["b"]


def test_other_files_are_left_alone(folder):
    for name in ("._a.nii.gz", ".DS_Store", "a.json", "notes.txt"):
        (folder / "images" / name).write_text("")

    assert len(open_dataset(folder, NODE).cases) == 2


def test_labels_are_named_by_the_first_who_names_them(folder):
    assert open_dataset(folder, default_labels=LabelMap({"base": 1})).labels_from == "the base model"
    write_json(folder / "labels.json", {"from_labels_json": 1})
    assert list(open_dataset(folder, default_labels=LabelMap({"base": 1})).labels.names) == ["from_labels_json"]
    write_json(folder / "dataset.json", {"labels": {"background": 0, "from_dataset_json": 1}})
    assert list(open_dataset(folder).labels.names) == ["from_dataset_json"]
    assert list(open_dataset(folder, NODE).labels.names) == ["node"]


def test_labels_that_nobody_names(folder):
    (line,) = lines_of(folder)

    assert "the values [0, 1] and nothing says what they mean" in line
    assert "--label lymph_node=1" in line


def test_labels_that_the_base_model_does_not_have(folder):
    write_label(folder / "labels" / "b.nii.gz", 1, 5)

    (line,) = lines_of(folder, default_labels=NODE)

    assert "(node=1) do not have [5]" in line
    assert "--label lymph_node=1" in line


def test_a_mask_that_cannot_be_read_is_left_to_the_check(folder):
    (folder / "labels" / "b.nii.gz").write_text("no mask")

    assert open_dataset(folder, default_labels=NODE).labels == NODE


def test_the_content_hash_is_the_contents_own(folder, tmp_path):
    first = open_dataset(folder, NODE).content_hash()
    shutil.copytree(folder, tmp_path / "copy")

    assert open_dataset(tmp_path / "copy", NODE).content_hash() == first
    assert open_dataset(folder, LabelMap({"vessel": 1})).content_hash() != first
    write_label(folder / "labels" / "a.nii.gz", 1, 1)
    assert open_dataset(folder, NODE).content_hash() != first


def test_a_folder_that_is_no_dataset(tmp_path):
    assert "no such folder" in lines_of(tmp_path / "nowhere")[0]
    assert "neither an nnU-Net dataset" in lines_of(tmp_path)[0]
    (tmp_path / "images").mkdir()
    assert "it has images/ and no labels/" in lines_of(tmp_path)[0]
    (tmp_path / "labels").mkdir()
    assert "it holds no images" in lines_of(tmp_path)[0]


def test_a_file_is_no_dataset(folder):
    assert "no such folder" in lines_of(folder / "images" / "a.nii.gz")[0]


def test_images_tr_without_dataset_json(nnunet_raw):
    (nnunet_raw / "dataset.json").unlink()

    assert "it has imagesTr/ and no dataset.json" in lines_of(nnunet_raw)[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": {"node": [1, 2]}}, "Add regions_class_order"),
        ({"channel_names": None}, "no 'channel_names'"),
        ({"channel_names": {"1": "CT", "2": "PET"}}, "not a table of channels"),
        ({"channel_names": ["CT", "PET"]}, "not a table of channels"),
        ({"channel_names": {"0": "CT", "1": 7}}, "not a table of channels"),
        ({"file_ending": ".tif"}, "'.tif' is not read here"),
        ({"file_ending": [".nii.gz"]}, "is not read here"),
        ({"dataset": ["a", "b"]}, "'dataset' is not a table of cases"),
        ({"dataset": {}}, "it holds no images"),
    ],
)
def test_a_dataset_json_that_cannot_be(nnunet_raw, change, said):
    content = json.loads((nnunet_raw / "dataset.json").read_text())
    write_json(nnunet_raw / "dataset.json", {k: v for k, v in {**content, **change}.items() if v is not None})

    (line,) = lines_of(nnunet_raw)

    assert said in line
    assert str(nnunet_raw) in line


@pytest.mark.parametrize("content", ["[1, 2]", "{", "7"])
def test_a_dataset_json_that_is_no_table(nnunet_raw, content):
    (nnunet_raw / "dataset.json").write_text(content)

    assert "dataset.json" in lines_of(nnunet_raw)[0]


def test_every_malformed_entry_of_a_listing_is_told_at_once(nnunet_raw):
    content = json.loads((nnunet_raw / "dataset.json").read_text())
    listing = {
        "no_table": "images/a.nii.gz",
        "no_list": {"images": "images/a.nii.gz", "label": "labels/a.nii.gz"},
        "no_strings": {"images": [1], "label": "labels/a.nii.gz"},
        "no_file_name": {"images": ["images/a.nii.gz"], "label": 3},
        "../outside": {"images": ["images/a.nii.gz"], "label": "labels/a.nii.gz"},
    }
    write_json(nnunet_raw / "dataset.json", {**content, "dataset": listing})

    lines = lines_of(nnunet_raw)

    assert len(lines) == len(listing)
    for name, line in zip(listing, lines, strict=True):
        assert name in line


@pytest.mark.parametrize("name", ["", " ", "..", "a/b", "a\\b", "a\nb"])
def test_a_case_name_that_is_no_file_name(name):
    with pytest.raises(DataError, match="cannot be a file's name"):
        Case(name, ())

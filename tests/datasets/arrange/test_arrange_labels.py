"""Names of labels: by option, file, segment or structure; overlaps and structures that cases lack."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lnsegfm.datasets.arrange import ArrangeOptions, arrange, plan_arrangement
from lnsegfm.datasets.arrange.label_files import read_label_file
from lnsegfm.datasets.check import check
from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.imaging.files import read_mask, write_mask, write_volume
from tests.datasets.arrange.layouts import GRID, both, files, mask, scan

NAMES = LabelMap({"lymph node": 1, "vessel": 2})
SNAP = """################################################
# ITK-SnAP Label Description File
################################################
    0     0    0    0        0  0  0    "Clear Label"
    1   255    0    0        1  1  1    "lymph node"
    2     0  255    0        1  1  1    "vessel"
"""
FORMS = {
    "labels.txt": SNAP,
    "atlas.label": SNAP,
    "labels.json": json.dumps({"lymph node": 1, "vessel": 2}),
    "classes.json": json.dumps({"labels": {"0": "background", "1": "lymph node", "2": "vessel"}}),
    "label_names.csv": "value,name\n1,lymph node\n2,vessel\n",
    "label.csv": "Name;Label;Colour\nlymph node;1;red\nvessel;2;blue\n",
    "labels.tsv": "index\tname\n0\tbackground\n1\tlymph node\n2\tvessel\n",
    "label-map.txt": "lymph node = 1\nvessel=2\n",
    "labels.csv": "1,lymph node\n2,vessel\n",
}


@pytest.mark.parametrize("name", FORMS)
def test_files_that_name_labels_are_found_and_read(tmp_path, name):
    files("{p}/ct", "{p}/mask")(tmp_path)
    (tmp_path / name).write_text(FORMS[name])
    plan = plan_arrangement(tmp_path)
    assert plan.labels == NAMES
    assert plan.labels_from == name


def test_a_colour_table_of_slicer_is_read(tmp_path):
    (tmp_path / "t.ctbl").write_text("# Color table\n0 Background 0 0 0 0\n1 node 9 9 9 255\n7 vessel 1 1 1 255\n")
    assert read_label_file(tmp_path / "t.ctbl") == LabelMap({"node": 1, "vessel": 7})


@pytest.mark.parametrize(
    ("text", "said"),
    [("node", "line 1 names no label"), ("1 a\n1 b", "the name or the value is there already"), ("", "not a table")],
)
def test_a_file_that_names_nothing_is_refused_in_a_line(tmp_path, text, said):
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(DataError, match=said) as error:
        read_label_file(tmp_path / "names.txt")
    assert str(error.value).startswith(str(tmp_path))
    with pytest.raises(DataError, match="no such file"):
        read_label_file(tmp_path / "none.txt")


def test_values_that_nothing_names_are_refused_with_the_options(tmp_path):
    files("{p}/ct", "{p}/mask")(tmp_path)
    with pytest.raises(DataError, match=r"hold the values 1, 2, .* Name them: --label NAME=1 --label NAME=2\."):
        plan_arrangement(tmp_path)


def structures(root: Path, **voxels: np.ndarray) -> Path:
    write_volume(root / "P1" / "ct.nii.gz", scan(0), GRID)
    for name, box in voxels.items():
        write_mask(root / "P1" / "seg" / f"{name}.nii.gz", box.astype(np.uint8), GRID)
    return root


def box(*bounds: int) -> np.ndarray:
    inside = np.zeros(GRID.shape, bool)
    z0, z1, x0, x1 = bounds
    inside[z0:z1, 1:3, x0:x1] = True
    return inside


def test_the_lower_value_has_a_voxel_that_two_claim_and_the_count_is_told(tmp_path):
    first, second = box(0, 3, 1, 5), box(1, 4, 3, 7)
    structures(tmp_path / "in", a=first, b=second)
    result = arrange(tmp_path / "in", tmp_path / "out")
    expected = np.where(first, 1, np.where(second, 2, 0))
    np.testing.assert_array_equal(read_mask(tmp_path / "out/labelsTr/P1.nii.gz")[0], expected)
    shared = int((first & second).sum())
    assert result.notes == (f"{shared} voxels in 1 case are in a and in b: given to a, whose value is lower.",)

    turned = ArrangeOptions(names=LabelMap({"b": 1, "a": 2}))
    arrange(tmp_path / "in", tmp_path / "turned", turned)
    expected = np.where(second, 1, np.where(first, 2, 0))
    np.testing.assert_array_equal(read_mask(tmp_path / "turned/labelsTr/P1.nii.gz")[0], expected)


def test_a_structure_within_another_is_not_lost_silently(tmp_path):
    structures(tmp_path / "in", organ=box(0, 4, 0, 8), tumour=box(1, 2, 2, 4))
    result = arrange(tmp_path / "in", tmp_path / "out")
    assert any("tumour: in 1 case all of it lies in labels of lower values" in note for note in result.notes)


def test_a_structure_without_a_file_is_not_annotated_and_an_empty_file_is(tmp_path):
    files("{p}/ct", "{p}/seg/Cord", "{p}/seg/Parotid_L", structures=True)(tmp_path / "in")
    (tmp_path / "in" / "P2" / "seg" / "Cord.nii.gz").unlink()
    write_mask(tmp_path / "in" / "P10" / "seg" / "Cord.nii.gz", np.zeros(GRID.shape, np.uint8), GRID)
    result = arrange(tmp_path / "in", tmp_path / "out")
    assert {c.name: set(c.unlabelled) for c in open_dataset(tmp_path / "out").cases} == {
        "P1": set(), "P10": set(), "P2": {"Cord"}
    }  # fmt: skip
    assert result.notes[0].startswith("Cord: 1 case of 3 have no file of it. It counts as not annotated there")


def test_spellings_of_one_structure_are_one_and_options_choose(tmp_path):
    for patient, name in (("P1", "Parotid_L"), ("P2", "parotid-l"), ("P3", "Parotid_L")):
        write_volume(tmp_path / "in" / patient / "ct.nii.gz", scan(int(patient[1])), GRID)
        for structure in (name, "Cord"):
            write_mask(tmp_path / "in" / patient / "seg" / f"{structure}.nii.gz", mask(1), GRID)
    plan = plan_arrangement(tmp_path / "in")
    assert plan.labels == LabelMap({"Cord": 1, "Parotid_L": 2})
    assert plan.notes == ("parotid-l is taken for Parotid_L: only the spelling differs.",)
    one = plan_arrangement(tmp_path / "in", ArrangeOptions(names=LabelMap({"PAROTID L": 4})))
    assert one.labels == LabelMap({"PAROTID L": 4})
    assert "1 structure not named, and left: Cord." in one.notes
    with pytest.raises(ConfigError, match=r"--label Heart: no structure has this name\. There are: Cord, Parotid_L\."):
        plan_arrangement(tmp_path / "in", ArrangeOptions(names=LabelMap({"Heart": 1})))


def seg_nrrd(path: Path, segments: dict[str, np.ndarray], *, layers: bool, crop: bool = False) -> None:
    """As 3D Slicer writes it: one value a segment in one layer, or a layer each; cropped to what is drawn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if layers:
        images = [sitk.GetImageFromArray(voxels.astype(np.uint8)) for voxels in segments.values()]
        image = sitk.Compose(*images) if len(images) > 1 else images[0]
    else:
        merged = np.zeros(GRID.shape, np.uint8)
        for value, voxels in enumerate(segments.values(), start=1):
            merged[voxels] = value
        image = sitk.GetImageFromArray(merged)
    image.SetSpacing(GRID.spacing_mm[::-1])
    image.SetOrigin(GRID.origin_mm)
    if crop:
        image = image[1:, :, 1:]
    for number, name in enumerate(segments):
        image.SetMetaData(f"Segment{number}_Name", name)
        image.SetMetaData(f"Segment{number}_LabelValue", "1" if layers else str(number + 1))
        image.SetMetaData(f"Segment{number}_Layer", str(number if layers else 0))
    sitk.WriteImage(image, str(path), useCompression=True)


@pytest.mark.parametrize("layers", [False, True])
@pytest.mark.parametrize("crop", [False, True])
def test_segments_of_slicer_are_taken_by_name_whatever_their_values(tmp_path, layers, crop):
    node, vessel = box(1, 3, 1, 3), box(1, 4, 4, 6)
    for patient, order in (("P1", ("node", "vessel")), ("P2", ("vessel", "node"))):
        write_volume(tmp_path / "in" / f"{patient}.nii.gz", scan(int(patient[1])), GRID)
        drawn = {name: {"node": node, "vessel": vessel}[name] for name in order}
        seg_nrrd(tmp_path / "in" / f"{patient}.seg.nrrd", drawn, layers=layers, crop=crop)

    result = arrange(tmp_path / "in", tmp_path / "out")

    assert result.failed == ()
    assert result.plan.labels == LabelMap({"node": 1, "vessel": 2})
    for patient in ("P1", "P2"):
        expected = node + 2 * vessel.astype(np.uint8)
        np.testing.assert_array_equal(read_mask(tmp_path / "out/labelsTr" / f"{patient}.nii.gz")[0], expected)


@pytest.mark.parametrize("name", ["organs", "tumor"])
def test_one_name_for_all_masks_is_a_structure_or_a_map_by_its_values(tmp_path, name):
    several = name == "organs"
    for number, patient in enumerate(("P1", "P2")):
        write_volume(tmp_path / patient / "ct.nii.gz", scan(number), GRID)
        write_mask(tmp_path / patient / f"{name}.nii.gz", both(number) if several else mask(number), GRID)
    if several:
        assert plan_arrangement(tmp_path, ArrangeOptions(names=NAMES)).labels == NAMES
        with pytest.raises(DataError, match="hold the values 1, 2"):
            plan_arrangement(tmp_path)
    else:
        assert plan_arrangement(tmp_path).labels == LabelMap({"tumor": 1})


@pytest.mark.parametrize("value", [1, 7, 255])
def test_values_stay_what_they_are(tmp_path, value):
    write_volume(tmp_path / "in" / "P1" / "ct.nii.gz", scan(0), GRID)
    write_mask(tmp_path / "in" / "P1" / "mask.nii.gz", box(1, 3, 1, 3).astype(np.uint8) * value, GRID)
    labels = LabelMap({"node": value}, ignore=value - 1 or None)
    arrange(tmp_path / "in", tmp_path / "out", ArrangeOptions(names=labels))
    dataset = open_dataset(tmp_path / "out")
    assert dataset.labels == labels
    assert check(dataset) == []

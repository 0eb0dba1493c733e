from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from lnsegfm.datasets.check import check
from lnsegfm.datasets.convert import SETS, ConversionOptions, convert
from lnsegfm.datasets.convert.partial_annotation import mark_unannotated
from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.imaging.box import crop_grid
from lnsegfm.imaging.files import read_mask, read_volume, write_mask, write_volume
from tests.datasets.convert.clinic import GRID, NODE, OTHER, ct, filled, rtstruct, scan


def record(out: Path) -> dict:
    return json.loads((out / "conversion.json").read_text())


def mask_of(out: Path, case: str, folder: str = "labelsTr") -> np.ndarray:
    return read_mask(out / folder / f"{case}.nii.gz")[0]


def cases_in(folder: Path) -> list[str]:
    return sorted(p.name.removesuffix(".nii.gz") for p in folder.iterdir())


# --- RADCURE


def radcure(folder: Path, number: int, rois: dict) -> None:
    patient = f"RADCURE-{number:04d}"
    place = folder / patient / "01-01-2012-NA-RT SIMULATION-12345"
    head = ct(place / "2.000000-Helical Axial-1", number, PatientID=patient)
    rtstruct(
        place / "1.000000-98765" / "1-1.dcm",
        rois,
        series_uid=head.SeriesInstanceUID,
        frame_uid=head.FrameOfReferenceUID,
        PatientID=patient,
    )


def test_radcure_takes_nodal_tumour_volumes_and_counts_patients(tmp_path):
    radcure(tmp_path / "RADCURE", 5, {"GTVp": OTHER, "GTVn_1": NODE, "BRAIN": OTHER})
    radcure(tmp_path / "RADCURE", 6, {"GTVp": OTHER})
    result = convert(SETS["radcure"], tmp_path / "RADCURE", tmp_path / "out")

    assert result.written == ("RADCURE-0005",)
    np.testing.assert_array_equal(mask_of(tmp_path / "out", "RADCURE-0005"), filled(NODE))
    assert result.missing == ("3344 of 3346 patients are not there.",)
    assert "RADCURE-0006: no pattern matches its structures (GTVp)" in result.left_out[0]
    assert record(tmp_path / "out")["counts"]["patients"] == 2
    assert record(tmp_path / "out")["set"]["citation"].count("doi.org") == 2
    assert (tmp_path / "out" / "subjects.csv").read_text() == "case,subject\nRADCURE-0005,RADCURE-0005\n"
    assert check(open_dataset(tmp_path / "out")) == []


def test_radcure_takes_masks_that_are_supplied(tmp_path):
    radcure(tmp_path / "RADCURE", 5, {"GTVp": OTHER})
    radcure(tmp_path / "RADCURE", 6, {"GTVp": OTHER})
    write_mask(tmp_path / "masks" / "RADCURE-0005_LN.nii.gz", filled(NODE).astype(np.uint8) * 3, GRID)
    result = convert(
        SETS["radcure"], tmp_path / "RADCURE", tmp_path / "out", ConversionOptions(masks=tmp_path / "masks")
    )
    np.testing.assert_array_equal(mask_of(tmp_path / "out", "RADCURE-0005"), filled(NODE))
    assert "RADCURE-0006: no mask" in result.left_out[0]
    write_mask(tmp_path / "masks" / "deep" / "RADCURE-0005.nii.gz", filled(NODE).astype(np.uint8), GRID)
    with pytest.raises(DataError, match="several masks"):
        convert(SETS["radcure"], tmp_path / "RADCURE", tmp_path / "new", ConversionOptions(masks=tmp_path / "masks"))


# --- SegRap2023


def segrap(root: Path, number: int, *, grid=GRID, structures=("GTVnd", "GTVp")) -> Path:
    folder = root / "SegRap2023_Training_Set_120cases" / f"segrap_{number:04d}"
    write_volume(folder / "image.nii.gz", scan(number), GRID)
    write_volume(folder / "image_contrast.nii.gz", scan(number + 500), grid)
    for name, box in (("GTVnd", NODE), ("GTVp", OTHER), ("Brain", OTHER)):
        if name in structures:
            write_mask(folder / f"{name}.nii.gz", filled(box).astype(np.uint8), GRID)
    return folder


@pytest.mark.parametrize(("channels", "seeds"), [("contrast", [500]), ("plain", [0]), ("both", [0, 500])])
def test_segrap_gives_the_scans_that_are_asked_for(tmp_path, channels, seeds):
    segrap(tmp_path / "in", 0)
    result = convert(SETS["segrap2023"], tmp_path / "in", tmp_path / "out", ConversionOptions(channels=channels))
    for channel, seed in enumerate(seeds):
        image = tmp_path / "out" / "imagesTr" / f"segrap_0000_{channel:04d}.nii.gz"
        np.testing.assert_array_equal(read_volume(image)[0], scan(seed))
    dataset = open_dataset(tmp_path / "out")
    assert dataset.channels == ("CT",) * len(seeds)
    assert check(dataset) == []
    np.testing.assert_array_equal(mask_of(tmp_path / "out", "segrap_0000"), filled(NODE))
    assert "segrap_0001" in result.missing[0]
    assert "segrap_0000" not in result.missing[0]


def test_segrap_tells_what_is_wrong_and_converts_the_rest(tmp_path):
    segrap(tmp_path / "in", 0)
    segrap(tmp_path / "in", 1, structures=("GTVp",))
    segrap(tmp_path / "in", 2, grid=replace(GRID, origin_mm=(0.0, 0.0, 0.0)))
    (segrap(tmp_path / "in", 3) / "image.nii.gz").unlink()
    empty = segrap(tmp_path / "in", 4)
    write_mask(empty / "GTVnd.nii.gz", np.zeros(GRID.shape, np.uint8), GRID)
    patterns = ("GTVnd=lymph_node", "GTVp=tumour")
    result = convert(SETS["segrap2023"], tmp_path / "in", tmp_path / "out", ConversionOptions(channels="both"))
    assert cases_in(tmp_path / "out" / "labelsTr") == ["segrap_0000", "segrap_0004"]
    assert "segrap_0001: no file of it matches" in result.left_out[0]
    assert "Not there: segrap_0005, " in result.missing[0]  # what is left out or damaged is there all the same
    assert sorted(line.split(":")[0] for line in result.failed) == ["Case segrap_0002", "Case segrap_0003"]
    assert any("different geometries: origin" in line for line in result.failed)
    convert(SETS["segrap2023"], tmp_path / "in", tmp_path / "two", ConversionOptions(roi=patterns))
    mask = mask_of(tmp_path / "two", "segrap_0000")
    np.testing.assert_array_equal(mask, filled(NODE) + 2 * filled(OTHER))


# --- LNQ2023


def lnq(root: Path, part: str, number: int, *, box=None, segmentation: bool = True) -> None:
    name = f"lnq2023-{part}-{number:04d}"
    write_volume(root / part / f"{name}-ct.nrrd", scan(number), GRID)
    if segmentation:
        mask, grid = filled(NODE).astype(np.uint8), GRID
        if box is not None:  # 3D Slicer saves the part of the scan that the segments take up
            mask, grid = mask[box], crop_grid(GRID, box)
        write_mask(root / part / f"{name}-seg.nrrd", mask, grid)


def test_lnq_marks_the_unannotated_and_keeps_held_out_parts_apart(tmp_path):
    source, out = tmp_path / "LNQ2023", tmp_path / "out"
    lnq(source, "train", 3)
    lnq(source, "train", 4, box=(slice(1, 4), slice(4, 9), slice(5, 12)))
    lnq(source, "val", 1)
    lnq(source, "test", 2, segmentation=False)
    lnq(source, "train", 9, segmentation=False)
    result = convert(SETS["lnq2023"], source, out, ConversionOptions(unlabelled=True))

    expected = mark_unannotated(filled(NODE).astype(np.uint8), scan(3), GRID.spacing_mm, 2, 3.0)
    np.testing.assert_array_equal(mask_of(out, "lnq2023-train-0003"), expected)
    expected = mark_unannotated(filled(NODE).astype(np.uint8), scan(4), GRID.spacing_mm, 2, 3.0)
    np.testing.assert_array_equal(mask_of(out, "lnq2023-train-0004"), expected)
    assert set(np.unique(expected)) == {0, 1, 2}
    np.testing.assert_array_equal(mask_of(out, "lnq2023-val-0001", "labelsTs"), filled(NODE))
    assert cases_in(out / "labelsTr") == ["lnq2023-train-0003", "lnq2023-train-0004"]
    assert cases_in(out / "imagesTs") == ["lnq2023-test-0002_0000", "lnq2023-val-0001_0000"]
    assert open_dataset(out).labels.to_dataset_json() == {"background": 0, "lymph_node": 1, "ignore": 2}
    assert check(open_dataset(out)) == []
    assert result.missing == (
        "390 of 393 train scans are not there.",
        "19 of 20 validation scans are not there.",
        "99 of 100 test scans are not there.",
    )
    assert "lnq2023-train-0009-seg.nrrd is not there" in result.failed[0]
    parts = {case["case"]: case["part"] for case in record(out)["cases"]}
    assert parts["lnq2023-val-0001"] == "validation"
    assert parts["lnq2023-test-0002"] == "test"
    moved = next(case for case in record(out)["cases"] if case["case"] == "lnq2023-train-0004")
    assert "moved onto the scan's grid" in moved["notes"][0]


def test_lnq_gives_a_fully_annotated_part_as_a_dataset_of_its_own(tmp_path):
    lnq(tmp_path / "in", "train", 3)
    lnq(tmp_path / "in", "val", 1)
    convert(SETS["lnq2023"], tmp_path / "in", tmp_path / "out", ConversionOptions(part="validation"))
    assert cases_in(tmp_path / "out" / "labelsTr") == ["lnq2023-val-0001"]
    assert open_dataset(tmp_path / "out").labels.ignore is None
    with pytest.raises(ConfigError, match="no such part"):
        convert(SETS["lnq2023"], tmp_path / "in", tmp_path / "new", ConversionOptions(part="exam"))


def test_lnq_refuses_a_segmentation_between_the_voxels(tmp_path):
    lnq(tmp_path / "in", "val", 1)
    lnq(tmp_path / "in", "val", 2)
    shifted = replace(GRID, origin_mm=(-9.5, -8.0, 100.0))
    write_mask(tmp_path / "in" / "val" / "lnq2023-val-0002-seg.nrrd", filled(NODE).astype(np.uint8), shifted)
    result = convert(SETS["lnq2023"], tmp_path / "in", tmp_path / "out", ConversionOptions(part="validation"))
    assert "not the scan's" in result.failed[0]
    assert cases_in(tmp_path / "out" / "imagesTr") == ["lnq2023-val-0001_0000"]


# --- CT Lymph Nodes


def nih(root: Path, patient: str, seed: int, mask: np.ndarray | None = None, *, grid=GRID) -> None:
    ct(root / "CT Lymph Nodes" / patient / "09-14-2014-STUDY-1" / "SERIES-1", seed, PatientID=patient)
    if mask is not None:
        write_mask(root / "MED_ABD_LYMPH_MASKS" / patient / f"{patient}_mask.nii.gz", mask, grid)


def test_ct_lymph_nodes_puts_masks_onto_scans_and_drops_duplicates(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    nodes = filled(NODE).astype(np.uint8) + 2 * filled(OTHER).astype(np.uint8)  # a number for each node
    last = replace(GRID, origin_mm=(GRID.origin_mm[0], GRID.origin_mm[1] + 15.0, GRID.origin_mm[2]),
                   direction=(1, 0, 0, 0, -1, 0, 0, 0, 1))  # fmt: skip
    nih(source, "MED_LYMPH_001", 1, nodes)
    nih(source, "MED_LYMPH_002", 2, nodes[:, ::-1], grid=last)
    nih(source, "ABD_LYMPH_003", 3, nodes, grid=replace(GRID, origin_mm=(0.3, 0.2, 0.1)))
    nih(source, "MED_LYMPH_004", 1, nodes)
    nih(source, "MED_LYMPH_005", 5)
    result = convert(SETS["ct-lymph-nodes"], source, out)

    assert cases_in(out / "labelsTr") == ["ABD_LYMPH_003", "MED_LYMPH_001", "MED_LYMPH_002"]
    for case in cases_in(out / "labelsTr"):
        np.testing.assert_array_equal(mask_of(out, case), nodes > 0)
    assert dict(result.duplicates) == {"MED_LYMPH_004": "MED_LYMPH_001"}
    assert "MED_LYMPH_005: neither a SEG nor" in result.left_out[0]
    assert "Not there: MED_LYMPH_003, MED_LYMPH_006" in result.missing[0]
    assert "Not there: ABD_LYMPH_001, ABD_LYMPH_002, ABD_LYMPH_004" in result.missing[1]
    notes = {case["case"]: case["notes"] for case in record(out)["cases"]}
    assert "not by its origin" in notes["ABD_LYMPH_003"][0]
    again = convert(SETS["ct-lymph-nodes"], source, out)
    assert dict(again.duplicates) == {"MED_LYMPH_004": "MED_LYMPH_001"}
    assert again.written == ()


def test_ct_lymph_nodes_refuses_a_mask_that_is_mirrored(tmp_path):
    border = np.zeros(GRID.shape, np.uint8)
    border[1:3, 0:2, 5:9] = 1  # on the rim of air
    nih(tmp_path / "in", "MED_LYMPH_001", 1, filled(NODE).astype(np.uint8))
    nih(tmp_path / "in", "MED_LYMPH_002", 2, border)
    result = convert(SETS["ct-lymph-nodes"], tmp_path / "in", tmp_path / "out")
    assert "Only 0% of the labelled voxels lie on soft tissue" in result.failed[0]
    assert cases_in(tmp_path / "out" / "labelsTr") == ["MED_LYMPH_001"]


def segmentation(path: Path, mask: np.ndarray, series_folder: Path, description: str) -> None:
    from lnsegfm.imaging.dicom.seg_write import write_seg
    from lnsegfm.imaging.dicom.series import series_of

    path.parent.mkdir(parents=True, exist_ok=True)
    write_seg(path, mask.astype(np.uint8), {"Lymph Node": 1}, series_of(series_folder))
    data = dcmread(path)
    data.SeriesDescription = description
    data.save_as(path)


def test_ct_lymph_nodes_prefers_the_dicom_seg(tmp_path):
    nih(tmp_path / "in", "MED_LYMPH_001", 1, filled(OTHER).astype(np.uint8))
    series = tmp_path / "in" / "CT Lymph Nodes" / "MED_LYMPH_001"
    segmentation(tmp_path / "in" / "seg" / "1-1.dcm", filled(NODE), series, "Lymph nodes")
    convert(SETS["ct-lymph-nodes"], tmp_path / "in", tmp_path / "out")
    np.testing.assert_array_equal(mask_of(tmp_path / "out", "MED_LYMPH_001"), filled(NODE))
    masks = ConversionOptions(masks=tmp_path / "in" / "MED_ABD_LYMPH_MASKS")
    convert(SETS["ct-lymph-nodes"], tmp_path / "in", tmp_path / "two", masks)
    np.testing.assert_array_equal(mask_of(tmp_path / "two", "MED_LYMPH_001"), filled(OTHER))


# --- Mediastinal-Lymph-Node-SEG


def test_mediastinal_lymph_node_seg_tells_full_from_partial_annotation(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    for number, description in ((69, "Partially Annotated"), (70, "Fully Annotated"), (71, "Segmentation")):
        case = f"case_{number:04d}"
        ct(source / case / "ct", number, PatientID=case)
        segmentation(source / case / "seg" / "1-1.dcm", filled(NODE), source / case / "ct", description)
    ct(source / "case_0072" / "ct", 72, PatientID="case_0072")
    ct(source / "stranger", 73, PatientID="X")
    result = convert(SETS["mediastinal-lymph-node-seg"], source, out)

    expected = mark_unannotated(filled(NODE).astype(np.uint8), scan(69), GRID.spacing_mm, 2, 3.0)
    np.testing.assert_array_equal(mask_of(out, "case_0069"), expected)
    np.testing.assert_array_equal(mask_of(out, "case_0070", "labelsTs"), filled(NODE))
    assert cases_in(out / "labelsTr") == ["case_0069", "case_0071"]
    assert len(result.left_out) == 2
    assert "509 of 513 ct series are not there." in result.missing
    assert "119 of 120 fully annotated are not there." in result.missing
    notes = {case["case"]: case["notes"] for case in record(out)["cases"]}
    assert "taken as partial" in notes["case_0071"][0]
    convert(SETS["mediastinal-lymph-node-seg"], source, tmp_path / "full", ConversionOptions(part="fully_annotated"))
    np.testing.assert_array_equal(mask_of(tmp_path / "full", "case_0070"), filled(NODE))
    assert open_dataset(tmp_path / "full").labels.ignore is None


def test_nnunet_takes_the_ignore_label_of_a_partly_annotated_set(tmp_path):
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    lnq(tmp_path / "in", "train", 3)
    convert(SETS["lnq2023"], tmp_path / "in", tmp_path / "out")
    content = json.loads((tmp_path / "out" / "dataset.json").read_text())
    manager = LabelManager(content["labels"], None)
    assert (manager.foreground_labels, manager.ignore_label, manager.has_ignore_label) == ([1], 2, True)
    assert manager.num_segmentation_heads == 2
    assert content["labels"] == {
        "background": 0,
        "lymph_node": 1,
        "ignore": 2,
    }
    assert (content["numTraining"], content["file_ending"]) == (1, ".nii.gz")


@pytest.mark.parametrize("name", ["segrap2023", "lnq2023"])
def test_an_archive_is_to_be_unpacked(tmp_path, name):
    (tmp_path / "set.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.raises(DataError, match="Unpack it"):
        convert(SETS[name], tmp_path / "set.zip", tmp_path / "out")


def test_segrap_tells_a_label_that_a_case_lacks_and_refuses_one_that_all_lack(tmp_path):
    segrap(tmp_path / "in", 0)
    segrap(tmp_path / "in", 1, structures=("GTVp",))
    roi = ("GTVnd=lymph_node", "GTVp=tumour")
    result = convert(SETS["segrap2023"], tmp_path / "in", tmp_path / "out", ConversionOptions(roi=roi))
    assert result.notes == ("Case segrap_0001: lymph_node is background everywhere in this case: no file gives it.",)
    assert "segrap_0001" not in result.missing[0]
    with pytest.raises(DataError, match="Label eye: --roi gives it no structure"):
        convert(SETS["segrap2023"], tmp_path / "in", tmp_path / "new", ConversionOptions(roi=(*roi, "Eye*=eye")))


def test_radcure_masks_are_not_chosen_by_structure(tmp_path):
    radcure(tmp_path / "RADCURE", 5, {"GTVp": OTHER})
    (tmp_path / "masks").mkdir()
    options = ConversionOptions(roi=("GTVn*=node",), masks=tmp_path / "masks")
    with pytest.raises(ConfigError, match="--roi and --masks"):
        convert(SETS["radcure"], tmp_path / "RADCURE", tmp_path / "out", options)


def test_radcure_with_several_scans_of_a_patient_names_them_apart(tmp_path):
    radcure(tmp_path / "RADCURE", 5, {"GTVn_1": NODE})
    radcure(tmp_path / "RADCURE" / "second", 5, {"GTVn_1": OTHER})
    result = convert(SETS["radcure"], tmp_path / "RADCURE", tmp_path / "out")
    assert len(result.written) == 2
    assert all(name.startswith("RADCURE-0005_") for name in result.written)
    rows = (tmp_path / "out" / "subjects.csv").read_text().splitlines()[1:]
    assert {row.split(",")[1] for row in rows} == {"RADCURE-0005"}

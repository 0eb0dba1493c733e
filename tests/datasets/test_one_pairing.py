"""Listing, check and conversion of one tree say the same: what is taken, what is refused, and whether it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import PositronEmissionTomographyImageStorage, generate_uid

from lnsegfm.datasets.convert import SETS, ConversionOptions, convert, list_tree
from lnsegfm.datasets.doctor.dicom_diagnosis import diagnose_tree
from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.reference_choice import DRAWN_TWICE
from lnsegfm.imaging.dicom.rtstruct_write import write_rtstruct
from lnsegfm.imaging.dicom.seg_write import write_seg
from lnsegfm.imaging.dicom.series import series_of
from lnsegfm.imaging.dicom.series_index import SeriesOptions
from lnsegfm.imaging.files import read_mask
from tests.imaging.dicom.planning import (
    GRID,
    NODE,
    SECOND,
    filled,
    other_images,
    scan,
    segmentation,
    structure_set,
)

ROI = ("LN*=ln", "lymph_node*=ln")
TALL = ((0, 3), (5, 11), (6, 12))  # mirrored along z it lies at the other end of the scan


@dataclass(frozen=True)
class Made:
    """A tree, and what is right for it.

    Args:
        build: Makes it.
        boxes: What the reference of its first scan holds; None where the conversion does not work.
        told: Words that the conversion and the check both say.
        options: Of the conversion.
    """

    build: Callable[[Path], Any]
    boxes: tuple[Any, ...] | None
    told: tuple[str, ...] = ()
    options: ConversionOptions = field(default_factory=lambda: ConversionOptions(roi=ROI))


def ours(folder: Path, mask: np.ndarray, kind: str = "RTSTRUCT", name: str = "prediction.dcm") -> Path:
    """A prediction of this software over the scan in ``ct``."""
    write = write_seg if kind == "SEG" else write_rtstruct
    write(folder / name, mask.astype(np.uint8), {"lymph_node": 1}, series_of(folder / "ct"))  # type: ignore[operator]
    return folder / name


def changed(path: Path, change: Callable[[Dataset], None]) -> None:
    data = dcmread(path)
    change(data)
    data.save_as(path)


def alone(folder: Path, rois: Any = None, **more: Any) -> None:
    structure_set(folder / "rs.dcm", scan(folder / "ct"), rois or {"LN": NODE}, **more)


def two(folder: Path, first: dict[str, Any], second: dict[str, Any]) -> None:
    heads = scan(folder / "ct")
    for name, about in (("a", first), ("b", second)):
        about = {"rois": {"LN": NODE}, **about}
        structure_set(folder / f"{name}.dcm", heads, about.pop("rois"), **about)


def with_prediction(kind: str, rois: Any = None, **more: Any) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        alone(folder, rois, **more)
        ours(folder, filled(SECOND), kind)

    return build


def prediction_alone(kind: str) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        scan(folder / "ct")
        ours(folder, filled(NODE), kind)

    return build


def empty_prediction(folder: Path) -> None:
    alone(folder)
    ours(folder, filled(), "SEG")


def corrected(change: Callable[[Dataset], None]) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        scan(folder / "ct")
        changed(ours(folder, filled(NODE)), change)

    return build


def by_roi(keyword: str, value: str) -> Callable[[Dataset], None]:
    return lambda data: setattr(data.StructureSetROISequence[0], keyword, value)


def one_number(data: Dataset) -> None:
    """The third structure has the number of the second."""
    data.StructureSetROISequence[2].ROINumber = data.StructureSetROISequence[1].ROINumber


def nameless(data: Dataset) -> None:
    data.StructureSetROISequence[1].ROIName = ""


def of_points(data: Dataset) -> None:
    for contour in data.ROIContourSequence[0].ContourSequence:
        contour.ContourGeometricType = "POINT"


def split(folder: Path) -> None:
    """One structure, its contours in two files that were written at one time."""
    heads = scan(folder / "ct")
    (z0, z1), *plane = NODE
    structure_set(folder / "a.dcm", heads, {"LN": ((z0, z0 + 1), *plane)})
    structure_set(folder / "b.dcm", heads, {"LN": ((z0 + 1, z1), *plane)})


def added_to(folder: Path) -> None:
    """The physician's file to which this software added its structure, as a new instance."""
    alone(folder)

    def add(data: Dataset) -> None:
        data.StructureSetROISequence[1].ROIGenerationAlgorithm = "AUTOMATIC"
        data.StructureSetROISequence[1].ROIGenerationDescription = "lnsegfm 0.1, model"
        item = Dataset()
        item.Manufacturer = "lnsegfm"
        data.ContributingEquipmentSequence = [item]

    heads = [dcmread(p, stop_before_pixels=True) for p in sorted((folder / "ct").iterdir())]
    structure_set(folder / "rs.dcm", heads, {"LN": NODE, "lymph_node": SECOND}, edit=add)


def damaged_prediction(folder: Path) -> None:
    alone(folder)
    changed(ours(folder, filled(SECOND), "SEG"), lambda d: setattr(d, "SegmentationType", "ODD"))


def in_another_frame(data: Dataset) -> None:
    data.StructureSetROISequence[1].ReferencedFrameOfReferenceUID = "1.2.3"
    about = Dataset()
    about.FrameOfReferenceUID = "1.2.3"
    data.ReferencedFrameOfReferenceSequence.append(about)
    for contour in data.ROIContourSequence[1].ContourSequence:
        del contour.ContourImageSequence


def pet_ct(folder: Path) -> None:
    frame = generate_uid()
    heads = scan(folder / "ct", FrameOfReferenceUID=frame)
    structure_set(folder / "rs.dcm", heads, {"LN": NODE})
    pet = other_images(folder / "pt", "PT", PositronEmissionTomographyImageStorage, FrameOfReferenceUID=frame)
    structure_set(folder / "pet.dcm", pet, {"LN_PET": SECOND}, StructureSetDate="20240101")


def on_projection(folder: Path) -> None:
    heads = scan(folder / "ct", ImageType=["DERIVED", "SECONDARY", "AXIAL", "MIP"])
    structure_set(folder / "rs.dcm", heads, {"LN": NODE})


def absent(folder: Path) -> None:
    scan(folder / "ct")
    structure_set(folder / "rs.dcm", scan(folder.parent / "away", 4), {"LN": NODE})


def absent_beside(folder: Path) -> None:
    alone(folder)
    structure_set(folder / "other.dcm", scan(folder.parent / "away", 4), {"LN": NODE})


def unusable(folder: Path) -> None:
    alone(folder)
    bad = scan(folder / "bad", 3)
    structure_set(folder / "bad.dcm", bad, {"LN": NODE})
    sorted((folder / "bad").iterdir())[4].unlink()


def flipped(axis: int, label: str = "LN", kind: str = "BINARY") -> Callable[[Path], None]:
    """The physician's copy of a prediction, which a viewer stored mirrored."""

    def build(folder: Path) -> None:
        scan(folder / "ct")
        ours(folder, filled(TALL))
        segmentation(folder / "corrected.dcm", folder / "ct", np.flip(filled(TALL), axis), label=label, kind=kind)

    return build


def mirrored_pair(folder: Path) -> None:
    structure_set(folder / "rs.dcm", scan(folder / "ct"), {"LN": TALL})
    segmentation(folder / "seg.dcm", folder / "ct", np.flip(filled(TALL), 0))


AUTOMATIC = ConversionOptions(roi=ROI, accept_automatic=True)
GEOMETRY = ConversionOptions(roi=ROI, pair_by_geometry=True)
EARLY, LATE = {"StructureSetDate": "20200101"}, {"StructureSetDate": "20210101"}
MOVED = {"rois": {"LN": SECOND}}

TREES = {
    "physician": Made(alone, (NODE,)),
    # ----- whose
    "physician and later prediction": Made(with_prediction("RTSTRUCT"), (NODE,), ("prediction.dcm: not taken",)),
    "physician and later prediction, SEG": Made(with_prediction("SEG"), (NODE,), ("drawn by lnsegfm",)),
    "other name than the prediction's": Made(with_prediction("SEG", {"lymph_node_left": NODE}), (NODE,)),
    "physician and an empty prediction": Made(empty_prediction, (NODE,), ("passed over where nothing is drawn",)),
    "prediction alone": Made(prediction_alone("RTSTRUCT"), None, ("--accept-automatic",)),
    "prediction alone, SEG": Made(prediction_alone("SEG"), None, ("--accept-automatic",)),
    "prediction alone, accepted": Made(prediction_alone("SEG"), (NODE,), (), AUTOMATIC),
    "prediction accepted, and a physician": Made(
        with_prediction("SEG"), (NODE,), ("a person drew this label",), AUTOMATIC
    ),
    "automatic of another program": Made(lambda f: alone(f, algorithm="AUTOMATIC"), None, ("--accept-automatic",)),
    "semiautomatic": Made(lambda f: alone(f, algorithm="SEMIAUTOMATIC"), (NODE,)),
    "no type": Made(lambda f: alone(f, algorithm=""), (NODE,)),
    "unapproved": Made(lambda f: alone(f, ApprovalStatus="UNAPPROVED"), (NODE,)),
    "corrected copy, MANUAL": Made(corrected(by_roi("ROIGenerationAlgorithm", "MANUAL")), (NODE,)),
    "corrected copy, SEMIAUTOMATIC": Made(corrected(by_roi("ROIGenerationAlgorithm", "SEMIAUTOMATIC")), (NODE,)),
    "corrected copy, operator": Made(corrected(lambda d: setattr(d, "OperatorsName", "Roe^Rita")), (NODE,)),
    "corrected copy, manufacturer": Made(
        corrected(lambda d: (setattr(d, "Manufacturer", "Viewer"), setattr(d, "ManufacturerModelName", "V2"))), (NODE,)
    ),
    "rejected": Made(lambda f: alone(f, ApprovalStatus="REJECTED"), None, ("rejected",)),
    # ----- several files
    "newest": Made(lambda f: two(f, {**LATE}, {**MOVED, **EARLY}), (NODE,), ("the former is newer",)),
    "approved before newer": Made(
        lambda f: two(f, {**EARLY, "ApprovalStatus": "APPROVED"}, {**MOVED, **LATE}),
        (NODE,),
        ("the former is approved",),
    ),
    "rejected though newer": Made(
        lambda f: two(f, {**EARLY}, {**MOVED, **LATE, "ApprovalStatus": "REJECTED"}), (NODE,), ("b.dcm: not taken",)
    ),
    "no date is oldest": Made(
        lambda f: two(f, {**EARLY}, {**MOVED, "StructureSetDate": ""}), (NODE,), ("the former has a date",)
    ),
    "old spelling of a date": Made(
        lambda f: two(f, {**LATE}, {**MOVED, "StructureSetDate": "2020.12.31"}), (NODE,), ("the former is newer",)
    ),
    "time alone": Made(lambda f: two(f, {"StructureSetTime": "1300"}, {**MOVED}), (NODE,), ("the former is newer",)),
    "instance number": Made(lambda f: two(f, {"InstanceNumber": 2}, {**MOVED, "InstanceNumber": 1}), (NODE,)),
    "structures of two files": Made(
        lambda f: two(f, {**EARLY}, {"rois": {"LN_2": SECOND}, **LATE}),
        (NODE, SECOND),
        ("come together: LN_2 of b.dcm, LN of a.dcm",),
    ),
    "one structure under two names": Made(
        lambda f: two(f, {**EARLY}, {"rois": {"LN_new": NODE}, **LATE}), (NODE,), ("share", DRAWN_TWICE)
    ),
    "newer without a contour": Made(lambda f: two(f, {**EARLY}, {"rois": {"LN": None}, **LATE}), (NODE,)),
    "one structure in two files": Made(split, (NODE,), ("taken together",)),
    "one file twice": Made(lambda f: two(f, {}, {}), (NODE,), ("its SOPInstanceUID comes first",)),
    "added to the physician's file": Made(added_to, (NODE,), ("drawn by lnsegfm",)),
    "damaged prediction beside": Made(damaged_prediction, (NODE,)),
    # ----- damaged
    "one number, unwanted": Made(
        lambda f: alone(f, {"LN": NODE, "Heart": SECOND, "Lung": SECOND}, edit=one_number), (NODE,)
    ),
    "one number, wanted": Made(
        lambda f: alone(f, {"LN": NODE, "LN_2": SECOND, "Lung": SECOND}, edit=one_number),
        None,
        ("several structures have number",),
    ),
    "without a name": Made(
        lambda f: alone(f, {"LN": NODE, "Heart": SECOND}, edit=nameless), (NODE,), ("without a name",)
    ),
    # ----- nothing there
    "points alone": Made(lambda f: alone(f, edit=of_points), None, ("it consists of points",)),
    "beside the image": Made(lambda f: alone(f, {"LN": ((2, 5), (90, 95), (90, 95))}), None),
    "no contour": Made(lambda f: alone(f, {"LN": None}), None),
    "points of the wanted, voxels of others": Made(lambda f: alone(f, {"LN": None, "Heart": NODE}), None),
    # ----- of which scan
    "another patient": Made(lambda f: alone(f, PatientID="MRN4712"), None, ("another patient",)),
    "another patient beside the right one": Made(
        lambda f: two(f, {}, {**MOVED, **LATE, "PatientID": "MRN4712"}), (NODE,), ("another patient",)
    ),
    "wildcard and another frame": Made(
        lambda f: alone(f, {"LN": NODE, "LN_MR": SECOND}, edit=in_another_frame), (NODE,), ("LN_MR",)
    ),
    "another frame alone": Made(
        lambda f: alone(f, frame="1.2.3", images=False, listed=False), None, ("is not the series'",)
    ),
    "another frame, images named": Made(lambda f: alone(f, frame="1.2.3"), (NODE,), ("lies on its slices",)),
    "another frame, unwanted": Made(
        lambda f: alone(f, {"LN": NODE, "Heart": SECOND}, edit=in_another_frame), (NODE,)
    ),
    "PET": Made(pet_ct, (NODE,)),
    "projection": Made(on_projection, (NODE,), ("is a maximum intensity projection",)),
    "absent": Made(absent, None, ("is not there",)),
    "absent beside one": Made(absent_beside, (NODE,), ("is not there",)),
    "absent, by geometry": Made(absent, (NODE,), ("--pair-by-geometry",), GEOMETRY),
    "refused series": Made(unusable, None, ("is here and cannot be used",)),
    "no pattern": Made(lambda f: alone(f, {"Heart": NODE}), None, ("no pattern matches",)),
    # ----- mirrored
    "mirrored along z": Made(flipped(0), None, ("mirrored along z",)),
    "mirrored along y": Made(flipped(1), None, ("mirrored along y",)),
    "mirrored along x, one name": Made(flipped(2, "lymph_node"), None, ("mirrored along x",)),
    "mirrored label map": Made(flipped(0, kind="LABELMAP"), None, ("mirrored along z",)),
    "two persons' that mirror each other": Made(mirrored_pair, None, ("mirrored along z",)),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("name", TREES)
def test_check_listing_and_conversion_agree(tmp_path, name):
    made, root = TREES[name], tmp_path / "in"
    made.build(root)
    lines: list[str] = []
    works = True
    try:
        result = convert(SETS["dicom"], root, tmp_path / "out", made.options)
        lines += [*result.failed, *result.left_out, *result.notes]
        works = not result.failed
    except DataError as error:
        works, lines = False, str(error).splitlines()
    diagnosis = diagnose_tree(root, patterns=made.options.roi, options=made.options.pairing)
    found = [str(finding) for finding in diagnosis.findings]
    listing = list_tree(root, made.options.roi, options=made.options.pairing)
    masks = sorted((tmp_path / "out" / "labelsTr").glob("*.nii.gz"))

    assert works is (made.boxes is not None), lines
    assert bool(diagnosis.with_severity("error")) is (made.boxes is None), found
    for words in made.told:
        assert any(words in line for line in lines), lines
        assert any(words in line for line in found), found
    taken = [roi for each in listing["series"] for file in each["structures"] for roi in file["rois"] if roi["taken"]]
    if made.boxes is not None:
        assert taken
        (mask,) = masks
        np.testing.assert_array_equal(read_mask(mask)[0] > 0, filled(*made.boxes, grid=GRID))
    assert not any("Doe" in line or "MRN4712" in line for line in (*lines, *found))


@pytest.mark.parametrize("resample", [False, True])
def test_the_check_takes_uneven_series_as_a_conversion_does(tmp_path, resample):
    heads = scan(tmp_path / "in" / "ct")
    (tmp_path / "in" / "ct" / "0007.dcm").unlink()
    structure_set(tmp_path / "in" / "rs.dcm", heads, {"LN": NODE})
    options = ConversionOptions(roi=ROI, resample_uneven=resample)
    works = True
    try:
        works = not convert(SETS["dicom"], tmp_path / "in", tmp_path / "out", options).failed
    except DataError:
        works = False
    diagnosis = diagnose_tree(tmp_path / "in", patterns=ROI, stacks=SeriesOptions(resample_uneven=resample))
    assert works is resample
    assert bool(diagnosis.with_severity("error")) is not works


def test_without_patterns_every_structure_is_wanted(tmp_path):
    alone(tmp_path / "in", {"Heart": NODE, "Lung": SECOND})
    assert diagnose_tree(tmp_path / "in").with_severity("error") == ()
    (series,) = list_tree(tmp_path / "in")["series"]
    assert [roi["taken"] for roi in series["structures"][0]["rois"]] == [True, True]


def test_a_label_that_only_an_algorithm_drew_is_refused_by_its_cause(tmp_path):
    heads = scan(tmp_path / "in" / "ct")
    structure_set(tmp_path / "in" / "a.dcm", heads, {"LN": NODE})
    structure_set(tmp_path / "in" / "b.dcm", heads, {"Heart": SECOND}, algorithm="AUTOMATIC")
    options = ConversionOptions(roi=("LN=ln", "Heart=heart"))
    with pytest.raises(DataError, match=r"Label heart: no structure of any scan may give it.*--accept-automatic"):
        convert(SETS["dicom"], tmp_path / "in", tmp_path / "out", options)


def test_nothing_of_refused_files_is_in_the_dataset(tmp_path):
    heads = scan(tmp_path / "in" / "ct")
    structure_set(tmp_path / "in" / "a.dcm", heads, {"LN": NODE})
    structure_set(tmp_path / "in" / "Schmidt.dcm", heads, {"LN Schmidt": SECOND}, PatientID="MRN4711")
    structure_set(tmp_path / "in" / "Meier.dcm", heads, {"LN Meier": SECOND}, ApprovalStatus="REJECTED")
    convert(SETS["dicom"], tmp_path / "in", tmp_path / "out", ConversionOptions(roi=ROI))
    told = b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*.json"))
    assert b"rejected" in told
    assert not any(word in told for word in (b"Schmidt", b"Meier", b"MRN4711"))

"""Which structure belongs to which series, and what decides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import MRImageStorage, PositronEmissionTomographyImageStorage, generate_uid

from lnsegfm.imaging.dicom.annotated_series import AnnotatedTree, PairingOptions, read_annotated_tree
from lnsegfm.imaging.dicom.pairing_evidence import Pairing
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.planning import (
    GRID,
    NODE,
    SECOND,
    Heads,
    filled,
    other_images,
    scan,
    segmentation,
    structure_set,
)

GEOMETRY = PairingOptions(by_geometry=True)


def tree_of(folder: Path, options: PairingOptions | None = None) -> AnnotatedTree:
    return read_annotated_tree(folder, options=options)


def only(folder: Path, options: PairingOptions | None = None) -> Pairing:
    (paired,) = tree_of(folder, options).paired
    (pairing,) = paired.pairings
    return pairing


def without_references(data: Dataset) -> None:
    """As a writer leaves it that takes ReferencedFrameOfReferenceSequence for optional, which it is."""
    del data.ReferencedFrameOfReferenceSequence
    for roi in data.StructureSetROISequence:
        del roi.ReferencedFrameOfReferenceUID


# ------------------------------------------------------------------------------------------------ images that are named


def test_images_that_contours_name_are_enough(tmp_path):
    heads = scan(tmp_path / "ct")
    structure_set(tmp_path / "rs.dcm", heads, {"LN": NODE}, edit=without_references)
    assert (only(tmp_path).place, only(tmp_path).decided) == (0, "images that its contours name (3 of 3)")


def test_of_two_series_of_one_frame_the_images_decide(tmp_path):
    frame, study = generate_uid(), generate_uid()
    series = [
        scan(tmp_path / name, k, FrameOfReferenceUID=frame, StudyInstanceUID=study) for k, name in enumerate("ab")
    ]
    for k, heads in enumerate(series):
        structure_set(tmp_path / f"rs{k}.dcm", heads, {"LN": NODE}, edit=without_references)
    tree = tree_of(tmp_path)
    for k, heads in enumerate(series):
        (place,) = tree.series_of(tmp_path / f"rs{k}.dcm")
        assert tree.index.series[place].uid == heads[0].SeriesInstanceUID


@pytest.mark.parametrize("named", ["contours", "list"])
def test_another_frame_is_accepted_where_images_and_slices_are_the_series(tmp_path, named):
    """pydicom-seg and rt-utils write frames of reference that are not the series'."""
    heads = scan(tmp_path / "ct")
    structure_set(tmp_path / "rs.dcm", heads, {"LN": NODE}, frame="1.2.3.4", images=named == "contours", listed=True)
    pairing = only(tmp_path)
    assert pairing.place == 0
    assert "its frame of reference 1.2.3.4 is not the series'" in pairing.note
    assert "lies on its slices" in pairing.note


def test_another_frame_of_a_segmentation_is_accepted_likewise(tmp_path):
    scan(tmp_path / "ct")
    segmentation(tmp_path / "seg.dcm", tmp_path / "ct", filled(NODE), FrameOfReferenceUID="1.2.3.4")
    assert only(tmp_path).place == 0
    assert "1.2.3.4" in only(tmp_path).note


@pytest.mark.parametrize("way", ["unnamed", "between slices", "beside"])
def test_another_frame_is_refused_where_anything_is_missing(tmp_path, way):
    heads = scan(tmp_path / "ct")
    box = ((2, 5), (60, 66), (70, 76)) if way == "beside" else NODE

    def lift(data: Dataset) -> None:
        for contour in data.ROIContourSequence[0].ContourSequence if way == "between slices" else ():
            values = [float(v) for v in contour.ContourData]
            contour.ContourData = [f"{v + 1.2 * (k % 3 == 2):.4f}" for k, v in enumerate(values)]

    named = way != "unnamed"
    structure_set(
        tmp_path / "rs.dcm", heads, {"LN": box}, frame="1.2.3.4", images=named, listed=named, edit=lift
    )  # fmt: skip
    pairing = only(tmp_path)
    assert (pairing.place, pairing.contradicts) == (None, 0)
    assert "its frame of reference 1.2.3.4 is not the series'" in pairing.why


def test_a_frame_that_slices_carry_beside_the_exported_one_is_the_series(tmp_path):
    """Some exports give each slice a frame of reference of its own."""
    frames = [generate_uid() for _ in range(GRID.shape[0])]
    (tmp_path / "ct").mkdir()
    heads = scan(tmp_path / "ct")
    for path, frame in zip(sorted((tmp_path / "ct").iterdir()), frames, strict=True):
        data = dcmread(path)
        data.FrameOfReferenceUID = frame
        data.save_as(path)
    structure_set(tmp_path / "rs.dcm", heads, {"LN": NODE}, frame=frames[7], images=False, listed=False)
    assert (only(tmp_path).place, only(tmp_path).note) == (0, "")


def test_images_of_another_series_are_not_overruled_by_the_series_that_is_named(tmp_path):
    frame = generate_uid()
    a, b = (scan(tmp_path / name, k, FrameOfReferenceUID=frame) for k, name in enumerate("ab"))

    def names_the_other(data: Dataset) -> None:
        about = data.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
        about.RTReferencedSeriesSequence[0].SeriesInstanceUID = b[0].SeriesInstanceUID

    structure_set(tmp_path / "rs.dcm", a, {"LN": NODE}, edit=names_the_other)
    tree = tree_of(tmp_path)
    (place,) = tree.series_of(tmp_path / "rs.dcm")
    assert tree.index.series[place].uid == a[0].SeriesInstanceUID


# ------------------------------------------------------------------------------------------ structures of several scans


def in_frame(frame: str, number: int, images: Heads = ()) -> object:  # type: ignore[assignment]
    def edit(data: Dataset) -> None:
        data.StructureSetROISequence[number].ReferencedFrameOfReferenceUID = frame
        about = Dataset()
        about.FrameOfReferenceUID = frame
        data.ReferencedFrameOfReferenceSequence.append(about)
        for contour in data.ROIContourSequence[number].ContourSequence:
            if "ContourImageSequence" in contour:
                del contour.ContourImageSequence

    return edit


def test_structures_of_one_file_are_paired_one_by_one(tmp_path):
    heads = scan(tmp_path / "ct")
    structure_set(tmp_path / "rs.dcm", heads, {"LN": NODE, "LN_MR": SECOND}, edit=in_frame("1.2.3", 1))
    tree = tree_of(tmp_path)
    (annotation,) = tree.by_series[0]
    assert annotation.names == ("LN",)
    ((stray,),) = (paired.strays for paired in tree.paired)
    assert stray.structure.name == "LN_MR"
    assert "1.2.3" in stray.why


def test_structures_of_one_file_may_belong_to_two_series(tmp_path):
    a, b = scan(tmp_path / "a", 1), scan(tmp_path / "b", 2)
    both = structure_set(
        tmp_path / "rs.dcm", a, {"LN": NODE, "LN_2": SECOND}, edit=in_frame(b[0].FrameOfReferenceUID, 1)
    )
    tree = tree_of(tmp_path)
    assert tree.series_of(both) == (0, 1)
    names = {tree.index.series[k].uid: annotations[0].names for k, annotations in tree.by_series.items()}
    assert names == {a[0].SeriesInstanceUID: ("LN",), b[0].SeriesInstanceUID: ("LN_2",)}


@pytest.mark.parametrize(
    ("modality", "sop_class", "word"),
    [("PT", PositronEmissionTomographyImageStorage, "PET"), ("MR", MRImageStorage, "MR")],
)
@pytest.mark.parametrize("exported", [True, False])
@pytest.mark.parametrize("images", [True, False])
def test_what_was_drawn_on_pet_or_mr_is_no_ct_s(tmp_path, modality, sop_class, word, exported, images):
    """A PET/CT shares its frame of reference: the scan may be here or not, and named by image or as a whole."""
    frame = generate_uid()
    scan(tmp_path / "in" / "ct", FrameOfReferenceUID=frame)
    where = tmp_path / ("in" if exported else "away") / "other"
    heads = other_images(where, modality, sop_class, FrameOfReferenceUID=frame)
    structure_set(tmp_path / "in" / "rs.dcm", heads, {"LN": NODE}, images=images)
    pairing = only(tmp_path / "in")
    assert pairing.place is None
    assert pairing.why == f"it was drawn on {word} images, and is not measured on a CT"


def test_a_pet_that_is_named_beside_the_ct_does_not_keep_structures_from_it(tmp_path):
    frame = generate_uid()
    heads = scan(tmp_path / "ct", FrameOfReferenceUID=frame)
    pet = other_images(tmp_path / "pt", "PT", PositronEmissionTomographyImageStorage, FrameOfReferenceUID=frame)

    def fused(data: Dataset) -> None:
        item = Dataset()
        item.SeriesInstanceUID = pet[0].SeriesInstanceUID
        study = data.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
        study.RTReferencedSeriesSequence.append(item)

    structure_set(tmp_path / "rs.dcm", heads, {"LN": NODE}, images=False, edit=fused)
    assert only(tmp_path).place == 0


# ----------------------------------------------------------------------------------------------------- another patient


@pytest.mark.parametrize("pair", [("P1", "P2"), ("P1", "P10"), ("007", "7")])
@pytest.mark.parametrize("how", ["uids", "geometry"])
def test_structures_of_another_patient_are_refused_though_uids_agree(tmp_path, pair, how):
    heads = scan(tmp_path / "ct", PatientID=pair[0])
    edit = without_references if how == "geometry" else None
    structure_set(tmp_path / "rs.dcm", heads, {"LN": NODE}, PatientID=pair[1], images=how == "uids", edit=edit)
    pairing = only(tmp_path, GEOMETRY if how == "geometry" else None)
    assert pairing.place is None
    if how == "uids":
        assert "another patient" in pairing.why
    assert not any(word in pairing.why for word in (*pair, "Doe"))


@pytest.mark.parametrize("pair", [("P1", " P1 "), ("p1", "P1"), ("", "P1"), ("P1", "")])
def test_blanks_case_and_missing_ids_are_no_other_patient(tmp_path, pair):
    heads = scan(tmp_path / "ct", PatientID=pair[0])
    structure_set(tmp_path / "rs.dcm", heads, {"LN": NODE}, PatientID=pair[1])
    assert only(tmp_path).place == 0


# ------------------------------------------------------------------------------------------------------------- geometry


def all_uids_differ(data: Dataset) -> None:
    about = data.ReferencedFrameOfReferenceSequence[0]
    about.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3.4.5"
    data.StudyInstanceUID = "1.2.3.4.6"


@pytest.mark.parametrize("kind", ["RTSTRUCT", "SEG"])
def test_geometry_pairs_where_it_is_asked_for_and_one_series_fits(tmp_path, kind):
    scan(tmp_path / "in" / "ct")
    away = scan(tmp_path / "away")
    if kind == "SEG":
        segmentation(tmp_path / "in" / "seg.dcm", tmp_path / "away", filled(NODE))
    else:
        structure_set(tmp_path / "in" / "rs.dcm", away, {"LN": NODE}, edit=all_uids_differ)
    assert only(tmp_path / "in").place is None
    assert "not there" in only(tmp_path / "in").why
    pairing = only(tmp_path / "in", GEOMETRY)
    assert (pairing.place, pairing.decided) == (0, "geometry")
    assert "--pair-by-geometry" in pairing.note


def test_geometry_does_not_decide_between_two_series_that_fit(tmp_path):
    for k in range(2):
        scan(tmp_path / "in" / f"ct{k}", k)
    structure_set(tmp_path / "in" / "rs.dcm", scan(tmp_path / "away"), {"LN": NODE}, edit=all_uids_differ)
    pairing = only(tmp_path / "in", GEOMETRY)
    assert pairing.place is None
    assert "lies on the slices of 2 series" in pairing.why


def test_geometry_finds_no_series_on_whose_slices_it_does_not_lie(tmp_path):
    other = Grid(GRID.shape, GRID.spacing_mm, (-12.0, -14.0, 101.3))
    scan(tmp_path / "in" / "ct", grid=other)
    structure_set(tmp_path / "in" / "rs.dcm", scan(tmp_path / "away"), {"LN": NODE}, edit=all_uids_differ)
    assert only(tmp_path / "in", GEOMETRY).place is None


@pytest.mark.parametrize("options", [None, GEOMETRY])
def test_geometry_takes_no_structure_of_another_frame_out_of_a_file_that_uids_pair(tmp_path, options):
    """Heights of an MR that happen to be those of the CT."""
    heads = scan(tmp_path / "ct")
    structure_set(tmp_path / "rs.dcm", heads, {"LN": NODE, "LN_MR": SECOND}, edit=in_frame("1.2.3", 1))
    (paired,) = tree_of(tmp_path, options).paired
    assert [pairing.place for pairing in paired.pairings] == [0, None]
    assert "--pair-by-geometry" not in paired.strays[0].why


def test_where_geometry_would_pair_the_line_names_the_option(tmp_path):
    scan(tmp_path / "in" / "ct")
    structure_set(tmp_path / "in" / "rs.dcm", scan(tmp_path / "away"), {"LN": NODE}, edit=all_uids_differ)
    assert "--pair-by-geometry pairs the two" in only(tmp_path / "in").why


@pytest.mark.parametrize("decimals", [0.0, 0.04, -0.2])
def test_rounded_heights_lie_on_the_slices(tmp_path, decimals):
    heads = scan(tmp_path / "ct")

    def shift(data: Dataset) -> None:
        for contour in data.ROIContourSequence[0].ContourSequence:
            contour.ContourData = [
                f"{float(v) + decimals * (k % 3 == 2):.4f}" for k, v in enumerate(contour.ContourData)
            ]

    structure_set(tmp_path / "rs.dcm", heads, {"LN": NODE}, frame="1.2.3.4", edit=shift)
    assert only(tmp_path).place == 0


# --------------------------------------------------------------------------------------------------------------- causes


def test_each_cause_of_no_series_has_its_own_words(tmp_path):
    away = scan(tmp_path / "away")
    scan(tmp_path / "in" / "ct")
    bad = scan(tmp_path / "in" / "bad", 3)
    for path in sorted((tmp_path / "in" / "bad").iterdir())[3:6]:
        path.unlink()
    structure_set(tmp_path / "in" / "absent.dcm", away, {"LN": NODE})
    structure_set(tmp_path / "in" / "bad.dcm", bad, {"LN": NODE}, images=False)
    structure_set(tmp_path / "in" / "nothing.dcm", away, {"LN": NODE}, images=False, edit=without_references)
    why = {annotation.path.stem: reason for annotation, reason in tree_of(tmp_path / "in").orphans}
    assert why["absent"].startswith("the series that it was drawn on is not there; its frame of reference is")
    assert why["bad"].startswith("the series that it was drawn on is here and cannot be used")
    assert why["nothing"].startswith("it names no series, image or frame of reference; it lies on the slices of one")


def test_identity_is_in_no_repr(tmp_path):
    heads = scan(tmp_path / "ct", PatientID="MRN4711")
    structure_set(tmp_path / "rs.dcm", heads, {"LN": NODE}, OperatorsName="Roe^Rita", ReviewerName="Poe^Ed")
    told = repr(tree_of(tmp_path).paired)
    assert not any(word in told for word in ("MRN4711", "Roe", "Poe"))


def test_damaged_references_are_no_evidence(tmp_path):
    heads = scan(tmp_path / "ct")

    def damage(data: Dataset) -> None:
        for contour in data.ROIContourSequence[0].ContourSequence:
            contour.ContourImageSequence = Items([Dataset()])

    structure_set(tmp_path / "rs.dcm", heads, {"LN": NODE}, edit=damage)
    assert (only(tmp_path).place, only(tmp_path).decided) == (0, "SeriesInstanceUID")


def test_every_axis_of_a_segmentation_counts_for_its_geometry(tmp_path):
    scan(tmp_path / "ct")

    def shift(data: Dataset) -> None:
        for frame in data.PerFrameFunctionalGroupsSequence:
            x, y, z = (float(v) for v in frame.PlanePositionSequence[0].ImagePositionPatient)
            frame.PlanePositionSequence[0].ImagePositionPatient = [x + 0.5, y, z]

    segmentation(
        tmp_path / "seg.dcm", tmp_path / "ct", np.asarray(filled(NODE)), FrameOfReferenceUID="1.2.3", edit=shift
    )
    assert only(tmp_path).place is None

"""Of each scan one series is taken, by a fixed order; all acquisitions are; what is left out has its reason."""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsegfm.errors import ConfigError, DataError
from lnsegfm.imaging.dicom.same_acquisition import phases_named
from lnsegfm.imaging.dicom.series import Series, find_series, series_of
from lnsegfm.imaging.dicom.series_choice import choose_series, require_choice
from tests.imaging.dicom.studies import MIP, MPR, add

LUNG, SOFT = "B70f", "B31f"


def found(root: Path) -> tuple[Series, ...]:
    return _found(root, len(list(root.rglob("*.dcm"))))


@lru_cache
def _found(root: Path, files: int) -> tuple[Series, ...]:
    index = find_series(root)
    assert not index.refused
    return index.series


def taken(root: Path, *selectors: str, annotated: tuple[str, ...] = ()) -> set[str]:
    """Descriptions of what is taken; everything else has a reason."""
    series = found(root)
    marked = [k for k, each in enumerate(series) if each.description in annotated]
    choice = choose_series(series, selectors, annotated=marked)
    assert len(choice.taken) + len(choice.passed_over) == len(series)
    assert all(each.reason and each.kind for each in choice.passed_over)
    assert all(each.why for each in choice.taken)
    return {each.series.description for each in choice.taken}


def reasons(root: Path, *selectors: str) -> dict[str, str]:
    choice = choose_series(found(root), selectors)
    names = {each.uid: each.description for each in found(root)}
    return {
        each.series.description: f"{each.what} of {names[each.instead.uid]}" if each.instead else each.what
        for each in choice.passed_over
    }


@pytest.fixture(scope="module")
def chest(tmp_path_factory) -> Path:
    """One scan in eight series."""
    root = tmp_path_factory.mktemp("chest")
    add(root, "soft 3", SeriesNumber=2)
    add(root, "lung 3", SeriesNumber=3, ConvolutionKernel=LUNG)
    add(root, "soft 6", SeriesNumber=4, step=6)
    add(root, "cor", SeriesNumber=5, plane="coronal", ImageType=MPR)
    add(root, "sag", SeriesNumber=6, plane="sagittal", ImageType=MPR)
    add(root, "thick", SeriesNumber=7, step=10, ImageType=MIP)
    add(root, "ax mpr", SeriesNumber=8, step=2, ImageType=MPR)
    add(root, "admire", SeriesNumber=9, ConvolutionKernel=["B31f", "3"])
    return root


def test_a_scan_in_many_series_is_one_case(chest):
    assert taken(chest) == {"soft 3"}
    assert reasons(chest) == {
        "lung 3": "second kernel B70f of soft 3",
        "soft 6": "6 mm instead of 3 mm of soft 3",
        "cor": "coronal reformat of soft 3",
        "sag": "sagittal reformat of soft 3",
        "thick": "maximum intensity projection of soft 3",
        "ax mpr": "2 mm instead of 3 mm, derived, of soft 3",
        "admire": "second kernel B31f 3 of soft 3",
    }


def test_each_step_of_the_order_decides_where_those_before_are_equal(tmp_path):
    """The order, from its end: each series added goes before all that are there."""

    def expect(name: str) -> None:
        assert taken(tmp_path) == {name}

    derived = ["DERIVED", "SECONDARY", "AXIAL"]
    add(tmp_path, "sagittal", plane="sagittal", ImageType=MPR, SeriesNumber=1)
    expect("sagittal")
    add(tmp_path, "coronal", plane="coronal", ImageType=MPR, SeriesNumber=20)
    expect("coronal")
    add(tmp_path, "derived", step=1, ImageType=derived, SeriesNumber=21)
    expect("derived")
    add(tmp_path, "original", step=6, ConvolutionKernel=LUNG, SeriesNumber=22)
    expect("original")
    add(tmp_path, "thin, sharp", ConvolutionKernel=LUNG, SeriesNumber=23)
    expect("thin, sharp")
    add(tmp_path, "thin, unknown", ConvolutionKernel="XY9", SeriesNumber=24)
    expect("thin, unknown")
    add(tmp_path, "thin, soft", SeriesNumber=26)
    expect("thin, soft")
    add(tmp_path, "lower number", ConvolutionKernel="B30f", SeriesNumber=25)
    expect("lower number")
    add(tmp_path, "no number", ConvolutionKernel="B20f", SeriesNumber=None)
    expect("lower number")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"step": 3}, {"step": 1.5, "SliceThickness": 6}),  # thick slices that overlap
        ({"step": 3}, {"step": 10, "SliceThickness": 1}),  # thin ones with gaps between them
        ({"step": 1.5, "SliceThickness": 3}, {"step": 3}),
        ({"step": 3, "SliceThickness": 3.01}, {"step": 6, "SliceThickness": None}),
    ],
)
def test_thin_is_what_resolves_most_along_the_slices(tmp_path, first, second):
    add(tmp_path, "second", SeriesNumber=1, **second)
    add(tmp_path, "first", SeriesNumber=2, **first)
    assert taken(tmp_path) == {"first"}


@pytest.mark.parametrize(
    "told",
    [
        {"AcquisitionNumber": (1, 2, 3)},
        {"AcquisitionTime": ("101010", "101040", "101140"), "AcquisitionNumber": (1, 1, 1)},
        {
            "ContrastBolusAgent": ("", "X", "X"),
            "SeriesDescription": ("1", "art 1", "ven 1"),
            "AcquisitionTime": (None,) * 3,
        },
        {
            "SeriesDescription": ("Thorax nativ", "Thorax arteriell", "Thorax portalvenös"),
            "AcquisitionNumber": (None,) * 3,
        },
        {"IrradiationEventUID": ("1.2.1", "1.2.2", "1.2.3")},
        {"TemporalPositionIdentifier": (1, 2, 3)},
        {"KVP": (80, 100, 140)},
    ],
    ids=lambda told: "+".join(told),
)
def test_phases_of_contrast_are_scans_of_their_own(tmp_path, told):
    """Also where they differ in thickness and kernel, which would make two series of one scan."""
    for k, name in enumerate(("native", "arterial", "venous")):
        tags = {key: values[k] for key, values in told.items()}
        add(tmp_path, name, step=(1, 3, 6)[k], ConvolutionKernel=(SOFT, LUNG, "B20f")[k], **tags)
    assert len(choose_series(found(tmp_path)).taken) == 3


def test_what_nothing_explains_is_taken(tmp_path):
    for name in ("one", "two", "three"):  # all headers say the same
        add(tmp_path, name, SeriesNumber=3)
    assert taken(tmp_path) == {"one", "two", "three"}


@pytest.mark.parametrize("told", [{}, {"AcquisitionTime": None}, {"AcquisitionTime": None, "AcquisitionNumber": None}])
def test_phases_of_breathing_are_all_taken_and_their_average(tmp_path, told):
    for percent in range(0, 100, 10):
        add(tmp_path, f"4D {percent}%", **told)
    add(tmp_path, "4D average", ImageType=["DERIVED", "PRIMARY", "AXIAL", "AVERAGE"], **told)
    add(tmp_path, "4D MIP", ImageType=["DERIVED", "PRIMARY", "AXIAL", "MIP"], **told)
    add(tmp_path, "4D 50% coronal", plane="coronal", ImageType=MPR, **told)

    assert taken(tmp_path) == {f"4D {percent}%" for percent in range(0, 100, 10)} | {"4D average"}
    assert reasons(tmp_path)["4D 50% coronal"] == "coronal reformat of 4D 50%"


def test_phases_under_one_uid_are_all_taken(tmp_path):
    for phase in range(10):
        add(
            tmp_path,
            f"phase {phase}",
            SeriesInstanceUID="1.2.3",
            SeriesDescription="4D",
            TemporalPositionIdentifier=phase,
        )
    series = found(tmp_path)
    assert len(choose_series(series).taken) == len(series) == 10


def test_inspiration_and_expiration(tmp_path):
    add(tmp_path, "Insp. 1.0", AcquisitionTime=None)
    add(tmp_path, "Exp. 3.0", step=6, AcquisitionTime=None)
    assert taken(tmp_path) == {"Insp. 1.0", "Exp. 3.0"}


@pytest.mark.parametrize("apart", [{"study": "other"}, {"frame": "other"}, {"PatientID": "P2"}])
def test_other_studies_frames_and_patients_are_other_scans(tmp_path, apart):
    add(tmp_path, "thin")
    add(tmp_path, "thick", step=6, **apart)
    assert taken(tmp_path) == {"thin", "thick"}


def test_a_reformat_of_a_scan_that_is_not_there_is_taken(tmp_path):
    add(tmp_path, "native")
    add(tmp_path, "venous cor", plane="coronal", ImageType=MPR, AcquisitionTime="103000")
    assert taken(tmp_path) == {"native", "venous cor"}


def test_a_reformat_with_a_frame_of_reference_of_its_own_belongs_to_the_scan_of_its_time(tmp_path):
    add(tmp_path, "axial")
    add(tmp_path, "cor", plane="coronal", ImageType=MPR, frame="other")
    assert taken(tmp_path) == {"axial"}
    add(tmp_path, "late cor", plane="coronal", ImageType=MPR, frame="other", AcquisitionTime="103000")
    add(tmp_path, "timeless cor", plane="coronal", ImageType=MPR, frame="another", AcquisitionTime=None)
    assert taken(tmp_path) == {"axial", "late cor", "timeless cor"}


def test_a_series_that_shows_more_of_the_patient_is_taken(tmp_path):
    add(tmp_path, "chest", step=3, height=30)
    add(tmp_path, "chest and abdomen", step=6, height=60)
    series = found(tmp_path)
    choice = choose_series(series)
    assert len(choice.taken) == 2
    assert any("shows 30 mm more than" in each.why for each in choice.taken)


def test_a_reformat_over_two_scans_is_one_of_both(tmp_path):
    add(tmp_path, "both", step=6, plane="coronal", ImageType=MPR, AcquisitionNumber=None, AcquisitionTime=None)
    for name, z, number in (("neck", 30, 1), ("chest", -30, 2)):
        from pydicom import dcmread

        add(tmp_path, name, height=60, AcquisitionNumber=number)
        for file in (tmp_path / name).iterdir():
            data = dcmread(file)
            x, y, old = data.ImagePositionPatient
            data.ImagePositionPatient = [x, y, old + z]
            data.save_as(file)
    assert taken(tmp_path) == {"neck", "chest"}


def test_a_targeted_reconstruction_does_not_stand_for_the_body(tmp_path):
    add(tmp_path, "spine", step=1, size=20, ConvolutionKernel=LUNG)
    add(tmp_path, "body", step=3)
    add(tmp_path, "arms in", step=3, size=80)
    assert taken(tmp_path) == {"body"}
    assert reasons(tmp_path) == {
        "spine": "part of the field of view of body",
        "arms in": "another field of view of body",
    }


def test_other_quantities_give_way_to_the_conventional_scan(tmp_path):
    kinds = {"DE 70 keV": {}, "vnc": {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "VNC"]}, "map": {
        "ImageType": ["DERIVED", "PRIMARY", "VOLUME", "MAT_SPECIFIC"]}}  # fmt: skip
    for name, tags in kinds.items():
        add(tmp_path, name, **{"ConvolutionKernel": "Qr40", **tags})
    alone = taken(tmp_path)
    add(tmp_path, "mixed", SeriesNumber=9)
    assert alone == set(kinds)  # none stands for another
    assert taken(tmp_path) == {"mixed"}
    assert reasons(tmp_path)["DE 70 keV"] == "monoenergetic images of mixed"


def test_a_projection_alone_is_no_scan(tmp_path):
    add(tmp_path, "mip", ImageType=MIP)
    series = found(tmp_path)
    choice = choose_series(series)
    assert choice.taken == ()
    assert "maximum intensity projection" in choice.passed_over[0].reason
    with pytest.raises(DataError, match=r"None of its 1 series is a scan .*--series all"):
        require_choice(series, choice)
    assert taken(tmp_path, "all") == taken(tmp_path, "plane=axial") == {"mip"}


def test_what_has_structures_is_taken_and_stands_for_its_scan(chest):
    assert taken(chest, annotated=("soft 6",)) == {"soft 6"}
    assert taken(chest, annotated=("soft 6", "cor")) == {"soft 6", "cor"}
    assert taken(chest, annotated=("thick",)) == {"thick", "soft 3"}  # a projection stands for nothing


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("plane=coronal", "cor"),
        ("Plane = CORONAL", "cor"),
        ("kernel=B70f", "lung 3"),
        ("kernel=b70*", "lung 3"),
        ("kernel=sharp", "lung 3"),
        ("kernel=soft", "soft 3"),
        ("kernel=B31f 3", "admire"),
        ("thickness=6", "soft 6"),
        ("thickness=5..7mm", "soft 6"),
        ("thickness>=6,plane=axial", "soft 6"),
        ("thickness<3", "ax mpr"),
        ("step>5,step<9", "soft 6"),
        ("number=3", "lung 3"),
        ("number=5..6", "cor"),
        ("description=LUNG-3", "lung 3"),
        ("description=*mpr", "ax mpr"),
        ("description=s[ao]*,thickness=6", "soft 6"),
        ("thickness=10", "thick"),
    ],
)
def test_selectors(chest, selector, expected):
    assert taken(chest, selector) == {expected}


def test_a_uid_selects_whole_or_with_wildcards(chest):
    series = next(each for each in found(chest) if each.description == "sag")
    assert taken(chest, f"uid={series.uid}") == taken(chest, f"uid=*{series.uid[-9:]}") == {"sag"}


def test_each_selector_chooses_on_its_own(chest):
    assert taken(chest, "plane=axial", "plane=coronal") == {"soft 3", "cor"}
    assert taken(chest, "description=*") == {"soft 3"}  # one of each scan
    assert len(taken(chest, "all")) == 8
    assert reasons(chest, "plane=axial")["cor"] == "not selected by --series"


@pytest.mark.parametrize(
    ("selector", "line"),
    [
        ("kernl=B70f", "there is no key kernl. Use description, plane"),
        ("plane=axial,kernl=B70f", "there is no key kernl"),
        ("plane=axal", "there is no plane axal. Use axial, coronal"),
        ("thickness=thin", "thin is no number or range"),
        ("thickness=3..1", "no number or range"),
        ("thickness<=1..2", "no number or range"),
        ("thickness=nan", "no number or range"),
        ("plane<3", "plane is no number. Write plane=3"),
        ("B70f", "not KEY=VALUE. Write description="),
        ("kernel=", "not KEY=VALUE"),
        ("", "not KEY=VALUE"),
    ],
)
def test_selectors_that_cannot_be_read_say_what_there_is(chest, selector, line):
    with pytest.raises(ConfigError) as error:
        choose_series(found(chest), [selector])
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_a_selector_that_fits_nothing_lists_what_there_is(chest):
    series = found(chest)
    with pytest.raises(DataError) as error:
        require_choice(series, choose_series(series, ["plane=axial", "kernel=B99f"]))
    (line,) = error.value.problems
    assert line.startswith("--series kernel=B99f: no series fits it. There are: ")
    assert '2 "soft 3" (axial, 3 mm, B31f)' in line
    assert '5 "cor" (coronal, 3 mm, B31f)' in line


def test_a_description_may_hold_commas(tmp_path):
    add(tmp_path, "Thorax, nativ, 3 mm")
    assert taken(tmp_path, "description=Thorax, nativ, 3 mm") == {"Thorax, nativ, 3 mm"}


def test_series_of_takes_the_first_and_says_so(chest):
    series = series_of(chest)
    assert series.description == "soft 3"
    assert any("first of the 8 series of its scan" in note for note in series.notes)
    assert series_of(chest, series=["kernel=sharp"]).description == "lung 3"


def test_series_of_refuses_several_scans(tmp_path):
    add(tmp_path, "native", AcquisitionNumber=1)
    add(tmp_path, "venous", AcquisitionNumber=2)
    with pytest.raises(DataError, match=r"2 CT series .*--series"):
        series_of(tmp_path)
    assert series_of(tmp_path, series=["description=ven*"]).description == "venous"


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.sets(st.integers(0, 7)))
def test_neither_order_nor_what_gives_way_changes_the_choice(chest, chance: random.Random, left_out):
    """What is passed over may come or go; whatever is there, the order makes no difference."""
    series = list(found(chest))
    everything = choose_series(series)
    kept = [s for k, s in enumerate(series) if k not in left_out or s in everything.series]
    first = choose_series(kept)
    chance.shuffle(kept)
    again = choose_series(kept)

    assert set(everything.series) == set(first.series) == set(again.series)
    assert {(p.series.uid, p.reason) for p in first.passed_over} == {
        (p.series.uid, p.reason) for p in again.passed_over
    }


def test_how_the_patient_lay_is_told(tmp_path):
    add(tmp_path, "a", PatientPosition="FFP", step=2)
    series = found(tmp_path)
    with pytest.raises(DataError, match="axial, 2 mm, B31f, feet first, prone"):
        require_choice(series, choose_series(series, ["number=99"]))


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("Thorax nativ 1.0 Br40", {"native"}),
        ("CHEST W/O", {"native"}),
        ("Abd_arterial_phase", {"arterial"}),
        ("Leber portalvenös", {"venous"}),
        ("Late arterial", {"late", "arterial"}),
        ("Insp. 1.0", {"inspiration"}),
        ("4D 30% ex", {"30%"}),
        ("T 05 %", {"5%"}),
        ("Chest ASIR 40%", set()),
        ("Lung ASiR-V 50% venous", {"venous"}),
        ("Heart, partial, expert, natural, ventral", set()),
        ("C-Spine, Neck", set()),
    ],
)
def test_phases_that_a_description_names(description, expected):
    assert phases_named(description) == expected


def test_a_time_that_de_identification_left_says_nothing(tmp_path):
    add(tmp_path, "thin", AcquisitionTime="000000.00", AcquisitionNumber=None)
    add(tmp_path, "thick venous", step=6, AcquisitionTime="000000.00", AcquisitionNumber=None)
    assert taken(tmp_path) == {"thin", "thick venous"}


def test_one_selector_may_be_a_text(chest):
    assert series_of(chest, series="kernel=sharp").description == "lung 3"


@pytest.mark.parametrize("told", [{"AcquisitionTime": None, "AcquisitionNumber": None}])
def test_where_nothing_is_known_of_the_acquisition(tmp_path, told):
    add(tmp_path, "a", **told)
    add(tmp_path, "a thick", step=6, **told)
    add(tmp_path, "a cor", plane="coronal", ImageType=MPR, **told)
    add(tmp_path, "a short", step=6, height=30, **told)
    assert taken(tmp_path) == {"a", "a short"}  # of one range, of another
    made = ["DERIVED", "SECONDARY"]
    add(tmp_path, "b", study="2", frame="2", ImageType=made, **told)
    add(tmp_path, "b thick", study="2", frame="2", step=6, ImageType=made, **told)  # as converters write any scan
    add(tmp_path, "b cor", study="2", frame="2", plane="coronal", ImageType=made, **told)
    assert taken(tmp_path) == {"a", "a short", "b", "b thick"}


def test_an_original_scan_that_a_planning_system_stored_again_is_original(tmp_path):
    add(tmp_path, "planning", step=6, ImageType=["ORIGINAL", "SECONDARY", "AXIAL"])
    add(tmp_path, "mpr", step=3, ImageType=MPR)
    assert taken(tmp_path) == {"planning"}


def test_a_reconstruction_of_all_phases_does_not_stand_for_them(tmp_path):
    add(tmp_path, "4D", step=2, ConvolutionKernel="B20f")
    for percent in (0, 50):
        add(tmp_path, f"4D {percent}%")
    assert taken(tmp_path) == {"4D", "4D 0%", "4D 50%"}

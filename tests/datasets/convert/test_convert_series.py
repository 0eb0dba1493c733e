"""Of a study's series, conversion, listing and doctor take those that were drawn on, and one of each other scan."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pydicom import dcmread

from lnsegfm.datasets.convert import SETS, ConversionOptions, ConversionResult, convert, list_tree
from lnsegfm.datasets.doctor.dicom_diagnosis import diagnose_tree
from lnsegfm.errors import ConfigError, DataError
from tests.datasets.convert.clinic import rtstruct
from tests.imaging.dicom.studies import MIP, MPR, add, uid

ROI = ("LN*=lymph_node",)
NODE = ((8, 10), (5, 8), (6, 10))


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))


@pytest.fixture
def study(tmp_path) -> Path:
    """A scan in thin and thick slices, a reformat, a projection; drawn on the thick ones; and a scan without any."""
    root = tmp_path / "in"
    add(root, "thin", SeriesNumber=2)
    add(root, "thick", SeriesNumber=3, step=6)
    add(root, "cor", SeriesNumber=4, plane="coronal", ImageType=MPR)
    add(root, "mip", SeriesNumber=5, step=10, ImageType=MIP)
    add(root, "late soft", SeriesNumber=6, AcquisitionTime="102000", AcquisitionNumber=2)
    add(root, "late lung", SeriesNumber=7, AcquisitionTime="102000", AcquisitionNumber=2, ConvolutionKernel="B70f")
    draw(root, "thick")
    return root


def draw(root: Path, name: str) -> None:
    """A structure set of one square on the middle slice of a series."""
    path = root / f"rs {name}.dcm"
    rtstruct(path, {"LN 1": NODE}, series_uid=uid(name), frame_uid=uid("fr"))
    data = dcmread(path)
    slices = sorted((root / name).iterdir())
    x, y, z = (float(v) for v in dcmread(slices[len(slices) // 2]).ImagePositionPatient)
    data.StudyInstanceUID = uid("st")
    contour = data.ROIContourSequence[0].ContourSequence
    del contour[1:]
    square = ((x + 12, y + 12), (x + 38, y + 12), (x + 38, y + 38), (x + 12, y + 38))
    contour[0].ContourData = [v for a, b in square for v in (a, b, z)]
    data.save_as(path)


def run(tmp_path: Path, *selectors: str, unlabelled: bool = False) -> ConversionResult:
    options = ConversionOptions(roi=ROI, series=selectors, unlabelled=unlabelled)
    return convert(SETS["dicom"], tmp_path / "in", tmp_path / "out", options)


def listed(root: Path, *selectors: str) -> dict[str, str]:
    return {each["description"]: each["choice"] for each in list_tree(root, ROI, selectors=selectors)["series"]}


def test_what_was_drawn_on_is_taken_and_no_other_series_of_its_scan(tmp_path, study):
    result = run(tmp_path, unlabelled=True)

    assert (result.failed, len(result.written)) == ((), 2)
    assert len(list((tmp_path / "out" / "labelsTr").iterdir())) == 1
    assert len(list((tmp_path / "out" / "imagesTs").iterdir())) == 1  # the late scan; the thin slices would be a leak
    assert f"Series {uid('thin')}: passed over: 3 mm instead of 6 mm of series {uid('thick')}." in result.left_out
    assert (
        f"Series {uid('late lung')}: passed over: second kernel B70f of series {uid('late soft')}." in result.left_out
    )
    record = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert record["counts"]["passed_over"] == len(record["passed_over"]) == 4
    assert {each["kind"] for each in record["passed_over"]} == {"thickness", "reformat", "projection", "kernel"}
    told = (tmp_path / "out" / "conversion.json").read_text()
    assert not any(uid(name) in told for name in ("thin", "thick", "cor", "mip", "late lung"))
    assert run(tmp_path, unlabelled=True).written == ()  # the same command goes on


def test_every_series_with_structures_is_a_case(tmp_path, study):
    draw(study, "thin")
    draw(study, "mip")
    result = run(tmp_path)
    assert result.failed == ()
    assert len(result.written) == 3


def test_selectors_restrict_a_conversion(tmp_path, study):
    draw(study, "thin")
    result = run(tmp_path, "thickness<=3,plane=axial")
    assert len(result.written) == 1
    assert f"Series {uid('thick')}: passed over: not selected by --series." in result.left_out
    with pytest.raises(DataError, match="holds a conversion with another series"):
        run(tmp_path)
    with pytest.raises(DataError, match=r"--series kernel=B99: no series fits it\. There are: "):
        list_tree(study, selectors=["kernel=B99"])
    with pytest.raises(ConfigError, match="there is no key colour"):
        run(tmp_path, "colour=red")


def test_the_listing_says_of_each_series_what_becomes_of_it(tmp_path, study):
    assert listed(study) == {
        "thin": 'passed over: 3 mm instead of 6 mm of series 3 "thick"',
        "thick": "taken: it has structures",
        "cor": 'passed over: coronal reformat of series 3 "thick"',
        "mip": 'passed over: maximum intensity projection of series 3 "thick"',
        "late soft": "taken: first of the 2 series of its scan",
        "late lung": 'passed over: second kernel B70f of series 6 "late soft"',
    }
    assert listed(study, "number=4")["cor"] == "taken: selected by --series number=4"
    assert listed(study, "number=4")["thick"] == "passed over: not selected by --series"


def test_the_listing_fits_a_terminal(lnsegfm_here, study, monkeypatch):
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_: os.terminal_size((80, 24)))
    done = lnsegfm_here("data", "convert", "dicom", study, "--list", "--roi", ROI[0])
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    assert len([line for line in said if "; taken: " in line or "; passed over: " in line]) == 6
    assert max(map(len, said)) <= 80
    assert '  coronal, 3 mm, B31f; passed over: coronal reformat of series 3 "thick"' in said


def test_the_doctor_looks_at_what_is_taken_and_names_the_others(study):
    diagnosis = diagnose_tree(study)
    assert {case.case for case in diagnosis.cases} == {uid("thick"), uid("late soft")}
    over = {f.case: f.what for f in diagnosis.findings if f.kind == "passed-over"}
    assert over[uid("cor")] == 'coronal reformat of series 3 "thick"'
    assert set(over) == {uid(name) for name in ("thin", "cor", "mip", "late lung")}
    assert {f.severity for f in diagnosis.findings if f.kind == "passed-over"} == {"note"}
    assert {case.case for case in diagnose_tree(study, selectors=["kernel=sharp"]).cases} == {uid("late lung")}


def test_check_of_a_study_ends_well(lnsegfm_here, study):
    done = lnsegfm_here("data", "check", study)
    assert done.returncode == 0, done.stderr
    wrong = lnsegfm_here("data", "check", study, "--series", "plane=sagittal")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("lnsegfm: --series plane=sagittal: no series fits it. There are: ")


def test_projections_alone_are_an_error_of_the_doctor(tmp_path):
    add(tmp_path, "mip", ImageType=MIP)
    (finding,) = [f for f in diagnose_tree(tmp_path).findings if f.kind == "passed-over"]
    assert (finding.severity, finding.what) == ("error", "maximum intensity projection, which is no scan")

"""What stays in a dataset, and what of a private source may not be told there."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from lnsegfm.datasets.convert import SETS, ConversionOptions, ConversionResult, convert
from lnsegfm.datasets.convert.conversion_plan import ConversionPlan, LoadedScan, PlannedScan, labels_of
from lnsegfm.datasets.convert.conversion_record import RECORD, redact
from lnsegfm.errors import DataError
from lnsegfm.imaging.files import write_mask, write_volume
from tests.datasets.convert.clinic import GRID, NODE, ct, filled, rtstruct, scan

LN = ConversionOptions(roi=("LN*=lymph_node",))


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))


def patient(folder: Path, number: int, seed: int, **more: float) -> dict[str, str]:
    """A scan and its structure set; gives the names by which another structure set can name the scan."""
    head = ct(folder / f"ct{number}", seed, PatientID=f"P{number}")
    names = {"series_uid": head.SeriesInstanceUID, "frame_uid": head.FrameOfReferenceUID}
    rtstruct(folder / f"rs{number}.dcm", {"LN_1": NODE}, **names, **more)
    return names


def run(tmp_path: Path) -> ConversionResult:
    return convert(SETS["dicom"], tmp_path / "in", tmp_path / "out", LN)


def test_of_a_case_that_fails_now_nothing_stays(tmp_path):
    patient(tmp_path / "in", 1, 1)
    names = patient(tmp_path / "in", 2, 2)
    assert len(run(tmp_path).written) == 2
    rtstruct(tmp_path / "in" / "rs2.dcm", {"LN_1": NODE}, tilt_mm=2.9, **names)
    result = run(tmp_path)
    (kept,) = result.kept
    (line,) = result.failed
    assert kept not in line
    folders = ("imagesTr", "labelsTr", "cases")
    assert {p.name.split("_")[0].split(".")[0] for f in folders for p in (tmp_path / "out" / f).iterdir()} == {kept}


def test_two_scans_of_equal_voxels_are_two_cases_of_a_private_source(tmp_path):
    for number in (1, 2):
        patient(tmp_path / "in", number, 7)
    result = run(tmp_path)
    assert (len(result.written), dict(result.duplicates)) == (2, {})


def test_a_duplicate_of_a_public_set_is_recorded_and_counts_as_no_case(tmp_path):
    other = dataclasses.replace(GRID, spacing_mm=(2.0, 1.0, 1.0))  # equal voxels of another size: another scan
    for number, grid in ((1, GRID), (2, GRID), (3, other)):
        name = f"MED_LYMPH_{number:03d}"
        ct(tmp_path / "in" / name, 7, PatientID=name, grid=grid)
        write_mask(tmp_path / "in" / f"{name}_mask.nii.gz", filled(NODE).astype(np.uint8), grid)
    out = tmp_path / "out"
    result = convert(SETS["ct-lymph-nodes"], tmp_path / "in", out)
    assert dict(result.duplicates) == {"MED_LYMPH_002": "MED_LYMPH_001"}
    assert json.loads((out / "dataset.json").read_text())["numTraining"] == 2
    names = ["MED_LYMPH_001", "MED_LYMPH_003"]
    assert (out / "subjects.csv").read_text().splitlines() == ["case,subject", *(f"{name},{name}" for name in names)]
    record = json.loads((out / RECORD).read_text())
    assert (record["counts"]["training"], record["counts"]["duplicates"], len(record["cases"])) == (2, 1, 3)
    assert sorted(path.name for path in (out / "imagesTr").iterdir()) == [f"{name}_0000.nii.gz" for name in names]


def test_of_a_part_that_is_asked_for_alone_scans_without_reference_are_no_training_cases(tmp_path):
    for number in (1, 2):
        write_volume(tmp_path / "in" / f"lnq2023-val-000{number}-ct.nrrd", scan(number), GRID)
    write_mask(tmp_path / "in" / "lnq2023-val-0001-seg.nrrd", filled(NODE).astype(np.uint8), GRID)
    options, out = ConversionOptions(part="validation", unlabelled=True), tmp_path / "out"
    for _ in range(2):
        result = convert(SETS["lnq2023"], tmp_path / "in", out, options)
        assert [p.name for p in (out / "imagesTr").iterdir()] == ["lnq2023-val-0001_0000.nii.gz"]
        assert [p.name for p in (out / "imagesTs").iterdir()] == ["lnq2023-val-0002_0000.nii.gz"]
        assert json.loads((out / "dataset.json").read_text())["numTraining"] == 1
        assert json.loads((out / RECORD).read_text())["counts"]["held_out_or_unlabelled"] == 1
    assert len(result.kept) == 2


@pytest.mark.parametrize(
    ("images", "value", "labelled", "told"),
    [
        (1, 5, True, r"Its mask holds \[5\], which no label has"),
        (1, 0, True, "Its reference is empty"),
        (1, None, True, "A reference was expected and not found"),
        (1, 1, False, "A reference was expected and not found"),
        (2, 1, True, "2 images for 1 channels"),
    ],
)
def test_what_no_case_may_be_is_a_failure_whichever_reader_gives_it(tmp_path, images, value, labelled, told):
    mask = None if value is None else np.full(GRID.shape, value, np.uint8)
    odd = PlannedScan("odd", "S", (), lambda: LoadedScan((scan(1),) * images, GRID, mask), labelled=labelled)
    good = PlannedScan("good", "S", (), lambda: LoadedScan((scan(2),), GRID, filled(NODE).astype(np.uint8)))
    card = dataclasses.replace(SETS["lnq2023"], plan=lambda *_: ConversionPlan(labels_of(LN.roi), (good, odd)))
    (tmp_path / "in").mkdir()
    result = convert(card, tmp_path / "in", tmp_path / "out")
    assert result.written == ("good",)
    (line,) = result.failed
    assert re.match(f"Case odd: {told}", line)


def test_what_cannot_be_read_is_told_on_the_terminal_and_not_named_in_the_dataset(tmp_path):
    patient(tmp_path / "in", 1, 1)
    names = patient(tmp_path / "in", 2, 2)
    damaged = tmp_path / "in" / "Schmidt"
    rtstruct(damaged, {"LN_1": NODE}, **names)
    damaged.write_bytes(damaged.read_bytes()[:-200])
    (tmp_path / "in" / "ct2" / "0002.dcm").unlink()
    result = run(tmp_path)
    assert any("Schmidt" in line for line in (*result.failed, *result.left_out))
    assert any(names["series_uid"] in line for line in result.failed)
    told = (tmp_path / "out" / RECORD).read_text()
    assert "Schmidt" not in told
    assert names["series_uid"] not in told
    assert any("gap between slices" in line for line in json.loads(told)["failed"])
    assert json.loads(told)["counts"]["failed"] == len(result.failed) == len(json.loads(told)["failed"])


@pytest.mark.parametrize(
    "line", ["No file /data/Schmidt here.", r"No file D:\Schmidt here.", "File Schmidt.DCM is odd."]
)
def test_of_a_message_with_a_path_nothing_is_left(line):
    assert redact(line) == "shown on the terminal: the message holds a path, which can hold a name"


@pytest.mark.parametrize("options", [["roi"], None, {}])
def test_a_record_with_odd_options_is_another_conversion(tmp_path, options):
    patient(tmp_path / "in", 1, 1)
    run(tmp_path)
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    record["identity"]["options"] = options
    (tmp_path / "out" / RECORD).write_text(json.dumps(record))
    with pytest.raises(DataError, match="a conversion with another roi"):
        run(tmp_path)

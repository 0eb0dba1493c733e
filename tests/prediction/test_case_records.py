"""Records of cases, and what is derived from them."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lnsegfm.datasets.dataset import Case
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.evaluation.flags import Flag, read_flags
from lnsegfm.imaging.files import read_mask, write_mask
from lnsegfm.models.model_folder import Model
from lnsegfm.prediction import predict_cases as predicting
from lnsegfm.prediction.predict_cases import predict_cases
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.scans import Failure, Scans, find_scans
from lnsegfm.prediction.writers import writer_table
from lnsegfm.prediction.writers.case_records import (
    CaseRecord,
    read_record,
    record_file,
    records_in,
    write_record,
)
from lnsegfm.prediction.writers.cohort_summary import write_indexes, write_refusals
from lnsegfm.prediction.writers.mask_exports import MaskExports
from lnsegfm.prediction.writers.mask_writer import MaskExport
from lnsegfm.progress import Progress
from tests.prediction.test_predict_flags import write_random
from tests.scenes import scene, write_image

LABELS = LabelMap({"node": 1, "vessel": 2})
FULL = CaseRecord(
    case="a",
    status="failed",
    reason="no",
    model="weights 01",
    made_by={"model": ["01"], "step": 0.5},
    generation=2,
    mask="a.nii.gz",
    mask_sha256="ab",
    edited=True,
    shape=(3, 4, 5),
    spacing_mm=(2.0, 1.0, 1.5),
    volumes_ml={"node": 1.5, "vessel": 0.0},
    nodes={"node": {"number": 1, "largest_short_axis_mm": 7.5}},
    flags=(Flag("a", "hu", "Bright.", 2.0, 1.0),),
    sidecars=("a.npz",),
    exports=("a.seg.dcm",),
    per_node=True,
    series={"identity": "1.2.3", "uid": "1.2.3"},
)
PLAIN = PredictOptions(mirroring=False, device="cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_random(tmp_path_factory.mktemp("model"))


@pytest.fixture
def scans(tmp_path: Path) -> tuple[Case, ...]:
    for case in range(3):
        write_image(tmp_path / "scans" / f"case_{case}.nii.gz", scene(case)[0])
    return find_scans(tmp_path / "scans", 1).cases


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("record", [FULL, CaseRecord(case="a")])
def test_a_record_is_read_as_it_was_written(tmp_path, record):
    write_record(tmp_path, record)
    assert read_record(tmp_path, "a") == record
    assert records_in(tmp_path) == [record]


@pytest.mark.parametrize(
    "change",
    [{"format": "lnsegfm.case/1"}, {"flags": [3]}, {"series": {}}, {"exports": None}, {"generation": "x"}, {"case": 3}],
)
def test_a_damaged_record_is_none(tmp_path, change):
    write_record(tmp_path, FULL)
    file = record_file(tmp_path, "a")
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert read_record(tmp_path, "a") is None
    write_indexes(tmp_path, LABELS)
    assert json.loads((tmp_path / "summary.json").read_text())["cases"] == []


def test_what_is_derived_depends_on_the_records_alone(tmp_path):
    records = [replace(FULL, case=f"c{n}", flags=(Flag(f"c{n}", "hu", "x", 1.0, 0.0),) * (n % 3)) for n in range(12)]
    found = []
    for order in range(3):
        random.Random(order).shuffle(records)
        out = tmp_path / str(order)
        for number, record in enumerate(records):
            write_record(out, record)
            if number % (order + 2) == 0:
                write_indexes(out, LABELS)
        write_indexes(out, LABELS)
        write_indexes(out, LABELS)
        found.append(content(out))
    assert found[0] == found[1] == found[2]
    assert {name for name in found[0] if not name.endswith(".case.json")} == {
        *("flags.json", "series.json", "summary.json", "summary.csv")
    }
    assert read_flags(tmp_path / "0") == {record.case: record.flags for record in records}


def test_files_of_nothing_are_not_there(tmp_path):
    write_record(tmp_path, FULL)
    write_indexes(tmp_path, LABELS)
    write_record(tmp_path, replace(FULL, flags=None, series=None))
    write_indexes(tmp_path, LABELS, summary=False)
    assert sorted(content(tmp_path)) == ["a.case.json", "summary.csv", "summary.json"]
    (case,) = json.loads((tmp_path / "summary.json").read_text())["cases"]
    assert case["series"] is None  # a summary that is there is kept up to date


def test_each_input_keeps_its_own_refusals(tmp_path):
    def refused() -> list[str]:
        write_indexes(tmp_path, LABELS)
        return [one["series"] for one in json.loads((tmp_path / "summary.json").read_text())["refused"]]

    write_refusals(tmp_path, "b", [Failure("3", "x"), Failure("1", "y")])
    write_refusals(tmp_path, "a", [Failure("2", "x"), Failure("1", "y")])
    assert refused() == ["1", "2", "3"]
    write_refusals(tmp_path, "b", [])
    assert refused() == ["1", "2"]


def test_a_record_names_no_file_but_its_cases(tmp_path):
    out = tmp_path / "out"
    for name in ("a.mine", "b.mine", "mine"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("")
    record = replace(FULL, exports=("a.mine", "b.mine", "a./../mine", "a.x/../../out/mine", "../out/mine"))
    MaskExports(out, LABELS, Scans((Case("a", ()),))).remove("a", record)
    assert sorted(content(out)) == ["b.mine", "mine"]


def test_parts_of_a_cohort_add_up(model, scans, tmp_path):
    predict_cases(model, scans, tmp_path / "whole", PLAIN, summary=True)
    for part in (scans[2:], scans[:1], scans[1:]):
        predict_cases(model, part, tmp_path / "parts", PLAIN, summary=True)
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_a_failure_is_recorded_until_the_case_is_done(model, scans, tmp_path):
    out, whole = tmp_path / "out", scans[1].images[0].read_bytes()
    scans[1].images[0].write_bytes(b"no scan")
    predict_cases(model, scans, out, PLAIN, summary=True)
    record = read_record(out, "case_1")
    assert (record.status, record.mask) == ("failed", "")
    assert "case_1.nii.gz" in record.reason
    assert sorted(read_flags(out)) == ["case_0", "case_2"]
    scans[1].images[0].write_bytes(whole)
    predict_cases(model, scans, out, PLAIN, summary=True)
    predict_cases(model, scans, tmp_path / "never_failed", PLAIN, summary=True)
    assert content(out) == content(tmp_path / "never_failed")


class StopsAfterOne(Progress):
    def advance(self, *_: object) -> None:
        raise KeyboardInterrupt


def test_an_interrupted_overwriting_with_other_settings_is_finished(model, scans, tmp_path):
    out, other = tmp_path / "out", PLAIN.with_fields(step=1.0)
    predict_cases(model, scans, out, PLAIN)
    with pytest.raises(KeyboardInterrupt):
        predict_cases(model, scans, out, other.with_fields(overwrite=True), progress=StopsAfterOne())
    made_by = [read_record(out, case.name).made_by for case in scans]
    assert made_by[0] != made_by[2]

    found = predict_cases(model, scans, out, other)

    assert "case_0" not in found.done
    assert "case_2" in found.done
    predict_cases(model, scans, tmp_path / "fresh", other)
    for case in scans:
        assert read_record(out, case.name).made_by == made_by[0]
        name = f"{case.name}.nii.gz"
        assert (out / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()
    assert predict_cases(model, scans, out, other).done == ()


def test_a_mask_that_was_edited_is_not_lost_to_probabilities(model, scans, tmp_path):
    out = tmp_path / "out"
    predict_cases(model, scans, out, PLAIN, summary=True)
    mask, grid = read_mask(out / "case_1.nii.gz")
    write_mask(out / "case_1.nii.gz", np.zeros_like(mask), grid)
    before = (out / "case_1.nii.gz").read_bytes()

    found = predict_cases(model, scans, out, PLAIN.with_fields(probabilities=True), summary=True)

    assert [str(failure) for failure in found.failed] == [
        "Case case_1: case_1.nii.gz was corrected by hand, and probabilities are a prediction's. Leave out "
        "--probabilities, or --overwrite."
    ]
    assert found.done == ("case_0", "case_2")
    assert (out / "case_1.nii.gz").read_bytes() == before
    assert predict_cases(model, scans, out, PLAIN, summary=True).failed == ()
    record = read_record(out, "case_1")
    assert (record.edited, record.volumes_ml["node"], record.nodes["node"]["number"]) == (True, 0, 0)
    assert [read_record(out, name).edited for name in ("case_0", "case_2")] == [False, False]


class CountWriter:
    """Voxels of each label, as a text."""

    name = "count"
    needs_series = False

    def file_name(self, case: str) -> str:
        return f"{case}.count.txt"

    def check_labels(self, labels: LabelMap, per_node: bool) -> None:
        pass

    def write(self, export: MaskExport, destination: Path) -> None:
        counts = {name: int((export.mask == value).sum()) for name, value in export.labels.names.items()}
        destination.write_text(json.dumps(counts))


def test_a_format_of_ones_own_is_written_for_images_too(model, scans, tmp_path, monkeypatch):
    monkeypatch.setitem(writer_table.WRITERS.builtin, "count", CountWriter())
    out, options = tmp_path / "out", PLAIN.with_fields(formats=("count",))
    predict_cases(model, scans, out, options)
    for case in scans:
        mask, _ = read_mask(out / f"{case.name}.nii.gz")
        assert json.loads((out / f"{case.name}.count.txt").read_text())["node"] == (mask == 1).sum()
        assert read_record(out, case.name).exports == (f"{case.name}.count.txt",)
    (out / "case_1.count.txt").unlink()
    monkeypatch.setattr(predicting, "ready", None)  # no network is needed
    assert predict_cases(model, scans, out, options).skipped == tuple(case.name for case in scans)
    assert (out / "case_1.count.txt").is_file()

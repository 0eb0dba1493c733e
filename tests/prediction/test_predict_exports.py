"""What lies beside masks of DICOM series, however often it was interrupted, and what a list of scans may say."""

from __future__ import annotations

import csv
import json
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest

import lnsegfm
from lnsegfm.datasets.dataset import Case
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.evaluation.components import components
from lnsegfm.imaging.dicom import rtstruct_write, seg_write
from lnsegfm.imaging.dicom.rtstruct_options import RtstructOptions, Thinning
from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.seg_read import read_seg
from lnsegfm.imaging.dicom.segmentation import segments_mask
from lnsegfm.imaging.dicom.series import find_series, series_of
from lnsegfm.imaging.dicom.structure_masks import structures_mask
from lnsegfm.imaging.files import read_mask, write_mask, write_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.prediction.case_names import MAX_NAME, Names, identity, namer
from lnsegfm.prediction.inputs import find_inputs
from lnsegfm.prediction.predict_cases import Predictions, as_json
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.results import PredictedMask
from lnsegfm.prediction.scans import Failure, Scans
from lnsegfm.prediction.shared_folder import joined
from lnsegfm.prediction.writers import case_outputs
from lnsegfm.prediction.writers.case_outputs import CaseOutputs, Need
from lnsegfm.prediction.writers.case_records import CaseRecord, write_record
from lnsegfm.prediction.writers.cohort_summary import read_series_index, write_indexes, write_refusals
from lnsegfm.prediction.writers.mask_origin import MaskOrigin
from tests.imaging.dicom.scanner import write_series
from tests.scenes import SHAPE as SCENE
from tests.scenes import scene
from tests.world import World

SHAPE = (6, 12, 14)
GRID = Grid(SHAPE, (2.0, 1.0, 1.5), (-12.5, 4.0, 100.0))
LABELS = LabelMap({"lymph_node": 1, "vessel": 2})
BOTH = ("nifti", "rtstruct", "seg")
CASE = Case("a", ())
QUICK = ("--no-mirroring", "--device", "cpu", "--no-flags")


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))


def ct(folder: Path, **tags) -> Path:
    write_series(folder, np.zeros(SHAPE, dtype=np.int16), GRID, **tags)
    return folder


def two_nodes() -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[1:3, 2:4, 2:5] = 1
    mask[4, 8:11, 8:12] = 1
    mask[0:2, 9:11, 1:3] = 2
    return mask


@pytest.fixture
def exports(tmp_path):
    """Exports of the case ``a``, whose mask is there, with the settings that a test gives."""
    source = ct(tmp_path / "ct")
    write_mask(tmp_path / "out" / "a.nii.gz", two_nodes(), GRID)

    def with_settings(
        formats=BOTH,
        per_node=False,
        *,
        labels=LABELS,
        folder=None,
        model="weights 0123456789ab",
        overwrite=False,
        rtstruct=None,
        **how,
    ) -> CaseOutputs:
        options = PredictOptions(
            formats=formats, per_node=per_node, overwrite=overwrite, flags=False, rtstruct=rtstruct or RtstructOptions()
        )
        scans = Scans((CASE,), {"a": series_of(folder or source, **how)})
        return CaseOutputs(tmp_path / "out", MaskOrigin(labels=labels, title=model), scans, options)

    return with_settings


@pytest.fixture
def mask(tmp_path) -> Path:
    return tmp_path / "out" / "a.nii.gz"


def record(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "out" / "a.case.json").read_text())


def rois(tmp_path: Path) -> list[str]:
    return [roi.name for roi in read_rtstruct(tmp_path / "out" / "a.rtstruct.dcm").rois]


def lacks(outputs: CaseOutputs) -> bool:
    return outputs.need("a", 0) is Need.COMPLETE


class Killed(BaseException):
    """As if the process had been killed: nothing catches it."""


def killed_while(monkeypatch, module, name, outputs: CaseOutputs) -> None:
    def die(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, name, die)
        with pytest.raises(Killed):
            outputs.complete(CASE)


def test_killed_between_mask_and_exports_or_between_exports(exports, mask, tmp_path, monkeypatch):
    assert lacks(exports())
    killed_while(monkeypatch, seg_write, "write_seg", exports(per_node=True))
    assert rois(tmp_path) == ["lymph_node 1", "lymph_node 2", "vessel"]  # it is there, and no record says so

    assert lacks(exports())
    exports().complete(CASE)

    assert rois(tmp_path) == ["lymph_node", "vessel"]
    assert not lacks(exports())
    assert record(tmp_path)["exports"] == ["a.rtstruct.dcm", "a.seg.dcm"]


def test_a_killed_export_of_the_other_kind_does_not_pass_for_this_one(exports, mask, tmp_path, monkeypatch):
    exports(("nifti",)).complete(CASE)  # the record says: by label, no exports
    killed_while(monkeypatch, seg_write, "write_seg", exports(per_node=True))

    exports(("rtstruct",)).complete(CASE)

    assert rois(tmp_path) == ["lymph_node", "vessel"]
    assert not (tmp_path / "out" / "a.seg.dcm").exists()


def test_what_is_there_keeps_its_uids_when_the_other_format_is_asked_for_later(exports, mask, tmp_path):
    exports(("rtstruct",)).complete(CASE)
    before = (tmp_path / "out" / "a.rtstruct.dcm").read_bytes()
    assert lacks(exports())

    exports().complete(CASE)

    assert (tmp_path / "out" / "a.rtstruct.dcm").read_bytes() == before
    assert (tmp_path / "out" / "a.seg.dcm").is_file()
    assert not lacks(exports(("nifti",)))


def test_a_file_that_no_record_tells_of_is_written_over(exports, mask, tmp_path):
    exports(("nifti",)).complete(CASE)
    (tmp_path / "out" / "a.rtstruct.dcm").write_text("of somebody")
    assert lacks(exports(("rtstruct",)))
    exports(("rtstruct",)).complete(CASE)
    assert rois(tmp_path) == ["lymph_node", "vessel"]


def test_a_mask_that_was_corrected_by_hand_is_exported_anew(exports, mask, tmp_path):
    exports(per_node=True).complete(CASE)
    corrected = two_nodes()
    corrected[4] = 0
    write_mask(mask, corrected, GRID)
    assert exports(per_node=True).edited("a")
    assert lacks(exports(("nifti",)))

    exports(per_node=True).complete(CASE)

    assert rois(tmp_path) == ["lymph_node 1", "vessel"]
    assert record(tmp_path)["nodes"]["lymph_node"]["number"] == 1
    assert not exports(per_node=True).edited("a")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "other"}'])
def test_a_damaged_record_is_written_anew(exports, mask, tmp_path, content):
    (tmp_path / "out" / "a.case.json").write_text(content)
    assert lacks(exports())
    assert not exports().edited("a")
    write_indexes(tmp_path / "out", LABELS)
    exports().complete(CASE)
    assert record(tmp_path)["case"] == "a"


def test_one_export_that_fails_does_not_stop_the_other(exports, mask, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise DataError("Series 1: no. Do this.")

    with monkeypatch.context() as patch:
        patch.setattr(rtstruct_write, "write_rtstruct", refuse)
        with pytest.raises(DataError, match=r"^Series 1: no\. Do this\.$"):
            exports().complete(CASE)

    assert record(tmp_path)["exports"] == ["a.seg.dcm"]
    assert record(tmp_path)["volumes_ml"]["lymph_node"] == pytest.approx(24 * 3e-3)
    assert lacks(exports())
    exports().complete(CASE)
    assert record(tmp_path)["exports"] == ["a.rtstruct.dcm", "a.seg.dcm"]


def test_an_empty_mask_gives_files_that_say_so(exports, mask, tmp_path):
    write_mask(mask, np.zeros(SHAPE, dtype=np.uint8), GRID)
    for per_node in (False, True):
        exports(per_node=per_node).complete(CASE)
        assert not (tmp_path / "out" / "a.rtstruct.dcm").exists()  # a structure set has a structure with contours
        assert record(tmp_path)["exports"] == ["a.seg.dcm"]
        assert record(tmp_path)["export_notes"]["rtstruct"]["nothing_found"] is True
        assert "Nothing was found" in exports().export_notes("a")[0]
        assert not lacks(exports(per_node=per_node))
        segments = read_seg(tmp_path / "out" / "a.seg.dcm")
        assert segments.names == ("lymph_node", "vessel")
        assert not segments_mask(segments, GRID, ["*=lymph_node"], LABELS.names).any()
        found = record(tmp_path)
        assert found["nodes"] == {"lymph_node": {"number": 0, "largest_short_axis_mm": None}}
        assert found["volumes_ml"] == {"lymph_node": 0.0, "vessel": 0.0}


def test_only_nodes_are_numbered_and_all_labels_where_none_is_named_as_nodes(exports, mask, tmp_path):
    exports(per_node=True).complete(CASE)
    assert rois(tmp_path) == ["lymph_node 1", "lymph_node 2", "vessel"]
    others = LabelMap({"spleen": 1, "vessel": 2}, ignore=3)
    exports(per_node=True, labels=others).complete(CASE)
    assert rois(tmp_path) == ["lymph_node 1", "lymph_node 2", "vessel"]  # same mask, same pieces: it stands
    (tmp_path / "out" / "a.case.json").unlink()
    exports(per_node=True, labels=others).complete(CASE)
    assert rois(tmp_path) == ["spleen 1", "spleen 2", "vessel 1"]  # as --nodes does


def test_the_model_is_named_in_every_file(exports, mask, tmp_path):
    exports(model="weights 0123456789ab (some-name-" + "x" * 60 + ")").complete(CASE)
    drawn = pydicom.dcmread(tmp_path / "out" / "a.rtstruct.dcm")
    segments = pydicom.dcmread(tmp_path / "out" / "a.seg.dcm")
    algorithm = segments.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    version = pydicom.dcmread(tmp_path / "out" / "a.rtstruct.dcm").SoftwareVersions
    for told in (
        drawn.StructureSetROISequence[0].ROIGenerationDescription,
        drawn.StructureSetDescription,
        algorithm.AlgorithmSource,
        record(tmp_path)["model"],
    ):
        assert "weights 0123456789ab" in told
    assert drawn.StructureSetROISequence[0].ROIGenerationDescription.startswith(f"lnsegfm {version}, ")
    assert algorithm.AlgorithmVersion == version
    assert len(algorithm.AlgorithmSource) <= 64


def test_a_series_without_a_frame_of_reference_keeps_its_mask(exports, mask, tmp_path):
    def without(data, _):
        del data.FrameOfReferenceUID

    bare = ct(tmp_path / "bare", change=without)
    with pytest.raises(DataError, match="FrameOfReferenceUID"):
        exports(folder=bare).complete(CASE)
    assert mask.is_file()
    assert list((tmp_path / "out").glob("*.dcm")) == []
    assert lacks(exports(folder=bare))


def test_a_straightened_series_is_exported_on_its_upright_grid(exports, mask, tmp_path):
    def slant(data, k):
        data.ImagePositionPatient[1] = float(data.ImagePositionPatient[1]) + 0.4 * k

    sheared = ct(tmp_path / "sheared", change=slant)
    write = exports(folder=sheared, straighten=True)
    series = write.scans.series["a"]
    found = np.zeros(series.grid.shape, dtype=np.uint8)
    found[1:4, 3:7, 3:8] = 1
    write_mask(mask, found, series.grid)
    write.complete(CASE)
    drawn = read_rtstruct(tmp_path / "out" / "a.rtstruct.dcm")
    segments = read_seg(tmp_path / "out" / "a.seg.dcm")
    wanted = ["lymph_node=lymph_node"]
    assert series.straightened
    assert np.array_equal(structures_mask(drawn, series.grid, wanted, LABELS.names), found)
    assert np.array_equal(segments_mask(segments, series.grid, wanted, LABELS.names), found)


@pytest.mark.parametrize(
    ("label", "per_node", "good"),
    [
        ("n" * 64, False, True),
        ("n" * 65, False, False),
        ("a\\b", False, False),
        (" a", False, False),
        ("ln " + "n" * 55, True, True),
        ("ln " + "n" * 56, True, False),
    ],
)
def test_labels_without_a_name_in_dicom_are_refused_before_predicting(exports, label, per_node, good):
    labels = LabelMap({label: 1})
    assert exports(("nifti",), per_node, labels=labels)
    if good:
        assert exports(per_node=per_node, labels=labels)
    else:
        with pytest.raises(ConfigError, match=r"^--format rtstruct: label .* is no name in DICOM"):
            exports(per_node=per_node, labels=labels)


def replaced(outputs: CaseOutputs, mask: Path, generation: int = 1) -> None:
    """As a prediction does: what belongs to the new mask is written before it has its name."""
    new = mask.with_name("new.nii.gz")
    write_mask(new, two_nodes(), GRID)
    outputs.before_mask(CASE, PredictedMask(new, None, None, None), generation)
    new.replace(mask)


def test_killed_while_another_series_takes_the_name_over(exports, mask, tmp_path, monkeypatch):
    first = exports()
    replaced(first, mask, 0)
    first.export("a")
    later = ct(tmp_path / "later")
    second, overwriting = exports(folder=later), exports(folder=later, overwrite=True)
    with pytest.raises(DataError, match=r"^a\.nii\.gz is the mask of another series with this name"):
        second.need("a", 0)
    assert overwriting.need("a", None) is overwriting.need("a", 1) is Need.PREDICT
    # killed here, before the new mask: the old one is still the first one's
    assert first.need("a", 1) is Need.NOTHING
    with pytest.raises(DataError, match="another series"):
        second.need("a", 1)

    def die(*_, **__):
        raise Killed

    with (
        monkeypatch.context() as patch
    ):  # killed once what belonged to the old mask is gone: no mask is there, of nobody
        patch.setattr(case_outputs, "write_record", die)
        with pytest.raises(Killed):
            replaced(overwriting, mask)

    assert not mask.exists()
    assert list((tmp_path / "out").glob("a.*")) == []
    assert second.need("a", 1) is first.need("a", 1) is Need.PREDICT

    replaced(overwriting, mask)

    assert overwriting.need("a", 1) is Need.COMPLETE  # its exports
    with pytest.raises(DataError, match="another series"):
        first.need("a", 1)


def test_a_series_and_an_image_of_one_name_are_not_taken_for_each_other(exports, mask, tmp_path):
    out = tmp_path / "out"

    def image() -> CaseOutputs:
        scans = Scans((Case("a", (tmp_path / "a.nii.gz",)),))
        return CaseOutputs(out, MaskOrigin(labels=LABELS), scans, PredictOptions(flags=False))

    def refused(outputs: CaseOutputs) -> bool:
        with pytest.raises(DataError, match="the mask of another series"):
            outputs.need("a", 0)
        return True

    image().complete(CASE)
    assert refused(exports())
    replaced(exports(), mask)
    exports().export("a")
    assert refused(image())
    write_indexes(out, LABELS)
    (out / "a.case.json").unlink()  # the index knows it, too
    assert refused(image())
    assert exports().need("a", 0) is Need.COMPLETE
    exports().complete(CASE)
    (out / "series.json").unlink()  # and the record without the index
    assert refused(image())
    assert exports().need("a", 0) is Need.NOTHING
    replaced(image(), mask)
    write_indexes(out, LABELS)
    assert read_series_index(out) == {}


def test_a_spreadsheet_executes_nothing_of_the_summary(tmp_path):
    evil, labels = "=HYPERLINK(A1)", LabelMap({"=node": 1})
    for name in (evil, "-a", "@b", "+c", "d"):
        write_record(tmp_path, CaseRecord(case=name, status="failed" if name == "-a" else "done", reason="=1+1"))
    write_refusals(tmp_path, "scans", (Failure("=x", "y", named=True),))
    write_indexes(tmp_path, labels)
    rows = list(csv.reader((tmp_path / "summary.csv").open()))
    assert [row[0] for row in rows] == ["case", "'+c", "'-a", f"'{evil}", "'@b", "d"]
    assert [row[1] for row in rows[1:]] == ["done", "failed", "done", "done", "done"]
    assert rows[2][2] == "'=1+1"
    assert rows[0][4:] == ["'=node_ml", "'=node_nodes", "'=node_largest_short_axis_mm"]
    told = json.loads((tmp_path / "summary.json").read_text())
    assert [case["case"] for case in told["cases"]] == ["+c", "-a", evil, "@b", "d"]
    assert told["refused"] == [{"series": "=x", "reason": "y"}]


def test_a_failure_names_its_case_once():
    assert str(Failure("a", "/x/a.nii.gz: no")) == "Case a: /x/a.nii.gz: no"
    assert str(Failure("1.2", "Series 1.2: no")) == "Series 1.2: no"
    assert str(Failure("a", "Case a: no")) == "Case a: no"
    assert str(Failure("1.2", "File x of series 1.2 is bad", named=True)) == "File x of series 1.2 is bad"
    failed = (Failure("x", "one."), Failure("x", "two."), Failure("y", "three."))
    assert as_json(Predictions(Path("o"), (), (), failed))["failed"] == {"x": "one. two.", "y": "three."}


# names


def test_names_that_clash_are_numbered_also_where_capitals_make_no_difference(tmp_path):
    ct(tmp_path / "in" / "a", PatientID="Doe", SeriesNumber=2)
    ct(tmp_path / "in" / "b", PatientID="Doe", SeriesNumber=2)
    ct(tmp_path / "in" / "c", PatientID="DOE", SeriesNumber=2)
    ct(tmp_path / "in" / "d", PatientID="../../" + "x" * 300, SeriesNumber=None)
    with find_inputs(tmp_path / "in", 1, names=Names.PATIENT) as scans:
        names = [case.name for case in scans.cases]
        assert len({name.casefold() for name in names}) == 4
        assert {name.casefold() for name in names} >= {"doe_2", "doe_2_2", "doe_2_3"}
        assert all(len(name) <= MAX_NAME + 4 and "/" not in name and not name.startswith(".") for name in names)
        assert sorted(scans.series) == names


def test_series_without_uid_have_names_that_tell_them_apart(tmp_path):
    def bare(data, _):
        del data.SeriesInstanceUID

    for number in (1, 2):
        ct(tmp_path / str(number), change=bare, SeriesNumber=number, SeriesDescription="Miller^Jo")
    found = [find_series(tmp_path / str(number)).series[0] for number in (1, 2)]
    for kind in (Names.SERIES, Names.CODE):
        names = [namer(kind, None)(series) for series in found]
        assert len(set(names)) == 2
        assert names == [namer(kind, None)(series) for series in found]
        assert not any("Miller" in name for name in names)
    assert identity(found[0]) != identity(found[1])


# lists


def listed(tmp_path: Path, text: str | bytes, channels: int = 1):
    file = tmp_path / "list.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return find_inputs(file, channels, names=Names.PATIENT)


def image(path: Path) -> Path:
    write_volume(path, np.zeros(SHAPE, dtype=np.int16), GRID)
    return path


def test_a_list_as_spreadsheets_write_it(tmp_path):
    image(tmp_path / "in, here" / "a b.nii.gz")
    other = image(tmp_path / "b.nii.gz")
    text = f'\ufeffCase , Path\r\n"Eins ",  "in, here/a b.nii.gz"\r\n\r\n,{other}\r\n,\r\n'
    text = text.replace(',  "in', ',"in')
    with listed(tmp_path, text) as scans:
        assert [case.name for case in scans.cases] == ["Eins", "b"]
        assert [failure.reason for failure in scans.refused] == [
            "list.csv, line 5: it names no path. Fill it in, or remove the line."
        ]


@pytest.mark.parametrize(
    "name", ["../b", "/b", "a/b", "a\\b", "..", ".b", "b.", "c:b", "a\tb", "x" * (MAX_NAME + 1), "é" * MAX_NAME]
)
def test_a_name_that_leads_out_of_the_folder_is_a_failure_of_its_line(tmp_path, name):
    image(tmp_path / "a.nii.gz")
    with listed(tmp_path, f'path,case\na.nii.gz,"{name}"\na.nii.gz,good\n') as scans:
        assert [case.name for case in scans.cases] == ["good"]
        (failure,) = scans.refused
        assert failure.reason.startswith("list.csv, line 2: case ")
        assert "is no name for a file" in failure.reason
        assert str(failure) == failure.reason


def test_lines_that_clash_lose_what_clashes_and_no_more(tmp_path):
    ct(tmp_path / "tree" / "1", PatientID="P", SeriesNumber=1)
    ct(tmp_path / "tree" / "2", PatientID="P", SeriesNumber=2)
    ct(tmp_path / "tree" / "3", PatientID="P", SeriesNumber=3)
    text = "path,case\ntree/2,\ntree,\nnone,x\n" + f"{'y' * 5000},\ntree/1,it\ntree/2,IT\n"
    with listed(tmp_path, text) as scans:
        assert [case.name for case in scans.cases] == ["P_1", "P_2", "P_3", "it"]
        assert set(scans.series) == {"P_1", "P_2", "P_3", "it"}
        reasons = [failure.reason for failure in scans.refused]
        assert len(reasons) == 4
        assert reasons[0].startswith("list.csv, line 3: P_2 is another line's case, too.")
        assert reasons[1].startswith("list.csv, line 4: ")
        assert reasons[2].startswith("list.csv, line 5: ")
        assert reasons[3].startswith("list.csv, line 7: IT is another line's case, too.")
        assert [failure.case for failure in scans.refused] == [
            "list.csv, line 3", "x", "list.csv, line 5", "list.csv, line 7",
        ]  # fmt: skip


def test_a_named_tree_gives_names_that_start_alike(tmp_path):
    ct(tmp_path / "tree" / "1", PatientID="P", SeriesNumber=1)
    ct(tmp_path / "tree" / "2", PatientID="P", SeriesNumber=2)
    with listed(tmp_path, "path,case\ntree,it\n") as scans:
        assert sorted(scans.series) == ["it_P_1", "it_P_2"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"file\na\n", "its columns are file. Give it a header line: path,case."),
        (b"", "its columns are none. Give it a header line: path,case."),
        (b"path\n", "it has no line. Name a scan a line."),
        (b"path\n\xff\xfe\n", "Give a CSV in UTF-8 with the column path."),
        (b'path\n"' + b"x" * 200_000 + b'"\n', "it cannot be read"),
    ],
)
def test_files_that_are_no_list(tmp_path, content, said):
    with pytest.raises(DataError) as stopped, listed(tmp_path, content):
        pass
    assert said in str(stopped.value)


def test_what_is_refused_in_a_listed_tree_is_told_and_named_once(tmp_path):
    ct(tmp_path / "tree" / "whole")
    (ct(tmp_path / "tree" / "gap", SeriesInstanceUID="1.2.3") / "0003.dcm").unlink()
    (tmp_path / "tree" / "odd.dcm").write_bytes((tmp_path / "tree" / "whole" / "0001.dcm").read_bytes()[:400])

    with listed(tmp_path, "path\ntree\n") as scans:
        told = [str(one) for one in scans.refused]

    assert len(scans.cases) == 1
    assert any(line.startswith("Series 1.2.3 has a 4 mm gap") for line in told)
    assert any(line.startswith("File odd.dcm") for line in told)
    assert not any(line.startswith("Case ") for line in told)


def test_dicom_for_a_model_of_two_channels_is_one_lost_line(tmp_path):
    ct(tmp_path / "tree")
    for channel in (0, 1):
        image(tmp_path / "both" / f"b_000{channel}.nii.gz")
    with listed(tmp_path, "path\ntree\nboth\n", channels=2) as scans:
        assert [len(case.images) for case in scans.cases] == [2]
        assert "DICOM gives one channel, and the model takes 2" in scans.refused[0].reason


@pytest.mark.parametrize("way", ["list", "zip"])
def test_members_of_a_zip_are_gone_after_the_block_however_it_ends(tmp_path, monkeypatch, way):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with zipfile.ZipFile(tmp_path / "it.zip", "w") as archive:
        for file in ct(tmp_path / "ct").iterdir():
            archive.write(file, file.name)
    (tmp_path / "list.csv").write_text("path\nit.zip\nnone\n")
    source = tmp_path / ("list.csv" if way == "list" else "it.zip")

    def interrupted() -> None:
        with find_inputs(source, 1) as scans:
            (series,) = scans.series.values()
            assert all(one.path.is_relative_to(tmp_path / "temporary") and one.path.is_file() for one in series.slices)
            with scans.opened(scans.cases[0]) as case:
                assert read_mask(case.images[0])[1].difference(series.grid) is None
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_no_message_names_the_temporary_file_of_a_series(tmp_path):
    ct(tmp_path / "ct")
    with find_inputs(tmp_path / "ct", 1, names=Names.SERIES) as scans:
        name = scans.cases[0].name
        with pytest.raises(DataError) as stopped, scans.opened(scans.cases[0]) as case:
            raise DataError(f"{case.images[0]}: a 3D image is needed.")
        assert str(Failure(name, str(stopped.value))) == f"Series {name}: a 3D image is needed."


# the command


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    grid = Grid(SCENE, GRID.spacing_mm, GRID.origin_mm)
    write_series(tmp_path / "export" / "ct", scene(200)[0], grid, PatientID="Miller", SeriesNumber=2)
    return tmp_path / "export"


def test_refused_series_are_named_once_and_the_rest_is_done(lnsegfm_here, world: World, clinic, tmp_path):
    lost = ct(clinic / "lost", SeriesInstanceUID="1.2.3.4", SeriesDescription="evil \x1b[2J")
    sorted(lost.iterdir())[2].unlink()
    sorted(lost.iterdir())[2].unlink()
    done = lnsegfm_here("predict", world.base, clinic, "--out", tmp_path / "out", *QUICK)
    first, second = done.stderr.splitlines()
    assert (done.returncode, first) == (1, "Predicting 1 case")
    assert second.startswith("lnsegfm: Series 1.2.3.4 ")
    assert second.isprintable()


def test_runs_of_two_models_in_one_folder_and_masks_over_scans_are_refused(
    lnsegfm_here, world: World, clinic, tmp_path
):
    out = tmp_path / "out"
    with joined(out, {"model": ["another"]}, overwrite=False, leaving=lambda: None):
        for words, said in (((), "its masks come from another model"), (("--overwrite",), "another run with another")):
            done = lnsegfm_here("predict", world.base, clinic, "--out", out, *QUICK, *words)
            assert done.returncode == 2
            assert f"lnsegfm: {out}: {said}" in done.stderr
    assert [file.name for file in out.iterdir()] == ["masks.json"]
    file = image(tmp_path / "scans" / "a.nii.gz")
    before = file.read_bytes()
    (tmp_path / "list.csv").write_text("path\nscans/a.nii.gz\n")
    done = lnsegfm_here(
        "predict", world.base, tmp_path / "list.csv", "--out", tmp_path / "scans", *QUICK, "--overwrite"
    )
    assert done.returncode == 2
    assert "the scan a.nii.gz lies there under its mask's name" in done.stderr
    assert file.read_bytes() == before


def test_all_failed_exports_are_code_2_and_the_mask_stays(lnsegfm_here, world: World, clinic, tmp_path):
    for file in (clinic / "ct").iterdir():
        data = pydicom.dcmread(file)
        del data.FrameOfReferenceUID
        data.save_as(file)
    words = ("--format", "rtstruct,seg", "--names", "series")
    for _ in range(2):
        done = lnsegfm_here("predict", world.base, clinic, "--out", tmp_path / "out", *words, *QUICK)
        assert done.returncode == 2
        (told,) = [line for line in done.stderr.splitlines() if line.startswith("lnsegfm: ")]
        assert told.startswith("lnsegfm: Series ")
        assert "no FrameOfReferenceUID" in told
        assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 1
        (row,) = csv.DictReader((tmp_path / "out" / "summary.csv").open())
        assert row["status"] == "failed"
        assert row["node_ml"] != ""


def test_flags_are_added_to_a_series_and_tables_follow_a_corrected_mask(lnsegfm_here, world: World, clinic, tmp_path):
    out = tmp_path / "out"
    base = ("predict", world.base, clinic, "--out", out, "--no-mirroring", "--device", "cpu", "--names", "patient")
    lnsegfm_here(*base, "--no-flags", "--nodes")
    assert not (out / "flags.json").exists()
    done = lnsegfm_here(*base)
    assert "0 predicted, 1 were there already" in done.stdout
    assert list(json.loads((out / "flags.json").read_text())["cases"]) == ["Miller_2"]
    found, grid = read_mask(out / "Miller_2.nii.gz")
    found[:] = 0
    found[3:5, 3:5, 3:5] = 1
    write_mask(out / "Miller_2.nii.gz", found, grid)
    lnsegfm_here(*base, "--format", "seg", "--per-node")
    assert not (out / "Miller_2.nodes.csv").exists()
    assert read_seg(out / "Miller_2.seg.dcm").names == ("node 1",)
    lnsegfm_here(*base, "--nodes")
    assert len(list(csv.DictReader((out / "Miller_2.nodes.csv").open()))) == 1
    assert len(components(read_mask(out / "Miller_2.nii.gz")[0] == 1)) == 1


def test_from_python(world: World, clinic, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with zipfile.ZipFile(tmp_path / "it.zip", "w") as archive:
        for file in (clinic / "ct").iterdir():
            archive.write(file, file.name)
    how = {"device": "cpu", "mirroring": False, "flags": False}
    found = lnsegfm.predict(world.base, tmp_path / "it.zip", tmp_path / "out", formats="seg", **how)
    assert (len(found.done), found.failed) == (1, ())
    assert len(list((tmp_path / "out").glob("*.seg.dcm"))) == 1
    assert list((tmp_path / "temporary").iterdir()) == []
    for wrong in ({"formats": ("pdf",)}, {"names": "mine"}):
        with pytest.raises(ConfigError, match="not known"):
            lnsegfm.predict(world.base, clinic, tmp_path / "out", **wrong)


def test_other_settings_of_structure_sets_write_them_anew(exports, mask, tmp_path):
    file = tmp_path / "out" / "a.rtstruct.dcm"
    exports().complete(CASE)
    segments, plain = (tmp_path / "out" / "a.seg.dcm").read_bytes(), file.read_bytes()
    assert "rtstruct" not in record(tmp_path)["export_notes"]

    short = RtstructOptions(short_names=True, holes="keyhole", thin=Thinning(1.5, 0.02))
    assert lacks(exports(rtstruct=short))
    exports(rtstruct=short).complete(CASE)

    assert file.read_bytes() != plain
    assert (tmp_path / "out" / "a.seg.dcm").read_bytes() == segments
    said = record(tmp_path)["export_notes"]["rtstruct"]
    assert said["options"] == {"short_names": True, "holes": "keyhole", "thin": "1.5,0.02"}
    assert set(said["structures"]) == {"lymph_node", "vessel"}
    assert said["structures"]["vessel"]["points"] <= said["structures"]["vessel"]["exact_points"]
    assert "volumes change by at most" in said["notes"][-1]
    assert exports(rtstruct=short).export_notes("a") == tuple(said["notes"])
    assert exports(("nifti", "seg")).export_notes("a") == ()
    assert not lacks(exports(rtstruct=short))
    assert not lacks(exports(("nifti",)))
    assert lacks(exports())
    exports().complete(CASE)
    assert "rtstruct" not in record(tmp_path)["export_notes"]
    assert not lacks(exports())


def test_what_differs_from_the_mask_is_in_the_record(exports, mask, tmp_path):
    labels = LabelMap({"lymph_node_of_the_mediastinum": 1, "vessel": 2, "absent": 3})
    outputs = exports(labels=labels, rtstruct=RtstructOptions(profile="eclipse"))
    outputs.complete(CASE)

    said = record(tmp_path)["export_notes"]["rtstruct"]
    assert said["names"] == {"lymph_node_of_the_mediastinum": "lymph_node_of_th"}
    assert said["left_out"] == ["absent"]
    assert said["notes"] == [
        "Nothing was found of 'absent': it has no structure.",
        "Structure 'lymph_node_of_the_mediastinum' is called 'lymph_node_of_th' in the file.",
    ]
    assert rois(tmp_path) == ["lymph_node_of_th", "vessel"]


def test_a_structure_set_is_continued_case_by_case(exports, mask, tmp_path):
    exports(("nifti", "rtstruct")).complete(CASE)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "out" / "a.rtstruct.dcm").rename(tmp_path / "theirs" / "rs.dcm")
    continuing = RtstructOptions(add_to=tmp_path / "theirs")

    exports(rtstruct=continuing).complete(CASE)

    assert rois(tmp_path) == ["lymph_node", "vessel", "lymph_node_2", "vessel_2"]
    assert "2 structures of the earlier structure set come first" in exports(rtstruct=continuing).export_notes("a")[-1]
    assert "theirs" not in (tmp_path / "out" / "a.case.json").read_text()  # a path may hold a patient's name
    assert not lacks(exports(rtstruct=continuing))
    other = ct(tmp_path / "other")
    (tmp_path / "out" / "a.case.json").unlink()
    with pytest.raises(DataError, match="no structure set of series"):
        exports(folder=other, rtstruct=continuing).complete(CASE)
    assert record(tmp_path)["exports"] == ["a.seg.dcm"]


def test_settings_of_structure_sets_need_a_structure_set(exports, tmp_path):
    for options, named in (
        (RtstructOptions(holes="keyhole"), "--holes keyhole"),
        (RtstructOptions(profile="monaco"), "--profile monaco"),
        (RtstructOptions(short_names=True), "--short-names:"),
        (RtstructOptions(thin=Thinning(1)), "--thin 1,0.01"),
        (RtstructOptions(add_to=tmp_path), f"--add-to {tmp_path}"),
    ):
        with pytest.raises(ConfigError, match=rf"^{named}.*no structure set is written"):
            exports(("nifti", "seg"), rtstruct=options)
    with pytest.raises(ConfigError, match="no such file or folder"):
        exports(rtstruct=RtstructOptions(add_to=tmp_path / "none"))

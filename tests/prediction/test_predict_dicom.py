"""DICOM in, DICOM out: what ``lnsegfm predict`` makes of a clinic's export."""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest

from lnsegfm.evaluation.nodes import measure_nodes
from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.seg_read import read_seg
from lnsegfm.imaging.dicom.segmentation import segments_mask
from lnsegfm.imaging.dicom.series import find_series, series_of
from lnsegfm.imaging.dicom.structure_masks import structures_mask
from lnsegfm.imaging.files import read_mask, write_mask, write_volume
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.scanner import write_series
from tests.scenes import SHAPE, scene
from tests.world import World

GRID = Grid(SHAPE, (2.0, 1.0, 1.5), (-12.5, 4.0, 100.0))
QUICK = ("--no-mirroring", "--device", "cpu", "--no-flags")
LABELS = {"node": 1}


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """Two patients' series, one on an oblique grid, between files that are none."""
    for i, patient in enumerate(("Miller 12", "Smith 7")):
        angle = np.radians(10 * i)
        turned = [1, 0, 0, 0, np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle)]
        grid = Grid(SHAPE, GRID.spacing_mm, GRID.origin_mm, tuple(turned))
        image, _ = scene(200 + i)
        write_series(
            tmp_path / "export" / f"p{i}" / "ct",
            image,
            grid,
            names=lambda k: f"IM{(7 * k) % SHAPE[0]:03d}",
            order=np.random.default_rng(i).permutation(SHAPE[0]).tolist(),
            PatientID=patient,
            PatientName=f"{patient.split()[0]}^Jo",
            SeriesNumber=i + 2,
        )
    (tmp_path / "export" / "readme.txt").write_text("no scan")
    return tmp_path / "export"


def predict(run, world: World, source: Path, out: Path, *words: object):
    return run("predict", world.base, source, "--out", out, *QUICK, *words)


def test_masks_structures_and_segments_say_the_same(lnsegfm_here, world, clinic, tmp_path):
    done = predict(lnsegfm_here, world, clinic, tmp_path / "out", "--format", "nifti,rtstruct,seg", "--nodes")

    assert done.returncode == 0, done.stderr
    masks = sorted((tmp_path / "out").glob("*.nii.gz"))
    assert len(masks) == 2
    by_uid = {series.uid: series for series in find_series(clinic).series}
    found = 0
    for file in masks:
        name = file.name.removesuffix(".nii.gz")
        record = json.loads((tmp_path / "out" / f"{name}.case.json").read_text())
        series = by_uid[record["series"]["uid"]]
        mask, grid = read_mask(file)
        assert grid.difference(series.grid) is None
        drawn = read_rtstruct(tmp_path / "out" / f"{name}.rtstruct.dcm")
        segments = read_seg(tmp_path / "out" / f"{name}.seg.dcm")
        assert np.array_equal(structures_mask(drawn, series.grid, ["node=node"], LABELS), mask)
        assert np.array_equal(segments_mask(segments, series.grid, ["node=node"], LABELS), mask)
        found += int(mask.sum())
        source = pydicom.dcmread(series.slices[0].path, stop_before_pixels=True)
        for kind in ("rtstruct", "seg"):
            export = pydicom.dcmread(tmp_path / "out" / f"{name}.{kind}.dcm", stop_before_pixels=True)
            assert (export.PatientID, export.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)
    assert found > 0


def test_settings_of_structure_sets_reach_the_file_the_record_and_the_user(lnsegfm_here, world, clinic, tmp_path):
    first = predict(lnsegfm_here, world, clinic, tmp_path / "out", "--format", "rtstruct", "--short-names",
                    "--profile", "eclipse", "--holes", "keyhole", "--thin", "2,0.05", "--json")  # fmt: skip
    assert first.returncode == 0, first.stderr
    said = json.loads(first.stdout)["notes"]
    assert len(said) == 2
    assert all("volumes change by at most" in each["note"] for each in said)
    records = [json.loads(file.read_text()) for file in sorted((tmp_path / "out").glob("*.case.json"))]
    options = {"profile": "eclipse", "holes": "keyhole", "thin": "2,0.05", "short_names": True}
    assert [record["export_notes"]["rtstruct"]["options"] for record in records] == [options] * 2

    earlier = tmp_path / "earlier"
    earlier.mkdir()
    for file in (tmp_path / "out").glob("*.rtstruct.dcm"):
        file.rename(earlier / f"Miller {file.name}")
    second = predict(lnsegfm_here, world, clinic, tmp_path / "out", "--format", "rtstruct", "--add-to", earlier)
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("1 structures of the earlier structure set come first") == 2
    assert "Miller" not in second.stdout + "".join(p.read_text() for p in (tmp_path / "out").glob("*.json"))
    for file in (tmp_path / "out").glob("*.rtstruct.dcm"):
        assert read_rtstruct(file).names == ("node", "node_2")


def test_nothing_of_the_patient_is_in_names_records_or_words(lnsegfm_here, world, clinic, tmp_path):
    done = predict(lnsegfm_here, world, clinic, tmp_path / "out", "--format", "rtstruct")

    said = done.stdout + done.stderr
    for file in (tmp_path / "out").iterdir():
        said += file.name
        if file.suffix in (".json", ".csv"):
            said += file.read_text(encoding="utf-8")
    for secret in ("Miller", "Smith", "1970"):
        assert secret not in said
    again = predict(lnsegfm_here, world, clinic, tmp_path / "again")
    assert again.returncode == 0
    masks = [sorted(p.name for p in (tmp_path / out).glob("*.nii.gz")) for out in ("out", "again")]
    assert masks[0] == masks[1]  # the same key, the same names


def test_a_structure_for_each_node_is_numbered_as_the_table(lnsegfm_here, world, clinic, tmp_path):
    done = predict(
        lnsegfm_here, world, clinic, tmp_path / "out", "--format", "rtstruct,seg", "--per-node", "--nodes",
        "--names", "patient",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    name = "Miller-12_2"
    mask, grid = read_mask(tmp_path / "out" / f"{name}.nii.gz")
    nodes = measure_nodes(mask == 1, grid)
    drawn = read_rtstruct(tmp_path / "out" / f"{name}.rtstruct.dcm")
    segments = read_seg(tmp_path / "out" / f"{name}.seg.dcm")
    assert [roi.name for roi in drawn.rois] == [f"node {node.id}" for node in nodes]
    assert [segment.label for segment in segments.segments] == [f"node {node.id}" for node in nodes]
    first = structures_mask(drawn, grid, ["node 1=node"], LABELS)
    assert int(first.sum()) == nodes[0].voxels
    table = list(csv.DictReader((tmp_path / "out" / f"{name}.nodes.csv").open()))
    assert len(table) == len(nodes)


def test_one_bad_series_does_not_stop_the_rest(lnsegfm_here, world, clinic, tmp_path):
    lost = sorted((clinic / "p0" / "ct").iterdir())
    for file in lost:
        if pydicom.dcmread(file, stop_before_pixels=True).ImagePositionPatient[2] == 100 + 2 * 9:
            file.unlink()

    done = predict(lnsegfm_here, world, clinic, tmp_path / "out", "--format", "seg")

    assert done.returncode == 1
    assert "gap" in done.stderr
    assert "Traceback" not in done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [case["status"] for case in summary["cases"]] == ["done"]
    assert len(summary["refused"]) == 1
    rows = list(csv.DictReader((tmp_path / "out" / "summary.csv").open()))
    assert len(rows) == 1
    assert float(rows[0]["node_ml"]) >= 0


def test_the_same_command_adds_only_what_is_missing(lnsegfm_here, world, clinic, tmp_path):
    out = tmp_path / "out"
    predict(lnsegfm_here, world, clinic, out, "--format", "rtstruct,seg")
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    gone = next(out.glob("*.seg.dcm"))
    gone.unlink()

    done = predict(lnsegfm_here, world, clinic, out, "--format", "rtstruct,seg")

    assert done.returncode == 0, done.stderr
    assert "0 predicted, 2 were there already" in done.stdout
    after = {file.name: file.read_bytes() for file in out.iterdir()}
    assert gone.name in after
    kept = [name for name in before if name.endswith(".nii.gz")]
    assert [before[name] for name in kept] == [after[name] for name in kept]


def test_a_zip_and_a_list_name_the_same_scans(lnsegfm_here, world, clinic, tmp_path):
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        for file in clinic.rglob("*"):
            archive.write(file, file.relative_to(clinic))
    image, _ = scene(300)
    write_volume(tmp_path / "plain.nii.gz", image, GRID)
    (tmp_path / "list.csv").write_text("path,case\nexport/p1,second\nplain.nii.gz,\nexport/none,third\n")

    zipped = predict(lnsegfm_here, world, tmp_path / "export.zip", tmp_path / "zipped", "--names", "patient")
    listed = predict(lnsegfm_here, world, tmp_path / "list.csv", tmp_path / "listed", "--format", "rtstruct")

    assert zipped.returncode == 0, zipped.stderr
    assert listed.returncode == 1
    assert "list.csv, line 4" in listed.stderr
    assert {p.name for p in (tmp_path / "listed").glob("*.nii.gz")} == {"second.nii.gz", "plain.nii.gz"}
    assert {p.name for p in (tmp_path / "listed").glob("*.rtstruct.dcm")} == {"second.rtstruct.dcm"}
    ours, theirs = (
        read_mask(tmp_path / folder / name)[0]
        for folder, name in (("zipped", "Smith-7_3.nii.gz"), ("listed", "second.nii.gz"))
    )
    assert np.array_equal(ours, theirs)


def test_masks_are_those_of_the_same_scan_as_nifti(lnsegfm_here, world, clinic, tmp_path):
    from lnsegfm.imaging.dicom.series import read_series

    series = series_of(clinic / "p1")
    write_volume(tmp_path / "nifti" / "it.nii.gz", read_series(series), series.grid)

    predict(lnsegfm_here, world, clinic / "p1", tmp_path / "dicom", "--names", "series")
    predict(lnsegfm_here, world, tmp_path / "nifti", tmp_path / "plain")

    ours = read_mask(tmp_path / "dicom" / f"{series.uid}.nii.gz")[0]
    assert np.array_equal(ours, read_mask(tmp_path / "plain" / "it.nii.gz")[0])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--format", "pdf"), "--format pdf: not known. Use nifti, rtstruct, seg."),
        (("--names", "mine"), "--names mine: not known. Use code, series, patient."),
    ],
)
def test_words_that_are_not_known(lnsegfm_here, world, clinic, tmp_path, words, said):
    done = predict(lnsegfm_here, world, clinic, tmp_path / "out", *words)

    assert (done.returncode, done.stderr) == (2, f"lnsegfm: {said}\n")
    assert not (tmp_path / "out").exists()


def test_dicom_out_of_images_that_are_none_is_refused(lnsegfm_here, world, tmp_path):
    image, _ = scene(300)
    write_volume(tmp_path / "in" / "a.nii.gz", image, GRID)

    done = predict(lnsegfm_here, world, tmp_path / "in", tmp_path / "out", "--format", "seg")

    assert done.returncode == 2
    assert "no scan is one" in done.stderr


def test_a_key_within_the_masks_is_refused(lnsegfm_here, world, clinic, tmp_path, monkeypatch):
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "out" / "home"))

    done = predict(lnsegfm_here, world, clinic, tmp_path / "out")

    assert done.returncode == 2
    assert "Keep it elsewhere" in done.stderr


def test_a_tree_of_nothing_but_refused_series_is_a_wrong_request(lnsegfm_here, world, clinic, tmp_path):
    shutil.rmtree(clinic / "p1")
    for file in sorted((clinic / "p0" / "ct").iterdir())[5:9]:
        file.unlink()

    done = predict(lnsegfm_here, world, clinic, tmp_path / "out")

    assert done.returncode == 2
    assert done.stderr.startswith("lnsegfm: Series ")


def test_a_mask_never_passes_for_that_of_another_series(lnsegfm_here, world, clinic, tmp_path):
    words = ("--names", "patient", "--format", "rtstruct")
    predict(lnsegfm_here, world, clinic / "p1", tmp_path / "out", *words)
    file = tmp_path / "out" / "Smith-7_3.rtstruct.dcm"
    before = file.read_bytes()
    shutil.rmtree(clinic / "p1")
    image, _ = scene(305)
    write_series(clinic / "p1" / "later", image, GRID, PatientID="Smith 7", SeriesNumber=3)

    done = predict(lnsegfm_here, world, clinic, tmp_path / "out", *words)
    anew = predict(lnsegfm_here, world, clinic, tmp_path / "out", *words, "--overwrite")

    assert done.returncode == 1
    assert "Smith-7_3.nii.gz is the mask of another series with this name" in done.stderr
    assert "1 predicted" in done.stdout
    assert anew.returncode == 0, anew.stderr
    assert file.read_bytes() != before
    uid = series_of(clinic / "p1").uid
    assert json.loads((tmp_path / "out" / "Smith-7_3.case.json").read_text())["series"]["uid"] == uid
    assert json.loads((tmp_path / "out" / "series.json").read_text())["series"]["Smith-7_3"] == uid


def test_a_mask_that_someone_replaced_is_not_exported(lnsegfm_here, world, clinic, tmp_path):
    out = tmp_path / "out"
    predict(lnsegfm_here, world, clinic / "p1", out)
    file = next(out.glob("*.nii.gz"))
    mask, _ = read_mask(file)
    write_mask(file, mask, Grid(SHAPE, (2.0, 1.0, 1.4)))

    done = predict(lnsegfm_here, world, clinic / "p1", out, "--format", "seg")

    assert done.returncode == 2  # the only one
    assert "it is not the mask of this series" in done.stderr
    assert list(out.glob("*.dcm")) == []


def test_what_lies_beside_a_mask_is_of_that_mask(lnsegfm_here, world, clinic, tmp_path):
    out = tmp_path / "out"
    predict(lnsegfm_here, world, clinic / "p1", out, "--format", "rtstruct,seg")
    names = [roi.name for roi in read_rtstruct(next(out.glob("*.rtstruct.dcm"))).rois]

    predict(lnsegfm_here, world, clinic / "p1", out, "--format", "rtstruct", "--per-node")
    by_node = [roi.name for roi in read_rtstruct(next(out.glob("*.rtstruct.dcm"))).rois]
    left = sorted(out.glob("*.dcm"))
    predict(lnsegfm_here, world, clinic / "p1", out, "--overwrite")

    assert names == ["node"]
    assert by_node[0] == "node 1"
    assert len(left) == 1  # no segmentation of the other kind stays
    assert list(out.glob("*.dcm")) == []
    assert json.loads(next(out.glob("*.case.json")).read_text())["exports"] == []


def test_dicom_is_meant_where_a_folder_holds_images_too(lnsegfm_here, world, clinic, tmp_path):
    write_volume(clinic / "mask_of_someone.nii.gz", scene(1)[0], GRID)

    done = predict(lnsegfm_here, world, clinic, tmp_path / "out", "--format", "seg")

    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").glob("*.seg.dcm"))) == 2

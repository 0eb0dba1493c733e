"""A conversion that is killed, repeated, or meets a source that has changed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from lnsegfm.datasets.check import check
from lnsegfm.datasets.convert import SETS, ConversionOptions, ConversionResult, convert
from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.errors import DataError
from lnsegfm.imaging.files import read_mask, write_mask, write_volume
from tests.datasets.convert.clinic import GRID, NODE, OTHER, bytes_under, ct, filled, rtstruct, scan
from tests.listening import OnAdvance

LN = ConversionOptions(roi=("LN*=lymph_node",))
DICOM = SETS["dicom"]


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))


def patient(folder: Path, number: int, box=NODE, **tags: object) -> None:
    head = ct(folder / f"ct{number}", number, PatientID=f"P{number}", **tags)
    names = {"series_uid": head.SeriesInstanceUID, "frame_uid": head.FrameOfReferenceUID}
    rtstruct(folder / f"rs{number}.dcm", {"LN_1": box}, **names)


def redrawn(source: Path, number: int, box) -> None:
    from lnsegfm.imaging.dicom.series import series_of

    series = series_of(source / f"ct{number}")
    names = {"series_uid": series.uid, "frame_uid": series.frame_of_reference_uid}
    rtstruct(source / f"rs{number}.dcm", {"LN_1": box}, **names)


def run(tmp_path: Path, out: str = "out") -> ConversionResult:
    return convert(DICOM, tmp_path / "in", tmp_path / out, LN)


def convert_until(step: int, tmp_path: Path) -> None:
    """Convert; killed (SIGKILL) at its nth write."""
    writes = 0

    def counted(write):
        def counting(path: Path, *rest: object) -> None:
            nonlocal writes
            writes += 1
            if writes == step:  # half of the file is there under its temporary name
                path.parent.mkdir(parents=True, exist_ok=True)
                (path.parent / f".partial-{os.getpid()}-{path.name}").write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
            write(path, *rest)

        return counting

    import lnsegfm.datasets.convert.conversion_record as record
    import lnsegfm.datasets.convert.convert_dataset as write

    for module, name in (
        (write, "write_volume"), (write, "write_mask"), (write, "write_json"), (record, "write_json"),
        (record, "write_text"),
    ):  # fmt: skip
        setattr(module, name, counted(getattr(module, name)))
    os.environ["LNSEGFM_HOME"] = str(tmp_path / "home")
    run(tmp_path)


def killed(tmp_path: Path, step: int) -> int | None:
    """Convert in a child that is killed at its nth write; gives the signal, None where it ended before.

    The child is forked by a process without threads: a fork of this one may wait forever for a lock of a thread of it.
    """
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["lnsegfm.datasets.convert", __name__])
    child = processes.Process(target=convert_until, args=(step, tmp_path))
    child.start()
    child.join()
    return -child.exitcode if child.exitcode and child.exitcode < 0 else None


def test_killed_at_any_write_and_continued_it_comes_to_the_same_bytes(tmp_path):
    patient(tmp_path / "in", 1)
    patient(tmp_path / "in", 2)
    run(tmp_path, "whole")
    wanted = bytes_under(tmp_path / "whole")
    step, deaths = 1, 0
    while killed(tmp_path, step) == signal.SIGKILL:  # each time a write further, on what there is by then
        deaths, step = deaths + 1, step % 5 + 1 if deaths < 10 else step + 1
    run(tmp_path)
    assert bytes_under(tmp_path / "out") == wanted
    assert deaths >= 5


@pytest.mark.parametrize("step", range(1, 11))
def test_killed_once_at_each_write(tmp_path, step):
    patient(tmp_path / "in", 1)
    patient(tmp_path / "in", 2)
    run(tmp_path, "whole")
    assert killed(tmp_path, step) == signal.SIGKILL  # 2 x (image, mask, record), and 4 for the whole
    run(tmp_path)
    assert bytes_under(tmp_path / "out") == bytes_under(tmp_path / "whole")


def test_a_case_whose_structures_have_changed_is_made_again(tmp_path):
    patient(tmp_path / "in", 1)
    patient(tmp_path / "in", 2)
    run(tmp_path)
    redrawn(tmp_path / "in", 2, OTHER)
    result = run(tmp_path)
    assert (len(result.kept), len(result.written)) == (1, 1)
    np.testing.assert_array_equal(
        read_mask(tmp_path / "out" / "labelsTr" / f"{result.written[0]}.nii.gz")[0], filled(OTHER)
    )
    run(tmp_path, "fresh")
    assert bytes_under(tmp_path / "out") == bytes_under(tmp_path / "fresh")


def test_a_case_that_gets_structures_later_moves_to_the_training_part(tmp_path):
    patient(tmp_path / "in", 1)
    head = ct(tmp_path / "in" / "ct2", 2, PatientID="P2")
    options = ConversionOptions(roi=LN.roi, unlabelled=True)
    convert(DICOM, tmp_path / "in", tmp_path / "out", options)
    assert len(list((tmp_path / "out" / "imagesTs").iterdir())) == 1
    names = {"series_uid": head.SeriesInstanceUID, "frame_uid": head.FrameOfReferenceUID}
    rtstruct(tmp_path / "in" / "rs2.dcm", {"LN": NODE}, **names)
    convert(DICOM, tmp_path / "in", tmp_path / "out", options)
    assert not list((tmp_path / "out" / "imagesTs").iterdir())
    assert len(list((tmp_path / "out" / "labelsTr").iterdir())) == 2


def test_a_case_whose_source_has_gone_stays_whole_and_is_told(tmp_path):
    patient(tmp_path / "in", 1)
    patient(tmp_path / "in", 2)
    run(tmp_path)
    before = bytes_under(tmp_path / "out")
    for path in [*(tmp_path / "in" / "ct2").iterdir(), tmp_path / "in" / "rs2.dcm"]:
        path.unlink()
    result = run(tmp_path)
    assert len(result.kept) == 2
    assert any("did not find it in the source" in line for line in result.notes)
    after = bytes_under(tmp_path / "out")
    assert {k: v for k, v in after.items() if k != "conversion.json"} == {
        k: v for k, v in before.items() if k != "conversion.json"
    }
    assert len(json.loads(after["conversion.json"])["cases"]) == 2
    assert check(open_dataset(tmp_path / "out")) == []


@pytest.mark.parametrize("harm", ["not JSON", "[]", "{}", '{"case": "another"}'])
def test_a_damaged_record_of_a_case_is_made_again(tmp_path, harm):
    patient(tmp_path / "in", 1)
    run(tmp_path)
    before = bytes_under(tmp_path / "out")
    next((tmp_path / "out" / "cases").iterdir()).write_text(harm)
    run(tmp_path)
    assert bytes_under(tmp_path / "out") == before


@pytest.mark.parametrize("folder", ["imagesTr", "labelsTr"])
def test_a_case_that_lost_a_file_is_made_again(tmp_path, folder):
    patient(tmp_path / "in", 1)
    run(tmp_path)
    before = bytes_under(tmp_path / "out")
    next((tmp_path / "out" / folder).iterdir()).unlink()
    run(tmp_path)
    assert bytes_under(tmp_path / "out") == before


def test_a_second_converter_waits_for_the_first(tmp_path):
    patient(tmp_path / "in", 1)
    told = []

    def meanwhile(*_: object) -> None:
        with pytest.raises(DataError, match="another process converts to it") as refused:
            run(tmp_path)
        told.append(refused)

    convert(DICOM, tmp_path / "in", tmp_path / "out", LN, progress=OnAdvance(meanwhile))
    assert len(told) == 1
    assert not list((tmp_path / "out").glob(".partial-*"))


def nih(root: Path, patient: str, seed: int, *, mask: bool = True) -> None:
    if not (root / patient).is_dir():
        ct(root / patient, seed, PatientID=patient)
    if mask:
        write_mask(root / "masks" / f"{patient}_mask.nii.gz", filled(NODE).astype(np.uint8), GRID)


def test_a_duplicate_of_a_case_that_came_later_is_dropped_as_if_it_had_been_there(tmp_path):
    card, source = SETS["ct-lymph-nodes"], tmp_path / "in"
    nih(source, "MED_LYMPH_001", 1, mask=False)
    nih(source, "MED_LYMPH_002", 1)
    convert(card, source, tmp_path / "out")
    assert (tmp_path / "out" / "labelsTr" / "MED_LYMPH_002.nii.gz").is_file()
    nih(source, "MED_LYMPH_001", 1)
    result = convert(card, source, tmp_path / "out")
    assert dict(result.duplicates) == {"MED_LYMPH_002": "MED_LYMPH_001"}
    convert(card, source, tmp_path / "fresh")
    assert bytes_under(tmp_path / "out") == bytes_under(tmp_path / "fresh")


def test_files_that_have_changed_in_size_are_read_again(tmp_path):
    folder = tmp_path / "in" / "val"
    write_volume(folder / "lnq2023-val-0001-ct.nrrd", scan(1), GRID)
    for box in (NODE, ((0, 5), (3, 13), (3, 17))):
        write_mask(folder / "lnq2023-val-0001-seg.nrrd", filled(box).astype(np.uint8), GRID)
        convert(SETS["lnq2023"], tmp_path / "in", tmp_path / "out", ConversionOptions(part="validation"))
        there = read_mask(tmp_path / "out" / "labelsTr" / "lnq2023-val-0001.nii.gz")[0]
        np.testing.assert_array_equal(there, filled(box))

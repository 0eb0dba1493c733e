"""The doctor over DICOM."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from lnsegfm.datasets.doctor.dicom_diagnosis import diagnose_tree
from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.series import read_series
from tests.imaging.dicom.scanner import write_series
from tests.listening import OnAdvance

from .scenes import GRID, kinds, patient


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for k in range(2):
        write_series(tmp_path / "in" / f"p{k}" / "ct", patient(k), GRID, SeriesInstanceUID=f"1.2.3.{k}")
    return tmp_path / "in"


def test_whole_series_show_nothing(tree):
    seen = []

    diagnosis = diagnose_tree(tree, progress=OnAdvance(lambda *state: seen.append(state)))

    assert kinds(diagnosis) == []
    assert [case.case for case in diagnosis.cases] == ["1.2.3.0", "1.2.3.1"]
    assert seen == [(1, 2, "1.2.3.0"), (2, 2, "1.2.3.1")]
    assert diagnosis.cases[0].read().image.shape == GRID.shape


def test_a_series_with_a_gap_is_an_error_and_the_others_are_looked_at(tree):
    sorted((tree / "p0" / "ct").iterdir())[10].unlink()
    write_series(tree / "p2", patient(2), GRID, SeriesInstanceUID="1.2.3.2", RescaleIntercept=0)

    diagnosis = diagnose_tree(tree)

    assert ("series", "error", "1.2.3.0") in kinds(diagnosis)
    assert ("hu-offset", "warning", "1.2.3.2") in kinds(diagnosis)


def test_a_series_that_cannot_be_decoded_is_an_error_a_line_and_the_others_are_looked_at(tree, monkeypatch):
    def read(series):
        if series.uid == "1.2.3.0":
            raise DataError("File 1 is cut short. Copy it again.", "File 2 is damaged. Export it again.")
        return read_series(series)

    monkeypatch.setattr("lnsegfm.datasets.doctor.dicom_diagnosis.read_series", read)

    found = diagnose_tree(tree).findings

    assert [(f.kind, f.severity, f.case) for f in found] == [("series", "error", "1.2.3.0")] * 2
    assert [(f.what, f.remedy) for f in found] == [
        ("File 1 is cut short", "Copy it again"),
        ("File 2 is damaged", "Export it again"),
    ]


def test_localisers_alone_are_an_error_for_there_is_nothing_to_look_at(tmp_path):
    def localise(data, _):
        data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    write_series(tmp_path, patient(0)[:3], dataclasses.replace(GRID, shape=(3, 64, 64)), change=localise)

    diagnosis = diagnose_tree(tmp_path)

    assert {f.severity for f in diagnosis.findings} == {"error"}
    assert diagnosis.facts["spacing_mm"]["smallest"] == []


def test_one_scan_under_two_uids(tree):
    write_series(tree / "p2", patient(0), GRID, SeriesInstanceUID="1.2.3.9")

    assert [k for k in kinds(diagnose_tree(tree)) if k[0] == "duplicate-scan"] == [
        ("duplicate-scan", "warning", "1.2.3.9")
    ]


def test_identity_is_not_told(tree):
    diagnosis = diagnose_tree(tree)

    assert "Doe" not in repr(diagnosis.to_json())
    assert "P1" not in repr(diagnosis.to_json())


def test_no_dicom(tmp_path):
    (tmp_path / "note.txt").write_text("Dear colleague,")

    with pytest.raises(DataError, match="no CT in it"):
        diagnose_tree(tmp_path)


@pytest.mark.realdata
def test_structures_of_a_real_scan(real_data, tmp_path):
    diagnosis = diagnose_tree(real_data / "lung4d_113")

    (note,) = diagnosis.findings  # two of its three nodes overlap seen from above, with a slice between
    assert (note.kind, note.severity) == ("contours", "note")
    assert "LN_c40" in note.what
    assert "taken as two objects" in note.what
    assert list(diagnosis.facts["structures"].values()) == [["Tumor_c40", "LN_c40", "Carina_c40", "Vertebra_c40"]]
    assert np.count_nonzero(diagnosis.cases[0].read().mask) > 2239

    shutil.copytree(real_data / "lung4d_113" / "rtstruct", tmp_path / "alone")
    assert [k[:2] for k in kinds(diagnose_tree(tmp_path / "alone"))] == [("no-series", "error")]

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lnsegfm.datasets.doctor.splits import guess_subjects
from lnsegfm.imaging.files import write_volume

from .scenes import GRID, doctored, kinds, make, patient


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "data")


def test_a_case_in_both_sets(folder):
    (folder / "splits.json").write_text(json.dumps({"shots": ["a", "b"], "held_out": ["b", "c"]}))

    assert kinds(doctored(folder)) == [("split", "warning", "b")]


def test_a_division_that_is_in_order(folder):
    (folder / "splits_final.json").write_text(json.dumps([{"train": ["a", "b"], "val": ["c"]}]))

    assert kinds(doctored(folder)) == []


def test_one_subject_in_both_sets(folder):
    (folder / "subjects.csv").write_text("case,subject\na,P1\nb,P2\nc,P1\n")
    (folder / "splits_final.json").write_text(
        json.dumps([{"train": ["a", "b"], "val": ["c"]}, {"train": ["a", "c"], "val": ["b"]}])
    )

    diagnosis = doctored(folder)

    assert kinds(diagnosis) == [("subject-shared", "warning", "c")]
    assert "case a of the same patient (by subjects.csv)" in diagnosis.findings[0].what
    assert "splits_final.json, fold 0" in diagnosis.findings[0].what


def test_a_table_of_subjects_settles_what_names_suggest(folder):
    for old, new in (("a", "p1_1"), ("b", "p1_2"), ("c", "p2_1")):
        for inner in ("images", "labels"):
            (folder / inner / f"{old}.nii.gz").rename(folder / inner / f"{new}.nii.gz")
    (folder / "splits.json").write_text(json.dumps({"shots": ["p1_1"], "held_out": ["p1_2", "p2_1"]}))

    assert kinds(doctored(folder)) == [("subject-shared", "warning", "p1_2"), ("subjects", "note", "")]

    (folder / "subjects.csv").write_text("case,subject\np1_1,A\np1_2,B\np2_1,C\n")
    assert kinds(doctored(folder)) == []


def test_a_test_set_with_a_scan_of_the_training_set(folder):
    write_volume(folder / "imagesTs" / "z_0000.nii.gz", patient(1)[..., ::-1], GRID)
    write_volume(folder / "imagesTs" / "y_0000.nii.gz", patient(8), GRID)
    (folder / "imagesTs" / "x_0000.nii.gz").write_text("no image")

    diagnosis = doctored(folder)

    assert kinds(diagnosis) == [("file", "warning", "x"), ("duplicate-scan", "warning", "z (imagesTs)")]
    assert "as case b, mirrored along x" in diagnosis.findings[1].what


def test_a_division_that_cannot_be_read(folder):
    (folder / "splits.json").write_text("[1, 2]")

    assert kinds(doctored(folder)) == [("split", "warning", "")]


def test_subjects_of_cases_that_are_not_there(folder):
    (folder / "subjects.csv").write_text("case,subject\na,P1\nghost,P2\n")

    assert kinds(doctored(folder)) == [("subjects", "note", "")]


@pytest.mark.parametrize(
    ("names", "subjects"),
    [
        (["p1_1", "p1_2", "p2_1"], {"p1_1": "p1", "p1_2": "p1"}),
        (["p1_pre", "p1_post", "p2_pre"], {"p1_pre": "p1", "p1_post": "p1"}),
        (["case_001", "case_002", "case_003"], {}),
        (["patient_07", "patient_12", "patient_31"], {}),
        ([f"site{k % 2}_{k:02d}" for k in range(20)], {}),
        (["a", "b", "c"], {}),
    ],
)
def test_what_names_say_of_patients(names, subjects):
    assert guess_subjects(names) == subjects

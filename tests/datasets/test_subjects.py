"""Whose scans they are."""

import pytest

from lnsegfm.datasets.shots import draw_shots
from lnsegfm.datasets.subjects import read_subjects, subjects_of
from lnsegfm.errors import DataError


def test_a_table_with_other_columns_is_read(tmp_path):
    file = tmp_path / "subjects.csv"
    file.write_text("\ufeffsubject,case,site\nP1, a ,neck\nP1,b,chest\nP2,c,neck\n", encoding="utf-8")

    assert read_subjects(file) == subjects_of(tmp_path) == {"a": "P1", "b": "P1", "c": "P2"}
    assert subjects_of(tmp_path / "elsewhere") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,P1\n", "header line: case,subject"),
        ("", "header line: case,subject"),
        ("case,subject\na,\n", "line 2 lacks a case or a subject"),
        ("case,subject\na,P1\na,P2\n", "case a is of subject P1 and of P2"),
    ],
)
def test_other_tables_are_refused(tmp_path, text, said):
    (tmp_path / "s.csv").write_text(text)

    with pytest.raises(DataError, match=said):
        read_subjects(tmp_path / "s.csv")


def test_no_such_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_subjects(tmp_path / "s.csv")


@pytest.mark.parametrize("draw", range(5))
def test_nobody_is_both_trained_on_and_held_out(draw):
    names = [f"{patient}{visit}" for patient in "abcdef" for visit in (1, 2)]
    subjects = {name: name[0] for name in names if name[0] != "f"}  # of f nobody said whose they are

    split = draw_shots(names, 3, draw, subjects)

    trained = {subjects[name] for name in split.shots if name in subjects}
    assert split.shots == draw_shots(names, 3, draw).shots
    assert not trained & {subjects[name] for name in split.held_out if name in subjects}
    assert set(split.held_out) == {n for n in names if n not in split.shots and subjects.get(n) not in trained}

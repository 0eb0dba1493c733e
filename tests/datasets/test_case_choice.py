"""Cases by number and by name: which are trained on, which are held out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnsegfm.datasets.case_choice import CaseChoice, cases_named, number_or_cases
from lnsegfm.datasets.shots import draw_shots
from lnsegfm.errors import ConfigError

NAMES = tuple(f"case_{number}" for number in range(8))


@given(
    shots=st.one_of(st.none(), st.integers(1, 8), st.sets(st.sampled_from(NAMES), min_size=1).map(tuple)),
    held_out=st.one_of(st.none(), st.integers(0, 3), st.sets(st.sampled_from(NAMES), min_size=1).map(tuple)),
    draw=st.integers(0, 3),
)
def test_a_split_is_what_was_said_or_refused(shots, held_out, draw):
    try:
        split = CaseChoice(shots=shots, held_out=held_out, draw=draw).split(NAMES)
    except ConfigError:
        return
    assert not set(split.shots) & set(split.held_out)
    assert set(split.shots) | set(split.held_out) <= set(NAMES)
    if isinstance(shots, tuple):
        assert set(split.shots) == set(shots)
    elif shots is not None:
        assert len(split.shots) == shots
    if isinstance(held_out, tuple):
        assert set(split.held_out) == set(held_out)
    elif held_out is not None:
        assert len(split.held_out) == held_out
    if held_out is None:
        assert len(split.shots) + len(split.held_out) == len(NAMES)


@pytest.mark.parametrize("draw", range(4))
def test_numbers_alone_are_the_draw_of_old_and_fewer_are_among_more(draw):
    for shots in (None, 1, 3, 8):
        assert CaseChoice(shots=shots, draw=draw).split(NAMES) == draw_shots(NAMES, shots, draw)
    held = [set(CaseChoice(shots=3, held_out=number, draw=draw).split(NAMES).held_out) for number in range(6)]
    assert all(fewer < more for fewer, more in itertools.pairwise(held))
    assert CaseChoice(held_out=5, draw=draw).split(NAMES).shots == draw_shots(NAMES, 3, draw).shots


def test_the_order_in_which_cases_are_named_plays_no_part():
    some = CaseChoice(shots=("case_3", "case_1", "case_6")).split(NAMES)
    assert some == CaseChoice(shots=("case_1", "case_6", "case_3")).split(NAMES)


def test_other_scans_of_a_patient_are_held_out_by_name_alone():
    subjects = {"case_0": "Ann", "case_1": "Ann"}
    assert "case_1" not in CaseChoice(shots=("case_0",)).split(NAMES, subjects).held_out
    assert CaseChoice(shots=("case_0",), held_out=("case_1",)).split(NAMES, subjects).held_out == ("case_1",)


def test_cases_and_exclude_say_which_are_there():
    assert CaseChoice(cases=("case_1", "case_2", "case_3"), exclude=("case_2",)).usable(NAMES) == ("case_1", "case_3")
    assert CaseChoice().usable(NAMES) == NAMES


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"cases": ("case_9",)}, r"--cases case_9: no labelled case .* Near it: case_"),
        ({"exclude": ("liver",)}, r"--exclude liver: no labelled case"),
        ({"shots": ("case_1",), "exclude": ("case_1",)}, r"--shots case_1: --cases or --exclude leaves it out"),
        ({"exclude": NAMES}, r"no case is left"),
    ],
)
def test_names_that_cannot_be_are_refused(choice, said):
    with pytest.raises(ConfigError, match=said):
        CaseChoice(**choice).usable(NAMES)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"shots": ("a", "a")}, "--shots a: named twice"),
        ({"shots": ("a", "b"), "held_out": ("b",)}, "--held-out b: it is among --shots too"),
        ({"held_out": -1}, "--held-out -1"),
    ],
)
def test_choices_that_contradict_themselves_are_refused(choice, said):
    with pytest.raises(ConfigError, match=said):
        CaseChoice(**choice)


def test_more_cases_than_there_are_are_refused():
    with pytest.raises(ConfigError, match=r"shots 8: 7 labelled cases are not held out by name"):
        CaseChoice(shots=8, held_out=("case_1",)).split(NAMES)
    with pytest.raises(ConfigError, match=r"--held-out 4: 3 cases can be held out"):
        CaseChoice(shots=5, held_out=4).split(NAMES)
    with pytest.raises(ConfigError, match=r"--held-out 8: there are only 8"):
        CaseChoice(held_out=8).split(NAMES)


def test_an_option_is_a_number_names_or_a_file(tmp_path):
    file = tmp_path / "shots.txt"
    file.write_text("case_1\n\n  case_4  # the clear one\n")
    assert number_or_cases("5", "--shots") == 5
    assert number_or_cases("case_1, case_4", "--shots") == number_or_cases(str(file), "--shots")
    assert number_or_cases(["case_1"], "--shots") == ("case_1",)
    assert number_or_cases(None, "--shots") is None
    with pytest.raises(ConfigError, match="names no case"):
        cases_named(",", "--exclude")


def test_a_table_with_a_header_is_a_list_of_names(tmp_path):
    file = tmp_path / "shots.csv"
    file.write_bytes(b"\xef\xbb\xbfCase\r\ncase_1\r\ncase_4\r\n")  # as a spreadsheet writes it
    assert cases_named(str(file), "--shots") == ("case_1", "case_4")
    file.write_text("case\n")
    assert cases_named(str(file), "--shots") == ("case",)

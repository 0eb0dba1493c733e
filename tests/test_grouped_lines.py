"""One line for one mistake, and no fact lost where cases differ."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lnsegfm.grouped_lines import ALIKE, SEPARATE, grouped_lines

NAMES = [f"p{number}" for number in range(11)]


def test_one_mistake_of_all_cases_is_one_line_with_an_example():
    lines = [f"Case {name}: data/labels/{name}.nii.gz: label values 2 are not among node=1. Name it." for name in NAMES]
    assert grouped_lines(lines) == [
        "11 cases (p0, p1, p2 and 8 others), as in p0: data/labels/p0.nii.gz: label values 2 are not among node=1. "
        "Name it."
    ]
    assert grouped_lines([f"Case {name}: a label without an image. Add it." for name in NAMES[:3]]) == [
        "3 cases (p0, p1, p2): a label without an image. Add it."
    ]


def test_up_to_two_cases_and_other_lines_keep_theirs():
    lines = ["Case a: is empty. Do.", "Case b: is empty. Do.", "Dataset: odd. Do.", "Dataset: odd. Do not."]
    assert grouped_lines(lines) == lines


@pytest.mark.parametrize("number", [ALIKE, ALIKE + 3])
def test_lines_that_differ_in_numbers_are_kept_up_to_a_few(number: int):
    lines = [f"Case {name}: volume {index}.5 ml. Look." for index, name in enumerate(NAMES[:number])]
    if number == ALIKE:
        assert grouped_lines(lines) == lines
    else:
        assert grouped_lines(lines) == [
            *lines[:4],
            "7 more cases alike but for the numbers: p4, p5, p6, p7, p8, p9, p10.",
        ]


def test_a_name_that_is_a_number_of_the_message_joins_nothing_that_differs():
    lines = [f"Case {name}: label values {name} are not among node=9. Name it." for name in "123"]
    assert grouped_lines(lines) == lines


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["is odd", "x/a.nii is odd", "5 ml", "7 ml"]))))
def test_every_case_is_named_and_nothing_is_said_of_others(pairs):
    lines = [f"Case {case}: {text}." for case, text in pairs]
    told = grouped_lines(lines)
    assert len(told) <= len(lines)
    assert all(any(case in line for line in told) for case, _ in pairs)
    if len(lines) <= SEPARATE:
        assert told == lines

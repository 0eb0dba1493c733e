"""Pieces of lines that people read."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lnsegfm.messages import differences

PLAIN = st.dictionaries(
    st.sampled_from("abcd"), st.one_of(st.none(), st.integers(), st.text(max_size=3), st.lists(st.integers()))
)


def test_a_difference_names_both_values():
    before = {"iterations": 400, "mirroring": False, "shots": ["a", "b"], "settings": {"gamma": 1}, "lr": None}
    now = {"iterations": 500, "mirroring": True, "shots": 3, "settings": {"gamma": 2}, "lr": 0.01}
    assert differences(before, now) == [
        "iterations 400, not 500",
        "mirroring False, not True",
        "shots a, b, not 3",
        "settings gamma=1, not gamma=2",
        "lr none, not 0.01",
    ]


def test_what_versions_do_not_record_and_empty_values_are_no_difference():
    assert differences({"cases": None, "exclude": []}, {"cases": (), "exclude": (), "merge": {"a": ("b",)}}) == []
    assert differences({"cases": ["a"]}, {"cases": ("a",)}) == []


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(PLAIN, PLAIN)
def test_equal_records_differ_in_nothing_and_differences_are_of_both(one, other):
    assert differences(one, one) == []
    assert {line.split()[0] for line in differences(one, other)} <= set(one) & set(other)
    assert len(differences(one, other)) == len(differences(other, one))

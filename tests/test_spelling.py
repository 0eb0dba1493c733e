from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnsegfm.spelling import normalise_name, spelt_alike


@pytest.mark.parametrize(
    "other", ["Lymph_Node", "lymph node", "LYMPH-NODE", "LymphNode", " lymph__node ", "lymph\tnode", "_lymph_node"]
)
def test_one_name_in_other_spellings(other):
    assert spelt_alike(["lymph_node", "tumour"], [other, "vessel"]) == {"lymph_node": other}
    assert spelt_alike([other], ["lymph_node"]) == {other: "lymph_node"}


@pytest.mark.parametrize(
    ("names", "others"),
    [
        (["node"], ["nodes"]),
        (["LN 1 1"], ["LN 11"]),
        (["LN 2R"], ["LN 2L"]),
        (["node"], ["node"]),
        (["node", "Node"], ["node", "Node"]),
        (["node"], ["Node", "NODE"]),
        (["Node", "NODE"], ["node"]),
        ([], ["node"]),
    ],
)
def test_what_is_no_other_spelling_of_one_name(names, others):
    assert spelt_alike(names, others) == {}


def test_what_both_have_is_not_taken_for_another():
    assert spelt_alike(["node", "Vessel"], ["node", "NODE", "vessel"]) == {"Vessel": "vessel"}


@given(st.lists(st.text("abcxyz", min_size=1, max_size=5), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_every_spelling_is_found(words: list[str], dice: random.Random):
    def spelt() -> str:
        letters = "".join(dice.choice([c, c.upper()]) for c in dice.choice(["", " ", "_", "-", "  "]).join(words))
        return dice.choice(["", " ", "_"]) + letters

    one, other = spelt(), spelt()
    assert spelt_alike([one], [other]) == ({} if one == other else {one: other})
    assert normalise_name(one) == normalise_name(normalise_name(one))

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnsegfm.datasets.shots import Split, draw_shots
from lnsegfm.errors import ConfigError

names = st.lists(st.text("abcdef_0123456789", min_size=1, max_size=6), min_size=1, max_size=30, unique=True)
draws = st.integers(0, 50)


@given(names, draws, st.data())
def test_shots_and_held_out_are_all_the_cases_once(cases, draw, data):
    shots = data.draw(st.integers(1, len(cases)))

    split = draw_shots(cases, shots, draw)

    assert len(split.shots) == shots
    assert sorted([*split.shots, *split.held_out]) == sorted(cases)
    assert list(split.held_out) == sorted(split.held_out)


@given(names, draws, st.data())
def test_fewer_shots_are_among_more(cases, draw, data):
    more = data.draw(st.integers(1, len(cases)))
    fewer = data.draw(st.integers(1, more))

    assert draw_shots(cases, fewer, draw).shots == draw_shots(cases, more, draw).shots[:fewer]


@given(names, draws, st.randoms())
def test_the_order_of_names_plays_no_part(cases, draw, shuffler: random.Random):
    shuffled = list(cases)
    shuffler.shuffle(shuffled)

    assert draw_shots(shuffled, 1, draw) == draw_shots(cases, 1, draw)


@given(names, draws)
def test_without_a_number_all_are_shots(cases, draw):
    split = draw_shots(cases, None, draw)

    assert split == draw_shots(cases, len(cases), draw)
    assert split.held_out == ()


def test_draws_differ():
    cases = [f"case_{i:02d}" for i in range(20)]

    assert len({draw_shots(cases, 5, draw).shots for draw in range(20)}) == 20


def test_a_draw_stays_what_it_is():
    # golden: "abcdef" in the order of numpy.random.default_rng([0]).permutation(6), NumPy 2.4.6: what was published
    # as draw 0 has to remain draw 0
    assert draw_shots("abcdef", 2, 0) == Split(("d", "c"), ("a", "b", "e", "f"))


@pytest.mark.parametrize(
    ("cases", "shots", "draw", "said"),
    [
        (["a", "b"], 3, 0, "shots 3: there are only 2 labelled cases"),
        (["a", "b"], 0, 0, "at least one case"),
        (["a", "b"], -1, 0, "at least one case"),
        (["a", "b"], 1, -1, "draw -1"),
        ([], None, 0, "none to draw from"),
        (["a", "a", "b"], 1, 0, "Cases a: named twice"),
    ],
)
def test_refuses_in_one_line(cases, shots, draw, said):
    with pytest.raises(ConfigError) as error:
        draw_shots(cases, shots, draw)

    assert said in str(error.value)
    assert "\n" not in str(error.value)

"""Intervals that hold what they promise, and comparisons that find what is there and nothing else."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lnsegfm.errors import DataError
from lnsegfm.evaluation.statistics import FEWEST_FOR_BOOTSTRAP, Interval, holm, mean, paired, ratio

some_numbers = st.lists(st.floats(-1, 1, allow_nan=False, width=32), min_size=3, max_size=20)


@given(some_numbers)
@settings(max_examples=30, deadline=None)
def test_a_mean_lies_in_its_interval(values):
    found = mean(values)

    assert found.value == pytest.approx(np.mean(values), abs=1e-12)
    assert found.n == found.clusters == len(values)
    assert found.interval.low - 1e-9 <= found.value <= found.interval.high + 1e-9


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_than_three_subjects_have_no_interval(n):
    found = mean([0.5] * n)

    assert found.interval is None
    assert math.isnan(found.value) == (n == 0)


def test_few_cases_get_students_interval():
    values = [0.1, 0.3, 0.2, 0.6, 0.4]

    found = mean(values)

    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert found.interval.kind == "t"
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high), abs=1e-9)


def test_the_bootstrap_agrees_with_scipys_at_the_widened_percentiles():
    values = np.random.default_rng(3).gamma(2.0, 1.0, 8)
    wider = 1 - 2 * stats.norm.cdf(-math.sqrt(8 / 7) * stats.t.ppf(0.975, 7))

    found = mean(values)
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=100_000, confidence_level=wider, rng=1
    ).confidence_interval

    assert found.interval.kind == "bootstrap"
    assert (found.interval.low, found.interval.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_the_same_figures_give_the_same_interval():
    values = np.random.default_rng(0).normal(size=12)

    assert mean(values) == mean(values)


def test_an_interval_does_not_leave_its_bounds():
    assert mean([0.1, 0.9, 0.95, 1.0], bounds=(0.0, 1.0)).interval.high == 1.0


def test_cases_of_one_subject_count_as_one_witness():
    values = [0.1, 0.9, 0.4, 0.6, 0.5, 0.7, 0.2, 0.8]

    alone, tenfold = mean(values), mean(values * 10, [f"subject {i}" for i in range(8)] * 10)

    assert (tenfold.n, tenfold.clusters, tenfold.value) == (80, 8, pytest.approx(alone.value))
    assert tenfold.interval.low == pytest.approx(alone.interval.low)
    assert tenfold.interval.high == pytest.approx(alone.interval.high)
    assert mean(values * 10).interval.high < alone.interval.high  # what ignoring the subjects would claim


def test_a_share_pools_over_cases():
    found = ratio([1, 0, 3], [2, 0, 10], bounds=(0.0, 1.0))

    assert found.value == pytest.approx(4 / 12)
    assert (found.n, found.clusters) == (2, 2)  # a case without a node tells nothing about finding one
    assert found.interval is None


def test_where_everything_was_found_the_interval_is_not_a_point():
    found = ratio([4] * 10, [4] * 10, bounds=(0.0, 1.0), counted="share")

    assert found.value == 1.0
    assert found.interval == Interval(pytest.approx(0.025 ** (1 / 40)), 1.0, "binomial")


def test_where_there_is_no_false_positive_the_rate_may_still_be_above_nothing():
    found = ratio([0] * 10, [1] * 10, bounds=(0.0, math.inf), counted="rate")

    assert found.value == 0.0
    assert found.interval == Interval(0.0, pytest.approx(-math.log(0.025) / 10), "poisson")


def test_lengths_that_differ_are_refused():
    with pytest.raises(DataError, match="one a case"):
        ratio([1, 2], [1, 2, 3])


@given(some_numbers)
@settings(max_examples=20, deadline=None)
def test_no_difference_between_a_model_and_itself(values):
    found = paired(values, values)

    assert found.effect.value == 0.0
    assert 0.0 in found.effect.interval
    assert found.p == 1.0


@pytest.mark.parametrize("n", [6, 10, 30])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_planted_difference_is_found_with_its_sign(n, sign):
    rng = np.random.default_rng(n)
    base = rng.beta(5, 3, n)
    adapted = base + sign * 0.1 + rng.normal(0, 0.03, n)

    found = paired(adapted, base)

    assert np.sign([found.effect.interval.low, found.effect.interval.high]).tolist() == [sign, sign]
    assert found.effect.value == pytest.approx(sign * 0.1, abs=0.04)
    assert found.p < 0.05


def test_turned_round_a_comparison_changes_its_sign_only():
    rng = np.random.default_rng(0)
    a, b = rng.random(9), rng.random(9)

    one, other = paired(a, b), paired(b, a)

    assert one.effect.value == -other.effect.value
    assert one.p == other.p
    assert one.effect.interval.low == pytest.approx(-other.effect.interval.high, abs=0.02)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_p_is_the_share_of_all_sign_flips_and_cannot_fall_below_what_n_allows(n):
    differences = np.random.default_rng(n).normal(0.3, 1.0, n)
    sums = np.abs([np.dot(signs, differences) for signs in product((-1, 1), repeat=n)])

    found = paired(differences, np.zeros(n))

    assert found.p == pytest.approx(np.mean(sums >= abs(differences.sum()) - 1e-12))
    assert paired(np.arange(1, n + 1), np.zeros(n)).p == pytest.approx(found.smallest_p) == 2 / 2**n


def test_one_subject_shows_nothing():
    found = paired([0.9, 0.8], [0.1, 0.2], ["a", "a"])

    assert found.effect.interval is None
    assert math.isnan(found.p)
    assert math.isnan(found.smallest_p)
    assert math.isnan(paired([], []).p)


def test_flips_go_by_subject():
    found = paired([1.0] * 12, [0.0] * 12, ["a", "b", "c"] * 4)

    assert found.p == 2 / 2**3


def test_what_could_have_been_told_from_none():
    found = paired([0.1, 0.3, 0.2, 0.6, 0.4], [0.0] * 5)

    assert found.sd == pytest.approx(np.std([0.1, 0.3, 0.2, 0.6, 0.4], ddof=1))
    assert found.effect.interval.low == pytest.approx(found.effect.value - found.detectable)


def test_holm_as_worked_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": math.nan}) == {
        "a": pytest.approx(0.03),
        "b": pytest.approx(0.06),
        "c": pytest.approx(0.06),
        "d": pytest.approx(math.nan, nan_ok=True),
    }


def _missed(draw, true, n, runs, rng):
    return np.mean([true not in mean(draw(n, rng)).interval for _ in range(runs)])


POPULATIONS = {
    "normal": (lambda n, rng: rng.normal(0, 1, n), 0.0, 0.075),
    "heavy tails": (lambda n, rng: rng.standard_t(3, n), 0.0, 0.09),
    "skewed": (lambda n, rng: rng.exponential(1, n), 1.0, 0.15),
    "Dice with failures": (
        lambda n, rng: np.where(rng.random(n) < 0.08, 0, rng.beta(8, 2.5, n)),
        0.92 * 8 / 10.5,
        0.16,
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("population", POPULATIONS)
@pytest.mark.parametrize("n", [3, 5, FEWEST_FOR_BOOTSTRAP - 1, FEWEST_FOR_BOOTSTRAP, 12, 20, 40])
def test_intervals_miss_about_as_often_as_they_promise(population, n):
    draw, true, allowed = POPULATIONS[population]

    missed = _missed(draw, true, n, 1500, np.random.default_rng(n))

    assert missed <= allowed


@pytest.mark.long
def test_intervals_over_subjects_hold_where_those_over_cases_do_not():
    rng = np.random.default_rng(5)
    by_subject = by_case = 0
    for _ in range(600):
        subjects = np.repeat(np.arange(12), 4)
        values = rng.normal(0, 1, 12)[subjects] + rng.normal(0, 0.3, 48)
        by_subject += 0.0 not in mean(values, subjects.tolist()).interval
        by_case += 0.0 not in mean(values).interval

    assert by_subject / 600 < 0.09
    assert by_case / 600 > 0.25


@pytest.mark.long
def test_a_difference_is_claimed_where_there_is_none_one_time_in_twenty():
    rng = np.random.default_rng(6)
    p = [paired(rng.beta(6, 3, 10), rng.beta(6, 3, 10)).p for _ in range(600)]

    assert np.mean(np.array(p) < 0.05) < 0.08

"""Draws and cases as random: mean squares, coverage in simulated studies, what could have been detected."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from lnsegfm.errors import DataError
from lnsegfm.evaluation.crossed_statistics import (
    CrossedMean,
    crossed_mean,
    crossed_ratio,
    kendall_w,
    two_way_bootstrap,
)

COMPONENTS = [(0.3, 1.0, 1.0), (1.0, 1.0, 1.0), (1.0, 0.3, 0.5), (0.1, 1.0, 0.5), (0.0, 1.0, 1.0), (1.0, 0.0, 1.0)]
"""Standard deviations of draws, cases and rest."""


def simulated(rng: np.random.Generator, shape: tuple[int, int], sds: tuple[float, float, float]) -> np.ndarray:
    draws, cases = shape
    of_draws, of_cases, of_rest = sds
    return (
        of_draws * rng.normal(size=(draws, 1))
        + of_cases * rng.normal(size=(1, cases))
        + of_rest * rng.normal(size=shape)
    )


def restricted_likelihood(grid: np.ndarray) -> tuple[np.ndarray, float]:
    """Variances by numerical REML on the whole covariance matrix, and the standard error of the mean: another way."""
    draws, cases = grid.shape
    y = grid.ravel()
    of_draw = np.kron(np.eye(draws), np.ones((cases, cases)))
    of_case = np.kron(np.ones((draws, draws)), np.eye(cases))
    ones = np.ones(len(y))

    def inverse(theta: np.ndarray) -> tuple[np.ndarray, float]:
        variances = np.exp(theta)
        covariance = variances[0] * of_draw + variances[1] * of_case + variances[2] * np.eye(len(y))
        return np.linalg.inv(covariance), np.linalg.slogdet(covariance)[1]

    def deviance(theta: np.ndarray) -> float:
        precision, determinant = inverse(theta)
        information = ones @ precision @ ones
        residual = y - (ones @ precision @ y) / information
        return float(determinant + math.log(information) + residual @ precision @ residual)

    start = np.full(3, math.log(grid.var()))
    found = optimize.minimize(deviance, start, method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10})
    precision, _ = inverse(found.x)
    return np.exp(found.x / 2), float(1 / math.sqrt(ones @ precision @ ones))


@pytest.mark.parametrize("sds", [(1.0, 1.0, 1.0), (2.0, 0.7, 0.5)])
def test_components_and_error_are_those_of_restricted_maximum_likelihood(sds):
    grid = 3.0 + simulated(np.random.default_rng(5), (5, 7), sds)
    found = crossed_mean(grid)
    theirs, error = restricted_likelihood(grid)
    assert [found.sd_draws, found.sd_cases, found.sd_rest] == pytest.approx(list(theirs), rel=2e-3)
    assert found.error == pytest.approx(error, rel=2e-3)
    assert found.value == pytest.approx(grid.mean())


@pytest.mark.parametrize("shape", [(3, 10), (6, 20)])
@pytest.mark.parametrize("sds", COMPONENTS)
def test_intervals_hold_the_true_mean_as_often_as_they_say(shape, sds):
    rng = np.random.default_rng(11)
    held = [lies_in(0.0, crossed_mean(simulated(rng, shape, sds))) for _ in range(600)]
    assert np.mean(held) >= 0.925  # 0.95 less 2.8 standard errors of a share of 600


def test_the_bootstrap_is_too_narrow_with_few_draws_and_the_model_is_not():
    rng = np.random.default_rng(3)
    grids = [simulated(rng, (3, 10), (1.0, 1.0, 1.0)) for _ in range(200)]
    ends = [two_way_bootstrap(grid, 500) for grid in grids]
    assert np.mean([low <= 0 <= high for low, high in ends]) < 0.92
    assert np.mean([lies_in(0.0, crossed_mean(grid)) for grid in grids]) > 0.92


def test_cases_alone_as_random_would_be_wrong_where_draws_differ():
    rng = np.random.default_rng(4)
    grids = [simulated(rng, (3, 10), (1.0, 0.5, 0.5)) for _ in range(200)]
    over_cases = [crossed_mean(grid.mean(axis=0, keepdims=True)) for grid in grids]
    assert np.mean([lies_in(0.0, one) for one in over_cases]) < 0.6


def test_the_minimal_detectable_difference_is_shown_in_four_of_five_studies():
    rng, sds, shape = np.random.default_rng(8), (0.5, 1.0, 1.0), (6, 20)
    error = math.sqrt(sds[0] ** 2 / 6 + sds[1] ** 2 / 20 + sds[2] ** 2 / 120)
    freedom = float(np.median([crossed_mean(simulated(rng, shape, sds)).freedom for _ in range(200)]))
    true = CrossedMean(0.0, *shape, error, freedom).detectable()
    shown = [not lies_in(0.0, crossed_mean(true + simulated(rng, shape, sds))) for _ in range(800)]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.05)


def test_p_and_interval_agree():
    rng = np.random.default_rng(2)
    for _ in range(50):
        found = crossed_mean(0.5 + simulated(rng, (4, 8), (0.3, 0.5, 0.5)))
        assert (found.p < 0.05) == (not lies_in(0.0, found))


def test_one_draw_is_students_interval_over_cases():
    cases = np.array([[0.1, 0.4, 0.2, 0.3]])
    found = crossed_mean(cases)
    assert found.over_cases_alone
    assert found.interval == pytest.approx(stats.t.interval(0.95, 3, cases.mean(), stats.sem(cases[0])))
    assert found.p == pytest.approx(stats.ttest_1samp(cases[0], 0).pvalue)
    assert crossed_mean(cases.T).p == pytest.approx(found.p)


def test_an_undefined_cell_is_filled_and_changes_little():
    grid = simulated(np.random.default_rng(7), (5, 9), (1.0, 1.0, 0.2))
    holed = grid.copy()
    holed[2, 4] = math.nan
    assert crossed_mean(holed).value == pytest.approx(crossed_mean(grid).value, abs=0.02)
    assert crossed_mean(holed).error == pytest.approx(crossed_mean(grid).error, rel=0.05)
    empty_column = np.column_stack([grid, np.full(5, math.nan)])
    assert crossed_mean(empty_column) == crossed_mean(grid)
    assert math.isnan(crossed_mean(np.full((2, 2), math.nan)).value)
    additive = np.add.outer([0.0, 1.0, 2.0], [0.0, 10.0, 20.0, 30.0])
    holed = additive.copy()
    holed[1, 2] = math.nan
    assert crossed_mean(holed).value == pytest.approx(additive.mean())


def test_cases_of_one_patient_are_one_column():
    grid = simulated(np.random.default_rng(6), (4, 6), (0.5, 1.0, 0.5))
    doubled = np.repeat(grid, 2, axis=1)
    found = crossed_mean(doubled, [name for name in "abcdef" for _ in range(2)])
    assert found == crossed_mean(grid)
    assert crossed_mean(doubled).error < found.error
    with pytest.raises(DataError, match="columns of cases"):
        crossed_mean(grid, ["a"])


def test_a_ratio_is_of_sums_and_its_interval_holds_the_truth():
    nodes = np.array([[4, 1, 0, 3], [4, 1, 0, 3]])
    hit = np.array([[3, 1, 0, 1], [4, 0, 0, 2]])
    assert crossed_ratio(hit, nodes).value == pytest.approx(11 / 16)
    rng, held = np.random.default_rng(1), 0
    for _ in range(300):
        sizes = np.broadcast_to(rng.integers(1, 6, size=12), (4, 12))
        chance = np.clip(0.6 + 0.15 * rng.normal(size=(1, 12)) + 0.05 * rng.normal(size=(4, 1)), 0, 1)
        held += lies_in(0.6, crossed_ratio(rng.binomial(sizes, chance), sizes))
    assert held / 300 > 0.92
    assert math.isnan(crossed_ratio(np.zeros((2, 2)), np.zeros((2, 2))).value)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 5), st.integers(2, 6), st.floats(-2, 2), st.floats(0.1, 5), st.integers(0, 1000))
def test_shift_and_scale_carry_over(draws, cases, shift, scale, seed):
    grid = simulated(np.random.default_rng(seed), (draws, cases), (1.0, 1.0, 1.0))
    plain, changed = crossed_mean(grid), crossed_mean(scale * grid + shift)
    assert changed.value == pytest.approx(scale * plain.value + shift)
    assert changed.error == pytest.approx(scale * plain.error)
    assert changed.freedom == pytest.approx(plain.freedom)


def test_concordance_of_orders():
    assert kendall_w(np.array([[1.0, 2, 3], [4, 5, 6], [0, 1, 9]])) == pytest.approx(1.0)
    assert kendall_w(np.array([[1.0, 2, 3], [3, 2, 1]])) == pytest.approx(0.0)
    grid = np.random.default_rng(0).normal(size=(5, 4))
    friedman = stats.friedmanchisquare(*grid.T).statistic
    assert kendall_w(grid) == pytest.approx(friedman / (5 * 3))  # W = chi2 / (judges x (things - 1))
    tied = np.array([[1.0, 1, 2, 3], [2, 1, 1, 3], [1, 2, 2, 3]])
    assert kendall_w(tied) == pytest.approx(stats.friedmanchisquare(*tied.T).statistic / (3 * 3))
    assert math.isnan(kendall_w(np.ones((3, 2))))
    assert math.isnan(kendall_w(np.ones((1, 3))))


def lies_in(value: float, found: CrossedMean) -> bool:
    assert found.interval is not None
    low, high = found.interval
    return low <= value <= high

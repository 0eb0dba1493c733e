"""Means over a grid of draws and cases, both of them random: other shots could have been drawn, other patients scanned.

Of the value of draw i and case j it is supposed that ``y = mean + draw_i + case_j + rest_ij``, with three variances:
the crossed random-effects model with one observation a cell. Its variance components come from the mean squares of the
two-way analysis of variance, a negative one taken as 0, as restricted maximum likelihood gives them (Searle, Casella
and McCulloch, Variance Components, 1992, sections 4.5 and 4.6); degrees of freedom are Satterthwaite's (Biometrics
Bulletin 2, 1946).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from lnsegfm.errors import DataError
from lnsegfm.evaluation.statistics import LEVEL, RESAMPLES

POWER = 0.8
"""Share of studies in which the minimal detectable difference would be shown."""
_ROUNDS, _STEADY = 200, 1e-12


@dataclass(frozen=True)
class CrossedMean:
    """The mean of a grid of draws and cases.

    Args:
        value: The mean; NaN of an empty grid.
        draws: Rows of the grid.
        cases: Its columns; cases of one patient are one column.
        error: Standard error of the mean; NaN where it cannot be known.
        freedom: Degrees of freedom of that.
        sd_draws: Standard deviation between draws, beyond that of the rest; NaN with one draw.
        sd_cases: The same between cases.
        sd_rest: Of what neither draw nor case explains; NaN with one draw or one case.
        bounds: Values that the mean cannot leave; the interval is cut there.
    """

    value: float
    draws: int
    cases: int
    error: float = math.nan
    freedom: float = math.nan
    sd_draws: float = math.nan
    sd_cases: float = math.nan
    sd_rest: float = math.nan
    bounds: tuple[float, float] = (-math.inf, math.inf)

    @property
    def over_cases_alone(self) -> bool:
        """Whether one draw is all there is: interval and p then speak of this draw, not of others."""
        return self.draws == 1

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean; None where the error is not known."""
        if math.isnan(self.error):
            return None
        reach = self._quantile(0.5 + LEVEL / 2) * self.error
        return max(self.bounds[0], self.value - reach), min(self.bounds[1], self.value + reach)

    @property
    def p(self) -> float:
        """Two-sided, of a true mean of 0; NaN where the error is not known, 1 where all values are 0."""
        if math.isnan(self.error):
            return math.nan
        if self.error == 0.0:
            return 1.0 if self.value == 0.0 else 0.0
        return float(2 * stats.t.sf(abs(self.value) / self.error, self.freedom))

    def detectable(self, alpha: float = 1 - LEVEL) -> float:
        """The minimal detectable difference: a true mean that 80 % of such studies would tell from 0.

        ``(t(1 - alpha / 2) + t(0.8)) x error`` (Bloom, Evaluation Review 19, 1995).

        Args:
            alpha: The two-sided p that counts as shown; with a correction for many comparisons the corrected bound.
        """
        if math.isnan(self.error):
            return math.nan
        return (self._quantile(1 - alpha / 2) + self._quantile(POWER)) * self.error

    def _quantile(self, share: float) -> float:
        return float(stats.t.ppf(share, self.freedom))


def crossed_mean(
    grid: np.ndarray,
    subjects: Sequence[Hashable] | None = None,
    *,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> CrossedMean:
    """The mean of a grid with draws and cases as random.

    With one draw the error is that over cases, with one case that over draws. Cells that are not defined (NaN) are
    filled by rows and columns for the mean squares, each with a degree of freedom less (Yates, Empire Journal of
    Experimental Agriculture 1, 1933); rows and columns without any value are left out.

    Args:
        grid: (draws, cases).
        subjects: The patient of each case; the cases of one are averaged first. Every case is its own unless given.
        bounds: Values that the mean cannot leave.

    Raises:
        DataError: Not a table, or not a subject a case.
    """
    values = np.asarray(grid, dtype=float)
    if values.ndim != 2 or (subjects is not None and len(subjects) != values.shape[1]):
        raise DataError(f"Grid of shape {values.shape}: rows of draws and columns of cases are needed. Arrange it so.")
    values = _by_subject(values, subjects)
    values = values[~np.isnan(values).all(axis=1)]
    values = values[:, ~np.isnan(values).all(axis=0)] if len(values) else values
    draws, cases = values.shape
    if not values.size:
        return CrossedMean(math.nan, 0, 0)
    if draws == 1 or cases == 1:
        return _one_way(values, bounds)
    filled, missing = _filled(values)
    mean, rows, columns = filled.mean(), filled.mean(axis=1), filled.mean(axis=0)
    rest = filled - rows[:, None] - columns[None] + mean
    free = (draws - 1, cases - 1, max(1, (draws - 1) * (cases - 1) - missing))
    squares = (
        cases * float(((rows - mean) ** 2).sum()) / free[0],
        draws * float(((columns - mean) ** 2).sum()) / free[1],
        float((rest**2).sum()) / free[2],
    )
    variance, freedom = _satterthwaite(squares, free)
    return CrossedMean(
        float(mean),
        draws,
        cases,
        math.sqrt(variance / values.size),
        freedom,
        math.sqrt(max(0.0, squares[0] - squares[2]) / cases),
        math.sqrt(max(0.0, squares[1] - squares[2]) / draws),
        math.sqrt(squares[2]),
        bounds,
    )


def crossed_ratio(tops: np.ndarray, bottoms: np.ndarray, subjects: Sequence[Hashable] | None = None) -> CrossedMean:
    """The share that one grid's sum is of another's, such as nodes found of nodes, with draws and cases as random.

    The error is that of the linearised ratio: the mean of ``(top - ratio x bottom) / mean of bottoms``.

    Args:
        tops: (draws, cases).
        bottoms: The same, not negative; cells without a value (NaN) count in neither.
        subjects: As of `crossed_mean`.
    """
    top, bottom = np.asarray(tops, dtype=float), np.asarray(bottoms, dtype=float)
    known = ~(np.isnan(top) | np.isnan(bottom))
    if not known.any() or not bottom[known].sum():
        return CrossedMean(math.nan, 0, 0)
    value = float(top[known].sum() / bottom[known].sum())
    spread = crossed_mean(np.where(known, (top - value * bottom) / bottom[known].mean(), np.nan), subjects)
    return replace(spread, value=value, bounds=(0.0, 1.0))


def two_way_bootstrap(grid: np.ndarray, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % percentile interval of a grid's mean, draws and cases resampled independently.

    Owen, Annals of Applied Statistics 1, 2007. With few draws it is too narrow (docs/study.md says how much):
    `crossed_mean` has the interval to go by.

    Args:
        grid: (draws, cases), without NaN.
        resamples: How many, from a fixed seed.
    """
    generator = np.random.default_rng(0)
    draws, cases = grid.shape
    rows = generator.multinomial(draws, np.full(draws, 1 / draws), resamples) / draws
    columns = generator.multinomial(cases, np.full(cases, 1 / cases), resamples) / cases
    low, high = np.percentile(np.einsum("rd,dc,rc->r", rows, grid, columns, optimize=True), (2.5, 97.5))
    return float(low), float(high)


def kendall_w(grid: np.ndarray) -> float:
    """Kendall's coefficient of concordance of the orders that judges give, corrected for ties.

    1: all the same order; 0: no agreement (Kendall and Babington Smith, Ann. Math. Stat. 10, 1939).

    Args:
        grid: (judges, things), such as draws and methods, without NaN.

    Returns:
        NaN for fewer than two judges or things, or where every judge has ties alone.
    """
    judges, things = grid.shape
    if judges < 2 or things < 2:
        return math.nan
    ranks = stats.rankdata(grid, axis=1)
    sums = ranks.sum(axis=0)
    tied = sum(float((counts**3 - counts).sum()) for row in grid for counts in [np.unique(row, return_counts=True)[1]])
    bottom = judges**2 * (things**3 - things) - judges * tied
    return float(12 * ((sums - sums.mean()) ** 2).sum() / bottom) if bottom else math.nan


def _one_way(values: np.ndarray, bounds: tuple[float, float]) -> CrossedMean:
    """Of a single draw, or a single case."""
    flat = values[~np.isnan(values)]
    draws, cases = values.shape
    if len(flat) < 2:
        return CrossedMean(float(flat.mean()), draws, cases, bounds=bounds)
    sd = float(flat.std(ddof=1))
    error, freedom = sd / math.sqrt(len(flat)), len(flat) - 1
    of_draws, of_cases = (math.nan, sd) if draws == 1 else (sd, math.nan)
    return CrossedMean(float(flat.mean()), draws, cases, error, freedom, of_draws, of_cases, bounds=bounds)


def _satterthwaite(squares: tuple[float, float, float], free: tuple[int, int, int]) -> tuple[float, float]:
    """The variance of the mean times the number of cells, and its degrees of freedom; negative components are 0."""
    rest = squares[2]
    terms = [(square, of) for square, of in zip(squares[:2], free[:2], strict=True) if square > rest]
    if len(terms) == 2:
        terms.append((-rest, free[2]))
    if not terms:
        terms = [(rest, free[2])]
    variance = sum(square for square, _ in terms)
    spread = sum(square**2 / of for square, of in terms)
    return variance, variance**2 / spread if spread else float(free[2])


def _by_subject(values: np.ndarray, subjects: Sequence[Hashable] | None) -> np.ndarray:
    if subjects is None or len(set(subjects)) == len(subjects):
        return values
    known = ~np.isnan(values)
    columns = []
    for subject in dict.fromkeys(subjects):
        mine = [j for j, name in enumerate(subjects) if name == subject]
        number, total = known[:, mine].sum(axis=1), np.nansum(values[:, mine], axis=1)
        columns.append(np.where(number > 0, total / np.maximum(number, 1), np.nan))
    return np.stack(columns, axis=1)


def _filled(values: np.ndarray) -> tuple[np.ndarray, int]:
    """The grid with its missing cells at row plus column less mean, and how many there were."""
    missing = np.isnan(values)
    filled = np.where(missing, np.nanmean(values), values)
    for _ in range(_ROUNDS if missing.any() else 0):
        fitted = filled.mean(axis=1)[:, None] + filled.mean(axis=0)[None] - filled.mean()
        step = np.abs(fitted - filled)[missing].max()
        filled = np.where(missing, fitted, filled)
        if step < _STEADY:
            break
    return filled, int(missing.sum())

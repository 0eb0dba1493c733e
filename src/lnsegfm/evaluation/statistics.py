"""Intervals over cases, paired comparison, and correction for many comparisons.

Cases of one subject are not independent: **clusters** (subjects) are resampled, permuted and counted here, not cases.
A mean over cases is the ratio of two sums, and so is the sensitivity over the nodes of many cases; both have one
interval, :func:`ratio`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from lnsegfm.errors import DataError

LEVEL = 0.95
RESAMPLES = 10_000
FEWEST = 3
"""Clusters below which no interval is given."""
FEWEST_FOR_BOOTSTRAP = 8
"""Clusters below which the interval is Student's: resampling so few of them cannot reach far enough."""

Kind = Literal["bootstrap", "t", "binomial", "poisson"]


@dataclass(frozen=True)
class Interval:
    """A 95 % interval.

    Args:
        low: Lower end.
        high: Upper end.
        kind: How it was made.
    """

    low: float
    high: float
    kind: Kind

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Estimate:
    """A mean or a share over cases.

    Args:
        value: The figure; NaN where nothing was there to count.
        n: Cases that went into it.
        clusters: Subjects they are of.
        interval: Its 95 % interval; None with fewer than three subjects.
    """

    value: float
    n: int
    clusters: int
    interval: Interval | None = None

    def text(self, decimals: int = 2) -> str:
        """For a person: ``0.71 (95 % interval 0.60 to 0.81)``; ``n/a`` where it is not defined."""
        if math.isnan(self.value):
            return "n/a"
        value = f"{self.value:.{decimals}f}"
        if self.interval is None:
            return value
        return f"{value} (95 % interval {self.interval.low:.{decimals}f} to {self.interval.high:.{decimals}f})"

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values; what is undefined is None."""
        value = None if math.isnan(self.value) else self.value
        interval = asdict(self.interval) if self.interval else None
        return {"value": value, "n": self.n, "subjects": self.clusters, "interval": interval}


@dataclass(frozen=True)
class Paired:
    """One model minus another on the same cases.

    Args:
        effect: Mean difference with its interval.
        p: Two-sided permutation test: signs of the subjects' differences are flipped, all ways where there are at
            most 13 subjects, else 9999 at random; NaN with fewer than two subjects.
        smallest_p: The smallest p that this number of subjects can give: 2 / 2^subjects, at random 2 / 10,000.
        sd: Standard deviation of the differences between subjects; NaN with fewer than two.
    """

    effect: Estimate
    p: float
    smallest_p: float
    sd: float

    @property
    def detectable(self) -> float:
        """The mean difference below which Student's interval includes 0, given the scatter; NaN below two subjects."""
        n = self.effect.clusters
        return float(stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * self.sd / math.sqrt(n) if n > 1 else math.nan

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values; what is undefined is None."""
        figures = {"p": self.p, "smallest_p": self.smallest_p, "sd": self.sd, "detectable": self.detectable}
        return {"effect": self.effect.to_json()} | {k: None if math.isnan(v) else v for k, v in figures.items()}


def mean(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None, *, bounds: tuple[float, float] | None = None
) -> Estimate:
    """Mean over cases; see :func:`ratio`."""
    return ratio(values, np.ones(len(values)), clusters, bounds=bounds)


def ratio(
    numerators: Sequence[float] | np.ndarray,
    denominators: Sequence[float] | np.ndarray,
    clusters: Sequence[Hashable] | None = None,
    *,
    bounds: tuple[float, float] | None = None,
    counted: Literal["share", "rate"] | None = None,
) -> Estimate:
    """Sum of the numerators over the sum of the denominators, with a 95 % interval over clusters.

    From eight clusters on the interval is the bootstrap's percentile interval (10,000 resamples of whole clusters with
    a fixed seed, so the same figures give the same interval) with the percentiles widened for the number of clusters
    as Hesterberg proposes ("expanded percentile", The American Statistician 69(4), 2015, section 3.3): plain
    percentiles are too narrow. With three to seven it is Student's t with the standard error of a ratio
    (linearisation over clusters), which assumes that clusters differ about normally. docs/metrics.md says how often
    both miss.

    Args:
        numerators: One a case, such as its Dice, or its nodes that were found.
        denominators: One a case, such as 1, or its nodes; not negative.
        clusters: The subject of each case; every case is its own unless given.
        bounds: Values the figure cannot leave; the interval is cut there.
        counted: The numerators count some of the denominators' things (``share``), or things in as many scans
            (``rate``). Where all clusters have the same ratio, as when everything was found, resampling shows no
            scatter; the interval is then Clopper and Pearson's (Biometrika 26, 1934), or Garwood's for a Poisson mean
            (Biometrika 28, 1936), for as many independent things.

    Raises:
        DataError: Lengths that differ.
    """
    top, bottom = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    names = list(clusters) if clusters is not None else list(range(len(top)))
    if not len(top) == len(bottom) == len(names):
        raise DataError(f"{len(top)}, {len(bottom)} and {len(names)} values: one a case is needed of each. Pair them.")
    n = int(np.count_nonzero(bottom))
    top, bottom = _by_cluster(top, names), _by_cluster(bottom, names)
    top, bottom = top[bottom > 0], bottom[bottom > 0]
    if not len(bottom):
        return Estimate(math.nan, 0, 0)
    value = float(top.sum() / bottom.sum())
    interval = None
    if len(bottom) >= FEWEST:
        residuals = top - value * bottom
        if counted is not None and np.allclose(residuals, 0.0, atol=1e-12):
            interval = _exact(round(top.sum()), round(bottom.sum()), counted)
        elif len(bottom) >= FEWEST_FOR_BOOTSTRAP:
            interval = _bootstrap(top, bottom, bounds)
        else:
            interval = _student(value, residuals, bottom, bounds)
    return Estimate(value, n, len(bottom), interval)


def paired(
    values: Sequence[float] | np.ndarray,
    base_values: Sequence[float] | np.ndarray,
    clusters: Sequence[Hashable] | None = None,
    *,
    denominators: Sequence[float] | np.ndarray | None = None,
) -> Paired:
    """Ours minus theirs on the same cases.

    Args:
        values: One figure a case.
        base_values: The other model's, of the same cases in the same order.
        clusters: The subject of each case; every case is its own unless given.
        denominators: What the figures are shares of, the same for both; 1 a case unless given.
    """
    differences = np.asarray(values, dtype=float) - np.asarray(base_values, dtype=float)
    weights = np.ones(len(differences)) if denominators is None else np.asarray(denominators, dtype=float)
    effect = ratio(differences, weights, clusters)
    names = list(clusters) if clusters is not None else list(range(len(differences)))
    sums, sizes = _by_cluster(differences, names), _by_cluster(weights, names)
    sums, sizes = sums[sizes > 0], sizes[sizes > 0]
    if not len(sums):
        return Paired(effect, math.nan, math.nan, math.nan)
    if len(sums) == 1:  # one subject is no sample: it has no p
        return Paired(effect, math.nan, math.nan, math.nan)
    flipped = stats.permutation_test(
        (sums,),
        lambda x, axis: x.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES - 1,
        rng=np.random.default_rng(0),
    )
    smallest = max(2.0 ** (1 - len(sums)), 2 / RESAMPLES) if len(sums) > 1 else 1.0
    residuals = (sums - effect.value * sizes) / sizes.mean()
    sd = math.sqrt(float((residuals**2).sum()) / (len(sums) - 1)) if len(sums) > 1 else math.nan
    return Paired(effect, min(1.0, float(flipped.pvalue)), smallest, sd)


def holm(p: Mapping[Hashable, float]) -> dict[Any, float]:
    """P values corrected for their number (Holm, Scand. J. Statist. 6, 1979); NaN stays and does not count.

    The chance that any of them is below 0.05 when there is no difference anywhere is then at most 5 %.
    """
    corrected: dict[Any, float] = dict.fromkeys(p, math.nan)
    ordered = sorted((name for name in p if not math.isnan(p[name])), key=lambda name: p[name])
    largest = 0.0
    for rank, name in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - rank) * p[name]))
        corrected[name] = largest
    return corrected


def _by_cluster(values: np.ndarray, names: Sequence[Hashable]) -> np.ndarray:
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.bincount([numbers[name] for name in names], weights=values, minlength=len(numbers))


def _exact(count: int, of: int, counted: Literal["share", "rate"]) -> Interval:
    if counted == "share":
        ends = stats.binomtest(count, of).proportion_ci(LEVEL, "exact")
        return Interval(float(ends.low), float(ends.high), "binomial")
    tail = (1 - LEVEL) / 2
    low = float(stats.chi2.ppf(tail, 2 * count)) / 2 / of if count else 0.0
    return Interval(low, float(stats.chi2.ppf(1 - tail, 2 * count + 2)) / 2 / of, "poisson")


def _bootstrap(top: np.ndarray, bottom: np.ndarray, bounds: tuple[float, float] | None) -> Interval:
    n = len(top)
    tail = stats.norm.cdf(-math.sqrt(n / (n - 1)) * stats.t.ppf(0.5 + LEVEL / 2, n - 1))
    draws = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    resampled = top[draws].sum(axis=1) / bottom[draws].sum(axis=1)
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return _cut(float(low), float(high), bounds, "bootstrap")


def _student(value: float, residuals: np.ndarray, bottom: np.ndarray, bounds: tuple[float, float] | None) -> Interval:
    n = len(residuals)
    error = math.sqrt(n / (n - 1) * float((residuals**2).sum())) / float(bottom.sum())
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * error
    return _cut(value - reach, value + reach, bounds, "t")


def _cut(low: float, high: float, bounds: tuple[float, float] | None, kind: Kind) -> Interval:
    least, most = bounds if bounds is not None else (-math.inf, math.inf)
    # rounded, so that rounding error is no difference
    return Interval(round(max(low, least), 12), round(min(high, most), 12), kind)

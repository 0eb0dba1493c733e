"""How often intervals of a study hold the true mean, in simulated studies with known variances.

    python -m benchmarks.crossed_intervals [--studies 2000]

The table of docs/study.md.
"""

from __future__ import annotations

import argparse

import numpy as np

from lnsegfm.evaluation.crossed_statistics import crossed_mean, two_way_bootstrap

SHAPES = ((3, 10), (6, 20), (12, 20))
SPREADS = {
    "cases differ most": (0.3, 1.0, 1.0),
    "draws as much as cases": (1.0, 1.0, 1.0),
    "draws differ most": (1.0, 0.3, 0.5),
    "draws do not differ": (0.0, 1.0, 1.0),
    "nothing but noise": (0.0, 0.0, 1.0),
}
"""Standard deviations of draws, cases and rest."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    studies = parser.parse_args().studies
    print(f"| draws × cases | {' | '.join(SPREADS)} |")
    print("|---" * (len(SPREADS) + 1) + "|")
    for shape in SHAPES:
        cells = [covered(shape, sds, studies) for sds in SPREADS.values()]
        print(f"| {shape[0]} × {shape[1]} | {' | '.join(cells)} |", flush=True)


def covered(shape: tuple[int, int], sds: tuple[float, float, float], studies: int) -> str:
    """Share of studies whose interval holds the true mean: model / two-way bootstrap / cases alone."""
    rng, held = np.random.default_rng(0), np.zeros(3)
    draws, cases = shape
    for _ in range(studies):
        grid = (
            sds[0] * rng.normal(size=(draws, 1))
            + sds[1] * rng.normal(size=(1, cases))
            + sds[2] * rng.normal(size=shape)
        )
        ends = (
            crossed_mean(grid).interval,
            two_way_bootstrap(grid, 500),
            crossed_mean(grid.mean(axis=0, keepdims=True)).interval,
        )
        held += [low <= 0 <= high for low, high in filter(None, ends)]
    return " / ".join(f"{share:.3f}" for share in held / studies)


if __name__ == "__main__":
    main()

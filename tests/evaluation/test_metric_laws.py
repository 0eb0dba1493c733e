"""What must hold for every metric on every geometry. A metric that joins the table is held to it by itself."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lnsegfm.evaluation.metric_table import METRICS
from lnsegfm.evaluation.scoring import Scoring, score_label
from lnsegfm.imaging.grid import Grid

GRID = Grid((9, 12, 11), (3.0, 0.8, 1.1))
SCALES = {"dice": 0, "nsd": 0, "hd95_mm": 1, "assd_mm": 1, "volume_difference_ml": 3}
"""The power of the spacing that a metric grows with; a new metric states its own here."""


def lump(seed: int) -> np.ndarray:
    """A few overlapping boxes: concave, in several pieces at times, at the border at times."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(GRID.shape, dtype=bool)
    for _ in range(rng.integers(1, 4)):
        low = [rng.integers(0, n - 3) for n in GRID.shape]
        high = [a + rng.integers(2, 5) for a in low]
        mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def figures(prediction: np.ndarray, reference: np.ndarray, grid: Grid = GRID, tolerance_mm: float = 1.0) -> dict:
    score = score_label(prediction, reference, grid, scoring=Scoring(tolerance_mm=tolerance_mm))
    return {key: getattr(score, key) for key in METRICS}


def same(one: dict, other: dict, rel: float = 1e-9) -> None:
    assert one == pytest.approx(other, rel=rel, abs=1e-9, nan_ok=True)


pairs = st.tuples(st.integers(0, 10_000), st.integers(0, 10_000))
laws = settings(max_examples=12, deadline=None)


def test_every_metric_says_how_it_scales():
    assert set(SCALES) == set(METRICS)


@given(pairs)
@laws
def test_bounds_and_identity(seeds):
    one, other = map(lump, seeds)

    for key, value in figures(one, other).items():
        low, high = METRICS[key].bounds
        assert low <= value <= high
    for key, value in figures(one, one).items():
        assert value == (1.0 if METRICS[key].better == "higher" else 0.0)


@given(pairs)
@laws
def test_swapped_masks_score_the_same_and_differ_by_the_opposite_volume(seeds):
    one, other = map(lump, seeds)
    there, back = figures(one, other), figures(other, one)

    back["volume_difference_ml"] *= -1
    same(there, back)


@given(pairs, st.tuples(*[st.integers(0, 3)] * 6))
@laws
def test_empty_voxels_around_change_nothing(seeds, widths):
    one, other = map(lump, seeds)
    around = [(widths[2 * axis], widths[2 * axis + 1]) for axis in range(3)]
    padded = [np.pad(mask, around) for mask in (one, other)]
    grid = dataclasses.replace(GRID, shape=padded[0].shape)

    same(figures(one, other), figures(*padded, grid))


@given(pairs, st.integers(0, 1000), st.tuples(*[st.floats(-500, 500)] * 3))
@laws
def test_where_the_scan_lies_and_how_it_is_tilted_changes_nothing(seeds, turn, origin):
    one, other = map(lump, seeds)
    direction = Rotation.random(random_state=turn).as_matrix()
    grid = dataclasses.replace(GRID, origin_mm=origin, direction=tuple(direction.ravel().tolist()))

    same(figures(one, other), figures(one, other, grid))


@given(pairs, st.permutations([0, 1, 2]), st.tuples(*[st.booleans()] * 3))
@laws
def test_the_order_and_sense_of_the_files_axes_change_nothing(seeds, order, flips):
    one, other = map(lump, seeds)
    turned = [np.flip(mask.transpose(order), [a for a in range(3) if flips[a]]) for mask in (one, other)]
    grid = Grid(turned[0].shape, tuple(GRID.spacing_mm[a] for a in order))

    same(figures(one, other), figures(*turned, grid))


@given(pairs, st.floats(0.2, 5.0))
@laws
def test_figures_scale_with_the_spacing(seeds, factor):
    one, other = map(lump, seeds)
    scaled = dataclasses.replace(GRID, spacing_mm=tuple(factor * mm for mm in GRID.spacing_mm))

    found = figures(one, other)
    expected = {key: value * factor ** SCALES[key] for key, value in found.items()}
    same(figures(one, other, scaled, tolerance_mm=factor), expected, rel=1e-6)


@pytest.mark.parametrize(("prediction", "reference"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_empty_and_full_masks(prediction, reference):
    masks = [np.full(GRID.shape, bool(there)) for there in (prediction, reference)]
    found = figures(*masks)

    volume = math.prod(GRID.shape) * GRID.voxel_volume_ml
    assert found["volume_difference_ml"] == pytest.approx((prediction - reference) * volume)
    for key in ("dice", "nsd"):
        expected = math.nan if not (prediction or reference) else float(prediction and reference)
        assert found[key] == pytest.approx(expected, nan_ok=True)
    for key in ("hd95_mm", "assd_mm"):
        assert found[key] == pytest.approx(0.0 if prediction and reference else math.nan, nan_ok=True)


@given(pairs)
@laws
def test_overlap_and_volume_are_simpleitks(seeds):
    one, other = map(lump, seeds)
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (one, other)]
    for image in images:
        image.SetSpacing(GRID.spacing_mm[::-1])
    overlap, shapes = sitk.LabelOverlapMeasuresImageFilter(), [sitk.LabelShapeStatisticsImageFilter() for _ in images]
    overlap.Execute(*images)
    for shape, image in zip(shapes, images, strict=True):
        shape.Execute(image)
    found = figures(one, other)

    assert found["dice"] == pytest.approx(overlap.GetDiceCoefficient(1))
    mine, theirs = (shape.GetPhysicalSize(1) / 1000 for shape in shapes)
    assert found["volume_difference_ml"] == pytest.approx(mine - theirs)


def test_spheres_turned_and_stretched_keep_their_figures():
    """Concentric balls of 6 and 8 mm: all figures have closed forms, on any grid that is fine enough."""
    grid = Grid((40, 50, 44), (0.5, 0.4, 0.45), (3.0, -7.0, 11.0))
    at = np.stack(np.meshgrid(*[(np.arange(n) - (n - 1) / 2) for n in grid.shape], indexing="ij"), -1) * grid.spacing_mm
    radius = np.linalg.norm(at, axis=-1)
    found = figures(radius <= 6, radius <= 8, grid, tolerance_mm=1.5)

    small, large = (4 / 3 * math.pi * r**3 / 1000 for r in (6, 8))
    assert found["dice"] == pytest.approx(2 * small / (small + large), abs=0.01)
    assert found["volume_difference_ml"] == pytest.approx(small - large, rel=0.02)
    assert found["assd_mm"] == pytest.approx(2.0, abs=0.1)
    assert found["hd95_mm"] == pytest.approx(2.0, abs=0.25)
    assert found["nsd"] == 0.0

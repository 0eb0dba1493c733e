"""Surface metrics against solids whose distances are known, and laws that hold for every pair of masks.

A mask cannot hold a surface to better than its voxels, so tolerances are shares of the longest voxel edge. Where the
surfaces run along the voxels the figures are exact.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lnsegfm.errors import ConfigError, DataError
from lnsegfm.evaluation.surface import SurfaceDistances, surface_distances
from lnsegfm.evaluation.surface_mesh import surface_of
from lnsegfm.imaging.grid import Grid

C, S = math.cos(0.4), math.sin(0.4)
OBLIQUE = (C, -S, 0.0, S * C, C * C, -S, S * S, S * C, C)
Span = tuple[int, int]


def box(shape: tuple[int, int, int], z: Span, y: Span, x: Span) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[slice(*z), slice(*y), slice(*x)] = True
    return mask


def centred(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)):
    """A grid whose middle is at the patient's origin."""
    middle = [(n - 1) / 2 * s for n, s in zip(shape[::-1], spacing_mm[::-1], strict=True)]
    origin = -(np.array(direction, dtype=float).reshape(3, 3) @ middle)
    return Grid(shape, spacing_mm, tuple(origin), direction)


def world(grid: Grid) -> np.ndarray:
    """Patient coordinates (x, y, z) of every voxel."""
    index = np.stack(np.indices(grid.shape)[::-1], axis=-1) * grid.spacing_mm[::-1]
    return index @ np.array(grid.direction).reshape(3, 3).T + grid.origin_mm


def ball(grid: Grid, radius_mm: float, centre_mm: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    return np.linalg.norm(world(grid) - centre_mm, axis=-1) <= radius_mm


def figures(d: SurfaceDistances, tolerance_mm: float = 1.0) -> tuple[float, float, float, float]:
    return d.nsd(tolerance_mm), d.hd95_mm, d.hd_mm, d.assd_mm


GRIDS = {
    "cubes": centred((36, 36, 36), (1.0, 1.0, 1.0)),
    "thick slices": centred((14, 40, 40), (3.0, 0.9, 0.9)),
    "oblique": centred((24, 36, 40), (1.5, 1.0, 0.9), OBLIQUE),
}
on_every_grid = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("voxels", [1, 2, 3])
def test_a_shifted_box_is_exactly_as_far_as_it_was_shifted(axis, voxels):
    grid = Grid((16, 18, 20), (3.0, 1.0, 0.7))
    reference = box(grid.shape, (3, 12), (4, 14), (4, 16))
    shift_mm = voxels * grid.spacing_mm[axis]

    d = surface_distances(np.roll(reference, voxels, axis), reference, grid)

    assert d.hd_mm == pytest.approx(shift_mm, abs=1e-9)
    assert d.hd95_mm == pytest.approx(shift_mm, abs=1e-9)
    assert d.nsd(shift_mm) == 1.0
    assert d.nsd(shift_mm - 1e-4) < 0.95


def test_a_box_grown_on_one_side_has_that_side_alone_farther():
    grid = Grid((12, 14, 16), (3.0, 1.0, 0.7))
    small, grown = box(grid.shape, (3, 9), (3, 11), (3, 11)), box(grid.shape, (3, 9), (3, 11), (3, 13))

    d = surface_distances(grown, small, grid)

    flat = (6 - 1) * 3.0 * (8 - 1) * 1.0  # of the side of 6 x 8 voxels, between its voxels' centres
    assert d.prediction_mm2[np.isclose(d.prediction_mm, 2 * 0.7, atol=1e-9)].sum() == pytest.approx(flat, rel=1e-9)
    within = (
        (6 - 1) * 3.0 * (8 - 3) * 1.0
    )  # of the small box's side, which lies inside: nearer to its edges the sides are
    assert d.reference_mm2[np.isclose(d.reference_mm, 2 * 0.7, atol=1e-9)].sum() == pytest.approx(within, rel=1e-9)
    assert d.hd_mm == pytest.approx(1.4, abs=1e-9)


@on_every_grid
def test_concentric_spheres(grid):
    voxel, gap = max(grid.spacing_mm), 4.0

    d = surface_distances(ball(grid, 9), ball(grid, 9 + gap), grid)

    assert d.assd_mm == pytest.approx(gap, abs=0.2 * voxel)  # shorter: the nearest point is where a step juts out
    assert d.hd95_mm == pytest.approx(gap, abs=0.6 * voxel)
    assert d.hd_mm == pytest.approx(gap, abs=voxel)
    assert min(d.prediction_mm.min(), d.reference_mm.min()) == pytest.approx(gap, abs=voxel)
    assert d.nsd(gap - voxel) == 0.0
    assert d.nsd(gap + voxel) == 1.0


@on_every_grid
@pytest.mark.parametrize("shift", [(4.0, 0, 0), (0, 2.5, 0), (-2.0, 2.0, 2.0)])
def test_shifted_spheres_have_the_distances_of_the_integral(grid, shift):
    voxel, radius, by = max(grid.spacing_mm), 11.0, float(np.linalg.norm(shift))
    # on a sphere the cosine u to the shift is uniform, and a point is | |p - shift| - radius | from the other sphere
    u = (np.arange(100_000) + 0.5) / 50_000 - 1
    truth = np.abs(np.sqrt(radius**2 + by**2 - 2 * radius * by * u) - radius)

    d = surface_distances(ball(grid, radius, shift), ball(grid, radius), grid)

    assert d.assd_mm == pytest.approx(truth.mean(), abs=0.1 * voxel)
    assert d.hd95_mm == pytest.approx(np.quantile(truth, 0.95), abs=0.35 * voxel)
    assert d.hd_mm == pytest.approx(by, abs=0.5 * voxel)
    assert d.nsd(2.0) == pytest.approx(np.mean(truth <= 2.0), abs=0.06 * voxel)


@on_every_grid
def test_a_cavity_is_surface_too(grid):
    outer, inner = 12.0, 6.0
    whole = ball(grid, outer)

    d = surface_distances(whole & ~ball(grid, inner), whole, grid)

    areas = 2 * outer**2 + inner**2
    assert d.assd_mm == pytest.approx(inner**2 * (outer - inner) / areas, abs=0.1 * max(grid.spacing_mm))
    assert d.nsd(1.0) == pytest.approx(2 * outer**2 / areas, abs=0.02)
    assert np.all(d.reference_mm == 0)


def test_figures_weigh_distances_by_area():
    d = SurfaceDistances(
        np.array([4.0, 0.0, 1.0]), np.array([6.0, 64.0, 30.0]), np.array([9.0, 2.0]), np.array([10.0, 190.0])
    )

    assert d.nsd(1.0) == pytest.approx(94 / 300)
    assert d.hd95_mm == 4.0  # 94 % of the one surface lies within 1 mm, 95 % of the other within 2; both as one: 2
    assert d.hd_mm == 9.0
    assert d.assd_mm == pytest.approx((24 + 30 + 90 + 380) / 300)


def test_turned_and_moved_grids_measure_the_same():
    straight = Grid((9, 10, 11), (2.0, 0.9, 1.2))
    turned = Grid(straight.shape, straight.spacing_mm, (-120.5, 33.0, 871.0), OBLIQUE)
    rng = np.random.default_rng(5)
    one, other = rng.random(straight.shape) < 0.3, rng.random(straight.shape) < 0.3

    assert figures(surface_distances(one, other, straight)) == figures(surface_distances(one, other, turned))


@pytest.mark.parametrize("step", [(0, 0, 3), (0, 2, 0), (2, 0, 0), (1, 1, 1)])
def test_single_voxels(step):
    grid = Grid((7, 7, 7), (3.0, 1.0, 0.7))
    one = box(grid.shape, (2, 3), (2, 3), (2, 3))
    shift_mm = float(np.linalg.norm(np.multiply(step, grid.spacing_mm)))

    d = surface_distances(np.roll(one, step, (0, 1, 2)), one, grid)

    assert shift_mm / 2 < d.assd_mm <= d.hd_mm <= shift_mm  # a voxel is an octahedron between its six neighbours
    assert figures(surface_distances(one, one, grid)) == (1.0, 0.0, 0.0, 0.0)


THIN = {
    "slice": box((5, 8, 8), (2, 3), (1, 7), (1, 7)),
    "line": box((5, 8, 8), (2, 3), (3, 4), (0, 8)),
    "diagonal": np.eye(8, dtype=bool)[None].repeat(5, axis=0) & box((5, 8, 8), (1, 2), (0, 8), (0, 8)),
    "full": np.ones((5, 8, 8), dtype=bool),
    "one slice of a file of one": np.ones((1, 8, 8), dtype=bool),
}


@pytest.mark.parametrize("mask", THIN.values(), ids=THIN)
def test_thin_and_full_masks_are_closed_surfaces(mask):
    grid = Grid(mask.shape, (3.0, 1.0, 1.0))
    padded = np.pad(mask, 2)

    assert figures(surface_distances(mask, mask, grid)) == (1.0, 0.0, 0.0, 0.0)
    assert surface_of(mask, grid.spacing_mm).areas_mm2.sum() == surface_of(padded, grid.spacing_mm).areas_mm2.sum()
    assert is_closed(mask)


def test_a_full_volume_against_one_slice_less():
    grid = Grid((6, 9, 9), (3.0, 1.0, 1.0))

    d = surface_distances(box(grid.shape, (0, 5), (0, 9), (0, 9)), np.ones(grid.shape, dtype=bool), grid)

    assert d.hd_mm == pytest.approx(3.0, abs=1e-9)
    assert d.nsd(3.0) == 1.0


def test_empty_masks():
    grid = Grid((4, 5, 6), (3.0, 1.0, 1.0))
    nothing, something = np.zeros(grid.shape, dtype=bool), box(grid.shape, (1, 3), (1, 3), (1, 3))

    assert np.isnan(figures(surface_distances(nothing, nothing, grid))).all()
    for d in (surface_distances(nothing, something, grid), surface_distances(something, nothing, grid)):
        assert d.nsd(1e6) == 0.0
        assert np.isnan(figures(d)[1:]).all()


def test_what_a_prediction_does_where_nobody_looked_is_not_scored():
    grid = Grid((16, 10, 10), (1.0, 1.0, 1.0))
    valid = box(grid.shape, (0, 9), (0, 10), (0, 10))
    reference = box(grid.shape, (2, 6), (2, 8), (2, 8))
    short, long = box(grid.shape, (2, 12), (2, 8), (2, 8)), box(grid.shape, (2, 15), (2, 8), (2, 8))

    one, other = surface_distances(short, reference, grid, valid), surface_distances(long, reference, grid, valid)
    whole, cut = surface_distances(long, reference, grid), surface_distances(long & valid, reference, grid)

    assert figures(one) == figures(other)
    assert one.prediction_mm2.sum() == other.prediction_mm2.sum()
    # neither the end that is out of sight nor a face where the sight ends
    assert one.prediction_mm2.sum() < cut.prediction_mm2.sum() - 25 < whole.prediction_mm2.sum() - 50
    assert one.prediction_mm.max() < cut.prediction_mm.max() < whole.prediction_mm.max()


def test_masks_that_part_only_where_nobody_looked_agree():
    grid = Grid((12, 10, 10), (1.0, 1.0, 1.0))
    valid = box(grid.shape, (0, 6), (0, 10), (0, 10))
    prediction, reference = box(grid.shape, (2, 11), (2, 8), (2, 8)), box(grid.shape, (2, 6), (2, 8), (2, 8))

    assert figures(surface_distances(prediction, reference, grid, valid)) == (1.0, 0.0, 0.0, 0.0)
    assert surface_distances(prediction, reference, grid).hd_mm == 5.0


def test_masks_of_which_no_voxel_counts_are_empty():
    grid = Grid((8, 8, 8), (1.0, 1.0, 1.0))
    valid = box(grid.shape, (0, 8), (0, 8), (0, 5))
    hidden, seen = box(grid.shape, (2, 5), (2, 5), (5, 8)), box(grid.shape, (2, 5), (2, 5), (1, 3))

    assert surface_distances(hidden, seen, grid, valid).nsd(100.0) == 0.0
    assert math.isnan(surface_distances(hidden, seen, grid, valid).hd95_mm)
    assert np.isnan(figures(surface_distances(hidden, hidden, grid, valid))).all()
    # one voxel in sight, none of whose cells is: nothing to score on either side
    glimpse = box(grid.shape, (2, 5), (2, 5), (4, 8))
    assert np.isnan(figures(surface_distances(glimpse, hidden, grid, box(grid.shape, (3, 4), (3, 4), (4, 5))))).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prediction": np.zeros((3, 3, 3), np.uint8)}, "Prediction of uint8: surfaces are defined for boolean masks"),
        ({"reference": np.zeros((3, 3, 4), bool)}, r"Reference of \(3, 3, 4\): the grid has \(3, 3, 3\) voxels"),
        ({"valid": np.zeros((3, 3), bool)}, r"Valid voxels of \(3, 3\): the grid has"),
    ],
)
def test_masks_that_are_not_on_the_grid_are_refused(changed, message):
    mask = np.zeros((3, 3, 3), dtype=bool)
    given_ = {"prediction": mask, "reference": mask, "grid": Grid((3, 3, 3), (1, 1, 1)), "valid": None} | changed

    with pytest.raises(DataError, match=rf"^{message}") as caught:
        surface_distances(**given_)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("tolerance_mm", [-0.1, math.nan, math.inf])
def test_tolerances_are_distances(tolerance_mm):
    mask = np.ones((2, 2, 2), dtype=bool)

    with pytest.raises(ConfigError, match=r"^Tolerance .* mm: not a distance\."):
        surface_distances(mask, mask, Grid((2, 2, 2), (1, 1, 1))).nsd(tolerance_mm)


SHAPE = (3, 4, 5)
masks = arrays(np.bool_, SHAPE).filter(np.any)
spacings = st.tuples(*[st.sampled_from([0.7, 1.0, 1.3, 3.0])] * 3)
few = settings(max_examples=40, deadline=None)
TOLERANCE = 0.7345  # no distance between points of the lattice, so that rounding decides nothing


def is_closed(mask: np.ndarray) -> bool:
    """Every side of a triangle belongs to an even number of triangles."""
    triangles = surface_of(mask, (1.0, 1.0, 1.0)).triangles
    sides = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
    return bool((np.unique(sides, axis=0, return_counts=True)[1] % 2 == 0).all())


@few
@given(masks, masks, spacings)
def test_symmetric_and_within_bounds(one, other, spacing):
    d = surface_distances(one, other, Grid(SHAPE, spacing))

    assert figures(d, TOLERANCE) == pytest.approx(
        figures(surface_distances(other, one, Grid(SHAPE, spacing)), TOLERANCE)
    )
    nsd = [d.nsd(t) for t in (0.0, 0.3, 1.0, 3.0, 100.0)]
    assert nsd == sorted(nsd)
    assert nsd[0] >= 0
    assert nsd[-1] == 1.0
    assert 0 <= d.assd_mm <= d.hd_mm * (1 + 1e-12)
    assert 0 <= d.hd95_mm <= d.hd_mm


@few
@given(masks, spacings)
def test_a_mask_is_at_no_distance_from_itself(mask, spacing):
    assert figures(surface_distances(mask, mask, Grid(SHAPE, spacing)), 0.0) == (1.0, 0.0, 0.0, 0.0)
    assert is_closed(mask)


@few
@given(masks, masks, spacings, st.permutations([0, 1, 2]), st.tuples(*[st.sampled_from([1, -1])] * 3))
def test_axes_that_run_otherwise_change_nothing(one, other, spacing, order, ways):
    def turned(mask: np.ndarray) -> np.ndarray:
        return mask[tuple(slice(None, None, way) for way in ways)].transpose(order)

    grid = Grid(tuple(SHAPE[axis] for axis in order), tuple(spacing[axis] for axis in order))

    assert figures(surface_distances(turned(one), turned(other), grid), TOLERANCE) == pytest.approx(
        figures(surface_distances(one, other, Grid(SHAPE, spacing)), TOLERANCE)
    )


@few
@given(masks, masks, spacings, st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 3))
def test_padding_and_what_counts_everywhere_change_nothing(one, other, spacing, widths):
    padded = [np.pad(mask, widths) for mask in (one, other)]
    grid = Grid(padded[0].shape, spacing, (5.0, -7.0, 11.0))

    assert figures(surface_distances(*padded, grid, np.ones(grid.shape, dtype=bool)), TOLERANCE) == pytest.approx(
        figures(surface_distances(one, other, Grid(SHAPE, spacing)), TOLERANCE)
    )


@few
@given(masks, masks, spacings, st.floats(0.05, 20))
def test_distances_scale_with_the_spacing(one, other, spacing, factor):
    scaled = surface_distances(one, other, Grid(SHAPE, tuple(s * factor for s in spacing)))
    nsd, *distances = figures(surface_distances(one, other, Grid(SHAPE, spacing)), TOLERANCE)

    assert figures(scaled, TOLERANCE * factor) == pytest.approx((nsd, *(d * factor for d in distances)), abs=1e-9)


@few
@given(masks, masks, arrays(np.bool_, SHAPE))
def test_voxels_out_of_sight_make_no_surface_that_is_scored(one, other, valid):
    grid = Grid(SHAPE, (1.0, 1.0, 1.0))

    d, everything = surface_distances(one, other, grid, valid), surface_distances(one, other, grid)
    scrambled = surface_distances(np.where(valid, one, ~one), other, grid, valid)

    if (one & valid).any() == one.any():
        assert d.prediction_mm2.sum() <= everything.prediction_mm2.sum() * (1 + 1e-12)
    assert scrambled.prediction_mm2.sum() == pytest.approx(d.prediction_mm2.sum())

"""The exact truth about nodes, checked against brute force."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lnsegfm.datasets.phantom import axial_diameters, make_case, preset
from lnsegfm.datasets.phantom.phantom_nodes import contact
from lnsegfm.datasets.phantom.shapes import Cone, Ellipsoid, Pillar, Tube

lengths = st.floats(1.5, 15)
angles = st.tuples(st.floats(0, 360), st.floats(0, 180), st.floats(0, 360))


def ellipsoid(semi_axes, euler, centre=(0, 0, 0)):
    return Ellipsoid(
        np.array(centre, float), np.array(semi_axes, float), Rotation.from_euler("zxz", euler, degrees=True).as_matrix()
    )


@pytest.fixture(scope="module")
def fine_case():
    domain = replace(preset("base"), spacing_mm=(1.0, 1.0, 1.0), size_mm=(80.0, 150.0, 150.0), node_count=(6, 8))
    return make_case(domain, seed=1, index=0)


@settings(max_examples=15, deadline=None)
@given(st.tuples(lengths, lengths, lengths), angles)
def test_short_axis_is_that_of_brute_force(semi_axes, euler):
    """Every axial slice of the ellipsoid, its points on a fine grid: widest extent first, then the one across it."""
    solid = ellipsoid(semi_axes, euler)
    reach = max(semi_axes)
    turns = np.deg2rad(np.arange(0, 180, 1.0))
    directions = np.stack([np.cos(turns), np.sin(turns)])
    step = reach / 60
    axis = np.arange(-reach, reach + step, step)
    x, y = np.meshgrid(axis, axis)
    best = (0.0, 0.0)
    for z in np.linspace(-reach, reach, 21):
        points = np.stack([x, y], axis=-1)[solid.level(x, y, np.full_like(x, z)) <= 1]
        if len(points) > 2:
            extent = np.ptp(points @ directions, axis=0)
            longest = int(extent.argmax())
            best = max(best, (float(extent[longest]), float(extent[(longest + 90) % 180])))
    long_mm, short_mm = axial_diameters(solid)
    assert long_mm == pytest.approx(best[0], abs=4 * step)
    # where the slice is nearly round, the direction of the long axis hardly matters for the extent across it
    assert short_mm == pytest.approx(best[1], abs=4 * step + 0.02 * long_mm)


def test_short_axis_of_known_ellipsoids():
    assert axial_diameters(ellipsoid((5, 3, 9), (0, 0, 0))) == pytest.approx((10, 6))  # long axis along z: not seen
    assert axial_diameters(ellipsoid((5, 3, 9), (0, 90, 0))) == pytest.approx((18, 10))
    tilted = axial_diameters(ellipsoid((4, 4, 8), (0, 45, 0)))
    assert tilted == pytest.approx((2 / math.sqrt((1 / 16 + 1 / 64) / 2), 8))


@settings(max_examples=25, deadline=None)
@given(st.tuples(lengths, lengths, lengths), angles, st.tuples(lengths, lengths, lengths), angles, angles)
def test_contact_is_one_where_ellipsoids_are_tangent(first, turn_a, second, turn_b, direction):
    away = Rotation.from_euler("zxz", direction, degrees=True).as_matrix()[:, 0]
    a, b = ellipsoid(first, turn_a), ellipsoid(second, turn_b, away)
    distance = 1 / math.sqrt(contact(a, b))
    i = np.arange(4000) + 0.5
    height, turn = 1 - 2 * i / 4000, np.pi * (1 + 5**0.5) * i
    sphere = np.stack([np.cos(turn) * np.sqrt(1 - height**2), np.sin(turn) * np.sqrt(1 - height**2), height], axis=1)

    def overlap(at_mm):
        surface = away * at_mm + (sphere * b.semi_axes) @ b.rotation.T
        return float(a.level(*surface.T).min())

    assert overlap(distance * 1.001) > 1
    assert overlap(distance * 0.9) < 1


def test_volumes_are_exact(fine_case):
    for node, truth in zip(fine_case.nodes, fine_case.truth()["nodes"], strict=True):
        a, b, c = truth["semi_axes_mm"]
        assert a >= b >= c
        assert truth["volume_ml"] == pytest.approx(4 / 3 * math.pi * a * b * c / 1000, rel=1e-12)
        assert np.allclose(np.array(truth["axes"]) @ np.array(truth["axes"]).T, np.eye(3))
        shell_ml = 4 * math.pi * a * a * 0.25 / 1000  # a quarter of a voxel (1 mm) all around
        assert truth["voxels"] / 1000 == pytest.approx(node.volume_ml, abs=shell_ml)


def test_voxels_are_counted_in_the_mask(fine_case):
    nodes = fine_case.truth()["nodes"]
    assert sum(n["voxels"] for n in nodes) == np.count_nonzero(fine_case.mask)


def test_centres_lie_in_the_mask_and_at_its_centroid(fine_case):
    for k, truth in enumerate(fine_case.truth()["nodes"]):
        index = np.array(truth["centre_index"])
        assert fine_case.instances[tuple(np.rint(index).astype(int))] == k + 1
        assert np.allclose(np.argwhere(fine_case.instances == k + 1).mean(axis=0), index, atol=0.3)
        world = fine_case.grid.origin_mm + index[::-1] * fine_case.grid.spacing_mm[::-1]
        assert np.allclose(truth["centre_mm"], world)


def test_the_image_shows_the_node_where_the_mask_has_it(fine_case):
    """Half of the step from fat to node is reached at the mask's border: not a voxel further in or out."""
    from scipy.ndimage import binary_dilation, binary_erosion

    for k, node in enumerate(fine_case.nodes):
        if min(node.solid.semi_axes) > 3.5 and not node.touches:
            mask = fine_case.instances == k + 1
            inner = fine_case.image_hu[mask & ~binary_erosion(mask)].mean()
            outer = fine_case.image_hu[binary_dilation(mask) & ~mask].mean()
            middle = (node.hu - 105) / 2
            assert outer < middle < inner


def test_distances_of_solids_are_those_to_points_on_their_surface():
    rng = np.random.default_rng(0)
    tube = Tube(np.array([[0, 0, -20], [3, 2, 0], [0, 5, 20]], float), np.array([4.0, 3.0, 2.0]))
    cone = Cone(np.zeros(3), np.array([0, 0, 10.0]), (3.0, 3.0))
    pillar = Pillar(np.array([[-10, 0, 0, 6, 4, 30], [10, 0, 0, 6, 4, 30]], float), 2.0, -8, 8)
    ball = ellipsoid((5, 5, 5), (10, 20, 30))
    assert cone.distance(*np.array([5.0, 0, 5])) == pytest.approx(2)
    assert ball.distance(*np.array([0.0, 8, 0])) == pytest.approx(3)
    assert pillar.distance(*np.array([0.0, 0, 10])) == pytest.approx(2)
    for solid in (tube, cone, pillar, ball):
        low, high = solid.bounds
        points = rng.uniform(np.maximum(low, -40) - 2, np.minimum(high, 40) + 2, (4000, 3))
        inside = solid.distance(*points.T) < 0
        assert inside.any()
        assert np.all((points[inside] >= low - 1e-6) & (points[inside] <= high + 1e-6))

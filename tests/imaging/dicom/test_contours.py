from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.draw import polygon2mask

from lnsegfm.imaging.dicom.contours import fill_polygons, trace_outlines

planes = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))
SQUARE = np.array([(1, 1), (4, 1), (4, 4), (1, 4)], dtype=float)


def area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2


@settings(deadline=None, max_examples=300)
@given(planes)
def test_outlines_filled_are_the_plane_again(plane: np.ndarray) -> None:
    assert np.array_equal(fill_polygons(trace_outlines(plane), plane.shape), plane)


@settings(deadline=None)
@given(planes)
def test_an_independent_rasteriser_reads_outlines_the_same(plane: np.ndarray) -> None:
    read = np.zeros(plane.shape, dtype=bool)
    for polygon in trace_outlines(plane):
        read ^= polygon2mask(plane.shape, polygon[:, ::-1])

    assert np.array_equal(read, plane)


@settings(deadline=None)
@given(planes)
def test_outlines_are_simple_polygons_of_corners_alone(plane: np.ndarray) -> None:
    for polygon in trace_outlines(plane):
        sides = np.roll(polygon, -1, axis=0) - polygon
        assert len(np.unique(polygon, axis=0)) == len(polygon) >= 4
        assert np.all((sides[:, 0] == 0) != (sides[:, 1] == 0))
        assert np.all((sides[:, 0] == 0) != (np.roll(sides, 1, axis=0)[:, 0] == 0))


def test_voxels_that_touch_at_a_corner_are_two_polygons() -> None:
    for plane in (np.eye(2, dtype=bool), ~np.eye(2, dtype=bool)):
        assert [area(p) for p in trace_outlines(plane)] == [1.0, 1.0]


def test_a_ring_that_touches_itself_at_a_corner_is_a_border_and_a_hole() -> None:
    ring = np.ones((4, 4), dtype=bool)
    ring[1:3, 1:3] = ring[0, 0] = False  # the hole touches the notch outside at a corner

    assert sorted(area(p) for p in trace_outlines(ring)) == [4.0, 15.0]


def test_a_hole_is_a_polygon_of_its_own() -> None:
    ring = np.ones((5, 6), dtype=bool)
    ring[1:3, 2:4] = False

    assert sorted(area(p) for p in trace_outlines(ring)) == [4.0, 30.0]


def test_a_keyhole_is_filled_like_a_hole() -> None:
    outer = [(-0.5, -0.5), (4.5, -0.5), (4.5, 4.5), (-0.5, 4.5), (-0.5, -0.5)]
    inner = [(0.5, 0.5), (0.5, 3.5), (3.5, 3.5), (3.5, 0.5), (0.5, 0.5)]
    expected = np.ones((5, 5), dtype=bool)
    expected[1:4, 1:4] = False

    assert np.array_equal(fill_polygons([np.array(outer + inner)], (5, 5)), expected)


def test_sides_through_centres_belong_to_the_lower_neighbour_on_one_side_only() -> None:
    expected = np.zeros((6, 6), dtype=bool)
    expected[1:4, 1:4] = True

    assert np.array_equal(fill_polygons([SQUARE], (6, 6)), expected)
    assert np.array_equal(fill_polygons([SQUARE[::-1]], (6, 6)), expected)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=6, unique=True))
def test_a_fan_of_triangles_neither_shares_nor_loses_a_voxel(inner: list[tuple[int, int]]) -> None:
    square = np.array([(-0.5, -0.5), (12.5, -0.5), (12.5, 12.5), (-0.5, 12.5)])
    for point in inner:  # corners at centres, sides through centres
        fan = [np.array([point, a, b], dtype=float) for a, b in zip(square, np.roll(square, -1, axis=0), strict=True)]
        times = sum(fill_polygons([triangle], (13, 13)).astype(int) for triangle in fan)
        assert np.all(times == 1)


@pytest.mark.parametrize("radius", [0.4, 1.5, 3.3, 7.9, 12.25])
@pytest.mark.parametrize("centre", [(15.0, 15.0), (14.53, 15.21), (15.5, 14.25)])
def test_a_circle_holds_the_voxels_whose_centres_lie_inside(radius: float, centre: tuple[float, float]) -> None:
    angle = np.linspace(0, 2 * np.pi, 20000, endpoint=False)
    circle = np.stack((centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)), axis=1)
    row, column = np.mgrid[:31, :31]
    distance = np.hypot(column - centre[0], row - centre[1])
    clear = np.abs(distance - radius) > radius * (np.pi / 20000) ** 2  # the polygon's own sagitta

    assert np.array_equal(fill_polygons([circle], (31, 31))[clear], (distance < radius)[clear])
    assert clear.sum() >= clear.size - 12


def test_a_polygon_may_reach_out_of_the_window_on_every_side() -> None:
    big = np.array([(-1e5, -1e5), (1e5, -1e5), (1e5, 1e5), (-1e5, 1e5)])

    assert fill_polygons([big], (3, 4)).all()
    assert np.array_equal(fill_polygons([SQUARE], (2, 3), corner=(3, 2)), [[True, True, False], [False, False, False]])


def test_nothing_is_filled_by_nothing() -> None:
    assert not fill_polygons([], (2, 2)).any()
    assert not fill_polygons([SQUARE, SQUARE], (6, 6)).any()  # an even number of times
    assert trace_outlines(np.zeros((3, 3), dtype=bool)) == []

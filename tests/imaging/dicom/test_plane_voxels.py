"""Outlines of one plane: the same voxels however they are written, and as a rasteriser from the definition has them."""

from __future__ import annotations

import time
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.outlines import PixelSize
from lnsegfm.imaging.dicom.plane_voxels import PlaneVoxels, fill_plane
from tests.imaging.dicom.drawn import again, blob, circle, keyhole, with_points

SHAPE = (64, 72)
PIXEL = PixelSize(0.98, 0.9)
ROUNDED_MM = 0.1


def filled(*outlines: np.ndarray, exclusive_or: bool = False, pixel: PixelSize = PIXEL) -> PlaneVoxels:
    """Outlines in mm."""
    index = [np.asarray(outline) / (pixel.column_mm, pixel.row_mm) for outline in outlines]
    return fill_plane(index, SHAPE, pixel=pixel, exclusive_or=exclusive_or)


def crossed(outline: np.ndarray) -> np.ndarray:
    """How often a ray from each voxel centre to the right crosses an outline, point by point and side by side."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] * np.array([PIXEL.row_mm, PIXEL.column_mm])[:, None, None]
    count = np.zeros(SHAPE, dtype=int)
    for (ax, ay), (bx, by) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        if ay != by:
            count += ((ay > y) != (by > y)) & (x < ax + (y - ay) / (by - ay) * (bx - ax))
    return count


def inside(outline: np.ndarray) -> np.ndarray:
    return crossed(outline) % 2 == 1


def clear_of(outlines: list[np.ndarray], distance_mm: float) -> np.ndarray:
    """Voxels whose centres lie farther than a distance from every outline."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] * np.array([PIXEL.row_mm, PIXEL.column_mm])[:, None, None]
    clear = np.ones(SHAPE, dtype=bool)
    for outline in outlines:
        for a, b in zip(outline, np.roll(outline, -1, axis=0), strict=True):
            side = b - a
            part = np.clip(((x - a[0]) * side[0] + (y - a[1]) * side[1]) / (side @ side), 0, 1)
            clear &= np.hypot(x - a[0] - part * side[0], y - a[1] - part * side[1]) > distance_mm
    return clear


radii = st.lists(st.floats(0.85, 1.15), min_size=9, max_size=30)


@st.composite
def scenes(draw: st.DrawFn) -> list[list[np.ndarray]]:
    """Objects of one structure on a plane: each an outline, maybe its hole, maybe an island in that."""
    objects = []
    for x, y in draw(st.sampled_from([[(20, 20)], [(20, 20), (48, 38)], [(18, 40), (48, 16), (50, 44)]])):
        shape = np.array(draw(radii))
        size = draw(st.floats(5, 12))
        place = x + draw(st.floats(-1, 1)), y + draw(st.floats(-1, 1))
        shells = draw(st.integers(1, 3))
        objects.append([blob(*place, shape * size * part) for part in (1, 0.62, 0.3)[:shells]])
    return objects


@st.composite
def writings(draw: st.DrawFn, outline: np.ndarray) -> list[np.ndarray]:
    """The same outline once or several times, each in another way."""
    copies = []
    for _ in range(draw(st.integers(1, 4))):
        places = draw(st.lists(st.floats(0, 100), max_size=4))
        copy = with_points(outline, places)
        copy = again(copy, start=draw(st.integers(0, len(copy))), back=draw(st.booleans()), closed=draw(st.booleans()))
        turns = draw(st.sampled_from([1, 1, 1, 2, 3]))
        copies.append(np.concatenate([copy] * turns) if turns > 1 else copy)
    return copies


@settings(deadline=None, max_examples=60)
@given(scenes(), st.data())
def test_a_shape_has_the_same_voxels_however_it_is_written(scene, data):
    expected = np.zeros(SHAPE, dtype=bool)
    for shells in scene:
        for outline in shells:
            expected ^= inside(outline)
    assert np.array_equal(filled(*(outline for shells in scene for outline in shells)).voxels, expected)

    written = [copy for shells in scene for outline in shells for copy in data.draw(writings(outline))]
    shuffled = data.draw(st.permutations(written))
    # sides that were cut into several are the same to the last bits of a coordinate only
    clear = clear_of([outline for shells in scene for outline in shells], 1e-9)
    for exclusive_or in (False, True):
        again_filled = filled(*shuffled, exclusive_or=exclusive_or)
        assert np.array_equal(again_filled.voxels[clear], expected[clear])
        assert again_filled.joined == again_filled.reaching_out == 0
    assert filled(*shuffled).repeats == len(written) - sum(map(len, scene))

    rounded = [outline.round(1) if data.draw(st.booleans()) else outline for outline in shuffled]
    clear = clear_of([outline for shells in scene for outline in shells], ROUNDED_MM)
    assert np.array_equal(filled(*rounded).voxels[clear], expected[clear])


@settings(deadline=None, max_examples=60)
@given(radii, st.floats(6, 14), st.integers(0, 3), st.booleans(), st.booleans(), st.integers(0, 8))
def test_a_keyhole_is_a_hole_whichever_way_it_is_walked(shape, size, more, back, rounded, start):
    outer, hole = blob(30, 28, np.array(shape) * size), blob(30, 28, np.array(shape) * size * 0.5)
    expected = inside(outer) & ~inside(hole)
    drawn = keyhole(outer, again(hole, back=back, start=start % len(hole)), more)
    clear = clear_of([outer, hole], ROUNDED_MM if rounded else 1e-9)
    if more and rounded:  # a slit of several points leaves the straight line
        clear &= clear_of([drawn], ROUNDED_MM)

    read = filled(drawn.round(1) if rounded else drawn)
    assert np.array_equal(read.voxels[clear], expected[clear])
    twice = filled(drawn, again(drawn, start=4, back=True), outer)
    assert twice.repeats == 1


@pytest.mark.parametrize("across", [0, 1])
@pytest.mark.parametrize("width_mm", [0.0, 0.04, 0.1, -0.1])
def test_a_slit_that_rounding_opened_or_crossed_loses_no_voxel(across, width_mm):
    y, x = 30 * PIXEL.row_mm, 30 * PIXEL.column_mm  # both ways run along a row (a column) of centres
    outer, hole = circle(x, y, 14, 41), circle(x, y, 6, 41)
    if across:
        outer, hole = outer[:, ::-1] + (x - y, y - x), hole[:, ::-1] + (x - y, y - x)
    aside = np.array([width_mm / 2, 0.0] if across else [0.0, width_mm / 2])
    ways = [np.array([outer[0] - s * aside, hole[0] - s * aside]) for s in (1, -1)]
    drawn = np.concatenate((ways[0], hole[1:][::-1], ways[1][::-1], outer[1:][::-1]))
    expected = inside(outer) & ~inside(hole)
    clear = clear_of([outer, hole], 0.12)

    read = filled(drawn)
    assert np.array_equal(read.voxels[clear], expected[clear])
    assert (read.bridged > 0) == (abs(width_mm) > 0)


@pytest.mark.parametrize("copies", [2, 3, 4, 7])
def test_any_number_of_copies_counts_once(copies):
    outline = circle(30, 28, 8)
    read = filled(*(again(outline, start=5 * k, back=bool(k % 2)) for k in range(copies)))
    assert (read.repeats, np.count_nonzero(read.voxels)) == (copies - 1, np.count_nonzero(inside(outline)))


@pytest.mark.parametrize("points", [12, 17, 60, 400])
def test_a_copy_with_other_points_along_the_same_curve_counts_once(points):
    read = filled(circle(30, 28, 8), circle(30, 28, 8, points))
    assert (read.repeats, np.count_nonzero(read.voxels)) == (1, np.count_nonzero(inside(circle(30, 28, 8))))


@pytest.mark.parametrize("wall_mm", [0.6, 1.0, 3.0])
def test_a_thin_wall_is_no_repeat(wall_mm):
    outer, inner = circle(30, 28, 12), circle(30, 28, 12 - wall_mm)
    assert np.array_equal(filled(outer, inner).voxels, inside(outer) & ~inside(inner))


def test_how_close_copies_lie_depends_on_the_pixels():
    outer, inner = circle(6, 5, 4), circle(6, 5, 3.8)
    assert filled(outer, inner).repeats == 1
    assert filled(outer, inner, pixel=PixelSize(0.2, 0.2)).repeats == 0


def test_outlines_that_overlap_in_part_are_joined_and_counted():
    first, second = circle(25, 28, 8), circle(34, 28, 8)
    read = filled(first, second)
    both = inside(first) & inside(second)
    assert np.array_equal(read.voxels, inside(first) | inside(second))
    assert read.joined == np.count_nonzero(both) > 0

    hole = circle(20, 28, 3)
    assert np.array_equal(filled(first, second, hole).voxels, (inside(first) & ~inside(hole)) | inside(second))
    shared = circle(29.5, 28, 2)  # in both
    assert np.array_equal(filled(first, second, shared).voxels, (inside(first) | inside(second)) & ~inside(shared))
    assert np.array_equal(filled(first, second, exclusive_or=True).voxels, inside(first) ^ inside(second))


def test_squares_that_share_part_of_their_sides_overlap_too():
    def square(x: float, y: float, side: float) -> np.ndarray:
        corners = np.array([(x, y), (x + side, y), (x + side, y + side), (x, y + side)]) - 0.5
        return corners * (PIXEL.column_mm, PIXEL.row_mm)

    assert np.count_nonzero(filled(square(5, 5, 4), square(7, 5, 4)).voxels) == 24
    assert filled(square(5, 5, 4), square(7, 5, 4)).joined == 8
    for touching in (square(9, 5, 4), square(9, 9, 4), square(5, 9, 4), square(9, 6, 2)):
        read = filled(square(5, 5, 4), touching)
        assert (np.count_nonzero(read.voxels) - 16, read.joined) in ((16, 0), (4, 0))
    assert np.count_nonzero(filled(square(5, 5, 8), square(5, 5, 4)).voxels) == 64 - 16  # a hole that shares a corner


def test_a_hole_that_reaches_out_by_rounding_is_a_hole():
    outer, hole = circle(30, 28, 8), circle(33.8, 28, 4.3)
    read = filled(outer, hole)
    assert np.array_equal(read.voxels, inside(outer) & ~inside(hole))
    assert (read.reaching_out, read.joined) == (1, 0)

    farther = circle(36, 28, 4.3)
    assert np.array_equal(filled(outer, farther).voxels, inside(outer) | inside(farther))


def test_outlines_that_cross_and_nearly_cover_each_other_are_no_hole():
    first, second = circle(30, 28, 12), circle(30.8, 28, 12)  # 95 % of either lies in the other
    read = filled(first, second)
    assert np.array_equal(read.voxels, inside(first) | inside(second))


def test_a_hole_that_leaves_little_is_marked():
    assert filled(circle(30, 28, 12), circle(30, 28, 11.2)).little_left
    assert not filled(circle(30, 28, 12), circle(30, 28, 6)).little_left


@pytest.mark.long
def test_many_points_and_many_outlines_take_seconds_or_are_refused():
    rng = np.random.default_rng(0)
    hostile = {
        "a million points": [np.cumsum(rng.normal(0, 0.01, (1_000_000, 2)), axis=0) + 30],
        "two of 100,000 points that cross everywhere": [rng.uniform(5, 55, (100_000, 2)) for _ in range(2)],
        "10,000 circles in one place": [circle(30, 28, 5 + k / 2500, 12) for k in range(10_000)],
        "10,000 copies": [again(circle(30, 28, 8), start=k % 40, back=bool(k % 2)) for k in range(10_000)],
        "10,000 circles that overlap": [circle(*rng.uniform(5, 55, 2), 6, 12) for _ in range(10_000)],
        "3,000 rings": [circle(30, 28, 0.008 * k + 0.01, 12) for k in range(3000)],
        "one point many times": [np.full((1000, 2), 20.0)] * 50,
        "lines there and back": [np.array([(5, 5), (50, 50), (5, 5)], float)] * 50,
        "huge": [rng.uniform(-1e5, 1e5, (50, 2)) for _ in range(100)],
    }
    for name, outlines in hostile.items():
        start = time.perf_counter()
        with suppress(DicomError):
            filled(*outlines)
        assert time.perf_counter() - start < 30, name

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from lnsegfm.imaging.dicom.contours import fill_polygons, trace_outlines
from lnsegfm.imaging.dicom.keyholes import hole_owners, keyholed, signed_area, walked

RING = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=bool)
PINCHED = np.array([[1, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 1, 1]], dtype=bool)
OPEN_AT_A_CORNER = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=bool)
NESTED = np.pad(np.pad(RING, 1), 1, constant_values=True)


def windings(polygon: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The winding number of each voxel centre: upright sides left of it, those that go up less those that go down."""
    x0, y0 = polygon.T
    x1, y1 = np.roll(polygon, -1, axis=0).T
    row, column = np.mgrid[: shape[0], : shape[1]]
    total = np.zeros(shape, dtype=int)
    for a, b, c, d in zip(x0, y0, x1, y1, strict=True):
        if b == d:
            continue
        assert a == c  # upright, as the slit is level
        total += np.where((column > a) & (row > min(b, d)) & (row < max(b, d)), np.sign(b - d).astype(int), 0)
    return total


@pytest.mark.parametrize("plane", [RING, PINCHED, OPEN_AT_A_CORNER, NESTED])
def test_holes_belong_to_the_outline_around_them(plane: np.ndarray) -> None:
    outlines = trace_outlines(plane)
    owners = hole_owners(outlines)

    assert owners.count(None) >= 1
    for polygon, owner in zip(outlines, owners, strict=True):
        inside = fill_polygons([polygon], plane.shape)
        assert owner is None or not (inside & ~fill_polygons([outlines[owner]], plane.shape)).any()


@given(arrays(np.bool_, (7, 8)))
@example(NESTED)
@example(PINCHED)
@example(OPEN_AT_A_CORNER)
def test_keyholes_hold_the_plane_by_crossings_and_by_windings(plane: np.ndarray) -> None:
    outlines = trace_outlines(plane)
    owners = hole_owners(outlines)
    made = [walked(p, hole=owner is not None) for p, owner in zip(outlines, owners, strict=True)]
    outer = [
        keyholed(p, [h for h, owner in zip(made, owners, strict=True) if owner == number])
        for number, p in enumerate(made)
        if owners[number] is None
    ]

    assert len(outer) >= ndimage.label(plane, np.ones((3, 3)))[1]
    assert np.array_equal(fill_polygons(outer, plane.shape), plane)
    turns = sum((windings(p, plane.shape) for p in outer), np.zeros(plane.shape, dtype=int))
    assert np.array_equal(np.abs(turns), plane.astype(int))
    assert all(signed_area(p) > 0 for p in outer)


def test_a_hole_that_touches_its_outline_needs_no_slit() -> None:
    outlines = trace_outlines(OPEN_AT_A_CORNER)
    assert len(outlines) == 2 or hole_owners(outlines) == [None]


def test_the_slit_is_level_and_walked_both_ways() -> None:
    outer, hole = (p for p in sorted(trace_outlines(RING), key=len))
    if abs(signed_area(outer)) < abs(signed_area(hole)):
        outer, hole = hole, outer
    ring = keyholed(walked(outer, hole=False), [walked(hole, hole=True)])

    assert len(ring) == 4 + 4 + 3  # a point where the slit starts, twice, and the hole's first point again
    assert signed_area(ring) == 8

"""Passes of the table that each slice's own number or time tells apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lnsegfm.imaging.dicom.table_passes import ORDERS, coded_passes
from tests.imaging.dicom.planes import heights_of, plane, sort

HINTED = ORDERS[:3]


def taken(heights, order: str):
    """Planes, in ascending order of height, of slices taken one after the other at these heights."""
    several = []
    for k, height in enumerate(heights):
        made = plane(float(height), k, pixels=f"slice {k}", hints={order: f"{k + 100}"} if order in HINTED else {})
        several.append(replace(made, instance_number=k + 1) if order == "InstanceNumber" else made)
    return sorted(several, key=lambda p: (p.position_mm[2], p.sop_instance_uid))


def passes(planes, order):
    heights = np.array([p.position_mm[2] for p in planes])
    values, codes = coded_passes(planes, heights, order)
    return [[float(h) for h in heights[codes == k]] for k in range(len(values))]


UP, DOWN = 3.0 * np.arange(8), 3.0 * np.arange(8)[::-1]
TWO = {
    "again": (UP, UP + 1.5),
    "back": (UP, DOWN + 1.5),
    "back from below": (DOWN, UP - 1.5),
    "at the same places": (UP, UP),
    "back at the same places": (UP, DOWN),
    "shifted by a third": (UP, UP + 1.0),
    "shifted by two fifths": (UP, UP + 1.2),
    "in tenths of a millimetre": (np.round(2.5 * np.arange(8), 1), np.round(2.5 * np.arange(8) + 1.25, 1)),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("how", TWO)
def test_two_passes_are_two(order, how):
    one, other = TWO[how]
    assert passes(taken([*one, *other], order), order) == [sorted(map(float, one)), sorted(map(float, other))]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("heights", [UP, DOWN])
def test_one_pass_is_one(order, heights):
    assert passes(taken(heights, order), order) == [sorted(map(float, heights))]


@pytest.mark.parametrize("towards", [1, -1])
def test_slices_of_one_rotation_share_a_time(towards):
    planes = [
        plane(towards * 3.0 * k + 1.5 * n, 20 * n + k, hints={"AcquisitionTime": f"{10 + n}00{k // 4:02d}"})
        for n in range(2)
        for k in range(12)
    ]
    planes.sort(key=lambda p: p.position_mm[2])
    assert [len(of) for of in passes(planes, "AcquisitionTime")] == [12, 12]


def test_a_missing_or_unreadable_value_says_nothing():
    planes = taken([*UP, *UP + 1.5], "AcquisitionTime")
    for value in ("", "noon", "nan", "inf"):
        values = list(planes[3].distinguishing)
        values[values.index(next(v for v in values if v.isdigit() and int(v) > 99 and v != "120"))] = value
        assert len(passes([*planes[:3], replace(planes[3], distinguishing=tuple(values)), *planes[4:]], ORDERS[1])) == 1
    assert len(passes([replace(p, instance_number=None) for p in planes], "InstanceNumber")) == 1


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("how", ["at the same places", "back at the same places", "shifted by two fifths"])
def test_they_are_series_of_their_own(order, how):
    one, other = TWO[how]
    series, refused = sort(taken([*one, *other], order))
    assert refused == []
    assert [heights_of(s) for s in series] == [sorted(map(float, one)), sorted(map(float, other))]
    assert {s.notes[-1] for s in series} == {f"distinguished from others of its UID by the order of {order}"}


def test_a_time_series_is_not_split():
    series, refused = sort(taken([*UP, *UP, *UP, *UP], "ContentTime"))
    assert series == []
    assert "4 different images at 8 of its 8 positions" in refused[0].reason


def test_distances_that_change_are_no_passes():
    series, refused = sort(taken([*UP, *(UP[-1] + 5.0 * np.arange(1, 8))], "InstanceNumber"))
    assert series == []
    assert "--resample-uneven" in refused[0].reason

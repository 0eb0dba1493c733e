from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lnsegfm.imaging.dicom.series_numbers import ADDED, LARGEST, RTSTRUCT, SEG, number_after


@given(st.none() | st.integers(-(2**40), 2**40) | st.integers(LARGEST - 4000, LARGEST + 10))
def test_numbers_are_of_an_integer_string_and_differ_from_each_other_and_the_source(source: int | None) -> None:
    numbers = [number_after(source, kind) for kind in (SEG, RTSTRUCT, ADDED)]
    assert all(0 < number <= LARGEST for number in numbers)
    assert len({*numbers, source}) == 4

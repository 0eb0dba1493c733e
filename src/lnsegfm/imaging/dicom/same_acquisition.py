"""Whether two series show one acquisition: the same moment of the same patient, reconstructed twice.

Headers are evidence, and none of them is there always. What contradicts goes before what agrees, so that two phases
are not taken for one scan; where nothing is known, only series over one range are.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import TYPE_CHECKING

from lnsegfm.imaging.dicom.series_extent import extent_mm, missing_mm, normal_axis

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.series_index import Series

SAME_TIME_S = 1.0
"""Acquisition times that lie this close belong to one acquisition; two phases of contrast are farther apart."""

_PHASES = {
    "native": r"nativ|native|nat|plain|unenhanced|non ?contrast|w ?o|ohne km|pre ?contrast|- ?c",
    "arterial": r"art|arterial|arteriell|arterielle|arteriel",
    "venous": r"ven|venous|venös|venoes|venose|pv|portal|portal ?venous|portalvenös|porto ?venous",
    "late": r"late|delayed|delay|spät|spaet|equilibrium|excretory|nephrographic|urographic",
    "inspiration": r"insp|inspiration|inspiratory|inspirium",
    "expiration": r"exp|expiration|expiratory|exspiration|exspirium",
}
_STRENGTH = r"\b(asi?r|safire|admire|idose|aidr|imr|dlir|qir)[\w-]*[ :=_-]*\d{1,3} ?%"
"""Of a noise reduction: no phase of breathing."""


def same_acquisition(first: Series, second: Series) -> bool:
    """Whether two series show one acquisition.

    They have to be CT, of one patient and study, and share a frame of reference; of a derived series, to which some
    workstations give a frame of its own, a common time or irradiation event will do. Then, in this order:

    1. Different temporal positions, tube voltages, or phases named in the descriptions (arterial and venous, 10 % and
       50 %, in one plane 10 % and none) are different scans.
    2. A common irradiation event is one acquisition, different ones are two.
    3. Acquisition numbers without a common one are two acquisitions, and so are acquisition times more than
       ``SAME_TIME_S`` apart.
    4. Of two original series one with a contrast agent and one without are two.
    5. A common number or time is one acquisition. Where nothing is known, a derived series belongs to the original
       scans around it and to derived ones in another plane, and two original series are one acquisition if they have
       one range and the same phases in their descriptions.
    """
    one, two = first.traits, second.traits
    if {first.modality, second.modality} != {"CT"}:
        return False
    if (first.patient_id, first.study_uid) != (second.patient_id, second.study_uid):
        return False
    if not set(first.frames_of_reference) & set(second.frames_of_reference) and not _cut_from(first, second):
        return False
    phases = phases_named(first.description), phases_named(second.description)
    if _disjoint(one.temporal_positions, two.temporal_positions) or _disjoint(*phases):
        return False
    if one.plane == two.plane and bool(_gated(phases[0])) != bool(_gated(phases[1])):
        return False
    if one.kvp and two.kvp and abs(one.kvp - two.kvp) > 1:
        return False
    if one.irradiation_events and two.irradiation_events:
        return not _disjoint(one.irradiation_events, two.irradiation_events)
    if _disjoint(one.acquisition_numbers, two.acquisition_numbers) or _apart(one.acquired_s, two.acquired_s):
        return False
    original = not one.derived and not two.derived
    if original and bool(one.contrast) != bool(two.contrast):
        return False
    if one.acquired_s and two.acquired_s:
        return True
    if original and phases[0] != phases[1]:
        return False
    if one.acquisition_numbers and two.acquisition_numbers:
        return True
    if original:
        return _one_range(first, second)
    return one.derived != two.derived or one.plane != two.plane


def surely_same_acquisition(first: Series, second: Series) -> bool:
    """Whether two series of the same acquisition have a time or an irradiation event in common, not a number alone."""
    one, two = first.traits, second.traits
    events = bool(one.irradiation_events and two.irradiation_events)
    return events or (one.acquired_s is not None and two.acquired_s is not None)


def _cut_from(first: Series, second: Series) -> bool:
    """Whether one of two series of different frames of reference is derived from the other, by time and place."""
    if not (first.traits.derived or second.traits.derived) or not surely_same_acquisition(first, second):
        return False
    return 0 in (missing_mm(first, [second]), missing_mm(second, [first]))


@lru_cache(maxsize=4096)  # each series of a study is compared with each other one
def phases_named(description: str) -> frozenset[str]:
    """The phases of contrast or of breathing that a description names: ``arterial``, ``50%``, ..."""
    description = re.sub(_STRENGTH, " ", description, flags=re.IGNORECASE)
    words = re.sub(r"[\s_/.,;:()\[\]]+", " ", description.casefold())
    named = {phase for phase, pattern in _PHASES.items() if re.search(rf"(?<![^\W\d])({pattern})(?![^\W\d])", words)}
    return frozenset(named | {f"{int(percent)}%" for percent in re.findall(r"(\d{1,3}) ?%", words)})


def _gated(phases: frozenset[str]) -> frozenset[str]:
    """The phases of breathing or of the heart."""
    return frozenset(phase for phase in phases if phase.endswith("%"))


def _disjoint(first: Collection[object], second: Collection[object]) -> bool:
    """Whether both hold something and nothing in common."""
    return bool(first and second and not set(first) & set(second))


def _apart(first: tuple[float, float] | None, second: tuple[float, float] | None) -> bool:
    if first is None or second is None:
        return False
    return max(first[0], second[0]) - min(first[1], second[1]) > SAME_TIME_S


def _one_range(first: Series, second: Series) -> bool:
    """Whether two series begin and end at the same heights, within the coarser of their steps."""
    tolerance = max(first.traits.resolution_mm, second.traits.resolution_mm)
    axis = normal_axis(first)
    ends = zip(extent_mm(first)[axis], extent_mm(second)[axis], strict=True)
    return all(abs(a - b) <= tolerance for a, b in ends)

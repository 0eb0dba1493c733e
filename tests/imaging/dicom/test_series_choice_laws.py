"""Laws of the choice, over series of any traits."""

from __future__ import annotations

import random
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lnsegfm.imaging.dicom.series_choice import choose_series
from lnsegfm.imaging.dicom.series_index import Series, Slice
from lnsegfm.imaging.dicom.series_kinds import projection
from lnsegfm.imaging.dicom.series_traits import PlaneTraits, series_traits
from tests.imaging.dicom.studies import AXES, cube

TYPES = (
    (),
    ("ORIGINAL", "PRIMARY", "AXIAL"),
    ("DERIVED", "SECONDARY", "MPR"),
    ("DERIVED", "SECONDARY", "REFORMATTED", "MINIP"),
    ("DERIVED", "PRIMARY", "AXIAL", "AVERAGE"),
    ("DERIVED", "PRIMARY", "VOLUME", "VMI"),
    ("LOUD", "", "\u00e4"),
)
some = st.sampled_from
traits = st.builds(
    PlaneTraits,
    thickness_mm=some([None, 0.5, 3.0, 6.0]),
    kernel=some([(), ("B31f",), ("B70f", "3"), ("?",)]),
    kernel_group=some(["", "BONE"]),
    image_type=some(TYPES),
    acquisition_number=some([None, 1, 2]),
    acquired_s=some([None, 0.0, 100.0]),
    irradiation_events=some([(), ("1.1",), ("1.2",)]),
    temporal_position=some(["", "1"]),
    contrast=some(["", "yes"]),
    kvp=some([None, 80.0, 120.0]),
    patient_position=some(["", "HFS", "FFDR"]),
)


@st.composite
def studies(draw) -> list[Series]:
    found = []
    for k in range(draw(st.integers(1, 7))):
        size, height = draw(some([20.0, 60.0])), draw(some([30.0, 60.0]))
        grid = cube(draw(some(sorted(AXES))), draw(some([3.0, 6.0])), size=size, height=height)
        slices = tuple(Slice(Path("x"), None, f"{k}.{z}", "", (0.0, 0.0, float(z))) for z in range(grid.shape[0]))
        found.append(
            Series(
                uid=draw(some(["", f"1.2.{k}"])),
                study_uid="s",
                frame_of_reference_uid=draw(some(["f", "f", "f", "", "g"])),
                modality=draw(some(["CT", "CT", "CT", "MR"])),
                description=draw(some(["", "Thorax ven 3.0", "Thorax art", "30%", "MIP", "VNC", "\u00e4 [x"])),
                number=draw(some([None, 1, 2])),
                patient_id="p",
                slices=slices,
                grid=grid,
                traits=series_traits([draw(traits)], grid),
                uneven=draw(st.booleans()),
            )
        )
    return found


@settings(max_examples=300, deadline=None)
@given(studies(), st.randoms(use_true_random=False), st.sets(st.integers(0, 6)))
def test_the_choice_is_a_partition_that_no_order_changes(study: list[Series], chance: random.Random, marked: set[int]):
    annotated = [k for k in marked if k < len(study)]
    choice = choose_series(study, annotated=annotated)
    sets = {each.slices[0].sop_instance_uid for each in choice.series}, {
        each.series.slices[0].sop_instance_uid for each in choice.passed_over}  # fmt: skip

    assert not sets[0] & sets[1]
    assert len(sets[0]) + len(sets[1]) == len(study)
    assert all(study[k] in choice.series for k in annotated)
    for each in choice.passed_over:  # what is left out is left for one that is taken, or is no scan
        assert choice.takes(each.instead) if each.instead is not None else projection(each.series)
    order = list(range(len(study)))
    chance.shuffle(order)
    again = choose_series([study[k] for k in order], annotated=[order.index(k) for k in annotated])
    assert {each.slices[0].sop_instance_uid for each in again.series} == sets[0]
    assert sorted(each.reason for each in again.passed_over) == sorted(each.reason for each in choice.passed_over)


@settings(max_examples=300, deadline=None)
@given(studies())
def test_what_is_taken_does_not_depend_on_reformats_and_projections_that_are_not(study: list[Series]):
    """So a reformat that is added to a tree changes no mask that is there."""
    choice = choose_series(study)
    over = {id(each.series) for each in choice.passed_over if each.kind in ("reformat", "projection")}
    without = choose_series([each for each in study if id(each) not in over])
    assert {id(each) for each in without.series} == {id(each) for each in choice.series}


@settings(max_examples=200, deadline=None)
@given(studies())
def test_all_takes_everything_and_each_selector_a_part_of_it(study: list[Series]):
    assert len(choose_series(study, ["all"]).taken) == len(study)
    for selector in ("plane=axial", "thickness<=3", "kernel=sharp", "description=*", "uid=1.*", "number=1..2"):
        choice = choose_series(study, [selector])
        assert bool(choice.unmatched) == (not choice.taken)
        assert all(each.kind != "not-selected" or each.instead is None for each in choice.passed_over)

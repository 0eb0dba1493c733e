"""Rules of postprocessing against scipy, and their choice by the one-standard-error rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import ConfigError
from lnsegfm.evaluation.postprocessing import LargestComponent, Postprocessing, SmallestVolume
from lnsegfm.evaluation.postprocessing_choice import JudgedCase, choose_postprocessing, score_postprocessing

MASKS = arrays(np.uint8, (4, 6, 7), elements=st.sampled_from([0, 0, 0, 1, 2, 3]))
ORGANS = LabelMap({"mandible": 1, "larynx": 2})
NODES = LabelMap({"lymph_node": 1})


def pieces(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    return labels, np.bincount(labels.ravel())[1:]


@settings(max_examples=60, deadline=None)
@given(MASKS, st.sampled_from([(1,), (2,), (1, 2), (1, 2, 3)]))
def test_the_largest_component_is_scipys_and_all_of_those_that_tie(mask: np.ndarray, values: tuple[int, ...]) -> None:
    labels, sizes = pieces(np.isin(mask, values))
    kept = np.isin(labels, 1 + np.flatnonzero(sizes == sizes.max(initial=0)))
    expected = np.where(np.isin(mask, values) & ~kept, 0, mask)

    np.testing.assert_array_equal(LargestComponent(values).applied(mask, 1.0), expected)


@settings(max_examples=60, deadline=None)
@given(MASKS, st.sampled_from([0.3, 1.0, 2.5]), st.integers(1, 9))
def test_components_below_the_smallest_volume_go(mask: np.ndarray, voxel: float, voxels: int) -> None:
    labels, sizes = pieces(mask == 1)
    small = np.isin(labels, 1 + np.flatnonzero(sizes < voxels))

    cleaned = SmallestVolume((1,), voxels * voxel).applied(mask, voxel)

    np.testing.assert_array_equal(cleaned, np.where(small, 0, mask))


@settings(max_examples=30, deadline=None)
@given(MASKS)
def test_rules_only_remove_leave_their_input_alone_and_change_nothing_again(mask: np.ndarray) -> None:
    rules, before = Postprocessing((LargestComponent((1, 2)), SmallestVolume((3,), 3))), mask.copy()

    once = rules.applied(mask, 1.0)

    np.testing.assert_array_equal(mask, before)
    assert ((once == mask) | (once == 0)).all()
    np.testing.assert_array_equal(rules.applied(once, 1.0), once)


@pytest.mark.parametrize("make", [lambda: LargestComponent(()), lambda: LargestComponent((0,)), lambda: small(0)])
def test_rules_that_cannot_be(make: object) -> None:
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]


def small(mm3: float) -> SmallestVolume:
    return SmallestVolume((1,), mm3)


def scene(island: int = 0, truth: int = 6, second: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A cube of label 1 and one of label 2; the prediction has an island of label 1 of so many voxels besides."""
    reference = np.zeros((16, 24, 24), np.uint8)
    reference[2 : 2 + truth, 2:8, 2:8] = 1
    reference[2:8, 14:20, 14:20] = 2
    if second:
        reference[12:15, 2:5, 2:5] = 1
    prediction = reference.copy()
    prediction[12, 20, 20 - island + 2 : 22] = 1 if island else 0
    prediction[2, 2, 2] = 0  # never perfect
    return prediction, reference


def case(name: str, masks: tuple[np.ndarray, np.ndarray], **more: object) -> JudgedCase:
    return JudgedCase(name, lambda: masks, 1.0, **more)  # type: ignore[arg-type]


def test_a_rule_is_taken_where_it_helps_and_only_for_that_label() -> None:
    choice = choose_postprocessing([case(f"c{i}", scene(island=3 + i)) for i in range(4)], ORGANS, crossfit=True)

    assert choice.chosen == Postprocessing((LargestComponent((1,)),))
    before, after, cases = choice.scores.means()["mandible"]
    assert (after > before, cases, choice.scores.crossfitted) == (True, 4, True)
    assert choice.scores.means()["larynx"][0] == choice.scores.means()["larynx"][1]


def test_one_lucky_case_among_many_is_no_reason() -> None:
    cases = [case("lucky", scene(island=8)), *(case(f"c{i}", scene()) for i in range(5))]

    assert not choose_postprocessing(cases, ORGANS).chosen


def test_gains_that_the_standard_error_covers_are_none() -> None:
    two_pieces = scene(second=True)
    cases = [case("gain", scene(island=9)), case("loss", two_pieces), case("none", scene())]

    assert not choose_postprocessing(cases, ORGANS).chosen


def test_where_nothing_changes_there_is_no_rule_and_few_patients_choose_nothing() -> None:
    assert not choose_postprocessing([case(f"c{i}", scene()) for i in range(4)], ORGANS).chosen
    same_patient = [case(f"c{i}", scene(island=5), subject="P1") for i in range(9)]
    choice = choose_postprocessing(same_patient, ORGANS)
    assert not choice.chosen
    assert "patients" in choice.reason


@pytest.mark.parametrize("name", ["lymph_node", "lesion"])
def test_the_largest_component_of_many_nodes_is_never_taken(name: str) -> None:
    cases = []
    for i in range(4):
        prediction, reference = (np.where(mask == 2, 1, mask) for mask in scene(island=1, second=True))
        cases.append(case(f"c{i}", (prediction, reference)))

    chosen = choose_postprocessing(cases, LabelMap({name: 1})).chosen

    assert not chosen.in_stock
    assert chosen == Postprocessing((SmallestVolume((1,), 10.0),))


def test_a_single_node_in_each_scan_is_no_licence_for_the_largest() -> None:
    cases = []
    for i in range(4):
        prediction, reference = (np.where(mask == 2, 0, mask) for mask in scene(island=9))
        cases.append(case(f"c{i}", (prediction, reference)))

    assert not choose_postprocessing(cases, NODES).chosen.in_stock
    assert choose_postprocessing(cases, LabelMap({"larynx": 1})).chosen.in_stock


def test_labels_that_nobody_annotated_and_ignored_voxels_play_no_part() -> None:
    labels = LabelMap({"mandible": 1, "larynx": 2}, ignore=3)
    unlabelled = [case(f"c{i}", scene(island=9), unlabelled=frozenset({"mandible"})) for i in range(4)]
    assert not choose_postprocessing(unlabelled, labels).chosen
    ignored = []
    for i in range(4):
        prediction, reference = scene(island=9)
        ignored.append(case(f"i{i}", (prediction, np.where((prediction == 1) & (reference == 0), 3, reference))))
    assert not choose_postprocessing(ignored, labels).chosen


def test_a_structure_that_is_absent_gains_by_losing_its_islands() -> None:
    cases = []
    for i in range(4):
        prediction = np.zeros((8, 9, 9), np.uint8)
        prediction[2, 2, 2:6] = 1
        cases.append(case(f"c{i}", (prediction, np.zeros_like(prediction))))

    choice = choose_postprocessing(cases, NODES)

    assert choice.chosen == Postprocessing((SmallestVolume((1,), 10.0),))
    assert choice.scores.means()["lymph_node"] == (0.0, 1.0, 4)


def blobs(truth: int, wrong: int) -> tuple[np.ndarray, np.ndarray]:
    """A node of so many voxels that is found as it is, and a false positive of so many."""
    reference = np.zeros((16, 24, 24), np.uint8)
    reference[2:6].reshape(-1)[:truth] = 1
    prediction = reference.copy()
    prediction[10:14].reshape(-1)[:wrong] = 1
    return prediction, reference


def test_scans_without_a_label_choose_no_volume_that_would_remove_it() -> None:
    """False positives of 1500 mm3 on negative scans, nodes of 700 mm3 in none, one or two of the others."""
    negative = [case(f"n{i}", blobs(0, 1500)) for i in range(6)]
    for holding in range(3):
        positive = [case(f"p{i}", blobs(700, 0)) for i in range(holding)]
        assert not choose_postprocessing([*negative, *positive], NODES).chosen, holding

    small_ones = [case(f"n{i}", blobs(0, 90)) for i in range(6)]
    positive = [case(f"p{i}", blobs(700, 40)) for i in range(2)]
    assert choose_postprocessing([*small_ones, *positive], NODES).chosen == Postprocessing((small(100.0),))


def test_regions_are_cleaned_as_regions() -> None:
    labels = LabelMap({"whole": 1, "core": 2}, regions=(("whole", (1, 2)), ("core", (2,))))
    masks = []
    for i in range(4):
        reference = np.zeros((12, 16, 16), np.uint8)
        reference[2:8, 2:8, 2:8] = 1
        reference[4:6, 4:6, 4:6] = 2
        prediction = reference.copy()
        prediction[10, 12, 10 : 12 + i] = 2
        masks.append(case(f"c{i}", (prediction, reference)))

    chosen = choose_postprocessing(masks, labels).chosen

    assert chosen.rules[0] == LargestComponent((1, 2))
    np.testing.assert_array_equal(chosen.applied(*[masks[0].masks()[0], 1.0]), masks[0].masks()[1])


def test_crossfitted_figures_of_a_case_do_not_depend_on_its_own_reference() -> None:
    cases = [case(f"c{i}", scene(island=3 + i)) for i in range(4)]
    prediction, reference = scene(island=9)
    judged = choose_postprocessing([*cases, case("own", (prediction, reference))], ORGANS, crossfit=True)
    with_rules = score_postprocessing(
        [case("own", (prediction, reference))], ORGANS, choose_postprocessing(cases, ORGANS).chosen
    )

    assert judged.scores.after["own"] == with_rules.after["own"]

from __future__ import annotations

import pickle

import numpy as np
import pytest

from lnsegfm.datasets.labels import LabelMap, node_labels, values_in
from lnsegfm.errors import DataError


def test_reads_and_writes_the_labels_of_a_dataset_json():
    written = {"background": 0, "node": 1, "vessel": 2, "ignore": 3}

    labels = LabelMap.from_dataset_json(written)

    assert labels == LabelMap({"node": 1, "vessel": 2}, ignore=3)
    assert labels.to_dataset_json() == written
    assert labels.allowed == {0, 1, 2, 3}
    assert str(labels) == "node=1, vessel=2, ignore=3"


def test_names_are_kept_in_ascending_order_of_value():
    labels = LabelMap({"c": 3, "a": 1, "b": 2})

    assert list(labels.names) == ["a", "b", "c"]
    assert list(labels.to_dataset_json()) == ["background", "a", "b", "c"]


def test_is_a_value():
    one, other = LabelMap({"a": 1, "b": 2}), LabelMap({"b": 2, "a": 1})

    assert one == other
    assert hash(one) == hash(other)
    assert pickle.loads(pickle.dumps(one)) == one
    assert one != LabelMap({"a": 1, "b": 2}, ignore=3)


def test_background_may_be_left_out():
    assert LabelMap.from_dataset_json({"node": 1}) == LabelMap({"node": 1})


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"background": 0}, "at least one label"),
        ({}, "not a table"),
        (["node"], "not a table"),
        (None, "not a table"),
        ({"background": 1, "node": 2}, "background is always 0"),
        ({"node": 0}, "0 is not from 1 to 65535"),
        ({"node": -1}, "-1 is not from 1 to 65535"),
        ({"node": 65536}, "65536 is not from 1 to 65535"),
        ({"node": 1, "vessel": 1}, "two labels have 1"),
        ({"node": 1, "ignore": 1}, "two labels have 1"),
        ({"node": "one"}, "not a whole number"),
        ({"node": 1.5}, "not a whole number"),
        ({"node": True}, "not a whole number"),
        ({"node": 1, "ignore": "two"}, "not a whole number"),
        ({"whole": [1, 2]}, "Add regions_class_order"),
        ({"whole": [1, 2], "other": [1, 3]}, "Add regions_class_order"),
        ({"whole": [1, "two"], "core": 2}, "not a whole number"),
        ({"whole": [1, 2], "core": 2, "ignore": [3, 4]}, "not a whole number"),
        ({"0": "1", "1": "2"}, "numbers on both sides"),
        ({"1": "node", "2": "node"}, "one name for two values"),
        ({"": 1}, "not a name"),
        ({"two\nlines": 1}, "not a name"),
    ],
)
def test_refuses_what_cannot_be_in_one_line(labels, said):
    with pytest.raises(DataError) as error:
        LabelMap.from_dataset_json(labels)

    assert said in str(error.value)
    assert "\n" not in str(error.value)


GAPS = LabelMap({"node": 255, "vessel": 3}, ignore=7)


def test_values_with_gaps_have_consecutive_ones_in_their_order():
    assert GAPS.consecutive == LabelMap({"vessel": 1, "node": 2}, ignore=3)
    assert GAPS.consecutive.consecutive == GAPS.consecutive


@pytest.mark.parametrize(
    "labels",
    [GAPS, LabelMap({"node": 255}), LabelMap({"a": 65535, "b": 1000}), LabelMap({"node": 1, "vessel": 2}, ignore=3)],
    ids=str,
)
@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.int64])
def test_masks_become_consecutive_and_back(labels, kind):
    mask = np.random.default_rng(0).choice(sorted(labels.allowed), (3, 4, 5)).astype(kind)

    there = labels.to_consecutive(mask)

    assert set(np.unique(there)) <= labels.consecutive.allowed
    for name, value in labels.names.items():
        np.testing.assert_array_equal(there == labels.consecutive.names[name], mask == value)
    np.testing.assert_array_equal(labels.from_consecutive(there), mask)


def test_a_value_without_a_name_is_never_made_background():
    with pytest.raises(DataError, match=r"Label values \[4\]"):
        GAPS.to_consecutive(np.array([0, 255, 4]))


def test_a_model_says_both_values():
    assert GAPS.to_model_json() == {
        "labels": {"background": 0, "vessel": 1, "node": 2, "ignore": 3},
        "label_values": {"background": 0, "vessel": 3, "node": 255, "ignore": 7},
    }
    assert LabelMap.of_model(GAPS.to_model_json()) == GAPS.consecutive
    assert LabelMap.of_masks(GAPS.to_model_json()) == GAPS
    assert LabelMap({"node": 1}).to_model_json() == {"labels": {"background": 0, "node": 1}}


@pytest.mark.parametrize(
    ("description", "said"),
    [
        ({"labels": {"node": 2}}, "without a gap"),
        ({"labels": {"node": 1, "vessel": 3}}, "without a gap"),
        ({"labels": {"node": 2, "ignore": 1}}, "without a gap"),
        ({"labels": {"node": 1}, "label_values": {"other": 5}}, "not of the labels node=1"),
        ({"labels": {"a": 1, "b": 2}, "label_values": {"a": 9, "b": 5}}, "not of the labels a=1, b=2"),
        ({"labels": {"node": 1}, "label_values": {"node": 5, "ignore": 6}}, "not of the labels node=1"),
    ],
)
def test_refuses_values_that_are_not_of_a_models_outputs(description, said):
    with pytest.raises(DataError, match=said):
        LabelMap.of_masks(description)


NESTED = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}


def test_regions_cover_several_values_and_keep_the_order_of_the_outputs():
    labels = LabelMap.from_dataset_json(NESTED, [1, 2, 3])
    kidney = {"kidney": [1, 2, 3], "masses": [2, 3], "tumour": 2}

    assert labels.names == {"whole": 1, "core": 2, "enhancing": 3}
    assert labels.covered == {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    assert labels.allowed == {0, 1, 2, 3, 4}
    assert labels.consecutive == labels == LabelMap.from_dataset_json(NESTED)
    assert labels.to_dataset_json() == NESTED
    assert str(labels) == "whole=1+2+3, core=2+3, enhancing=3, ignore=4"
    assert list(LabelMap.from_dataset_json(kidney, [1, 3, 2]).names.items()) == [
        ("kidney", 1),
        ("masses", 3),
        ("tumour", 2),
    ]
    assert LabelMap.from_dataset_json(kidney).names == {"kidney": 1, "masses": 3, "tumour": 2}
    mask = np.array([0, 1, 2, 3, 4])
    assert [labels.voxels(mask, name).tolist() for name in ("whole", "core", "enhancing")] == [
        [False, True, True, True, False],
        [False, False, True, True, False],
        [False, False, False, True, False],
    ]


def test_regions_of_any_values_are_those_of_the_consecutive_ones():
    labels = LabelMap.from_dataset_json({"whole": [5, 9], "core": 9, "ignore": 2})
    mask = np.array([0, 5, 9, 2, 5])
    there = labels.to_consecutive(mask)
    assert there.tolist() == [0, 1, 2, 3, 1]
    for name in labels.names:
        np.testing.assert_array_equal(labels.consecutive.voxels(there, name), labels.voxels(mask, name))
    np.testing.assert_array_equal(labels.from_consecutive(there), mask)
    assert LabelMap.of_masks(labels.to_model_json()) == labels
    assert labels.to_model_json()["regions_class_order"] == [1, 2]


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ([1], "a value for each of"),
        ([2, 1], "none of its values"),
        ([2, 2], "two labels have one"),
        ("12", "for each of"),
    ],
)
def test_an_order_of_other_regions_is_refused(order, said):
    with pytest.raises(DataError, match=said):
        LabelMap.from_dataset_json({"whole": [1, 2], "core": 2}, order)


def test_reads_options():
    assert LabelMap.from_options([]) is None
    assert LabelMap.from_options(["node = 1", "a=b=2", "ignore=3"]) == LabelMap({"node": 1, "a=b": 2}, ignore=3)


@pytest.mark.parametrize("options", [["node"], ["=1"], ["node=one"], ["node=-1"], ["a=1", "a=2"], ["a=1", "b=1"]])
def test_refuses_other_options(options):
    with pytest.raises(DataError, match="Label option"):
        LabelMap.from_options(options)


def test_values_of_a_mask():
    mask = np.zeros((4, 5, 6), dtype=np.int32)
    mask[1, 2, 3], mask[3, 0, 0] = 700, -2

    assert values_in(mask) == [-2, 0, 700]
    assert values_in(mask.astype(np.uint8)[:0]) == []


@pytest.mark.parametrize(
    ("name", "is_node"),
    [
        ("node", True),
        ("Lymph_Node", True),
        ("LymphNodes", True),
        ("LN-2R", True),
        ("GTVn", True),
        ("GTV_nd", False),
        ("GTVnd left", True),
        ("nodal.volume", True),
        ("lns", True),
        ("nodule", False),
        ("kidney", False),
        ("lnode", False),
        ("GTVp", False),
        ("MediastinalNode", False),
        ("", False),
    ],
)
def test_labels_that_are_lymph_nodes(name, is_node):
    assert node_labels([name]) == ((name,) if is_node else ())


def test_node_labels_keep_their_order():
    assert node_labels(LabelMap({"ln right": 2, "heart": 3, "ln left": 1}).names) == ("ln left", "ln right")


def test_values_before_names_are_turned_round():
    assert LabelMap.from_dataset_json({"0": "background", "1": "left atrium"}) == LabelMap({"left atrium": 1})
    assert LabelMap.from_dataset_json({"0": "BG", "2": "tumour", "1": "organ"}) == LabelMap({"organ": 1, "tumour": 2})


def test_other_names_keep_what_is_merged_and_dropped():
    labels = LabelMap({"node": 1, "cord": 3}, 9, merged=(("node", (1, 2)),), dropped=frozenset({4}))
    renamed = labels.renamed({"node": "lymph_node"})
    assert renamed.covered == {"lymph_node": (1, 2), "cord": (3,)}
    assert (renamed.ignore, renamed.allowed) == (9, labels.allowed)
    assert labels.renamed({}) == labels
    regions = LabelMap({"a": 1, "b": 2}, regions=(("a", (1, 2)), ("b", (2,))))
    assert regions.renamed({"a": "c"}).covered == {"c": (1, 2), "b": (2,)}

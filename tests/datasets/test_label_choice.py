"""Labels that are kept, dropped and merged while masks are read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lnsegfm.datasets.check import check
from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.datasets.label_choice import LabelChoice, comma_separated, merged_labels
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.imaging.files import read_mask, write_mask
from tests.scenes import write_scenes

ORGANS = LabelMap({"stem": 1, "right": 3, "left": 4, "jaw": 7}, ignore=9)
BOTH = {"parotid": ("left", "right")}
MASK = np.array([[[0, 1, 3, 4, 7, 9]]], np.uint8)


def test_merged_labels_are_one_and_dropped_ones_background():
    chosen = LabelChoice(keep=("parotid", "jaw"), merge=BOTH).of(ORGANS)
    assert chosen.to_consecutive(MASK).tolist() == [[[0, 0, 1, 1, 2, 3]]]  # ignore stays
    assert chosen.voxels(MASK, "parotid").tolist() == [[[False, False, True, True, False, False]]]
    assert chosen.outputs == ("background", "parotid", "jaw")
    assert chosen.allowed == {0, 1, 3, 4, 7, 9}
    model = chosen.to_model_json()
    assert model["labels"] == {"background": 0, "parotid": 1, "jaw": 2, "ignore": 3}
    assert LabelMap.of_training(model) == chosen
    assert LabelMap.of_masks(model) == chosen.consecutive
    assert LabelMap.from_record(json.loads(json.dumps(chosen.to_record()))) == chosen


@pytest.mark.parametrize("labels", [ORGANS, LabelMap({"a": 2}), LabelMap.from_dataset_json({"w": [1, 2], "c": 2})])
def test_a_record_gives_the_labels_back(labels):
    assert LabelMap.from_record(json.loads(json.dumps(labels.to_record()))) == labels


def test_nothing_chosen_changes_nothing():
    assert LabelChoice().of(ORGANS) is ORGANS
    assert LabelChoice(keep=("stem", "right", "left", "jaw")).of(ORGANS) == ORGANS
    alone = LabelChoice(keep=("right",)).of(ORGANS)
    assert alone.to_consecutive(MASK).tolist() == [[[0, 0, 1, 0, 0, 2]]]


def test_a_merged_label_is_unlabelled_where_a_part_is():
    choice = LabelChoice(keep=("parotid",), merge=BOTH)
    assert choice.unlabelled({"left", "stem"}) == {"parotid"}
    assert choice.unlabelled({"stem"}) == set()


def test_other_masks_are_merged_where_they_have_the_parts():
    choice = LabelChoice(keep=("parotid",), merge=BOTH)
    assert choice.fitting(ORGANS).covered["parotid"] == (3, 4)
    assert "jaw" in choice.fitting(ORGANS).names
    own = LabelMap({"parotid": 1})
    assert choice.fitting(own) is own
    assert choice.fitting(None) is None


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"keep": ("jaws",)}, r"--keep-labels jaws: the data have no such label. Near it: jaw\."),
        ({"merge": {"parotid": ("left", "rigth")}}, r"--merge rigth: the data have no such label. Near it: right\."),
        ({"merge": {"jaw": ("left", "right")}}, r"--merge jaw: a label that is not part of it"),
        ({"keep": ("left", *BOTH), "merge": BOTH}, r"--keep-labels left: the data have no such label"),
    ],
)
def test_names_that_cannot_be_are_refused(choice, said):
    with pytest.raises(ConfigError, match=said):
        LabelChoice(**choice).of(ORGANS)


@pytest.mark.parametrize("record", [{}, [], {"labels": {"jaw": 7}}, {"labels": {"jaw": [7]}, "dropped_values": ["a"]}])
def test_a_record_that_is_none_or_of_other_labels_is_refused(record):
    model = LabelChoice(keep=("parotid", "jaw"), merge=BOTH).of(ORGANS).to_model_json() | {"chosen_labels": record}
    with pytest.raises(DataError, match="chosen_labels"):
        LabelMap.of_training(model)


def test_contradictions_are_refused():
    with pytest.raises(ConfigError, match=r"--merge both: --keep-labels leaves it out\. Name it there too"):
        LabelChoice(keep=("cord",), merge={"both": ("left", "right")})
    with pytest.raises(ConfigError, match="label left is named twice"):
        LabelChoice(merge={"a": ("left", "right"), "b": ("left",)})
    with pytest.raises(ConfigError, match="are regions"):
        LabelChoice(keep=("whole",)).of(LabelMap.from_dataset_json({"whole": [1, 2], "core": 2}))
    for text in ("a", "a=", "=b"):
        with pytest.raises(ConfigError, match="not NAME=A"):
            merged_labels([text])
    assert merged_labels(["a = b + c"]) == {"a": ("b", "c")}
    assert comma_separated(["a, b", "c"]) == ("a", "b", "c")


def test_a_mask_that_holds_dropped_labels_alone_is_empty(tmp_path):
    root = write_scenes(tmp_path / "data", 2)
    table = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(table | {"labels": {"background": 0, "node": 1, "organ": 2}}))
    file = root / "labelsTr" / "case_0.nii.gz"
    mask, grid = read_mask(file)
    write_mask(file, mask * 2, grid)
    data = LabelChoice(keep=("node",)).on(open_dataset(root))
    (problem,) = check(data)
    assert (problem.case, problem.kind) == ("case_0", "label-empty")
    assert check(LabelChoice(merge={"both": ("node", "organ")}).on(open_dataset(root))) == []

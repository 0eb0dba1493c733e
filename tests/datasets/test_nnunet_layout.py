"""Names of image files and the content of dataset.json: what is written is what is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.datasets.nnunet_layout import (
    case_of,
    channel_names,
    dataset_description,
    file_ending,
    image_name,
    label_name,
    numbers_every_channel,
    parse_image_name,
)
from lnsegfm.errors import DataError
from lnsegfm.imaging.files import IMAGE_ENDINGS, stem

CASES = st.text(st.characters(codec="ascii", categories=("L", "N")) | st.sampled_from("_-. "), min_size=1, max_size=20)


@given(case=CASES, channel=st.integers(0, 9999), ending=st.sampled_from(IMAGE_ENDINGS))
def test_an_image_s_name_gives_back_its_case_and_channel(case, channel, ending):
    name = image_name(case, channel, ending)
    assert parse_image_name(stem(name)) == (case, channel)
    assert case_of(Path(name)) == case


def test_names_without_a_channel():
    assert parse_image_name("scan_1") is None
    assert parse_image_name("_0000") is None
    assert case_of(Path("a/scan_1.nrrd")) == "scan_1"
    assert label_name("scan_1") == "scan_1.nii.gz"


@given(names=st.lists(st.text(min_size=1), min_size=1, max_size=12), ending=st.sampled_from(IMAGE_ENDINGS))
def test_a_description_gives_back_its_channels_and_ending(names, ending):
    description = dataset_description(names, LabelMap({"node": 1}), 3, ending)
    assert channel_names(description) == tuple(names)
    assert file_ending(description) == ending
    assert numbers_every_channel(description["channel_names"])
    assert list(description) == ["channel_names", "labels", "numTraining", "file_ending"]
    assert description["labels"] == {"background": 0, "node": 1}
    assert description["numTraining"] == 3


def test_what_a_description_leaves_out():
    assert channel_names({}) == ()
    assert channel_names({"modality": {"1": "T2", "0": "T1"}}) == ("T1", "T2")
    assert file_ending({}) == ".nii.gz"
    assert dataset_description(("CT",), None, 0)["labels"] == {"background": 0}


@pytest.mark.parametrize("table", [["CT"], "CT", {"a": "CT"}, {None: "CT"}, 7])
def test_tables_that_are_none(table):
    assert not numbers_every_channel(table)
    if table != ["CT"]:
        with pytest.raises(DataError, match="not a table of channels"):
            channel_names({"channel_names": table})


@pytest.mark.parametrize("table", [{}, {"1": "CT"}, {"0": "CT", "2": "PET"}, {0: "CT"}])
def test_tables_with_a_gap(table):
    assert not numbers_every_channel(table)


@pytest.mark.parametrize("ending", ["nii.gz", "", "/../../x", ".nii.gz/", [".nii.gz"], None, 3])
def test_endings_that_are_none(ending):
    with pytest.raises(DataError, match="file_ending"):
        file_ending({"file_ending": ending})

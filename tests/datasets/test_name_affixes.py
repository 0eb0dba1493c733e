"""Words in names, and a law: whatever cases are called, a mask named after one of them is never another's."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lnsegfm.datasets.arrange.case_pairing import pair
from lnsegfm.datasets.arrange.found_files import FoundFile
from lnsegfm.datasets.name_affixes import bare_name, kind_of_folder, kind_of_name, without_part


@pytest.mark.parametrize(
    ("name", "kind", "bare"),
    [
        ("P7_CT_seg", "mask", "P7"),
        ("P7_labels_all", "mask", "P7"),
        ("A00_TR_seg", "mask", "A00_TR"),
        ("A00_TR", None, "A00_TR"),
        ("P7_ground_truth", "mask", "P7"),
        ("P7_labelsTr", "mask", "P7"),
        ("mask-P7", "mask", "P7"),
        ("label0001", "mask", "0001"),
        ("img0001", "image", "0001"),
        ("CT_image", "image", ""),
        ("GroundTruth", "mask", ""),
        ("P7.seg", "mask", "P7"),
        ("CHUM-001__PT", "other", "CHUM-001"),
        ("Parotid_L", None, "Parotid_L"),
        ("pat7_labels_LymphNodes", "mask", "pat7_labels_LymphNodes"),
        ("segrap_0001", None, "segrap_0001"),
        ("Labeling", None, "Labeling"),
    ],
)
def test_words_of_names(name, kind, bare):
    assert kind_of_name(name) == kind
    assert bare_name(name) == bare


def test_a_folder_with_a_digit_is_a_cases():
    assert kind_of_folder("labels_oar") == "mask"
    assert kind_of_folder("CT_0012") is None


@pytest.mark.parametrize(
    ("text", "part", "left"),
    [
        ("P1_seg", "P1", "seg"), ("seg-P1", "P1", "seg"), ("P1", "P1", ""), ("P10_seg", "P1", None),
        ("seg_XP1", "P1", None), ("P1", "", None), ("P1_Parotid_L", "P1", "Parotid_L"), ("P1_", "P1", None),
    ],
)  # fmt: skip
def test_a_part_ends_at_the_end_of_a_word(text, part, left):
    assert without_part(text, part) == left


def found(stem: str) -> FoundFile:
    return FoundFile(Path(f"{stem}.nii.gz"), f"{stem}.nii.gz", (), stem, kind_of_name(stem), f"{stem}.nii.gz")


NAMES = st.lists(
    st.from_regex(r"[A-Z]{1,2}[0-9]{1,2}([_-][A-Z0-9]{1,3}){0,2}", fullmatch=True).filter(
        lambda n: not kind_of_name(n)
    ),
    min_size=2,
    max_size=6,
    unique_by=str.casefold,
)


@settings(max_examples=200, deadline=None)
@example(["A0", "A00_TR"], "{}_seg")
@given(NAMES, st.sampled_from(["{}_seg", "{}-label", "mask_{}", "{}_gt", "{}.seg", "{}_segmentation"]))
def test_a_mask_is_of_the_case_that_it_is_named_after(names, form):
    pairing = pair([found(name) for name in names] + [found(form.format(name)) for name in names], Path())
    assert {case: [mask.file.stem for mask in masks] for case, masks in pairing.masks.items()} == {
        name: [form.format(name)] for name in names
    }
    assert all(mask.structure is None for masks in pairing.masks.values() for mask in masks)
    assert pairing.left_over == ()

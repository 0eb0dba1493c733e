from __future__ import annotations

import pytest

from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.rois import match_rois
from lnsegfm.spelling import normalise_name


@pytest.mark.parametrize("name", ["GTV n-1", " gtv_N__1 ", "GTV-n - 1", "Gtv N 1"])
def test_case_and_separators_do_not_count(name: str) -> None:
    assert normalise_name(name) == "gtv_n_1"
    assert match_rois([name], ["gtv_n_1=node"]).labels == ("node",)


def test_separators_are_not_lost() -> None:
    assert match_rois(["LN_1_2", "LN_12"], ["ln 12=other"]).labels == (None, "other")


def test_wildcards_the_first_pattern_that_fits_has_the_name() -> None:
    matched = match_rois(["LN 1", "LNb", "Tumour", "GTVp"], ["LN*=lymph_node", "L*=left", "GTV?=tumour"])

    assert matched.labels == ("lymph_node", "lymph_node", None, "tumour")
    assert matched.unmatched == ("Tumour",)
    assert matched.named("lymph_node") == ("LN 1", "LNb")
    assert matched.contested == (("LN 1", ("lymph_node", "left")), ("LNb", ("lymph_node", "left")))
    assert matched.listing() == ["lymph_node: LN 1, LNb", "left: none", "tumour: GTVp", "not matched: Tumour"]


def test_a_name_in_full_goes_before_wildcards_and_to_the_letter_before_normalised() -> None:
    matched = match_rois(["LN big", "LN_BIG", "LN small"], ["LN*=node", "ln-big=any", "LN_BIG=letter"])

    assert matched.labels == ("any", "letter", "node")
    assert matched.contested == (("LN big", ("any", "letter")),)


def test_brackets_are_a_choice_and_in_a_name_themselves() -> None:
    assert match_rois(["LN_3", "LN_x", "LN[0-9]"], ["LN [0-9]=node", "LN[0-9]=odd"]).labels == ("node", None, "odd")


def test_several_patterns_may_give_one_label() -> None:
    assert match_rois(["LN", "node 2"], ["LN=ln", "node*=ln"]).named("ln") == ("LN", "node 2")


def test_an_equals_sign_in_a_name_is_left_to_the_name() -> None:
    assert match_rois(["a=b"], ["a=b=label"]).labels == ("label",)


def test_a_pattern_that_matches_nothing_is_an_error_or_told() -> None:
    with pytest.raises(DataError, match=r"Pattern LN\*=node: no structure has such a name\. There are: Heart, Lung"):
        match_rois(["Lung", "Heart"], ["LN*=node", "Heart=heart"])

    assert match_rois(["Heart"], ["LN*=node", "Heart=heart"], strict=False).unused == ("LN*=node",)


@pytest.mark.parametrize("pattern", ["LN*", "=node", "LN=", ""])
def test_a_pattern_says_which_label_it_gives(pattern: str) -> None:
    with pytest.raises(DataError, match="Write it as"):
        match_rois(["LN"], [pattern])


def test_no_pattern_is_refused() -> None:
    with pytest.raises(DataError, match="nothing would be read"):
        match_rois(["LN"], [])

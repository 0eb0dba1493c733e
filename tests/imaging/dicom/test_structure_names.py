from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lnsegfm.imaging.dicom.structure_names import fitted_names


@given(
    st.lists(st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="\\"), min_size=1), max_size=12),
    st.integers(8, 64),
    st.booleans(),
    st.lists(st.text(min_size=1, max_size=8), max_size=3),
)
def test_fitted_names_fit_and_no_two_are_alike(
    names: list[str], length: int, ascii_only: bool, taken: list[str]
) -> None:
    fitted = fitted_names(names, length, ascii_only=ascii_only, taken=taken)

    assert len(fitted) == len(names)
    assert all(0 < len(name) <= length and name == name.strip() for name in fitted)
    folded = [name.casefold() for name in fitted]
    assert len({*folded, *(name.strip().casefold() for name in taken)}) == len(fitted) + len(
        {name.strip().casefold() for name in taken}
    )
    assert not ascii_only or all(name.isascii() and "\\" not in name for name in fitted)


def test_the_number_of_a_node_stays_and_what_fits_is_left_alone() -> None:
    names = ["lymph_node_mediastinal 1", "lymph_node_mediastinal 12", "lymph_node_mediastinal", "lymph_node_medi"]
    assert fitted_names(names, 16) == ("lymph_node_med 1", "lymph_node_me 12", "lymph_node_media", "lymph_node_medi")


def test_names_that_become_alike_are_numbered_and_full_ones_go_first() -> None:
    assert fitted_names(["a_long_name_of_one", "a_long_name_of_two", "a_long_name_of_t"], 16) == (
        "a_long_name_of_o",
        "a_long_name_of_2",
        "a_long_name_of_t",
    )
    assert fitted_names(["Node", "node", "NODE "[:4]], 16) == ("Node", "node_2", "NODE_3")
    assert fitted_names(["GTV"], 16, taken=["gtv ", "gtv_2"]) == ("GTV_3",)


def test_letters_lose_their_accents() -> None:
    assert fitted_names(["Lymphknoten groß", "Œdème", "リンパ 3"], 16, ascii_only=True) == (
        "Lymphknoten gros",
        "OEdeme",
        "___ 3",
    )

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsegfm.datasets.convert import SETS, ConversionOptions, card_of, require_meaning
from lnsegfm.datasets.convert.mask_placement import place_by_axes, place_by_position
from lnsegfm.datasets.convert.partial_annotation import AIR_HU, mark_unannotated, require_soft_tissue
from lnsegfm.errors import ConfigError, DataError, UnknownName
from lnsegfm.imaging.grid import Grid


def test_the_ignore_rule_on_a_made_up_line_of_voxels():
    hu = np.array([[[40, 40, 40, 40, 40, -500, -499, -1000, 40]]], np.int16)
    mask = np.array([[[0, 0, 0, 1, 0, 0, 0, 0, 0]]], np.uint8)
    #          ignore, shell (2 mm, 1 mm), node, shell, air at the threshold, just above it, air, ignore
    expected = [[[2, 0, 0, 1, 0, 0, 2, 0, 2]]]
    np.testing.assert_array_equal(mark_unannotated(mask, hu, (5.0, 5.0, 1.0), 2, 2.0), expected)


def test_a_voxel_just_at_the_shells_edge_is_background_whatever_the_last_bit_says():
    hu, mask = np.full((1, 1, 6), 40, np.int16), np.zeros((1, 1, 6), np.uint8)
    mask[..., 0] = 1
    assert 3 * 1.1 > 3.3
    np.testing.assert_array_equal(mark_unannotated(mask, hu, (5.0, 5.0, 1.1), 2, 3.3), [[[1, 0, 0, 0, 2, 2]]])


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**16), shell_mm=st.floats(0.6, 6.0), spacing=st.sampled_from([(5.0, 0.8, 0.8), (1.0, 2, 3)])
)
def test_the_ignore_rule_is_what_it_says(seed, shell_mm, spacing):
    draw = np.random.default_rng(seed)
    hu = draw.choice([-1000, -500, -300, 40, 1200], (4, 7, 6)).astype(np.int16)
    mask = (draw.random(hu.shape) < 0.03).astype(np.uint8) * draw.choice([1, 2], hu.shape).astype(np.uint8)
    mask[1, 3, 2] = 1
    out = mark_unannotated(mask, hu, spacing, 3, shell_mm)
    nodes = np.argwhere(mask > 0) * np.array(spacing)
    for index in np.ndindex(hu.shape):
        near = np.sqrt(((nodes - np.array(index) * spacing) ** 2).sum(1)).min() <= shell_mm + 1e-6
        wanted = mask[index] if mask[index] else 0 if near or hu[index] <= AIR_HU else 3
        assert out[index] == wanted


def test_a_scan_without_annotation_has_no_ignore_rule():
    with pytest.raises(DataError, match="Nothing is annotated"):
        mark_unannotated(np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 2), np.int16), (1.0, 1.0, 1.0), 2, 3.0)


@settings(deadline=None, max_examples=60)
@given(
    order=st.permutations([0, 1, 2]),
    flips=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    crop=st.booleans(),
    seed=st.integers(0, 999),
)
def test_a_mask_on_other_axes_or_a_part_of_the_scan_comes_back_voxel_for_voxel(order, flips, crop, seed):
    import SimpleITK as sitk

    angle = 0.3
    turn = (np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0, 0, 0, 1)
    target = Grid((4, 6, 5), (3.0, 0.7, 1.1), (-20.0, 33.0, 7.0), turn)
    mask = np.zeros(target.shape, np.uint8)
    mask[1:3, 2:5, 1:4] = np.random.default_rng(seed).integers(0, 3, (2, 3, 3))
    image = sitk.GetImageFromArray(mask)
    image.SetSpacing(target.spacing_mm[::-1])
    image.SetOrigin(target.origin_mm)
    image.SetDirection(target.direction)
    if crop:
        image = image[1:4, 2:5, 1:3]
    image = sitk.Flip(sitk.PermuteAxes(image, order), flips)
    moved, note = place_by_position(sitk.GetArrayFromImage(image), Grid.from_image(image), target)
    np.testing.assert_array_equal(moved, mask)
    assert (note is None) == (not crop and list(order) == [0, 1, 2] and not any(flips))


def test_a_mask_between_voxels_or_outside_is_refused():
    target = Grid((3, 4, 5), (2.0, 1.0, 1.0))
    ones = np.ones((3, 4, 5), np.uint8)
    for grid, told in (
        (dataclasses.replace(target, origin_mm=(0.4, 0, 0)), "not the scan's"),
        (dataclasses.replace(target, spacing_mm=(2.0, 1.0, 1.1)), "not the scan's"),
        (dataclasses.replace(target, origin_mm=(1.0, 0, 0)), "12 labelled voxels lie outside"),
        (dataclasses.replace(target, origin_mm=(50.0, 0, 0)), "60 labelled voxels lie outside"),
    ):
        with pytest.raises(DataError, match=told):
            place_by_position(ones, grid, target)


@pytest.mark.parametrize(
    ("grid", "fits"),
    [
        (Grid((3, 4, 5), (2.0, 1.0, 1.0), (0.2, 0, 0)), True),
        (Grid((3, 4, 5), (2.0, 1.0, 1.0), (0.3, 0, 0)), False),
        (Grid((3, 4, 5), (2.0, 1.0, 1.06)), True),  # 0.24 voxels at the far end
        (Grid((3, 4, 5), (2.0, 1.0, 1.07)), False),
    ],
)
def test_a_mask_may_lie_a_quarter_of_a_voxel_off_anywhere(grid, fits):
    target, mask = Grid((3, 4, 5), (2.0, 1.0, 1.0)), np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    if fits:
        moved, note = place_by_position(mask, grid, target)
        np.testing.assert_array_equal(moved, mask)
        assert "mask moved onto the scan's grid" in (note or "")
    else:
        with pytest.raises(DataError, match="not the scan's"):
            place_by_position(mask, grid, target)


def test_a_lost_origin_is_passed_over_by_axes_alone():
    target = Grid((3, 4, 5), (2.0, 1.0, 1.0), (7.0, 8.0, 9.0))
    mask = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    moved, note = place_by_axes(mask, Grid((3, 4, 5), (2.0, 1.0, 1.0), (0.3, 0, 0)), target)
    np.testing.assert_array_equal(moved, mask)
    assert "origin" in note
    mirrored = Grid((3, 4, 5), (2.0, 1.0, 1.0), (0.3, 0, 0), (-1, 0, 0, 0, -1, 0, 0, 0, 1))
    np.testing.assert_array_equal(place_by_axes(mask, mirrored, target)[0], mask[:, ::-1, ::-1])
    with pytest.raises(DataError, match="does not fit"):
        place_by_axes(mask[:2], Grid((2, 4, 5), (2.0, 1.0, 1.0)), target)


def test_a_mask_on_air_is_refused_and_the_mirror_is_named():
    hu = np.full((4, 6, 6), 40, np.int16)
    hu[2:] = -900
    mask = np.zeros(hu.shape, np.uint8)
    mask[:2, 2:4, 2:4] = 1
    require_soft_tissue(mask, hu)
    with pytest.raises(DataError, match=r"Only 0% .* mirrored along z they would"):
        require_soft_tissue(mask[::-1], hu)


def test_every_card_says_where_a_set_comes_from_and_on_which_terms():
    public = {
        "radcure",
        "segrap2023",
        "lnq2023",
        "ct-lymph-nodes",
        "mediastinal-lymph-node-seg",
        "hecktor2025",
        "lynos",
    }
    assert set(SETS) == {"dicom", *public}
    for name, card in SETS.items():
        assert card.name == name
        assert card.options <= {field.name for field in dataclasses.fields(ConversionOptions)}
        with pytest.raises(dataclasses.FrozenInstanceError):
            card.title = "mine"  # type: ignore[misc]
        if card.public:
            assert card.url.startswith("https://")
            assert "10." in card.citation
            assert "doi.org" in card.citation
            assert all((card.licence, card.download, card.layout, card.checks, card.sources, card.expected))


def test_the_page_lists_every_set_with_its_terms():
    page = (Path(__file__).parents[3] / "docs" / "convert.md").read_text()
    for card in SETS.values():
        assert f"`{card.name}`" in page
        assert card.url in page
        for number in card.expected.values():
            assert re.search(rf"\b{number:,}\b|\b{number}\b", page), (card.name, number)
    assert "No converter has been run on the real set" in page


def test_requests_that_cannot_be_are_refused():
    with pytest.raises(UnknownName, match="not known"):
        card_of("luna")
    with pytest.raises(ConfigError, match="--channels, --shell"):
        require_meaning(card_of("dicom"), ConversionOptions(shell_mm=2.0, channels="both"))
    for wrong in (
        {"roi": ("LN",)},
        {"roi": ("=x",)},
        {"channels": "mr"},
        {"shell_mm": 0.0},
        {"shell_mm": float("nan")},
        {"masks": Path("/nowhere")},
        {"keep_names": True, "key": Path("k")},
    ):
        with pytest.raises(ConfigError):
            ConversionOptions(**wrong)

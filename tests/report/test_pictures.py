from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from lnsegfm.errors import DataError
from lnsegfm.imaging.grid import IDENTITY
from lnsegfm.report.pictures import ADAPTED_COLOUR, BASE_COLOUR, REFERENCE_COLOUR, axial_view, focus_slice, overlay_png

FLIPPED = (-1, 0, 0, 0, -1, 0, 0, 0, 1)  # x grows to the right, y to the front
SAGITTAL = (0, 0, 1, 1, 0, 0, 0, -1, 0)  # index x grows to P, index y to the feet, index z (the slices) to L
DIRECTIONS = {"identity": IDENTITY, "flipped": FLIPPED, "sagittal": SAGITTAL}


def array_with_marks(direction: tuple[float, ...]) -> np.ndarray:
    """A volume in which 1 lies most to the patient's left, 2 most to the back and 3 most to the head."""
    world = np.array(direction, dtype=float).reshape(3, 3)
    shape = (6, 8, 10)
    volume = np.zeros(shape, dtype=int)
    index = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij"), axis=-1)[..., ::-1]
    lps = index @ world.T
    for axis, value in ((0, 1), (1, 2), (2, 3)):
        volume[lps[..., axis] == lps[..., axis].max()] = value
    return volume


@pytest.mark.parametrize("name", DIRECTIONS)
def test_left_is_shown_at_the_right_and_back_at_the_bottom_and_the_letters_say_so(name):
    view = axial_view(DIRECTIONS[name])
    turned = view.turn(array_with_marks(DIRECTIONS[name]))

    middle = turned[len(turned) // 2]
    assert (middle[:-1, -1] == 1).all()
    assert (middle[-1] == 2).all()
    assert {tuple(np.unique(turned[0])), tuple(np.unique(turned[-1]))} == {(0, 1, 2), (3,)}
    assert view.letters == ("R", "L", "A", "P")


def test_slices_keep_the_files_order():
    towards_the_feet = (1, 0, 0, 0, 1, 0, 0, 0, -1)
    volume = np.arange(4)[:, None, None] * np.ones((4, 3, 3))

    assert axial_view(towards_the_feet).turn(volume)[0, 0, 0] == 0


def test_an_oblique_slice_has_two_letters():
    angle = np.radians(30)
    head_tilt = (1, 0, 0, 0, np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle))
    slight = np.radians(10)
    turned = (np.cos(slight), -np.sin(slight), 0, np.sin(slight), np.cos(slight), 0, 0, 0, 1)

    assert axial_view(head_tilt).letters == ("R", "L", "AF", "PH")
    assert axial_view(turned).letters == ("R", "L", "A", "P")


@pytest.mark.parametrize("name", DIRECTIONS)
def test_the_slice_goes_through_the_largest_piece_of_the_reference(name):
    view = axial_view(DIRECTIONS[name])
    reference, adapted = np.zeros((20, 20, 20), bool), np.zeros((20, 20, 20), bool)
    turned = view.turn(reference)  # the same memory
    turned[3, 2:8, 2:8] = True  # a flat piece with the largest area of all
    turned[10:16, 12:15, 12:15] = True  # the largest piece
    turned[12, 12:16, 12:16] = True

    assert focus_slice(view, reference, adapted) == 12
    view.turn(adapted)[:] = turned
    view.turn(adapted)[5, 4:6, 4:6] = True
    assert focus_slice(view, reference, adapted, "disagreement") == 5
    assert focus_slice(view, np.zeros_like(reference), adapted) == 3
    assert focus_slice(view, np.zeros_like(reference), np.zeros_like(reference)) == 10


def test_what_nobody_annotated_is_no_disagreement():
    reference, adapted, ignored = (np.zeros((6, 5, 5), bool) for _ in range(3))
    reference[1, 1, 1] = adapted[4] = ignored[4] = True

    assert focus_slice(axial_view(IDENTITY), reference, adapted, "disagreement", ignored) == 1


def colours_in(png: bytes, panel: int) -> set[str]:
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    third = pixels.shape[1] // 3
    part = pixels[60:, panel * third : (panel + 1) * third]  # below the names
    return {c for c in (REFERENCE_COLOUR, BASE_COLOUR, ADAPTED_COLOUR) if (np.abs(part - rgb(c)).max(-1) < 4).any()}


def rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])


def masks() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    image = np.full((5, 80, 80), -90, np.int16)
    reference, base, adapted = (np.zeros(image.shape, bool) for _ in range(3))
    reference[2, 20:30, 20:30] = base[2, 40:50, 20:30] = adapted[2, 25:35, 40:50] = True
    return image, reference, base, adapted


def test_each_panel_shows_its_own_contours():
    image, reference, base, adapted = masks()
    png = overlay_png(image, reference, base, adapted, spacing_mm=(3, 2, 2), direction=IDENTITY, slice_index=2)

    assert colours_in(png, 0) == set()
    assert colours_in(png, 1) == {REFERENCE_COLOUR, BASE_COLOUR}
    assert colours_in(png, 2) == {REFERENCE_COLOUR, ADAPTED_COLOUR}
    assert len(png) < 60_000


def test_without_a_mask_of_the_base_only_the_reference_is_drawn():
    image, reference, _, adapted = masks()
    png = overlay_png(image, reference, None, adapted, spacing_mm=(3, 2, 2), direction=IDENTITY, slice_index=2)

    assert colours_in(png, 1) == {REFERENCE_COLOUR}


def test_aspect_follows_the_spacing():
    image, reference = np.full((3, 40, 80), -90, np.int16), np.zeros((3, 40, 80), bool)
    reference[1, 10:30, 20:60] = True  # 80 x 80 mm
    png = overlay_png(
        image, reference, None, ~reference & False, spacing_mm=(3, 4, 2), direction=IDENTITY, slice_index=1
    )

    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    third = pixels.shape[1] // 3
    hit = np.abs(pixels[60:, third : 2 * third] - rgb(REFERENCE_COLOUR)).max(-1) < 4
    height, width = (np.ptp(np.flatnonzero(hit.any(axis=axis))) for axis in (1, 0))
    assert height == pytest.approx(width, rel=0.03)


def test_masks_of_another_shape_are_refused():
    image, reference, _, adapted = masks()
    with pytest.raises(DataError, match="adapted"):
        overlay_png(image, reference, None, adapted[:4], spacing_mm=(3, 2, 2), direction=IDENTITY, slice_index=2)

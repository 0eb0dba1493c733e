from __future__ import annotations

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from lnsegfm.errors import DataError
from lnsegfm.imaging.grid import IDENTITY, Grid
from lnsegfm.report.pictures import Scene, contour, draw_place
from lnsegfm.report.views import PLANES, view_of

FLIPPED = (-1, 0, 0, 0, -1, 0, 0, 0, 1)  # x grows to the right, y to the front
FEET_FIRST = (1, 0, 0, 0, 1, 0, 0, 0, -1)
SAGITTAL = (0, 0, 1, 1, 0, 0, 0, -1, 0)  # index x grows to P, index y to the feet, index z (the slices) to L
DIRECTIONS = {"identity": IDENTITY, "flipped": FLIPPED, "feet first": FEET_FIRST, "sagittal": SAGITTAL}
LETTERS = {"axial": ("R", "L", "A", "P"), "coronal": ("R", "L", "H", "F"), "sagittal": ("A", "P", "H", "F")}
FACES = {"L": 1, "P": 2, "H": 4, "R": 8, "A": 16, "F": 32}


def array_with_marks(direction: tuple[float, ...]) -> np.ndarray:
    """A volume whose six faces carry the patient's sides, one bit a side."""
    world = np.array(direction, dtype=float).reshape(3, 3)
    shape = (6, 8, 10)
    index = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij"), axis=-1)[..., ::-1]
    lps = index @ world.T
    volume = np.zeros(shape, dtype=int)
    for axis, (low, high) in enumerate((("R", "L"), ("A", "P"), ("F", "H"))):
        volume |= FACES[high] * (lps[..., axis] == lps[..., axis].max())
        volume |= FACES[low] * (lps[..., axis] == lps[..., axis].min())
    return volume


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("name", DIRECTIONS)
def test_the_patients_sides_are_where_the_letters_say(name, plane):
    view = view_of(DIRECTIONS[name], plane)
    turned = view.turn(array_with_marks(DIRECTIONS[name]))
    middle = turned[len(turned) // 2]

    assert view.letters == LETTERS[plane]
    for letter, edge in zip(view.letters, (middle[:, 0], middle[:, -1], middle[0], middle[-1]), strict=True):
        assert (edge & FACES[letter]).all()


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_voxels_place_in_the_view_is_where_turning_puts_it(name, plane):
    volume = np.zeros((6, 8, 10))
    volume[1, 2, 7] = 1
    view = view_of(DIRECTIONS[name], plane)

    assert view.turn(volume)[view.place((1, 2, 7), volume.shape)] == 1


def test_slices_keep_the_files_order():
    volume = np.arange(4)[:, None, None] * np.ones((4, 3, 3))

    assert view_of(FEET_FIRST, "axial").turn(volume)[0, 0, 0] == 0


def test_an_oblique_slice_has_two_letters():
    angle = np.radians(30)
    head_tilt = (1, 0, 0, 0, np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle))
    slight = np.radians(10)
    turned = (np.cos(slight), -np.sin(slight), 0, np.sin(slight), np.cos(slight), 0, 0, 0, 1)

    assert view_of(head_tilt, "axial").letters == ("R", "L", "AF", "PH")
    assert view_of(turned, "axial").letters == ("R", "L", "A", "P")


def points(d: str) -> list[np.ndarray]:
    """The closed lines of a path in absolute coordinates, (x, y)."""
    lines = []
    for part in re.findall(r"M([^Ml]*)l?([^Mz]*)z", d):
        start, steps = (np.array(list(map(float, text.split()))).reshape(-1, 2) for text in part)
        lines.append(np.cumsum(np.vstack([start, steps]), axis=0))
    return lines


def area(line: np.ndarray) -> float:
    x, y = line.T
    return abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2)


def test_a_contour_goes_round_the_voxels_in_mm():
    mask = np.zeros((20, 30), bool)
    mask[4:10, 12:20] = True
    (line,) = points(contour(mask, (3.0, 2.0), origin_mm=(100.0, 200.0)))

    assert line.min(axis=0) == pytest.approx((224, 112))
    assert line.max(axis=0) == pytest.approx((240, 130))
    assert len(line) == 8  # what lies on a straight line is left out
    assert area(line) == pytest.approx(6 * 8 * 6 - 4 * 0.5 * 1.5 * 1.0)  # less its four corners


def test_holes_pieces_and_edges_are_closed_lines():
    mask = np.ones((9, 9), bool)
    mask[3:6, 3:6] = False
    mask[4, 4] = True

    assert len(points(contour(mask, (1.0, 1.0)))) == 3
    assert contour(np.zeros((4, 4), bool), (1.0, 1.0)) == ""


def test_voxels_that_touch_at_a_corner_are_one_line():
    assert len(points(contour(np.eye(2, dtype=bool), (1.0, 1.0)))) == 1


def scene(**changes) -> Scene:
    grid = Grid((20, 80, 90), (3.0, 1.5, 1.0))
    image = np.full(grid.shape, -90, np.int16)
    reference, prediction = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
    reference[8:12, 20:30, 50:62] = True
    prediction[8:12, 50:60, 20:30] = True
    image[reference] = 300
    return Scene(
        **{"grid": grid, "image_hu": image, "masks": {"reference": reference, "prediction": prediction}, **changes}
    )


def views(svg: str) -> dict[str, ElementTree.Element]:
    return {view.get("data-plane", ""): view for view in ElementTree.fromstring(f"<div>{svg}</div>")}


def picture(view: ElementTree.Element) -> tuple[np.ndarray, dict[str, float]]:
    """The CT of a view, and where it lies."""
    image = view.find("image")
    assert image is not None
    data = base64.b64decode(image.get("href", "").split(",")[1], validate=True)
    return np.asarray(Image.open(io.BytesIO(data))).astype(int), {
        k: float(image.get(k, "")) for k in ("x", "y", "width", "height")
    }


@pytest.mark.parametrize("plane", PLANES)
def test_the_contour_lies_on_the_picture_where_the_voxels_are(plane):
    view = views(draw_place(scene(), (10, 25, 56), of="reference"))[plane]
    grey, place = picture(view)
    (line,) = points(view.find("path[@class='c reference']").get("d"))
    rows, columns = np.nonzero(grey > 200)  # the node is bright, and nothing else is
    height, width = place["height"] / grey.shape[0], place["width"] / grey.shape[1]

    assert line.min(axis=0) == pytest.approx(
        (place["x"] + columns.min() * width, place["y"] + rows.min() * height), abs=0.06
    )
    assert line.max(axis=0) == pytest.approx(
        (place["x"] + (columns.max() + 1) * width, place["y"] + (rows.max() + 1) * height), abs=0.06
    )
    spacing = {"axial": (1.5, 1.0), "coronal": (3.0, 1.0), "sagittal": (3.0, 1.5)}[plane]
    assert (height, width) == pytest.approx(spacing)  # the scan's own pixels, true to scale


def test_the_window_is_soft_tissue():
    image = np.zeros((20, 80, 90), np.float32)
    image[:, :, ::3], image[:, :, 1::3], image[0, 0, 0] = -160, 240, np.nan
    grey, _ = picture(views(draw_place(scene(image_hu=image), (0, 0, 0)))["axial"])

    assert grey.shape[1] > 40
    assert abs(np.median(grey[:, 0]) - 0) < 12  # JPEG
    assert abs(np.median(grey[:, 1]) - 255) < 12
    assert abs(np.median(grey[:, 2]) - 102) < 12


def test_marks_enclose_the_node_and_no_other():
    marks = views(draw_place(scene(), (10, 25, 56), of="reference"))["axial"].find("path[@class='mark']").get("d")
    numbers = [tuple(map(float, m)) for m in re.findall(r"M([\d.]+) [\d.]+V([\d.]+)H", marks)]

    assert {x for x, _ in numbers} == {47.0, 65.0}  # 3 mm around 50 to 62 and 30 to 45
    assert {y for _, y in numbers} == {27.0, 48.0}
    assert "mark" not in draw_place(scene(), (10, 25, 56))


def test_a_view_grows_with_what_it_shows_and_stays_in_the_slice():
    grid = Grid((10, 300, 300), (3.0, 1.0, 1.0))
    wide, small = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
    wide[5, 20:180, 100:110] = small[5, 2:6, 2:6] = True

    def box(mask: np.ndarray, index: tuple[int, int, int]) -> list[float]:
        view = views(draw_place(Scene(grid, None, {"reference": mask}), index, of="reference"))["axial"]
        return list(map(float, view.get("viewBox", "").split()))

    assert box(small, (5, 3, 3)) == [0, 0, 84, 84]
    assert box(wide, (5, 100, 105))[2:] == [210, 210]


def test_few_slices_leave_room_for_the_letters():
    grid = Grid((2, 100, 100), (3.0, 1.0, 1.0))
    mask = np.zeros(grid.shape, bool)
    mask[1, 50:55, 50:55] = True
    view = views(draw_place(Scene(grid, None, {"reference": mask}), (1, 52, 52), of="reference"))["coronal"]

    _, y, width, height = map(float, view.get("viewBox", "").split())
    assert (y, width, height) == (-15, 84, 36)


def test_each_kind_has_its_own_line_and_what_is_unknown_has_none():
    one = scene()
    svg = draw_place(Scene(one.grid, one.image_hu, {**one.masks, "ignored": one.masks["prediction"]}), (10, 40, 45))

    assert {p.get("class") for p in views(svg)["axial"].findall("path")} == {"c reference", "c prediction", "c ignored"}


def test_without_a_scan_the_masks_are_filled():
    view = views(draw_place(scene(image_hu=None), (10, 25, 56)))["axial"]

    assert view.find("image") is None
    assert "bare" in view.get("class")


def test_a_title_from_a_stranger_stays_text():
    svg = draw_place(scene(), (10, 25, 56), title='"><script>alert(1)</script>')

    assert "<script" not in svg
    assert "alert(1)</script>, axial slice 11 of 20" in views(svg)["axial"].get("aria-label")


def test_the_same_place_gives_the_same_bytes_and_few():
    svg = draw_place(scene(), (10, 25, 56), of="reference")

    assert svg == draw_place(scene(), (10, 25, 56), of="reference")
    assert len(svg) < 12_000


def test_masks_of_another_shape_are_refused():
    with pytest.raises(DataError, match="prediction"):
        scene(masks={"prediction": np.zeros((4, 80, 90), bool)})

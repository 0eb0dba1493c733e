"""Pictures of a place in a scan: CT with the contours of reference and masks, as SVG in millimetres.

Each view is an ``<svg>`` element for an HTML page. Its coordinates are millimetres of the slice as shown, counted
from the slice's upper left corner, so anisotropic voxels are true to scale. The CT is a greyscale picture at the
scan's own resolution in the soft-tissue window; contours are paths, which the page styles by their classes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.measure import find_contours

from lnsegfm.errors import DataError
from lnsegfm.imaging.grid import Grid
from lnsegfm.report.views import PLANES, View, view_of

# Okabe and Ito, "Color Universal Design" (2008): distinguishable with every kind of colour vision
REFERENCE_COLOUR = "#F0E442"
BASE_COLOUR = "#E69F00"
PREDICTION_COLOUR = "#56B4E9"

WINDOW_LEVEL_HU = 40.0
WINDOW_WIDTH_HU = 400.0
SCALE_BAR_MM, LONG_BAR_MM = 20.0, 100.0
MARGIN_MM = 25.0
SMALLEST_VIEW_MM, LARGEST_VIEW_MM = 84.0, 240.0
THUMBNAIL = 256
_SMALLEST_SIDE_MM = 36.0  # room for the letters where a scan has few slices
_MARK_MM = 3.0
_JPEG_QUALITY = 85

Kind = Literal["ignored", "reference", "base", "prediction"]
_Box = tuple[float, float, float, float]  # top, bottom, left and right, mm
KINDS: tuple[Kind, ...] = ("ignored", "reference", "base", "prediction")  # in the order they are drawn


@dataclass(frozen=True)
class Scene:
    """What is drawn of one label of one case: arrays (z, y, x) on one grid.

    Args:
        grid: Their geometry.
        image_hu: CT, HU; None where there is none: the masks are then filled, on black.
        masks: Boolean masks by kind: ``reference`` (yellow), ``prediction`` (blue), ``base`` (orange, the model one
            compares with) and ``ignored`` (dotted white: what was not annotated).

    Raises:
        DataError: An array that does not fill the grid.
    """

    grid: Grid
    image_hu: np.ndarray | None
    masks: Mapping[Kind, np.ndarray]

    def __post_init__(self) -> None:
        for name, array in (("image", self.image_hu), *self.masks.items()):
            if array is not None and array.shape != self.grid.shape:
                raise DataError(f"Shape {array.shape} of {name}: the grid has {self.grid.shape}. Use its own grid.")


def draw_place(
    scene: Scene, index: Sequence[int], *, of: Kind | None = None, title: str = "", whole: bool = False
) -> str:
    """Axial, coronal and sagittal view through a voxel, side by side at one scale, as three ``<svg>`` elements.

    Args:
        scene: What to draw.
        index: The voxel (z, y, x).
        of: The mask whose piece at that voxel is meant: corner marks enclose it. None marks nothing, and the views
            enclose all that is drawn on their slices. They are 84 to 240 mm wide.
        title: What the picture shows, for people who cannot see it; the plane and the slice are added.
        whole: Show whole slices instead, with at most ``THUMBNAIL`` pixels a side.
    """
    views = [view_of(scene.grid.direction, plane) for plane in PLANES]
    if whole:
        side = max(n * mm for n, mm in zip(scene.grid.shape, scene.grid.spacing_mm, strict=True))
        return "".join(_draw(scene, view, index, None, side, title, marked=False, most=THUMBNAIL) for view in views)
    boxes = [_box(scene, view, index, of) for view in views]
    sides = [max(box[1] - box[0], box[3] - box[2]) + 2 * MARGIN_MM for box in boxes if box]
    side = min(max([SMALLEST_VIEW_MM, *sides]), LARGEST_VIEW_MM)
    return "".join(
        _draw(scene, view, index, box, side, title, marked=of is not None)
        for view, box in zip(views, boxes, strict=True)
    )


def contour(mask: np.ndarray, pixel_mm: tuple[float, float], origin_mm: tuple[float, float] = (0.0, 0.0)) -> str:
    """The outline of a mask as an SVG path, in tenths of a millimetre.

    The outline lies midway between voxel centres inside and outside (marching squares at 0.5); voxels that touch at a
    corner are one piece. Points on a straight line are left out.

    Args:
        mask: Boolean (rows, columns).
        pixel_mm: Height and width of a pixel.
        origin_mm: Where the upper left corner of the mask lies (down, right).

    Returns:
        The path's ``d``; empty for an empty mask.
    """
    parts = []
    for line in find_contours(np.pad(mask, 1).astype(np.float32), 0.5, fully_connected="high"):
        before, after = line[:-1] - np.roll(line[:-1], 1, axis=0), line[1:] - line[:-1]
        corner = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
        mm = (line[:-1][corner] - 0.5) * pixel_mm + origin_mm
        tenths = np.rint(10 * mm).astype(int)[:, ::-1]
        steps = np.diff(tenths, axis=0)
        steps = steps[np.any(steps != 0, axis=1)]
        parts.append(f"M{_tenth(tenths[0])}" + (f"l{' '.join(map(_tenth, steps))}" if len(steps) else "") + "z")
    return "".join(parts)


def _draw(
    scene: Scene,
    view: View,
    index: Sequence[int],
    box: _Box | None,
    side: float,
    title: str,
    *,
    marked: bool,
    most: int | None = None,
) -> str:
    place, pixel = view.place(index, scene.grid.shape), view.pixel_mm(scene.grid.spacing_mm)
    shape = [scene.grid.shape[axis] for axis in view.order]
    middle = [(place[1] + 0.5) * pixel[0], (place[2] + 0.5) * pixel[1]]
    if box is not None and max(box[1] - box[0], box[3] - box[2]) < side:
        middle = [(box[0] + box[1]) / 2, (box[2] + box[3]) / 2]
    (top, height), (left, width) = (_span(m, side, n * mm) for m, n, mm in zip(middle, shape[1:], pixel, strict=True))
    # two voxels more than is shown, so that a contour that leaves the view does not turn along its edge
    rows, columns = (
        slice(max(int(start // mm) - 2, 0), min(int((start + length) // mm) + 3, n))
        for start, length, mm, n in zip((top, left), (height, width), pixel, shape[1:], strict=True)
    )
    corner = (rows.start * pixel[0], columns.start * pixel[1])
    parts = [f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"/>']
    if scene.image_hu is not None:
        parts.append(_ct(view.turn(scene.image_hu)[place[0], rows, columns], pixel, corner, most))
    for kind in KINDS:
        if kind in scene.masks and (d := contour(view.turn(scene.masks[kind])[place[0], rows, columns], pixel, corner)):
            parts.append(f'<path class="c {kind}" d="{d}"/>')
    if marked and box is not None:
        parts.append(_marks(box))
    parts.append(_words(view, left, top, width, height))
    number, name = f"{view.plane} slice {place[0] + 1} of {shape[0]}", f"{title}, " if title else ""
    return (
        f'<svg class="view{"" if scene.image_hu is not None else " bare"}" role="img" style="flex-grow:{width:.0f}"'
        f' data-plane="{view.plane}" viewBox="{left:.1f} {top:.1f} {width:.1f} {height:.1f}"'
        f' aria-label="{escape(name + number, quote=True)}">{"".join(parts)}</svg>'
    )


def _box(scene: Scene, view: View, index: Sequence[int], kind: Kind | None) -> _Box | None:
    """Where, on the slice of the view, the piece of a mask lies that holds a voxel, or all masks without a kind."""
    place, pixel = view.place(index, scene.grid.shape), view.pixel_mm(scene.grid.spacing_mm)
    if kind is None:
        drawn = [view.turn(mask)[place[0]] for name, mask in scene.masks.items() if name != "ignored"]
        shown = np.any(drawn, axis=0) if drawn else np.zeros((1, 1), bool)
    else:
        pieces, _ = ndimage.label(view.turn(scene.masks[kind])[place[0]], structure=np.ones((3, 3)))
        shown = (pieces == pieces[place[1:]]) & (pieces > 0)
    if not shown.any():
        return None
    rows, columns = ndimage.find_objects(shown.astype(np.uint8))[0]
    return rows.start * pixel[0], rows.stop * pixel[0], columns.start * pixel[1], columns.stop * pixel[1]


def _span(middle: float, side: float, extent: float) -> tuple[float, float]:
    """Start and length of what is shown along one axis: inside the slice where it fits, around it where it does not."""
    length = max(min(side, extent), min(side, _SMALLEST_SIDE_MM))
    if length >= extent:
        return (extent - length) / 2, length
    return min(max(middle - length / 2, 0.0), extent - length), length


def _ct(part: np.ndarray, pixel: tuple[float, float], corner: tuple[float, float], most: int | None) -> str:
    low = WINDOW_LEVEL_HU - WINDOW_WIDTH_HU / 2
    hu = np.nan_to_num(np.asarray(part, dtype=np.float32), nan=-1024.0)
    grey = Image.fromarray(np.rint(np.clip((hu - low) / WINDOW_WIDTH_HU, 0, 1) * 255).astype(np.uint8))
    if most is not None:
        grey.thumbnail((most, most))
    files = {}
    for kind in ("jpeg", "png"):
        file = io.BytesIO()
        grey.save(file, kind, quality=_JPEG_QUALITY, optimize=True)  # PNG has no quality, and ignores it
        files[kind] = file.getvalue()
    kind = min(files, key=lambda k: len(files[k]))
    height, width = (n * mm for n, mm in zip(part.shape, pixel, strict=True))
    return (
        f'<image x="{corner[1]:.3f}" y="{corner[0]:.3f}" width="{width:.3f}" height="{height:.3f}"'
        f' preserveAspectRatio="none" href="data:image/{kind};base64,{base64.b64encode(files[kind]).decode()}"/>'
    )


def _marks(box: _Box) -> str:
    """Four corners around a box."""
    top, bottom, left, right = box[0] - _MARK_MM, box[1] + _MARK_MM, box[2] - _MARK_MM, box[3] + _MARK_MM
    arm = 3.0
    corners = ((left, top, 1, 1), (right, top, -1, 1), (right, bottom, -1, -1), (left, bottom, 1, -1))
    d = "".join(f"M{x:.1f} {y + down * arm:.1f}V{y:.1f}H{x + across * arm:.1f}" for x, y, across, down in corners)
    return f'<path class="mark halo" d="{d}"/><path class="mark" d="{d}"/>'


def _words(view: View, left: float, top: float, width: float, height: float) -> str:
    """The letters at the edges and the scale bar."""
    size = 0.05 * max(width, height)
    near, centre_x, centre_y = 0.3 * size, left + width / 2, top + height / 2
    places = (
        (left + near, centre_y + 0.35 * size, "start"),
        (left + width - near, centre_y + 0.35 * size, "end"),
        (centre_x, top + near + 0.75 * size, "middle"),
        (centre_x, top + height - near, "middle"),
    )
    parts = [
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{letter}</text>'
        for letter, (x, y, anchor) in zip(view.letters, places, strict=True)
    ]
    end, low = left + width - 1.5 * near, top + height - 1.5 * near
    length = SCALE_BAR_MM if max(width, height) <= LARGEST_VIEW_MM else LONG_BAR_MM
    bar = f"M{end - length:.1f} {low:.1f}H{end:.1f}"
    parts.append(f'<path class="bar halo" d="{bar}"/><path class="bar" d="{bar}"/>')
    text = f"{length / 10:.0f} cm"
    parts.append(f'<text x="{end - length / 2:.1f}" y="{low - near:.1f}" text-anchor="middle">{text}</text>')
    parts.append(f'<text x="{left + near:.1f}" y="{top + near + 0.75 * size:.1f}">{view.plane}</text>')
    return f'<g class="words" font-size="{size:.1f}">{"".join(parts)}</g>'


def _tenth(point: np.ndarray) -> str:
    return " ".join(f"{v / 10:g}" for v in point)

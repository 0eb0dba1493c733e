"""Pictures of a case: one axial slice, plain and with the contours of reference, base and adapted model.

Whatever the axis order and direction of the file, the slice is shown as radiology shows it: the patient's right at the
left, the front at the top. The letters at the edges are computed from the direction of what is shown.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

from lnsegfm.errors import DataError

# Okabe and Ito, "Color Universal Design" (2008): told apart with every kind of colour vision
REFERENCE_COLOUR = "#F0E442"
BASE_COLOUR = "#E69F00"
ADAPTED_COLOUR = "#56B4E9"
_COLOURS = {
    "reference": REFERENCE_COLOUR,
    "base": BASE_COLOUR,
    "adapted": ADAPTED_COLOUR,
    "not annotated": "#FFFFFF",
}
_ALWAYS_NAMED = ("reference", "base", "adapted")

WINDOW_LEVEL_HU = 40.0
WINDOW_WIDTH_HU = 400.0
MARGIN_MM = 25.0
SMALLEST_VIEW_MM = 110.0
SCALE_BAR_MM = 20.0
PANEL_PX = 330
DPI = 110

Focus = Literal["largest", "disagreement"]


@dataclass(frozen=True)
class AxialView:
    """How an array (z, y, x) is turned to show axial slices the radiological way.

    Args:
        order: The array's axes in the order (slices, rows, columns) of the view.
        flip: Whether rows and columns run against that (the slices keep the file's order and numbers).
        letters: What lies at the left, right, top and bottom edge: R, L, A, P, and H or F (head, feet) or a second
            letter where the slice is oblique.
    """

    order: tuple[int, int, int]
    flip: tuple[bool, bool]
    letters: tuple[str, str, str, str]

    def turn(self, array: np.ndarray) -> np.ndarray:
        """The array as (slices, rows, columns) of the view; a view of the same memory."""
        rows, columns = (slice(None, None, -1 if f else None) for f in self.flip)
        return array.transpose(self.order)[:, rows, columns]


def axial_view(direction: Sequence[float]) -> AxialView:
    """The view for an image with this direction matrix.

    Args:
        direction: Row-major 3 x 3; column c is the LPS direction of the image's c-th index (x, y, z).
    """
    world = np.asarray(direction, dtype=float).reshape(3, 3)[:, ::-1]  # column a: where array axis a (z, y, x) points
    slices, down_axis, right_axis = max(
        permutations(range(3)), key=lambda p: sum(abs(world[2 - view, axis]) for view, axis in enumerate(p))
    )
    rows, columns = world[:, down_axis], world[:, right_axis]
    flip = (bool(rows[1] < 0), bool(columns[0] < 0))
    down, right = (-rows if flip[0] else rows), (-columns if flip[1] else columns)
    return AxialView(
        (slices, down_axis, right_axis), flip, (_letters(-right), _letters(right), _letters(-down), _letters(down))
    )


def focus_slice(
    view: AxialView,
    reference: np.ndarray,
    adapted: np.ndarray,
    focus: Focus = "largest",
    ignored: np.ndarray | None = None,
) -> int:
    """Which axial slice to show, counted from 0 in the file's order.

    Args:
        view: How the arrays are turned.
        reference: Boolean mask (z, y, x).
        adapted: Boolean mask (z, y, x).
        focus: ``largest``: the slice on which the largest connected piece of the reference (26 neighbours) has its
            largest area. ``disagreement``: the slice with most voxels in one of the two masks only. Where that leaves
            nothing, the slice with most of the reference, of the adapted mask, or the middle one.
        ignored: Boolean mask of voxels that nobody annotated; they are no disagreement.
    """
    reference, adapted = view.turn(reference), view.turn(adapted)
    if focus == "largest":
        shown = _largest_piece(reference)
    else:
        shown = reference != adapted
        if ignored is not None:
            shown &= ~view.turn(ignored)
    for mask in (shown, reference, adapted):
        areas = mask.sum(axis=(1, 2))
        if areas.any():
            return int(np.argmax(areas))
    return len(reference) // 2


def overlay_png(
    image_hu: np.ndarray,
    reference: np.ndarray,
    base: np.ndarray | None,
    adapted: np.ndarray,
    *,
    spacing_mm: tuple[float, float, float],
    direction: Sequence[float],
    slice_index: int,
    ignored: np.ndarray | None = None,
) -> bytes:
    """One row of pictures as PNG: CT, base against reference, adapted against reference.

    CT in the soft-tissue window (level 40 HU, width 400 HU), masks as contours, cut to what the contours cover and
    25 mm around it, true to scale, with a bar of 2 cm and the letters of the edges.

    Args:
        image_hu: CT (z, y, x), HU.
        reference: Boolean mask of the same shape.
        base: Boolean mask of the same shape; None when the base cannot know the label.
        adapted: Boolean mask of the same shape.
        spacing_mm: Of the array's axes (z, y, x).
        direction: Of the image, row-major 3 x 3.
        slice_index: The axial slice, counted from 0 (see ``focus_slice``).
        ignored: Boolean mask of voxels that nobody annotated; drawn dotted.

    Raises:
        DataError: The arrays differ in shape.
    """
    masks = {"reference": reference, "base": base, "adapted": adapted, "not annotated": ignored}
    for name, mask in masks.items():
        if mask is not None and mask.shape != image_hu.shape:
            raise DataError(f"Shape {mask.shape} of {name}: the image has {image_hu.shape}. Use masks on its grid.")
    view = axial_view(direction)
    pixel_mm = (spacing_mm[view.order[1]], spacing_mm[view.order[2]])
    ct = np.nan_to_num(np.asarray(view.turn(image_hu)[slice_index], dtype=np.float32), nan=-1024.0)
    cut = {name: view.turn(mask)[slice_index] for name, mask in masks.items() if mask is not None}
    panels = {
        "CT": (),
        "base and reference" if base is not None else "reference (no mask of the base)": (
            "reference",
            "base",
            "not annotated",
        ),
        "adapted and reference": ("reference", "adapted", "not annotated"),
    }
    covered = np.any([mask for name, mask in cut.items() if name != "not annotated"], axis=0)
    box = _view_box(covered, pixel_mm)
    figure = Figure(figsize=((3 * PANEL_PX + 20) / DPI, (PANEL_PX + 24) / DPI), dpi=DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3, gridspec_kw={"left": 0, "right": 1, "bottom": 0, "top": 0.925, "wspace": 0.015})
    for panel, (title, names) in zip(axes, panels.items(), strict=True):
        _draw_panel(panel, ct, {name: cut[name] for name in names if name in cut}, pixel_mm, box, view.letters)
        panel.set_title(title, fontsize=9.5, color="#222222", pad=4)
    canvas.draw()
    return _small_png(np.asarray(canvas.buffer_rgba())[..., :3])


def _draw_panel(
    axes: Axes,
    ct: np.ndarray,
    contours: dict[str, np.ndarray],
    pixel_mm: tuple[float, float],
    box: tuple[float, float, float, float],
    letters: tuple[str, str, str, str],
) -> None:
    height, width = (n * mm for n, mm in zip(ct.shape, pixel_mm, strict=True))
    low = WINDOW_LEVEL_HU - WINDOW_WIDTH_HU / 2
    axes.imshow(
        ct,
        cmap="gray",
        vmin=low,
        vmax=low + WINDOW_WIDTH_HU,
        extent=(0, width, height, 0),
        interpolation="bilinear",
        aspect="equal",
    )
    y, x = ((np.arange(-1, n + 1) + 0.5) * mm for n, mm in zip(ct.shape, pixel_mm, strict=True))
    for name, mask in contours.items():
        if mask.any():  # padded, so that a contour closes at the image's edge too
            style = "dotted" if name == "not annotated" else "solid"
            width = 2.4 if name == "reference" else 1.6  # where both agree, the reference still shows on either side
            padded = np.pad(mask.astype(float), 1)
            axes.contour(x, y, padded, levels=[0.5], colors=[_COLOURS[name]], linewidths=width, linestyles=style)
    left, right, top, bottom = box
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], facecolor="black")
    for spine in axes.spines.values():
        spine.set_visible(False)
    places = (
        (0.02, 0.5, "left", "center"),
        (0.98, 0.5, "right", "center"),
        (0.5, 0.985, "center", "top"),
        (0.5, 0.015, "center", "bottom"),
    )
    for letter, place in zip(letters, places, strict=True):
        _write(axes, letter, *place, colour="white", size=9)
    named = [(n, n if m.any() else f"{n}: nothing here") for n, m in contours.items() if m.any() or n in _ALWAYS_NAMED]
    for line, (name, said) in enumerate(named):
        _write(axes, said, 0.025, 0.985 - 0.06 * line, "left", "top", colour=_COLOURS[name], size=8)
    _draw_scale_bar(axes, box)


def _draw_scale_bar(axes: Axes, box: tuple[float, float, float, float]) -> None:
    _, right, top, bottom = box
    edge = 0.03 * (bottom - top)
    line = axes.plot([right - edge - SCALE_BAR_MM, right - edge], [bottom - edge] * 2, color="white", linewidth=2.5)
    line[0].set(solid_capstyle="butt", path_effects=[patheffects.withStroke(linewidth=4, foreground="black")])
    middle = 1 - (edge + SCALE_BAR_MM / 2) / (right - box[0])
    _write(axes, "2 cm", middle, 0.04, "center", "bottom", colour="white", size=8)


def _write(axes: Axes, text: str, x: float, y: float, ha: str, va: str, *, colour: str, size: float) -> None:
    halo = [patheffects.withStroke(linewidth=2, foreground="black")]
    place: dict[str, Any] = {"transform": axes.transAxes, "ha": ha, "va": va, "path_effects": halo}
    axes.text(x, y, text, color=colour, fontsize=size, fontweight="bold", **place)


def _view_box(covered: np.ndarray, pixel_mm: tuple[float, float]) -> tuple[float, float, float, float]:
    """The square (left, right, top, bottom) in mm around what is covered, kept inside the slice where it fits."""
    extent = [n * mm for n, mm in zip(covered.shape, pixel_mm, strict=True)]
    spans = []
    for axis, mm in enumerate(pixel_mm):
        hit = np.flatnonzero(covered.any(axis=1 - axis))
        spans.append((hit[0] * mm, (hit[-1] + 1) * mm) if len(hit) else (0.0, extent[axis]))
    side = max([high - low for low, high in spans]) + (2 * MARGIN_MM if covered.any() else 0)
    side = min(max(side, SMALLEST_VIEW_MM), max(extent))
    starts = []
    for (low, high), full in zip(spans, extent, strict=True):
        start = (low + high - side) / 2
        starts.append((full - side) / 2 if side >= full else min(max(start, 0.0), full - side))
    return starts[1], starts[1] + side, starts[0], starts[0] + side


def _largest_piece(mask: np.ndarray) -> np.ndarray:
    box = ndimage.find_objects(mask.astype(np.uint8))
    if not box:
        return mask
    pieces, _ = ndimage.label(mask[box[0]], structure=np.ones((3, 3, 3)))
    largest = np.zeros(mask.shape, dtype=bool)
    largest[box[0]] = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    return largest


def _letters(towards: np.ndarray) -> str:
    """The patient's side a direction (LPS) points to; two letters where it leans more than 15 degrees."""
    names = (("R", "L"), ("A", "P"), ("F", "H"))
    strongest = sorted(range(3), key=lambda axis: -abs(towards[axis]))[:2]
    leaning = [axis for i, axis in enumerate(strongest) if i == 0 or abs(towards[axis]) > np.sin(np.radians(15))]
    return "".join(names[axis][int(towards[axis] > 0)] for axis in leaning)


def _small_png(rgb: np.ndarray) -> bytes:
    """PNG with a fixed palette of greys and shades of the three contour colours: a third of the size, no dithering."""
    channels = [v for v in np.linspace(0, 255, 33).round().astype(int).tolist() for _ in "RGB"]
    for name in (REFERENCE_COLOUR, BASE_COLOUR, ADAPTED_COLOUR):
        for share in (0.25, 0.5, 0.75, 1.0):
            channels += [round(share * int(name[i : i + 2], 16)) for i in (1, 3, 5)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(channels)
    file = io.BytesIO()
    Image.fromarray(rgb).quantize(palette=palette, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()

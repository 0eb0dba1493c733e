"""The structures of a mask, before they are written: one a label, or one an instance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import ndimage

from lnsegfm.imaging.box import Box
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.region_layers import MaskLayer
from lnsegfm.imaging.dicom.series_index import Series

COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
"""Colours that the colour-blind tell apart: Okabe and Ito, https://jfly.uni-koeln.de/color, without black."""
_ON_GRID = 0.1  # of the slice distance: how far a slice may be from its plane of the grid


@dataclass(frozen=True)
class NewRoi:
    """A structure to be written.

    Args:
        number: ROINumber.
        name: ROIName.
        colour: ROIDisplayColor.
        box: Its part of the volume; None where it has no voxel.
        voxels: Booleans (z, y, x) of the box.
        full_name: What it is called where names have room.
    """

    number: int
    name: str
    colour: tuple[int, int, int]
    box: Box | None
    voxels: np.ndarray = field(repr=False)
    full_name: str = ""


def require_writable(mask: np.ndarray, labels: Mapping[str, int], series: Series, instances: np.ndarray | None) -> None:
    """Refuse a mask that does not fit its series or its labels, or a series that cannot be referred to.

    Raises:
        DicomError: It does not.
    """
    for what, array in (("Mask", mask), ("Instances", instances)):
        if array is None:
            continue
        if array.dtype != np.bool_ and not np.issubdtype(array.dtype, np.integer):
            raise DicomError(f"{what} of {array.dtype}: voxels hold whole numbers. Pass an array of integers.")
        if array.shape != series.grid.shape:
            given, wanted = ("x".join(map(str, shape)) for shape in (array.shape, series.grid.shape))
            raise DicomError(
                f"{what} of {given} voxels: series {series.name} has {wanted} (z, y, x). "
                "Resample it onto the series' grid."
            )
    if len(set(labels.values())) < len(labels) or any(value < 0 for value in labels.values()):
        raise DicomError(f"Labels {dict(labels)}: each has a value of its own, from 0. Correct the values.")
    lacking = [
        what
        for what, has in (
            ("SeriesInstanceUID", series.uid),
            ("StudyInstanceUID", series.study_uid),
            ("FrameOfReferenceUID", series.frame_of_reference_uid),
            ("SOPInstanceUID of every slice", all(s.sop_instance_uid and s.sop_class_uid for s in series.slices)),
        )
        if not has
    ]
    if lacking:
        raise DicomError(
            f"Series {series.name}: it has no {', no '.join(lacking)}, and a structure set refers to slices by them. "
            "Write another format, or export the series with its UIDs."
        )
    off = np.zeros(1) if series.uneven else np.abs(off_plane_mm(series))
    if off.max() > _ON_GRID * series.grid.spacing_mm[0]:
        k = int(off.argmax())
        raise DicomError(
            f"Series {series.name}: slice {k + 1} is {off[k]:.3g} mm from its plane of the grid. Give the slices in "
            "the grid's order."
        )


def new_rois(
    mask: np.ndarray, labels: Mapping[str, int], instances: np.ndarray | None, names: Mapping[int, str]
) -> Iterator[NewRoi]:
    """The structures of a mask: instances first, then what is left of each label; empty ones of labels not found.

    Raises:
        DicomError: A value that no label has, or an instance of several labels.
    """
    by_value = {value: (label, COLOURS[n % len(COLOURS)]) for n, (label, value) in enumerate(_foreground(labels))}
    boxes = _boxes(mask)
    if unknown := sorted(set(boxes) - set(by_value)):
        known = ", ".join(f"{label} {value}" for label, value in _foreground(labels)) or "none"
        raise DicomError(f"Mask value {unknown[0]}: no label has it (labels: {known}). Name every value of the mask.")
    number, labels_of_instances = 0, set()
    numbered = np.zeros((1, 1, 1), dtype=np.uint8) if instances is None else instances
    for instance, place in _boxes(numbered).items():
        voxels = numbered[place] == instance
        values = np.unique(mask[place][voxels])
        if len(values) > 1 or not values[0]:
            raise DicomError(
                f"Instance {instance}: it covers mask values {values.tolist()}. Number voxels of one label."
            )
        label, _ = by_value[int(values[0])]
        labels_of_instances.add(label)
        number += 1
        name = names.get(instance, f"{label}_{instance}")
        yield NewRoi(number, name, COLOURS[(number - 1) % len(COLOURS)], place, voxels, name)
    for value, (label, colour) in by_value.items():
        box = boxes.get(value)
        voxels = np.zeros((0, 0, 0), dtype=bool)
        if box is not None:
            voxels = mask[box] == value
            if instances is not None:
                voxels &= instances[box] == 0
        if not voxels.any():
            if label in labels_of_instances:
                continue
            box = None
        number += 1
        yield NewRoi(number, label, colour, box, voxels, label)


def rois_of_layers(layers: Sequence[MaskLayer], names: Mapping[int, str]) -> Iterator[NewRoi]:
    """The structures of several layers, as `new_rois` gives those of each, with colours of their own.

    Raises:
        DicomError: As `new_rois`.
    """
    rois = [roi for layer in layers for roi in new_rois(layer.mask, layer.labels, layer.instances, names)]
    for number, roi in enumerate(rois):
        yield roi if len(layers) == 1 else replace(roi, colour=COLOURS[number % len(COLOURS)])


def off_plane_mm(series: Series) -> np.ndarray:
    """How far each slice is, along the normal, from its plane of the grid: contours go to the slice's own plane."""
    grid = series.grid
    normal = np.array(grid.direction).reshape(3, 3)[:, 2]
    positions = np.array([s.position_mm for s in series.slices]) - grid.origin_mm
    offsets: np.ndarray = positions @ normal - np.arange(grid.shape[0]) * grid.spacing_mm[0]
    return offsets


def _foreground(labels: Mapping[str, int]) -> list[tuple[str, int]]:
    return [(label, value) for label, value in labels.items() if value != 0]


def _boxes(values: np.ndarray) -> dict[int, Box]:
    """The smallest box of each value except 0."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise DicomError(f"Values {low} to {high}: they go from 0 to 65535. Renumber them.")
    number = values.view(np.uint8) if values.dtype == np.bool_ else values
    return {n: box for n, box in enumerate(ndimage.find_objects(number), start=1) if box is not None}

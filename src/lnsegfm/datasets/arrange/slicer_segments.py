"""Segmentations of 3D Slicer (``.seg.nrrd``): names, values and layers of their segments.

Overlapping segments lie in layers, which are the first axis of the array. Source: 3D Slicer's documentation of its
segmentation file format (fields ``Segment0_Name``, ``Segment0_LabelValue``, ``Segment0_Layer``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lnsegfm.errors import DataError
from lnsegfm.imaging.files import ending, read_mask
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.image_error import COPY_AGAIN, ImageError
from lnsegfm.imaging.image_form import image_form
from lnsegfm.imaging.image_objects import as_mask
from lnsegfm.imaging.stored_image import quiet_itk

_FIELD = re.compile(r"Segment(\d+)_(Name|LabelValue|Layer)\s*:=(.*)")
_LONGEST = 1 << 22  # bytes of a header


@dataclass(frozen=True)
class SlicerSegment:
    """One segment: its name, its value in the voxels, and which layer it lies in."""

    name: str
    value: int
    layer: int = 0


def segments_of(path: Path) -> tuple[SlicerSegment, ...]:
    """The segments that an NRRD's header names; none for any other file, or one that is not there.

    Raises:
        ImageError: Two segments with one name.
    """
    if ending(path) != ".nrrd":  # of thousands of masks none is opened for its name alone
        return ()
    try:
        if image_form(path) != "nrrd":
            return ()
        with path.open("rb") as file:
            header = file.read(_LONGEST).partition(b"\n\n")[0].replace(b"\r", b"").decode("utf-8", "replace")
    except OSError:
        return ()
    fields: dict[int, dict[str, str]] = {}
    for line in header.splitlines():
        if match := _FIELD.fullmatch(line):
            fields.setdefault(int(match[1]), {})[match[2]] = match[3].strip()
    segments = []
    for number, field in sorted(fields.items()):
        value, layer = field.get("LabelValue", str(number + 1)), field.get("Layer", "0")
        if not (field.get("Name") and value.isdecimal() and layer.isdecimal()):
            raise ImageError(path, f"its segment {number} has no name or value", "Save it again in 3D Slicer")
        segments.append(SlicerSegment(field["Name"], int(value), int(layer)))
    names = [segment.name for segment in segments]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ImageError(path, f"two of its segments are called {repeated[0]}", "Give each its own name in 3D Slicer")
    return tuple(segments)


def read_layers(path: Path) -> tuple[list[np.ndarray], Grid]:
    """The layers of a segmentation, (z, y, x) each, and their grid; one for a plain mask.

    Raises:
        ImageError: It cannot be read.
    """
    layers = 1
    if segments := segments_of(path):
        layers = 1 + max(segment.layer for segment in segments)
    if layers == 1:
        mask, grid = read_mask(path)
        return [mask], grid
    try:
        with quiet_itk():
            image = sitk.ReadImage(str(path), imageIO="NrrdImageIO")
            volumes = [
                as_mask(sitk.VectorIndexSelectionCast(image, layer), None, path.name)
                for layer in range(image.GetNumberOfComponentsPerPixel())
            ]
    except (RuntimeError, DataError) as error:
        why = str(error).strip().splitlines()[-1]
        raise ImageError(path, f"its layers cannot be read ({why})", COPY_AGAIN) from None
    if len(volumes) < layers:
        raise ImageError(path, f"it has {len(volumes)} layers, and its segments lie in {layers}", COPY_AGAIN)
    return [volume.array for volume in volumes], volumes[0].grid

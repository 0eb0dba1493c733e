"""The voxels of structures that were paired with a series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from lnsegfm.imaging.dicom.annotation import Annotation
from lnsegfm.imaging.dicom.rois import NoteCallback
from lnsegfm.imaging.dicom.segmentation import Segmentation, segments_mask
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.dicom.structure_set import StructureSet
from lnsegfm.imaging.dicom.uneven_stack import (
    mask_on_planes,
    segmentation_on_slices,
    slice_grid,
    structures_on_slices,
)

Content = StructureSet | Segmentation
"""A file whose contours or frames were read."""


def read_content(annotation: Annotation) -> Content:
    """Read the contours or frames of an annotation.

    Raises:
        DataError: The file cannot be read.
    """
    if annotation.kind == "SEG":
        from lnsegfm.imaging.dicom.seg_read import read_seg

        return read_seg(annotation.path)
    from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct

    return read_rtstruct(annotation.path)


def annotation_mask(
    annotation: Annotation,
    series: Series,
    names: Sequence[str],
    labels: Mapping[str, int],
    on_note: NoteCallback | None = None,
    *,
    content: Content | None = None,
) -> np.ndarray:
    """Label values (z, y, x) on the grid of a series.

    Args:
        annotation: The RTSTRUCT or SEG, with the structures that belong to the series: no other is read.
        series: The scan.
        names: ``NAME=label`` for each structure that is wanted.
        labels: Value of each label.
        on_note: Is given a line about everything that was passed over.
        content: The file, where it has been read already.

    Raises:
        DataError: The file cannot be read, or its structures cannot be turned into voxels.
    """
    from lnsegfm.imaging.dicom.structure_masks import structures_mask

    numbers = {structure.number for structure in annotation.structures}
    content = content or read_content(annotation)
    if isinstance(content, Segmentation):
        content = segmentation_on_slices(content, series)
        mask = segments_mask(content, slice_grid(series), names, labels, numbers=numbers, on_note=on_note)
        return mask_on_planes(mask, series)
    kept = replace(content, rois=tuple(roi for roi in content.rois if roi.number in numbers))
    kept = structures_on_slices(kept, series)
    return mask_on_planes(structures_mask(kept, slice_grid(series), names, labels, on_note=on_note), series)

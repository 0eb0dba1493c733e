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
    fill_between: bool = False,
) -> np.ndarray:
    """Label values (z, y, x) on the grid of a series.

    Args:
        annotation: The RTSTRUCT or SEG, with the structures that belong to the series: no other is read.
        series: The scan.
        names: ``NAME=label`` for each structure that is wanted.
        labels: Value of each label.
        on_note: Is given a line about everything that was passed over or read by a rule.
        content: The file, where it has been read already.
        fill_between: Fill in slices that were skipped between contoured ones.

    Raises:
        DataError: The file cannot be read, or its structures cannot be turned into voxels.
    """
    from lnsegfm.imaging.dicom.structure_masks import image_heights, structures_mask

    numbers = {structure.number for structure in annotation.structures}
    content = content or read_content(annotation)
    if isinstance(content, Segmentation):
        content, grid = segmentation_on_slices(content, series), slice_grid(series)
        mask = segments_mask(content, grid, names, labels, numbers=numbers, fill_between=fill_between, on_note=on_note)
        return mask_on_planes(mask, series)
    others = [roi for roi in content.rois if roi.number not in numbers]
    of_others = {note for roi in others for note in roi.notes}
    kept = replace(
        content,
        rois=tuple(roi for roi in content.rois if roi.number in numbers),
        notes=tuple(note for note in content.notes if note not in of_others),
    )
    mask = structures_mask(
        structures_on_slices(kept, series),
        slice_grid(series),
        names,
        labels,
        images=image_heights(series),
        fill_between=fill_between,
        on_note=on_note,
    )
    return mask_on_planes(mask, series)

"""Write DICOM segmentations: a mask on the grid of its series, as the SEG that a viewer overlays.

Encoded by highdicom (Bridge et al., J Digit Imaging 2022). What is written is read back by ``read_seg`` and compared
voxel by voxel before the file is put in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from lnsegfm.imaging.dicom.codes import codes_of
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.region_layers import mask_layers
from lnsegfm.imaging.dicom.seg_encode import SegmentText, SegProvenance, encode
from lnsegfm.imaging.dicom.seg_read import read_seg
from lnsegfm.imaging.dicom.segmentation import THRESHOLD, frame_voxels
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.dicom.uneven_stack import segmentation_on_slices, written_on_slices
from lnsegfm.imaging.dicom.values import quiet
from lnsegfm.storage import atomic_write


def write_seg(
    path: Path,
    mask: np.ndarray,
    labels: Mapping[str, int],
    series: Series,
    *,
    instances: np.ndarray | None = None,
    names: Mapping[int, str] | None = None,
    regions: Mapping[str, Sequence[int]] | None = None,
    kind: Literal["BINARY", "LABELMAP"] = "BINARY",
    provenance: SegProvenance | None = None,
) -> None:
    """Write a mask as a DICOM SEG over its series: patient and study are the source's, the series is a new one.

    One segment a label, in the order of their values, also for labels without a voxel: the file then says that nothing
    was found. Frames without a voxel are left out; a mask without any keeps one empty frame a label, on the first
    slice, because a SEG without frames is none.

    Args:
        path: The file, whole or not at all.
        mask: Label values (z, y, x) on ``series.grid``.
        labels: The value of each label; 0 (or a label of that value) is the background.
        series: What the mask was made on. Its files are there: their headers say who and where.
        instances: Whole numbers (z, y, x), 0 for none: one segment for each, such as a node. They must cover every
            voxel of a label or none of it, and none may lie in two labels.
        names: What to call each instance; ``LABEL NUMBER`` unless given.
        regions: The values that each label covers where labels overlap (a whole and its core): each is a segment of
            all its voxels, and ``instances`` are (regions, z, y, x), in the order of the labels. Only in BINARY.
        kind: BINARY, which everything reads, or LABELMAP (Supplement 243), one frame a slice, which few read yet.
        provenance: Who made it; ``SegProvenance()`` unless given.

    Raises:
        DicomError: A mask of another shape or type, values without a label, instances that do not fit, a source that
            cannot be referred to, or a file that does not give the mask back (it is not put in place).
    """
    provenance = provenance or SegProvenance()
    if kind not in ("BINARY", "LABELMAP"):
        raise DicomError(f"Segmentation type {kind!r}: not one that is written. Use BINARY or LABELMAP.")
    if regions and kind == "LABELMAP":
        raise DicomError("Segmentation type LABELMAP: regions may overlap, which it has no room for. Use BINARY.")
    layers: list[np.ndarray] = []
    texts: list[SegmentText] = []
    for layer in mask_layers(mask, labels, instances, regions):
        numbers, own = _numbered(layer.mask, layer.labels, series, layer.instances, names or {}, len(texts))
        numbers, _, on_slices = written_on_slices(numbers, None, series)
        layers.append(numbers)
        texts += own
    with quiet():
        data = encode(layers, texts, on_slices, provenance, kind)
        with atomic_write(path) as place:
            data.save_as(place, enforce_file_format=True)
            _refuse_difference(place, layers, texts, on_slices)


def _numbered(
    mask: np.ndarray,
    labels: Mapping[str, int],
    series: Series,
    instances: np.ndarray | None,
    names: Mapping[int, str],
    before: int = 0,
) -> tuple[np.ndarray, list[SegmentText]]:
    """Segment numbers (z, y, x), uint8 or uint16, and what to say of each segment, from 1 more than ``before``."""
    _check(mask, series, "mask")
    order = sorted(((value, label) for label, value in labels.items() if value != 0))
    values = [value for value, _ in order]
    if not order or len(set(values)) < len(values) or values[0] < 0:
        raise DicomError(f"Labels {dict(labels)}: each needs a value of its own above 0. Correct them.")
    unknown = sorted(set(_present(mask)) - set(values))
    if unknown:
        raise DicomError(f"Mask value {unknown[0]}: no label has it (labels: {dict(labels)}). Name it.")
    instance_ids: dict[int, list[int]] = {}
    if instances is not None:
        _check(instances, series, "instances")
        instance_ids = _instances_by_value(mask, instances, dict(order))
    texts: list[SegmentText] = []
    by_label: dict[int, int] = {}
    by_instance: dict[int, int] = {}
    for value, label in order:
        for instance in instance_ids.get(value, [0]):
            name = names.get(instance, f"{label} {instance}") if instance else label
            texts.append(SegmentText(before + len(texts) + 1, name, label, codes_of(label)))
            (by_instance if instance else by_label)[instance or value] = before + len(texts)
    if before + len(texts) > np.iinfo(np.uint16).max:
        raise DicomError(f"{before + len(texts)} segments: a segmentation has 65535 at most. Merge instances.")
    kind = np.uint8 if before + len(texts) <= np.iinfo(np.uint8).max else np.uint16
    numbers = _mapped(mask, by_label, kind)
    if by_instance and instances is not None:
        numbers += _mapped(instances, by_instance, kind)  # they share no voxel: see _instances_by_value
    return numbers, texts


def _check(array: np.ndarray, series: Series, name: str) -> None:
    if array.shape != series.grid.shape:
        what = f"its shape {array.shape} is not the series' {series.grid.shape} (z, y, x)"
        raise DicomError(f"Series {series.name}: {name} does not fit, {what}. Pass one on the grid of the series.")
    if array.dtype != np.bool_ and not np.issubdtype(array.dtype, np.integer):
        raise DicomError(f"Series {series.name}: {name} of {array.dtype}. Pass whole numbers.")


def _present(array: np.ndarray) -> list[int]:
    """The values of an array other than 0."""
    # plane by plane: sorting a whole volume would take its memory several times over
    return sorted({int(v) for plane in array if plane.any() for v in np.unique(plane) if v != 0})


def _instances_by_value(mask: np.ndarray, instances: np.ndarray, labels: Mapping[int, str]) -> dict[int, list[int]]:
    """The instances of each label value that has any."""
    by_value: dict[int, set[int]] = {}
    for values, ids in zip(mask, instances, strict=True):
        where = (values != 0) | (ids != 0)
        if where.any():
            for value, instance in np.unique(
                np.stack([values[where], ids[where]], 1).astype(np.int64), axis=0
            ).tolist():
                by_value.setdefault(value, set()).add(instance)
    if stray := by_value.pop(0, None):
        raise DicomError(
            f"Instance {min(stray)}: it has voxels where the mask has none. Number the mask's own components."
        )
    owner: dict[int, int] = {}
    for value, ids in by_value.items():
        if 0 in ids and len(ids) > 1:
            raise DicomError(
                f"Label {labels[value]}: some of its voxels are of no instance. Number all or none of them."
            )
        for instance in ids - {0}:
            if owner.setdefault(instance, value) != value:
                both = f"{labels[owner[instance]]} and {labels[value]}"
                raise DicomError(f"Instance {instance}: it lies in {both}. Number the labels' components separately.")
    return {value: sorted(ids) for value, ids in by_value.items() if ids != {0}}


def _mapped(array: np.ndarray, to: Mapping[int, int], kind: type) -> np.ndarray:
    numbers: np.ndarray = np.zeros(array.shape, dtype=kind)
    keys = np.array(sorted(to), dtype=np.int64)
    targets: np.ndarray = np.array([to[k] for k in keys.tolist()], dtype=kind)
    for plane, out in zip(array, numbers, strict=True):
        if len(keys) and plane.any():
            at = np.minimum(np.searchsorted(keys, plane), len(keys) - 1)
            out[:] = np.where(keys[at] == plane, targets[at], 0)
    return numbers


def _refuse_difference(place: Path, layers: Sequence[np.ndarray], texts: list[SegmentText], series: Series) -> None:
    """Read a file back and compare: the same voxels, none twice, the same names."""
    back = segmentation_on_slices(read_seg(place), series)
    given = [(t.number, t.short) for t in texts]
    if [(s.number, s.label) for s in back.segments] != given:
        raise DicomError(f"Series {series.name}: the names of its segments do not come back as given. Rename them.")
    different = 0
    for numbers in layers:
        again = np.zeros(numbers.shape, dtype=numbers.dtype)
        known = {t.number for t in texts} if len(layers) == 1 else set(_present(numbers))
        for segment_numbers, where in frame_voxels(back, series.grid, known, THRESHOLD, series.frame_of_reference_uid):
            different += int(np.count_nonzero(again[where]))
            again[where] = segment_numbers
        different += int(np.count_nonzero(again != numbers))
    if different:
        what = f"{different} voxels of the segmentation differ when it is read back"
        raise DicomError(f"Series {series.name}: {what}, so nothing is written. Please report it.")

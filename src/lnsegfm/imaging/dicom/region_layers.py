"""Regions of a mask, which may overlap, as layers that each hold one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lnsegfm.imaging.dicom.dicom_errors import DicomError


@dataclass(frozen=True, eq=False)
class MaskLayer:
    """A mask whose labels share no voxel.

    Args:
        mask: Label values (z, y, x); 0 is background.
        labels: The value of each label.
        instances: Numbers of instances (z, y, x), 0 for none; None where there are none.
    """

    mask: np.ndarray
    labels: Mapping[str, int]
    instances: np.ndarray | None


def mask_layers(
    mask: np.ndarray,
    labels: Mapping[str, int],
    instances: np.ndarray | None,
    regions: Mapping[str, Sequence[int]] | None,
) -> Iterator[MaskLayer]:
    """The layers of a mask: the mask itself, or one for each region, in the order of the labels.

    Args:
        mask: Label values (z, y, x), each covered by a region where there are regions.
        labels: The value of each label.
        instances: Numbers of instances (z, y, x), of regions (regions, z, y, x) in the order of the labels.
        regions: The values that each label covers; empty or None where labels share no voxel.

    Raises:
        DicomError: Regions of other labels, a value that no region covers, or instances of another number of regions.
    """
    if not regions:
        yield MaskLayer(mask, labels, instances)
        return
    if set(regions) != set(labels):
        raise DicomError(f"Regions {', '.join(regions)}: the labels are {', '.join(labels)}. Name the same.")
    if instances is not None and (instances.ndim != 4 or len(instances) != len(regions)):
        raise DicomError(f"Instances {instances.shape}: (regions, z, y, x) of {len(regions)} regions. Number each.")
    covered = {0, *(value for values in regions.values() for value in values)}
    for plane in mask:
        if strangers := sorted(set(np.unique(plane).tolist()) - covered):
            raise DicomError(f"Mask value {strangers[0]}: no region covers it (regions: {dict(regions)}). Name it.")
    for n, label in enumerate(labels):
        layer = np.isin(mask, list(regions[label])).astype(np.uint8)
        yield MaskLayer(layer, {label: 1}, None if instances is None else instances[n])

"""What a partially annotated scan says about the voxels that nobody annotated.

The rule, in the order in which it decides; it needs no network and no other software:

1. An annotated voxel keeps its label.
2. A voxel within ``shell_mm`` of an annotated one is background: whoever drew the node's border said so.
3. A voxel of at most ``AIR_HU`` is background: air, lung, the outside of the patient; no lymph node is there.
4. Every other voxel is ``ignore``: it may be a node that was not annotated, and neither trains nor counts.

Leaving unannotated voxels out of the loss and coating annotated nodes with background are strategies of Fischer et
al., MELBA 2024:008, https://arxiv.org/abs/2406.14365 ("loss masking", "foreground coating"), as are organs that cannot
be a node as further background; for these they run TotalSegmentator, and this rule takes air alone. How wide their
coating is was not found; the public code of another participant grows the nodes by two voxels. 3 mm is this project's
choice: a wider shell runs into neighbours that were not annotated.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from lnsegfm.errors import DataError
from lnsegfm.imaging.box import bounding_box

AIR_HU = -500.0
_ROUNDING_MM = 1e-6  # three steps of 1.1 mm are within 3.3 mm, whatever the last bit says


def mark_unannotated(
    mask: np.ndarray, hu: np.ndarray, spacing_mm: tuple[float, float, float], ignore: int, shell_mm: float
) -> np.ndarray:
    """Mark what a partially annotated scan leaves unknown with the ignore label.

    Args:
        mask: Label values (z, y, x), 0 where nothing was annotated.
        hu: The scan on the same grid.
        spacing_mm: Along (z, y, x).
        ignore: Value of the unknown voxels.
        shell_mm: Distance between voxel centres up to which the surroundings of an annotated voxel are background.

    Raises:
        DataError: Nothing is annotated.
    """
    nodes = mask > 0
    box = bounding_box(nodes)
    if box is None:
        raise DataError("Nothing is annotated in the scan's segmentation. Leave the case out.")
    out = np.where(hu <= AIR_HU, 0, ignore).astype(np.uint8)
    grown = tuple(
        slice(max(0, part.start - reach), part.stop + reach)
        for part, reach in zip(box, (math.ceil(shell_mm / s) for s in spacing_mm), strict=True)
    )
    distance_mm = ndimage.distance_transform_edt(~nodes[grown], sampling=spacing_mm)
    out[grown][distance_mm <= shell_mm + _ROUNDING_MM] = 0
    out[nodes] = mask[nodes]
    return out


def require_soft_tissue(mask: np.ndarray, hu: np.ndarray, *, least: float = 0.8) -> None:
    """Refuse a mask that lies on air or bone: its axes are wrong, or it is another scan's.

    Args:
        mask: Label values (z, y, x).
        hu: The scan on the same grid.
        least: Share of labelled voxels that must have -200 to 400 HU.

    Raises:
        DataError: The share is smaller; says which mirrored copy of the mask would do better.
    """
    tissue = (hu > -200) & (hu < 400)
    share = _share(tissue, mask)
    if share >= least:
        return
    axes = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    best = max(axes, key=lambda flips: _share(tissue, np.flip(mask, flips)))
    message = f"Only {share:.0%} of the labelled voxels lie on soft tissue (-200 to 400 HU)"
    if _share(tissue, np.flip(mask, best)) >= max(least, share + 0.1):
        message += f"; mirrored along {', '.join('zyx'[axis] for axis in best)} they would"
    raise DataError(f"{message}. Check the mask's axes and that it belongs to this scan.")


def _share(tissue: np.ndarray, mask: np.ndarray) -> float:
    on = tissue[mask > 0]
    return float(on.mean()) if on.size else 1.0

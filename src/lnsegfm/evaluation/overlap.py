"""How far two masks agree, voxel by voxel."""

from __future__ import annotations

import numpy as np

from lnsegfm.errors import DataError
from lnsegfm.imaging.grid import Grid


def dice(prediction: np.ndarray, reference: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Dice coefficient ``2 |P ∩ R| / (|P| + |R|)`` of two masks, from 0 (disjoint) to 1 (equal).

    Dice L.R., Measures of the amount of ecologic association between species, Ecology 26(3), 1945.

    Args:
        prediction: Boolean mask of any shape.
        reference: Boolean mask of the same shape.
        valid: Boolean mask of the voxels that count; None counts all of them.

    Returns:
        The coefficient; 0 when exactly one of the masks is empty; NaN when both are, because then nothing was there
        to be found: such a case is left out of means and counted instead.

    Raises:
        DataError: Masks that are not boolean, or whose shapes differ.
    """
    prediction, reference = _counted(prediction, valid), _counted(reference, valid)
    if prediction.shape != reference.shape:
        raise DataError(f"Masks of {prediction.shape} and {reference.shape}: they must be on one grid. Resample one.")
    voxels = int(np.count_nonzero(prediction)) + int(np.count_nonzero(reference))
    if voxels == 0:
        return float("nan")
    return 2.0 * int(np.count_nonzero(prediction & reference)) / voxels


def volume_ml(mask: np.ndarray, grid: Grid, valid: np.ndarray | None = None) -> float:
    """Volume of a boolean mask (z, y, x) in millilitres: its voxels times the volume of one.

    Args:
        mask: Boolean mask on ``grid``.
        grid: Where its voxels lie.
        valid: Boolean mask of the voxels that count; None counts all of them.
    """
    return int(np.count_nonzero(_counted(mask, valid))) * grid.voxel_volume_ml


def _counted(mask: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    if mask.dtype != np.bool_:
        raise DataError(f"Mask of {mask.dtype}: overlap is defined for boolean masks. Pass mask == label.")
    if valid is None:
        return mask
    if valid.dtype != np.bool_ or valid.shape != mask.shape:
        raise DataError(f"Valid voxels {valid.dtype} {valid.shape}: not a boolean mask of {mask.shape}. Pass one.")
    return mask & valid

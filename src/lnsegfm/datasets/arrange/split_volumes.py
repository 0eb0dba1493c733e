"""One volume of a NIfTI that holds several, as MSD stores modalities."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from lnsegfm.errors import DataError
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.image_error import COPY_AGAIN, ImageError
from lnsegfm.imaging.image_objects import as_volume


def read_one_volume(path: Path, number: int) -> tuple[np.ndarray, Grid]:
    """One volume (z, y, x) along a file's fourth axis, and its grid.

    Raises:
        ImageError: It cannot be read, or has fewer.
    """
    try:
        image = nibabel.loadsave.load(path)
        volume = as_volume(image.slicer[:, :, :, number], None, path.name)  # type: ignore[attr-defined]
    except DataError:
        raise
    except Exception as error:  # a damaged file raises whatever its decoder raises
        why = str(error).strip().splitlines()
        raise ImageError(
            path, f"volume {number + 1} cannot be read ({why[-1] if why else error!r})", COPY_AGAIN
        ) from None
    return volume.array, volume.grid

"""What ITK passes over in a NIfTI and its own bytes say: voxel size, shear, NIfTI-2, NaN, the end of the file."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from pathlib import Path
from typing import Any, cast

import numpy as np

from lnsegfm.errors import DataError
from lnsegfm.imaging.grid import RAS_TO_LPS, Grid
from lnsegfm.imaging.image_error import COPY_AGAIN, ImageError
from lnsegfm.imaging.nifti_header import NiftiHeader, open_unpacked

_CHUNK = 1 << 20  # bytes that are unpacked at a time
_NIFTI_VOXELS = 352  # where they begin, at the earliest
SAME_SPACING = 1e-2
"""The lengths of a matrix's columns may differ from the stated spacing by this share."""


def sheared(header: NiftiHeader) -> bool:
    """Whether the transform that a NIfTI is read by has axes that are not at right angles (ITK turns to its qform)."""
    matrix = header.sform if header.qform is None or header.version == 2 else None
    if matrix is None or not np.isfinite(matrix).all() or not header.valid_spacing:
        return False
    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > 1e-3)


def require_voxel_size(path: Path, header: NiftiHeader) -> None:
    """Refuse a NIfTI whose voxels have no size, or two sizes.

    Raises:
        ImageError: It is so.
    """
    if len(header.dimensions) >= 3 and not header.valid_spacing:
        stated = " x ".join(f"{step:g}" for step in header.spacing_mm)
        what = f"its header states a spacing of {stated} mm (x, y, z)"
        raise ImageError(path, what, "Export it again from the DICOM", "spacing")
    if not sheared(header) and header.stretch() > SAME_SPACING and header.sform is not None:
        lengths = np.linalg.norm(header.sform[:3, :3], axis=0)
        two = (" x ".join(f"{v:.4g}" for v in values) for values in (header.spacing_mm, lengths))
        what = "its voxels are {} mm by pixdim and {} mm by its sform: tools disagree on their size".format(*two)
        raise ImageError(path, what, "Find out which is right, and export it again", "spacing")


def matrix_of(header: NiftiHeader) -> np.ndarray:
    """(4, 4) index to mm, RAS: sform, else qform, else the spacing alone."""
    for matrix in (header.sform, header.qform):
        if matrix is not None:
            return matrix
    return np.diag([*header.spacing_mm, 1.0])


def grid_of_matrix(path: Path, header: NiftiHeader) -> Grid:
    """The grid that `matrix_of` gives.

    Raises:
        ImageError: Its axes are not at right angles.
    """
    matrix = matrix_of(header)
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    x, y, z = header.size
    try:
        return Grid(
            (z, y, x),
            tuple(lengths[::-1]),
            tuple(RAS_TO_LPS @ matrix[:3, 3]),
            tuple((RAS_TO_LPS @ (matrix[:3, :3] / np.where(lengths, lengths, 1.0))).ravel()),
        )
    except DataError:
        raise sheared_error(path) from None


def read_by_nibabel(path: Path, header: NiftiHeader) -> np.ndarray:
    """Voxels (z, y, x); float32 where they are scaled.

    Raises:
        ImageError: The file is cut short or damaged, or does not hold one number a voxel.
    """
    from nibabel.nifti1 import Nifti1Image
    from nibabel.nifti2 import Nifti2Image

    form = Nifti2Image if header.version == 2 else Nifti1Image
    try:
        with open_unpacked(path) as file:
            proxy: Any = form.from_stream(cast(io.IOBase, file)).dataobj
            values = np.asanyarray(proxy)
    except Exception as error:  # a damaged file may raise nearly anything within nibabel
        raise ImageError(path, f"it is cut short or damaged ({type(error).__name__})", COPY_AGAIN) from None
    if values.dtype.kind not in "biuf":
        what = f"its voxels are {values.dtype}, not one number each"
        raise ImageError(path, what, "Save it with one number per voxel")
    if values.dtype.kind == "f" and (proxy.slope, proxy.inter) != (1.0, 0.0):
        values = values.astype(np.float32)  # scaled by slope and intercept
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(native.reshape(header.size, order="F").T)


def non_finite_voxels(path: Path, header: NiftiHeader) -> tuple[np.ndarray, np.ndarray]:
    """Read a NIfTI's own bytes: flat indices of the voxels that are NaN or infinite, and their values.

    Raises:
        ImageError: The file is cut short or damaged.
    """
    voxels, size = math.prod(header.dimensions), header.bits // 8
    floats = {16: "f4", 64: "f8"}.get(header.datatype)
    indices, values, size_read = [np.empty(0, np.int64)], [np.empty(0)], 0
    try:
        with open_unpacked(path) as file:
            file.read(max(header.offset, _NIFTI_VOXELS))
            for chunk in iter(lambda: file.read(_CHUNK), b""):
                if floats:
                    numbers = np.frombuffer(chunk[: len(chunk) // size * size], dtype=header.order + floats)
                    invalid = np.flatnonzero(~np.isfinite(numbers))
                    indices.append(invalid + size_read // size)
                    values.append(numbers[invalid])
                size_read += len(chunk)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise ImageError(path, "it is cut short or damaged (its compression does not end well)", COPY_AGAIN) from None
    if size_read < voxels * size:
        raise ImageError(path, f"it is cut short ({size_read} of {voxels * size} bytes)", COPY_AGAIN)
    where = np.concatenate(indices)
    return where[where < voxels], np.concatenate(values)[where < voxels]


def sheared_error(path: Path) -> ImageError:
    """The error of a file whose axes are not at right angles."""
    remedy = "Resample it to a straight grid: lnsegfm data check DATA --fix straighten --out COPY"
    return ImageError(path, "its axes are not at right angles (a sheared sform)", remedy, "sheared")

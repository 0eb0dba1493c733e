"""Images of other libraries as arrays on a grid, and back: SimpleITK, nibabel, torchio, NumPy.

nibabel and torchio are recognised by the class of what is given and are never imported for it. nibabel's arrays have
the axes (x, y, z) and lie in RAS, ours (z, y, x) in LPS, as SimpleITK has it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from lnsegfm.errors import DataError
from lnsegfm.imaging.files import read_volume
from lnsegfm.imaging.grid import RAS_TO_LPS, Grid
from lnsegfm.imaging.image_error import ImageError

KINDS = (
    "a path, a SimpleITK, nibabel or torchio image, a DICOM series, or a NumPy array (z, y, x) with its grid "
    "(array, lnsegfm.Grid(...))"
)


@dataclass(frozen=True, eq=False)
class Volume:
    """An image in memory.

    Args:
        array: Voxels (z, y, x) in their own number type.
        grid: Where they lie.
        name: What messages call it.

    Raises:
        DataError: An array that holds no numbers, or does not fill the grid.
    """

    array: np.ndarray
    grid: Grid
    name: str = "the image"

    def __post_init__(self) -> None:
        if self.array.dtype.kind not in "biuf":
            raise DataError(f"{self.name}: its voxels are {self.array.dtype}. Give whole or floating-point numbers.")
        if self.array.shape != self.grid.shape:
            raise DataError(
                f"{self.name}: an array of shape {self.array.shape} does not fill a grid of {self.grid.shape}. "
                "Give (z, y, x), and its own grid."
            )

    def __str__(self) -> str:
        return self.name

    @classmethod
    def read(cls, path: Path) -> Volume:
        """Read a file.

        Raises:
            ImageError: As `lnsegfm.imaging.files.read_volume`.
        """
        return cls(*read_volume(path), name=str(path))

    def to_sitk(self) -> sitk.Image:
        """A ``SimpleITK.Image`` with a copy of the voxels."""
        image = sitk.GetImageFromArray(np.ascontiguousarray(self.array))
        image.SetSpacing(self.grid.spacing_mm[::-1])
        image.SetOrigin(self.grid.origin_mm)
        image.SetDirection(self.grid.direction)
        return image

    def to_nibabel(self) -> Any:
        """A ``nibabel.Nifti1Image``; nibabel has to be installed."""
        from nibabel.nifti1 import Nifti1Image

        return Nifti1Image(self.array.transpose(2, 1, 0), affine_of(self.grid))


def as_volumes(value: Any, grid: Grid | None = None, name: str = "the image") -> tuple[Volume, ...]:
    """An image as one volume a channel.

    Args:
        value: A path, a SimpleITK, nibabel or torchio image, a DICOM series, an array, a pair of an array and its
            grid, or what has both as ``array`` and ``grid``, as a `Volume` and a prediction do.
        grid: The array's.
        name: What messages call it.

    Raises:
        DataError: Something else, an array without a grid, or an image of which no volume can be made.
    """
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], Grid) and grid is None:
        value, grid = value
    if isinstance(value, Volume):
        return (value,)
    if isinstance(getattr(value, "grid", None), Grid) and isinstance(getattr(value, "array", None), np.ndarray):
        return (Volume(value.array, value.grid, name),)  # a prediction
    if isinstance(value, str | Path):
        return (Volume.read(Path(value)),)
    if isinstance(value, sitk.Image):
        return (_from_sitk(value, name),)
    if type(value).__module__.startswith("lnsegfm.imaging.dicom."):
        return (_from_series(value, name),)
    library = _library(value)
    if library == "nibabel":
        return (_from_nibabel(value, name),)
    if library == "torchio":
        return tuple(_from_torchio(value, name))
    if not isinstance(value, np.ndarray):
        raise DataError(f"{name}: {type(value).__name__} is no image that is known. Give {KINDS}.")
    if grid is None:
        raise DataError(f"{name}: an array without a grid lies nowhere. Give (array, lnsegfm.Grid(shape, spacing_mm)).")
    return (Volume(value, grid, name),)


def as_volume(value: Any, grid: Grid | None = None, name: str = "the image") -> Volume:
    """An image of one channel; as `as_volumes`.

    Raises:
        DataError: As `as_volumes`, or it has several channels.
    """
    volumes = as_volumes(value, grid, name)
    if len(volumes) != 1:
        raise DataError(f"{name}: it has {len(volumes)} channels. Give one of them.")
    return volumes[0]


def as_mask(value: Any, grid: Grid | None = None, name: str = "the mask") -> Volume:
    """A mask, whose voxels are label values; as `as_volume`.

    Raises:
        DataError: As `as_volume`, or values that are not whole numbers.
    """
    volume = as_volume(value, grid, name)
    if np.issubdtype(volume.array.dtype, np.integer):
        return volume
    whole = volume.array.astype(np.int32) if np.all(np.abs(volume.array) < 2**31) else None  # NaN compares false
    if whole is None or not np.array_equal(whole, volume.array):
        raise DataError(f"{name}: label values must be whole numbers. Resample masks with nearest neighbour only.")
    return Volume(whole, volume.grid, volume.name)


def affine_of(grid: Grid) -> np.ndarray:
    """The 4 x 4 matrix of nibabel: from indices (x, y, z) to millimetres in RAS."""
    affine = np.eye(4)
    affine[:3, :3] = RAS_TO_LPS @ np.reshape(grid.direction, (3, 3)) @ np.diag(grid.spacing_mm[::-1])
    affine[:3, 3] = RAS_TO_LPS @ np.asarray(grid.origin_mm)
    return affine


def grid_from_affine(affine: np.ndarray, shape: tuple[int, ...], zooms: tuple[float, ...] | None = None) -> Grid:
    """The grid of an affine matrix.

    Args:
        affine: 4 x 4, from indices (x, y, z) to millimetres in RAS.
        shape: Voxels along (x, y, z).
        zooms: Spacing (x, y, z) as a header states it, which is taken where it is the matrix's but for rounding.

    Raises:
        DataError: Axes that are not at right angles, or a spacing of zero.
    """
    matrix = RAS_TO_LPS @ np.asarray(affine, dtype=float)[:3]
    lengths = np.linalg.norm(matrix[:, :3], axis=0)
    direction = matrix[:, :3] / np.where(lengths > 0, lengths, 1)
    stated = zooms if zooms is not None else lengths
    spacing = [
        float(zoom) if math.isclose(zoom, length, rel_tol=1e-5) else float(length)
        for zoom, length in zip(stated, lengths, strict=True)
    ]
    return Grid(
        shape=tuple(reversed(shape)),  # type: ignore[arg-type]  # Grid refuses what is not three
        spacing_mm=tuple(_settled(value) for value in reversed(spacing)),  # type: ignore[arg-type]
        origin_mm=tuple(float(value) for value in matrix[:, 3]),  # type: ignore[arg-type]
        direction=tuple(float(value) for value in direction.ravel()),
    )


def _settled(spacing: float) -> float:
    """The number that a spacing was before a matrix held it: its last bits are those of a root of squares."""
    for number in (float(np.float32(spacing)), round(spacing, 9)):
        if math.isclose(number, spacing, rel_tol=1e-12):
            return number
    return spacing


def _library(value: Any) -> str | None:
    """The optional library that a value's class, or one that it inherits from, belongs to."""
    for kind in type(value).__mro__:
        library, _, rest = kind.__module__.partition(".")
        if library in ("nibabel", "torchio") and rest:
            return library
    return None


def _from_sitk(image: sitk.Image, name: str) -> Volume:
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        what = f"{image.GetDimension()}D with {image.GetNumberOfComponentsPerPixel()} numbers per voxel"
        raise DataError(f"{name}: it is {what}. Give one 3D image a channel.")
    return Volume(sitk.GetArrayFromImage(image), _named(name, lambda: Grid.from_image(image)), name)


def _from_series(series: Any, name: str) -> Volume:
    from lnsegfm.imaging.dicom.series import Series, read_series

    if not isinstance(series, Series):
        raise DataError(f"{name}: {type(series).__name__} is no image that is known. Give {KINDS}.")
    return Volume(read_series(series), series.grid, f"Series {series.name}")


def _from_nibabel(image: Any, name: str) -> Volume:
    if len(image.shape) != 3:
        raise DataError(f"{name}: it is {len(image.shape)}D. Give one 3D image a channel.")
    voxels = np.asanyarray(image.dataobj)
    grid = _named(name, lambda: grid_from_affine(image.affine, image.shape, tuple(image.header.get_zooms()[:3])))
    return Volume(voxels.transpose(2, 1, 0), grid, name)


def _from_torchio(image: Any, name: str) -> Iterator[Volume]:
    if hasattr(image, "get_images"):  # a Subject
        images = image.get_images(intensity_only=True)
        if len(images) != 1:
            raise DataError(f"{name}: a torchio Subject with {len(images)} images. Give one of them, subject['ct'].")
        image = images[0]
    if not hasattr(image, "affine") or not hasattr(image, "data"):
        raise DataError(f"{name}: a torchio {type(image).__name__} is no image. Give a ScalarImage.")
    channels = image.data.detach().cpu().numpy()
    grid = _named(name, lambda: grid_from_affine(np.asarray(image.affine), channels.shape[1:]))
    for channel in channels:
        yield Volume(channel.transpose(2, 1, 0), grid, name)


def _named(name: str, make: Any) -> Grid:
    try:
        grid: Grid = make()
    except ImageError:
        raise
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    return grid

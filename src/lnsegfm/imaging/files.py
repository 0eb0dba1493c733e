"""Volumes and masks in files: NIfTI, NRRD and MHA, read and written with SimpleITK."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # the name everybody in the field gives it

from lnsegfm.errors import DataError
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.image_error import COPY_AGAIN, ImageError
from lnsegfm.imaging.readers import Reader, reader_table
from lnsegfm.imaging.stored_image import quiet_itk, stored_grid, stored_volume
from lnsegfm.storage import atomic_write

IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
"""Endings that are read and written here; plugins may read others."""
READERS = reader_table(IMAGE_ENDINGS)
WHOLE = 1e-3
"""How far a label of a floating-point mask may lie from a whole number."""


def ending(path: Path | str) -> str | None:
    """The image ending of a file's name (one of `readable_endings`, whatever its case); None if it has none."""
    name = Path(path).name.lower()
    return max((e for e in readable_endings() if name.endswith(e) and len(name) > len(e)), key=len, default=None)


def readable_endings() -> tuple[str, ...]:
    """``IMAGE_ENDINGS``, and those that plugins read."""
    return tuple(f".{name}" for name in READERS)


def stem(path: Path | str) -> str:
    """A file's name without its image ending: ``a/b.nii.gz`` is ``b``. Other names stay as they are.

    Letters with accents are composed (Unicode NFC): macOS stores some names decomposed, and both are one name.
    """
    name = unicodedata.normalize("NFC", Path(path).name)
    suffix = ending(name)
    return name[: -len(suffix)] if suffix else name


def image_files(folder: Path) -> list[Path]:
    """The image files directly in ``folder``, by name; hidden ones (macOS's ``._a.nii.gz``) are no images."""
    return sorted(p for p in folder.iterdir() if not p.name.startswith(".") and ending(p) and p.is_file())


def read_grid(path: Path) -> Grid:
    """Read the geometry of a volume from its header alone.

    Raises:
        ImageError: Not an image, or not a volume with three axes.
    """
    if (reader := _plugin_reader(path)) is not None:
        return _read_by(reader, path)[1] if reader.read_grid is None else _grid_by(reader, path)
    _require_ending(path)
    return stored_grid(path)


def read_volume(path: Path, *, straighten: bool = False) -> tuple[np.ndarray, Grid]:
    """Read a volume: its voxels (z, y, x) in the stored number type, and its grid.

    The form follows from the file's first bytes. What ITK passes over in a NIfTI is kept: one that is cut short is
    refused, and NaN stays NaN. Axes of length 1 behind the third are dropped.

    Args:
        path: The file.
        straighten: Resample a NIfTI whose axes are not at right angles, linearly, onto a grid that holds all of it.

    Raises:
        ImageError: Not an image, cut short, 2D, 4D, with several numbers per voxel, or without a valid spacing.
    """
    if (reader := _plugin_reader(path)) is not None:
        return _read_by(reader, path)
    _require_ending(path)
    return stored_volume(path, straighten=straighten)


def read_mask(path: Path, *, straighten: bool = False) -> tuple[np.ndarray, Grid]:
    """Read a mask: label values (z, y, x) as integers, and its grid.

    Floating-point values within ``WHOLE`` of whole numbers are those numbers.

    Args:
        path: The file.
        straighten: As in ``read_volume``; of labels the nearest counts.

    Raises:
        ImageError: As ``read_volume``, or a voxel's value is not a whole number.
    """
    mask, grid = stored_volume(path, straighten=True, labels=True) if straighten else read_volume(path)
    if np.issubdtype(mask.dtype, np.integer):
        return mask, grid
    whole = np.rint(mask)
    with np.errstate(invalid="ignore"):  # infinity
        invalid = ~(np.abs(mask - whole) <= WHOLE) | ~(np.abs(mask) < 2**31)  # NaN compares false
    if invalid.any():
        raise ImageError(
            path,
            f"label values must be whole numbers, and it holds {mask[invalid].flat[0]:g}",
            "Save the mask as integers, and resample masks with nearest neighbour only",
        )
    return whole.astype(np.int32), grid


def write_volume(path: Path, voxels: np.ndarray, grid: Grid) -> None:
    """Write voxels (z, y, x) in their own number type, compressed, whole or not at all.

    Raises:
        ImageError: The name has no image ending, or the shape is not the grid's.
    """
    if ending(path) not in IMAGE_ENDINGS:
        raise ImageError(path, "the name has no image ending", f"Use one of {', '.join(IMAGE_ENDINGS)}")
    if voxels.shape != grid.shape:
        raise ImageError(path, f"voxels {voxels.shape} do not fill a grid of {grid.shape}", "Pass their own grid")
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels))
    image.SetSpacing(grid.spacing_mm[::-1])
    image.SetOrigin(grid.origin_mm)
    image.SetDirection(grid.direction)
    with atomic_write(path) as place, quiet_itk():
        sitk.WriteImage(image, str(place), useCompression=True)


def write_mask(path: Path, mask: np.ndarray, grid: Grid) -> None:
    """Write a mask (z, y, x) of labels, as uint8 where its values allow and else uint16, compressed.

    Raises:
        ImageError: Values that are not whole numbers from 0 to 65535, or as ``write_volume``.
    """
    if mask.dtype != np.bool_ and not np.issubdtype(mask.dtype, np.integer):
        raise ImageError(path, f"a mask holds whole numbers, not {mask.dtype}", "Pass an array of integers")
    low, high = (int(mask.min()), int(mask.max())) if mask.size else (0, 0)
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise ImageError(path, f"label values {low} to {high} do not fit 0 to 65535", "Renumber the labels")
    write_volume(path, mask.astype(np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16), grid)


def _plugin_reader(path: Path) -> Reader | None:
    """The reader that a plugin brings for a file's ending; None where it is read here.

    Raises:
        PluginError: The plugin cannot be used.
    """
    found = ending(path)
    return None if found is None else READERS[found.removeprefix(".")]


def _read_by(reader: Reader, path: Path) -> tuple[np.ndarray, Grid]:
    """What a plugin's reader gives, checked.

    Raises:
        ImageError: It cannot read the file, or gives no volume.
    """
    _require_file(path)
    try:
        voxels, grid = reader.read(path)
    except DataError:
        raise
    except Exception as error:  # a file from a stranger, and a reader from another one
        raise ImageError(path, f"unreadable ({type(error).__name__}: {error})", COPY_AGAIN) from error
    if not isinstance(voxels, np.ndarray) or not isinstance(grid, Grid) or voxels.shape != grid.shape:
        what = f"its reader gives voxels of {np.shape(voxels)} and a grid of {getattr(grid, 'shape', type(grid))}"
        raise ImageError(path, what, "Tell the reader's authors")
    return voxels, grid


def _grid_by(reader: Reader, path: Path) -> Grid:
    _require_file(path)
    try:
        return reader.read_grid(path)  # type: ignore[misc]  # asked for where there is one
    except DataError:
        raise
    except Exception as error:
        raise ImageError(path, f"unreadable ({type(error).__name__}: {error})", COPY_AGAIN) from error


def _require_ending(path: Path) -> None:
    _require_file(path)
    if ending(path) is None:
        raise ImageError(path, "not a known image ending", f"Save it as one of {', '.join(readable_endings())}")


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise ImageError(path, "no such file", "Check the path")

"""Volumes and masks in files: NIfTI, NRRD and MHA, read and written with SimpleITK."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import SimpleITK as sitk  # the name everybody in the field gives it

from lnsegfm.errors import DataError
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.readers import Reader, reader_table
from lnsegfm.storage import atomic_write

IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
"""Endings that are read and written here; plugins may read others."""
READERS = reader_table(IMAGE_ENDINGS)
_CHUNK = 1 << 20  # bytes that are unpacked at a time
_NIFTI_HEADER = 352  # bytes, at the least


class ImageError(DataError):
    """An image file that cannot be used.

    Args:
        path: The file.
        what: What is wrong with it, without a full stop.
        remedy: What to do about it, a sentence without its full stop.
    """

    def __init__(self, path: Path, what: str, remedy: str) -> None:
        super().__init__(f"{path}: {what}. {remedy}.")
        self.path, self.what, self.remedy = path, what, remedy


def ending(path: Path | str) -> str | None:
    """The image ending of a file's name (one of `readable_endings`, whatever its case); None if it has none."""
    name = Path(path).name.lower()
    return max((e for e in readable_endings() if name.endswith(e) and len(name) > len(e)), key=len, default=None)


def readable_endings() -> tuple[str, ...]:
    """``IMAGE_ENDINGS``, and those that plugins read."""
    return tuple(f".{name}" for name in READERS)


def stem(path: Path | str) -> str:
    """A file's name without its image ending: ``a/b.nii.gz`` is ``b``. Other names stay as they are."""
    name = Path(path).name
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
    return _grid_of(path, _read_header(path))


def read_volume(path: Path) -> tuple[np.ndarray, Grid]:
    """Read a volume: its voxels (z, y, x) in the stored number type, and its grid.

    What ITK passes over in a NIfTI is kept: one that is cut short is refused, and NaN stays NaN.

    Raises:
        ImageError: Not an image, cut short, 2D, 4D, or with several numbers per voxel.
    """
    if (reader := _plugin_reader(path)) is not None:
        return _read_by(reader, path)
    header = _read_header(path)
    grid = _grid_of(path, header)
    is_nifti = "vox_offset" in header.GetMetaDataKeys()
    non_finite = _non_finite_voxels_of_nifti(path, header) if is_nifti else None
    with _quiet():
        try:
            voxels = sitk.GetArrayFromImage(header.Execute())
        except RuntimeError as error:
            raise _unreadable(path, error) from None
    if non_finite is not None:
        voxels.flat[non_finite[0]] = non_finite[1]
    return voxels.reshape(grid.shape), grid


def read_mask(path: Path) -> tuple[np.ndarray, Grid]:
    """Read a mask: label values (z, y, x) as integers, and its grid.

    Raises:
        ImageError: As ``read_volume``, or a voxel's value is not a whole number.
    """
    mask, grid = read_volume(path)
    if np.issubdtype(mask.dtype, np.integer):
        return mask, grid
    whole_numbers = mask.astype(np.int32) if np.all(np.abs(mask) < 2**31) else None  # NaN compares false
    if whole_numbers is None or not np.array_equal(whole_numbers, mask):
        example = mask[~np.isfinite(mask) | (mask != np.rint(mask)) | (np.abs(mask) >= 2**31)].flat[0]
        raise ImageError(
            path,
            f"label values must be whole numbers, and it holds {example:g}",
            "Save the mask as integers, and resample masks with nearest neighbour only",
        )
    return whole_numbers, grid


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
    with atomic_write(path) as place, _quiet():
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


@contextmanager
def readable_by_itk(files: Sequence[Path]) -> Iterator[list[Path]]:
    """The files as ITK can read them: what a plugin reads is there as NIfTI, until the context ends.

    Raises:
        ImageError: A file that its reader cannot read.
        PluginError: A reader that cannot be used.
    """
    with TemporaryDirectory(prefix="lnsegfm-") as folder:
        copies = []
        for number, file in enumerate(files):
            copies.append(file)
            if _plugin_reader(file) is not None:
                voxels, grid = read_volume(file)
                copies[-1] = Path(folder) / f"{number}.nii"
                write_volume(copies[-1], voxels.astype(np.uint8) if voxels.dtype == bool else voxels, grid)
        yield copies


@contextmanager
def _quiet() -> Iterator[None]:
    # ITK's warnings go straight to stderr, in the middle of a table or a progress bar
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


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
        raise ImageError(path, f"unreadable ({type(error).__name__}: {error})", _AGAIN) from error
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
        raise ImageError(path, f"unreadable ({type(error).__name__}: {error})", _AGAIN) from error


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise ImageError(path, "no such file", "Check the path")


def _read_header(path: Path) -> Any:
    _require_file(path)
    if ending(path) is None:
        raise ImageError(path, "not a known image ending", f"Save it as one of {', '.join(readable_endings())}")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with _quiet():
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise _unreadable(path, error) from None
    return reader


def _grid_of(path: Path, header: Any) -> Grid:
    size = _stored_size(header)
    if len(size) == 2:
        raise ImageError(path, f"it is 2D ({_times(size)})", "Give the whole scan as one 3D volume")
    if len(size) > 3 and 1 in size:
        remedy = "Save it as 3D, without the axis of length 1"
        raise ImageError(path, f"it is {len(size)}D with an axis of length 1 ({_times(size)})", remedy)
    if len(size) != 3:
        raise ImageError(path, f"it is {len(size)}D ({_times(size)})", "Save each 3D volume in a file of its own")
    if header.GetNumberOfComponents() != 1:
        what = f"it has {header.GetNumberOfComponents()} numbers per voxel (a colour or vector image)"
        raise ImageError(path, what, "Save it with one number per voxel")
    try:
        return Grid.from_image(header)
    except DataError as error:
        raise ImageError(path, f"its geometry is none: {str(error).rstrip('.')}", "Export the image again") from None


def _stored_size(header: Any) -> tuple[int, ...]:
    """The axes as the file states them, (x, y, z, ...): ITK drops a NIfTI's last axes when their length is 1."""
    if "dim[0]" in header.GetMetaDataKeys():
        dimensions = int(header.GetMetaData("dim[0]"))
        return tuple(int(header.GetMetaData(f"dim[{i}]")) for i in range(1, dimensions + 1))
    return tuple(header.GetSize())


def _non_finite_voxels_of_nifti(path: Path, header: Any) -> tuple[np.ndarray, np.ndarray]:
    """Read a NIfTI's own bytes, because ITK silently changes two things.

    It fills up a file that is cut short, and it reads NaN and infinity as 0.

    Returns:
        Flat indices of the voxels that are NaN or infinite, and their values.

    Raises:
        ImageError: The file is cut short or damaged.
    """
    voxels, size = math.prod(_stored_size(header)), int(header.GetMetaData("bitpix")) // 8
    offset = max(int(float(header.GetMetaData("vox_offset"))), _NIFTI_HEADER)
    floats = {"16": "f4", "64": "f8"}.get(header.GetMetaData("datatype"))
    indices, values, size_read = [np.empty(0, np.int64)], [np.empty(0)], 0
    try:
        with _unpacked(path) as file:
            start = file.read(offset)
            order = "<" if int.from_bytes(start[:4], "little") in (348, 540) else ">"  # sizes of its two headers
            for chunk in iter(lambda: file.read(_CHUNK), b""):
                if floats:
                    numbers = np.frombuffer(chunk[: len(chunk) // size * size], dtype=order + floats)
                    invalid = np.flatnonzero(~np.isfinite(numbers))
                    indices.append(invalid + size_read // size)
                    values.append(numbers[invalid])
                size_read += len(chunk)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise ImageError(path, "it is cut short or damaged (its compression does not end well)", _AGAIN) from None
    if size_read < voxels * size:
        raise ImageError(path, f"it is cut short ({size_read} of {voxels * size} bytes)", _AGAIN)
    where = np.concatenate(indices)
    return where[where < voxels], np.concatenate(values)[where < voxels]


def _unpacked(path: Path) -> io.BufferedIOBase:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")


_AGAIN = "Copy or export it again"


def _unreadable(path: Path, error: RuntimeError) -> ImageError:
    """ITK's exception, which has many lines and its own build folder in them, as one line."""
    text = str(error)
    if "orthonormal" in text:
        return ImageError(path, "its axes are not at right angles (a sheared sform)", "Resample it to a straight grid")
    if "Unable to determine ImageIO" in text:
        return ImageError(path, f"unreadable: it is no {ending(path)} image, or it is cut short or empty", _AGAIN)
    reason = [line.strip() for line in text.splitlines() if line.strip()][-1]
    return ImageError(path, f"unreadable: it is cut short or damaged ({reason})", _AGAIN)


def _times(size: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in size)

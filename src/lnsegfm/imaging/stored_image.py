"""NIfTI, NRRD and MHA as they are stored: what ITK reads of them, and what it passes over.

ITK reads a NIfTI without a spacing as 1 mm, one whose matrix and spacing contradict each other by the spacing, fills up
one that is cut short, reads NaN as 0, takes a file for what its name says, and knows no NIfTI-2. Each of these is
looked after here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import SimpleITK as sitk  # the name everybody in the field gives it

from lnsegfm.errors import DataError
from lnsegfm.imaging.grid import RAS_TO_LPS, Grid
from lnsegfm.imaging.image_error import COPY_AGAIN, ImageError
from lnsegfm.imaging.image_form import ImageForm, detached_data, image_form, inside_folder
from lnsegfm.imaging.nifti_header import NiftiHeader, read_nifti_header
from lnsegfm.imaging.nifti_voxels import (
    grid_of_matrix,
    matrix_of,
    non_finite_voxels,
    read_by_nibabel,
    require_voxel_size,
    sheared,
    sheared_error,
)
from lnsegfm.imaging.sheared_volume import straightened

_READERS: dict[ImageForm, str] = {"nifti": "NiftiImageIO", "nrrd": "NrrdImageIO", "meta": "MetaImageIO"}
DIFFERENT_MM = 0.5
"""Two transforms of one file that put a corner this far apart are reported."""


@dataclass(frozen=True)
class _Opened:
    """A file whose header is read.

    Args:
        path: The file.
        form: What it is.
        header: Of a NIfTI.
        itk: ITK's reader of it, with the header read; None where ITK does not read it.
        size: Its axes (x, y, z, ...), without those of length 1 behind the third.
    """

    path: Path
    form: ImageForm
    header: NiftiHeader | None
    itk: Any
    size: tuple[int, ...]


def stored_grid(path: Path) -> Grid:
    """The geometry of a volume, from its header alone; see `lnsegfm.imaging.files.read_grid`."""
    with _opened(path) as image:
        return _grid(image)


def stored_volume(path: Path, *, straighten: bool = False, labels: bool = False) -> tuple[np.ndarray, Grid]:
    """Voxels (z, y, x) and grid of a volume; see `lnsegfm.imaging.files.read_volume`."""
    with _opened(path) as image:
        if image.header is not None and (image.itk is None):
            return _nifti_by_matrix(image, straighten, labels)
        grid = _grid(image)
        non_finite = None if image.header is None else non_finite_voxels(path, image.header)
        if len(image.size) != len(image.itk.GetSize()):
            image.itk.SetExtractSize([*image.size, *[0] * (len(image.itk.GetSize()) - len(image.size))])
        with quiet_itk():
            try:
                voxels = sitk.GetArrayFromImage(image.itk.Execute())
            except RuntimeError as error:
                raise _unreadable(path, error) from None
    if non_finite is not None:
        voxels.flat[non_finite[0]] = non_finite[1]
    return voxels.reshape(grid.shape), grid


def nifti_notes(path: Path) -> tuple[str, ...]:
    """What a user should know of a NIfTI that is read nevertheless, a clause each; nothing for other files.

    Where qform and sform disagree, ITK and with it nnU-Net take the sform if its code says scanner (1), or there is no
    qform, or the qform's code is not scanner and the sform's is no less; else the qform. nibabel, and what is built on
    it, always takes the sform.
    """
    header = read_nifti_header(path) if path.is_file() else None
    gap = header.transform_gap_mm() if header is not None else None
    if header is None or gap is None or not gap > DIFFERENT_MM:
        return ()
    if not math.isfinite(gap):
        return ("its qform or sform holds numbers that are not finite: tools disagree on where it lies",)
    mirrored = np.linalg.det(header.qform[:3, :3]) * np.linalg.det(header.sform[:3, :3]) < 0  # type: ignore[index]
    aside = ", and one is the mirror image of the other" if mirrored else ""
    taken = _taken_transform(path, header)
    return (
        f"its qform and sform differ by {gap:.1f} mm at a corner of the scan{aside}: tools disagree on where it lies; "
        f"the {taken} is taken, as nnU-Net does",
    )


def is_sheared(path: Path) -> bool:
    """Whether a file is a NIfTI that is read by axes that are not at right angles; False for whatever is none."""
    header = read_nifti_header(path) if path.is_file() else None
    return header is not None and sheared(header)


def _taken_transform(path: Path, header: NiftiHeader) -> str:
    """``sform`` or ``qform``: which of the two the grid that is read agrees with."""
    try:
        grid = stored_grid(path)
    except DataError:
        return "sform"
    origin = RAS_TO_LPS @ np.array(grid.origin_mm)
    axes = RAS_TO_LPS @ np.array(grid.direction).reshape(3, 3) * np.array(grid.spacing_mm[::-1])
    gaps = {
        name: float(np.abs(matrix[:3, 3] - origin).max() + np.abs(matrix[:3, :3] - axes).max())
        for name, matrix in (("sform", header.sform), ("qform", header.qform))
        if matrix is not None
    }
    return min(gaps, key=lambda name: gaps[name])


@contextmanager
def _opened(path: Path) -> Iterator[_Opened]:
    form = _form(path)
    header = read_nifti_header(path) if form == "nifti" else None
    if header is not None:
        require_voxel_size(path, header)
        if header.version == 2 or sheared(header):
            yield _Opened(path, form, header, None, header.size)
            return
    if (stated := detached_data(path, form)) is not None and not inside_folder(path, stated):
        what = f"its header points to voxels elsewhere ({_printable(stated)})"
        raise ImageError(path, what, "Save header and voxels in one file")
    with TemporaryDirectory(prefix="lnsegfm-") as folder:
        reader = sitk.ImageFileReader()
        reader.SetImageIO(_READERS[form])
        reader.SetFileName(str(_named_as_it_is(path, form, Path(folder))))
        with quiet_itk():
            try:
                reader.ReadImageInformation()
            except RuntimeError as error:
                raise _unreadable(path, error) from None
        size = list(reader.GetSize()) if header is None else list(header.dimensions)
        while len(size) > 3 and size[-1] == 1:
            size.pop()
        yield _Opened(path, form, header, reader, tuple(size))


def _form(path: Path) -> ImageForm:
    if not path.is_file():
        raise ImageError(path, "no such file", "Check the path")
    try:
        form = image_form(path)
    except OSError as error:
        raise ImageError(path, f"it cannot be read ({error.strerror})", "Allow reading it") from None
    if form is None:
        raise ImageError(path, "unreadable: it is no NIfTI, NRRD or MHA, or it is cut short or empty", COPY_AGAIN)
    return form


def _named_as_it_is(path: Path, form: ImageForm, folder: Path) -> Path:
    """A name of the file that ends as its form does: libniftiio goes by the name, and unpacks by it."""
    if form != "nifti":
        return path
    with path.open("rb") as file:
        wanted = ".nii.gz" if file.read(2) == b"\x1f\x8b" else ".nii"
    if path.name.lower().endswith(wanted):
        return path
    link = folder / f"image{wanted}"
    link.symlink_to(path.resolve())
    return link


def _grid(image: _Opened) -> Grid:
    path, size = image.path, image.size
    if len(size) == 2:
        raise ImageError(path, f"it is 2D ({_times(size)})", "Give the whole scan as one 3D volume")
    if len(size) != 3:
        raise ImageError(path, f"it is {len(size)}D ({_times(size)})", "Save each 3D volume in a file of its own")
    if image.header is not None and image.itk is None:
        return grid_of_matrix(path, image.header)
    if (components := image.itk.GetNumberOfComponents()) != 1:
        what = f"it has {components} numbers per voxel (a colour or vector image)"
        raise ImageError(path, what, "Save it with one number per voxel")
    axes = len(image.itk.GetSize())
    direction = np.array(image.itk.GetDirection()).reshape(axes, axes)[:3, :3]
    try:
        return Grid(
            shape=(size[2], size[1], size[0]),
            spacing_mm=tuple(image.itk.GetSpacing()[2::-1]),
            origin_mm=tuple(image.itk.GetOrigin()[:3]),
            direction=tuple(direction.ravel()),
        )
    except DataError as error:
        raise ImageError(path, f"its geometry is none: {str(error).rstrip('.')}", "Export the image again") from None


def _nifti_by_matrix(image: _Opened, straighten: bool, labels: bool) -> tuple[np.ndarray, Grid]:
    """A NIfTI that ITK does not read: NIfTI-2, or sheared and to be straightened."""
    header = image.header
    assert header is not None  # it is a NIfTI
    if len(image.size) != 3 or not (straighten and sheared(header)):
        grid = _grid(image)
    voxels = read_by_nibabel(image.path, header)
    if straighten and sheared(header):
        return straightened(voxels, matrix_of(header), labels=labels)
    return voxels, grid


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Without ITK's warnings."""
    # ITK's warnings go straight to stderr, in the middle of a table or a progress bar
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def _unreadable(path: Path, error: RuntimeError) -> ImageError:
    """ITK's exception, which has many lines and its own build folder in them, as one line."""
    text = str(error)
    if "orthonormal" in text:
        return sheared_error(path)
    reason = [line.strip() for line in text.splitlines() if line.strip()][-1]
    return ImageError(path, f"unreadable: it is cut short or damaged ({reason})", COPY_AGAIN)


def _times(size: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in size)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:80]

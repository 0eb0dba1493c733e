"""Read CT series from folders, files and zips, in HU.

>>> index = find_series(Path("clinic/"))                        # doctest: +SKIP
>>> volume = read_series(index.series[0])                       # doctest: +SKIP
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.dicom_zip import unpacked_tree, unpacked_until_exit
from lnsegfm.imaging.dicom.file_walk import files_under
from lnsegfm.imaging.dicom.headers import ImagePlane, is_dicom, read_header
from lnsegfm.imaging.dicom.interleaved_sets import discordant_sets
from lnsegfm.imaging.dicom.pixels import pixel_digests, read_series
from lnsegfm.imaging.dicom.series_choice import choose_series, require_choice, with_reason
from lnsegfm.imaging.dicom.series_index import Refusal, Series, SeriesIndex, SeriesOptions, Slice
from lnsegfm.imaging.dicom.series_words import listing
from lnsegfm.imaging.dicom.sorting import sorted_series

__all__ = [
    "DicomError",
    "Refusal",
    "Series",
    "SeriesIndex",
    "Slice",
    "find_series",
    "read_series",
    "series_of",
    "unpacked_tree",
]

_PLAIN = ("", ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
_ELEMENT = 8  # bytes of tag and length before the pixels, at the least


def find_series(
    root: Path, *, modalities: Sequence[str] = ("CT",), straighten: bool = False, resample_uneven: bool = False
) -> SeriesIndex:
    """Find every series under ``root``, by the files' content; names and endings do not count.

    One bad file or series stops nothing: it is in ``refused``, in one line that names the series, its slices and the
    remedy. Files that are not DICOM, DICOMDIR files and zips inside a tree are passed over.

    Args:
        root: A folder tree, a file or a zip. A zip is unpacked into a temporary folder that lives until the process
            ends; with ``unpacked_tree(root) as folder`` it lives as long as the block.
        modalities: Modality of the series to give.
        straighten: Give sheared series too (gantry tilt): ``read_series`` resamples them onto their ``grid``.
        resample_uneven: Give series of uneven slice distances too: ``read_series`` interpolates between their slices.

    Raises:
        DicomError: No such file or folder, or a zip that cannot be unpacked.
    """
    wanted = tuple(m.upper() for m in modalities)
    planes: list[ImagePlane] = []
    refused: list[Refusal] = []
    structures: list[Path] = []
    segmentations: list[Path] = []
    others: Counter[str] = Counter()
    other_series: dict[str, str] = {}
    for path in files_under(unpacked_until_exit(Path(root))):
        try:
            if path.name == "DICOMDIR" or not is_dicom(path):
                continue
            header = read_header(path, wanted)
        except DicomError as error:
            refused.append(Refusal(path.name, str(error), images=1))
            continue
        except OSError as error:
            why = error.strerror or type(error).__name__
            line = f"File {path.name} cannot be read ({why}). Allow reading it."
            refused.append(Refusal(path.name, line, images=1))
            continue
        if header.kind == "structures":
            structures.append(path)
        elif header.kind == "segmentation":
            segmentations.append(path)
        elif header.kind == "image" and not header.planes:
            others[header.modality or "none"] += 1
            other_series[header.series_uid] = header.modality
        planes += header.planes
    complete, cut = _complete(planes)
    series, more = sorted_series(complete, pixel_digests, SeriesOptions(straighten, resample_uneven), discordant_sets)
    return SeriesIndex(
        tuple(series),
        (*refused, *cut, *more),
        tuple(structures),
        tuple(segmentations),
        tuple(sorted(others.items())),
        tuple(sorted((uid, modality) for uid, modality in other_series.items() if uid)),
    )


def series_of(
    path: Path,
    *,
    modalities: Sequence[str] = ("CT",),
    straighten: bool = False,
    resample_uneven: bool = False,
    series: Sequence[str] = (),
) -> Series:
    """The one scan that ``path`` holds; of several series of it the first in the order of `choose_series`, with a note.

    Args:
        path: As ``root`` of ``find_series``.
        modalities: As in ``find_series``.
        straighten: As in ``find_series``.
        resample_uneven: As in ``find_series``.
        series: Selectors, such as ``plane=axial`` or ``number=4``, as `choose_series` takes them.

    Raises:
        DataError: It holds none (what was refused is listed) or several scans, or a selector fits no series.
        ConfigError: A selector that cannot be read.
    """
    index = find_series(path, modalities=modalities, straighten=straighten, resample_uneven=resample_uneven)
    kind = "/".join(modalities)
    if len(index.series) == 1 and not series:
        return index.series[0]
    if index.series:
        choice = choose_series(index.series, series)
        require_choice(index.series, choice)
        if len(choice.taken) == 1:
            return with_reason(choice.taken[0])
        which = f"{len(choice.taken)} {kind} series that are scans of their own ({listing(choice.series)})"
        raise DicomError(f"{path}: it holds {which}. Name one, as number=4: --series in a command, series= in Python.")
    if index.refused:
        raise DicomError(*(str(refusal) for refusal in index.refused))
    held = ", ".join(f"{count} {modality} images" for modality, count in index.others) or "no DICOM image"
    raise DicomError(f"{path}: it holds no {kind} series ({held}). Give the folder with the slices of the scan.")


def _complete(planes: Sequence[ImagePlane]) -> tuple[list[ImagePlane], list[Refusal]]:
    """Planes whose file is long enough for their pixels, and a refusal for each file that is not."""
    complete: list[ImagePlane] = []
    refused: dict[Path, Refusal] = {}
    for plane in planes:
        plain = plane.transfer_syntax in _PLAIN
        needed = plane.rows * plane.columns * plane.samples * plane.frames * plane.bits // 8 if plain else 1
        available = max(plane.pixel_bytes - _ELEMENT, 0)
        if available < needed and plane.transfer_syntax != DeflatedExplicitVRLittleEndian:
            states = f"{available} of at least {needed} bytes of pixels"
            line = f"File {plane.path.name} of series {plane.name} is cut short ({states}). Copy or export it again."
            lost = refused.get(plane.path, Refusal(plane.name, line))
            refused[plane.path] = replace(lost, images=lost.images + 1)
        else:
            complete.append(plane)
    return complete, list(refused.values())

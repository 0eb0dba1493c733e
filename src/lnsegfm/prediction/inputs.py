"""What is to be predicted: images, DICOM in any arrangement, or a list of both."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lnsegfm.datasets.arranging_command import arrange_command, holds_images
from lnsegfm.datasets.case_choice import CaseChoice
from lnsegfm.datasets.dataset import Case
from lnsegfm.errors import DataError, LnSegFmError
from lnsegfm.imaging.files import ending, image_files
from lnsegfm.prediction.case_names import Names, namer, numbered, require_name
from lnsegfm.prediction.scans import Failure, Scans, find_scans

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.series import Series
    from lnsegfm.imaging.dicom.series_choice import PassedOver
    from lnsegfm.imaging.dicom.series_index import SeriesOptions


_IMAGE_FOLDERS = ("images", "imagesTr")
"""Folders of a dataset that hold its images, as `lnsegfm.datasets.dataset` reads them."""


@contextmanager
def find_inputs(
    path: Path,
    channels: int,
    *,
    names: Names = Names.CODE,
    straighten: bool = False,
    resample_uneven: bool = False,
    out: Path | None = None,
    dicom: bool = False,
    series: Sequence[str] = (),
    choice: CaseChoice | None = None,
) -> Iterator[Scans]:
    """The scans that a user means, as long as the block lasts: then the members of zips are removed.

    Args:
        path: An image; a folder of images, or a dataset with such a folder (``images/``, ``imagesTr/``); a DICOM file,
            folder, tree or zip; or a CSV with the column ``path`` (any of these, relative to the CSV) and, if wanted,
            ``case`` (a name).
        channels: Of the model. DICOM gives one.
        names: What DICOM series are called.
        straighten: Resample sheared series and NIfTI files (gantry tilt) instead of refusing them.
        resample_uneven: Interpolate series of uneven slice distances onto a grid of one distance, likewise.
        out: Where masks go: the key of the pseudonyms must not lie there.
        dicom: Whether DICOM is meant where a folder holds images as well.
        series: Which DICOM series of a study to take (`lnsegfm.imaging.dicom.series_choice.choose_series`); of each
            scan one unless given.
        choice: Which of the scans to take, by their names; all unless given.

    Raises:
        DataError: Nothing there that could be predicted.
        ConfigError: A name in ``choice`` that no scan has.
    """
    from lnsegfm.imaging.dicom.series_index import SeriesOptions

    called, options = namer(names, out), SeriesOptions(straighten, resample_uneven)
    with ExitStack() as unpacked:

        def scans_in(place: Path) -> Scans:
            if _is_images(place) and not (dicom and place.is_dir() and _holds_dicom(place)):
                return find_scans(place, channels)
            if (images := dataset_images(place)) is not None and not _holds_dicom(place):
                _require_elsewhere(out, images)
                return replace(find_scans(images, channels), note=_which_images(place, images))
            from lnsegfm.imaging.dicom.dicom_zip import unpacked_tree

            return _dicom(place, unpacked.enter_context(unpacked_tree(place)), channels, called, options, series)

        scans = _listed(path, scans_in) if path.suffix.lower() == ".csv" else scans_in(path)
        _require_matched(scans)
        scans = scans.chosen(choice or CaseChoice())
        yield replace(scans, source=str(path.resolve()), straighten=straighten)


def _is_images(path: Path) -> bool:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder. Give a scan, or a folder of scans.")
    return ending(path) is not None if path.is_file() else bool(image_files(path))


def dataset_images(path: Path) -> Path | None:
    """The folder of images of a dataset folder, ``images/`` or else ``imagesTr/``; None where neither holds any."""
    folders = (path / inner for inner in _IMAGE_FOLDERS)
    return next((folder for folder in folders if folder.is_dir() and image_files(folder)), None)


def _which_images(dataset: Path, images: Path) -> str:
    others = [name for name in (*_IMAGE_FOLDERS, "imagesTs") if (dataset / name).is_dir() and name != images.name]
    more = f"; give {dataset / others[-1]} for the scans there" if others else ""
    return f"Scans: those in {images}{more}"


def _require_elsewhere(out: Path | None, images: Path) -> None:
    if out is not None and out.resolve() == images.resolve():
        raise DataError(f"--out {out}: the scans lie there, and masks have their names. Name another folder.")


def _holds_dicom(folder: Path) -> bool:
    from lnsegfm.imaging.dicom.file_walk import files_under
    from lnsegfm.imaging.dicom.headers import is_dicom

    for file in files_under(folder):
        with suppress(OSError):
            if is_dicom(file):
                return True
    return False


def _require_matched(scans: Scans) -> None:
    if scans.unmatched:
        from lnsegfm.imaging.dicom.series_choice import unmatched_lines

        every = [*scans.series.values(), *(each.series for each in scans.passed_over)]
        raise DataError(*unmatched_lines(every, scans.unmatched))


def _dicom(
    path: Path,
    folder: Path,
    channels: int,
    called: Callable[[Series], str],
    options: SeriesOptions,
    selectors: Sequence[str],
) -> Scans:
    """The series in ``folder`` that are taken: ``path``, or what it was unpacked to."""
    from lnsegfm.imaging.dicom.series import find_series
    from lnsegfm.imaging.dicom.series_choice import choose_series, require_choice, with_reason

    index = find_series(folder, straighten=options.straighten, resample_uneven=options.resample_uneven)
    if not index.series:
        if index.refused:
            raise DataError(*(str(refusal) for refusal in index.refused))
        if index.others:
            held = ", ".join(f"{count} {modality} images" for modality, count in index.others)
            raise DataError(f"{path}: it holds no CT images, but {held} (Modality). Give the CT series of the study.")
        if folder.is_dir() and holds_images(folder):
            raise DataError(
                f"{path}: its images lie in folders within it. Give one of these, a CSV with the column path, or "
                f"arrange them (with --unlabelled where there are no masks): {arrange_command(path)}."
            )
        raise DataError(f"{path}: it holds no images. Give a folder with NIfTI, NRRD or MHA files, or DICOM CT.")
    choice = choose_series(index.series, selectors)
    if not choice.taken:  # of a list, a selector may fit the series of another line
        require_choice(index.series, choice)
    if channels != 1:
        raise DataError(f"{path}: DICOM gives one channel, and the model takes {channels}. Give images by channel.")
    series: dict[str, Series] = {}
    taken: set[str] = set()  # without capitals: on some file systems they make no difference
    for scan in map(with_reason, choice.taken):
        name = next(n for n in numbered(called(scan)) if n.casefold() not in taken)
        taken.add(name.casefold())
        series[name] = scan
    cases = tuple(Case(name, ()) for name in sorted(series))
    refused = tuple(Failure(lost.series, str(lost), named=True) for lost in index.refused if not lost.harmless)
    return Scans(cases, series, refused, passed_over=choice.passed_over, unmatched=choice.unmatched)


def _listed(path: Path, scans_in: Callable[[Path], Scans]) -> Scans:
    """The scans of a CSV; a row that cannot be used becomes a failure and stops nothing."""
    cases: dict[str, Case] = {}
    series: dict[str, Series] = {}
    failed: list[Failure] = []
    passed_over: list[PassedOver] = []
    unmatched: list[set[str]] = []
    taken: set[str] = set()
    for number, place, named in _rows(path):
        line = f"{path.name}, line {number}"
        try:
            if named:
                require_name(named)
            if not place:
                raise DataError("it names no path. Fill it in, or remove the line.")
            scans = scans_in(path.parent / place)
        except (DataError, OSError) as error:
            problems = error.problems if isinstance(error, DataError) else (one_line(error),)
            failed += [Failure(named or line, f"{line}: {problem}", named=True) for problem in problems]
            continue
        failed += scans.refused
        passed_over += [each for each in scans.passed_over if each not in passed_over]
        if scans.series:
            unmatched.append(set(scans.unmatched))
        for case in scans.cases:
            name = named or case.name
            if named and len(scans.cases) > 1:
                name = f"{named}_{case.name}"
            if name.casefold() in taken:
                reason = f"{name} is another line's case, too. Give each its own in the column case."
                failed.append(Failure(line, f"{line}: {reason}", named=True))
                continue
            taken.add(name.casefold())
            cases[name] = replace(case, name=name)
            if case.name in scans.series:
                series[name] = scans.series[case.name]
    if not cases:
        raise DataError(*([failure.reason for failure in failed] or [f"{path}: it has no line. Name a scan a line."]))
    of_no_line = sorted(set.intersection(*unmatched)) if unmatched else ()
    return Scans(
        tuple(cases[name] for name in sorted(cases)),
        series,
        tuple(failed),
        passed_over=tuple(passed_over),
        unmatched=tuple(of_no_line),
    )


def _rows(path: Path) -> list[tuple[int, str, str]]:
    """The lines of a CSV that are not blank: the line's number in the file, path and case ("" where not given)."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as text:
            table = csv.DictReader(text)
            columns = [column.strip().lower() for column in table.fieldnames or ()]
            table.fieldnames = columns
            rows = [(table.line_num, row) for row in table]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Give a CSV with the column path.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: it cannot be read ({error}). Give a CSV in UTF-8 with the column path.") from None
    if "path" not in columns:
        raise DataError(f"{path}: its columns are {', '.join(columns) or 'none'}. Give it a header line: path,case.")
    return [(number, (row["path"] or "").strip(), (row.get("case") or "").strip()) for number, row in rows]


def one_line(error: Exception) -> str:
    """Why something failed, in one line; of a path that the system names, the last part only."""
    if isinstance(error, LnSegFmError):
        return str(error).splitlines()[0]
    if isinstance(error, OSError) and error.strerror:
        place = f" ({Path(str(error.filename)).name})" if error.filename else ""
        return f"{error.strerror}{place}. Check the path, its permissions and the space left."
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no explanation'}"

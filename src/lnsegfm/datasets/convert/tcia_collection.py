"""A collection of The Cancer Imaging Archive as it is downloaded: DICOM, cases named by the published PatientID."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lnsegfm.datasets.convert.conversion_plan import TRAIN
from lnsegfm.datasets.convert.dicom import passed_over, unreadable
from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.annotated_series import AnnotatedTree, read_annotated_tree
from lnsegfm.imaging.dicom.annotation import Annotation
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.dicom.tree_references import tree_references


@dataclass(frozen=True)
class CollectionScan:
    """One CT series of a collection.

    Args:
        case: Name of the case.
        subject: The published PatientID.
        series: The series.
        annotations: What belongs to it, newest first.
    """

    case: str
    subject: str
    series: Series
    annotations: tuple[Annotation, ...]


def find_scans(source: Path, prefixes: tuple[str, ...]) -> tuple[list[CollectionScan], AnnotatedTree, list[str]]:
    """The CT series of a collection, by PatientID.

    A patient's only series is called as the patient; where there are several, each gets its part of the UID behind it.

    Args:
        source: The folder.
        prefixes: How the collection's PatientIDs start; series of other patients are left out.

    Returns:
        The series, everything that was found, and a line for each series that is left out.

    Raises:
        DataError: The folder cannot be read.
    """
    tree = read_annotated_tree(source)
    of_patient: dict[str, list[int]] = defaultdict(list)
    other_patients = []
    for place, series in enumerate(tree.index.series):
        if series.patient_id.strip().startswith(prefixes):
            of_patient[series.patient_id.strip()].append(place)
        else:
            other_patients.append(f"Series {series.name}: its PatientID is none of this collection's.")
    scans = []
    for patient, places in sorted(of_patient.items()):
        if any(c in patient for c in "/\\") or not patient.isprintable():
            raise DataError(f"PatientID {patient!r}: it cannot be a file's name. Fetch the collection again.")
        for place in places:
            series = tree.index.series[place]
            case = patient if len(places) == 1 else f"{patient}_{series.uid.replace('.', '')[-8:]}_{series.part}"
            scans.append(CollectionScan(case, patient, series, tree.by_series.get(place, ())))
    return scans, tree, other_patients


def require_folder(source: Path) -> None:
    """Refuse an archive of a set whose files are not looked for in archives.

    Raises:
        DataError: The source is a file.
    """
    if source.is_file():
        raise DataError(f"{source}: it is a file. Unpack it, and give the folder.")


def missing_count(what: str, have: int, published: int | None) -> tuple[str, ...]:
    """A line where fewer are there than were published."""
    if published is None or have >= published:
        return ()
    return (f"{published - have} of {published} {what} are not there.",)


def missing_numbers(names: Iterable[str], prefix: str, numbers: range, width: int) -> tuple[str, ...]:
    """The names that a set numbers through and that are not there, in one line."""
    missing = [f"{prefix}{k:0{width}d}" for k in numbers if f"{prefix}{k:0{width}d}" not in set(names)]
    if not missing:
        return ()
    more = f" and {len(missing) - 20} more" if len(missing) > 20 else ""
    return (f"Not there: {', '.join(missing[:20])}{more}.",)


def unconverted(tree: AnnotatedTree, left_out: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """The fields of a plan about what is not converted."""
    references = tree_references(tree, mirrored=False)
    return {"left_out": (*left_out, *passed_over(tree, references)), "failed": unreadable(tree, references)}


def target_part(part: str, wanted: str | None) -> str | None:
    """The part under which a case is written; one that is converted alone becomes the training part. None: left out."""
    if wanted is None:
        return part
    return TRAIN if part == wanted else None

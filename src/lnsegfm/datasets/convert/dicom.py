"""``dicom``: any tree of CT series with RTSTRUCT or DICOM SEG, such as a clinic's export."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lnsegfm.datasets.convert.conversion_plan import (
    TRAIN,
    ConversionOptions,
    ConversionPlan,
    PlannedScan,
    labels_of,
    require_matched,
)
from lnsegfm.datasets.convert.reference import (
    ReferenceChoice,
    choose_reference,
    fingerprint,
    load_case,
    load_scan,
    private_words,
)
from lnsegfm.datasets.convert.set_card import SetCard
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.imaging.dicom.annotated_series import AnnotatedTree, read_annotated_tree
from lnsegfm.imaging.dicom.annotation import Annotation

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.series_index import Series

_SHOWN = 12  # structure names that a line lists
_LONGEST = 40  # characters of a PatientID that a file's name keeps


def plan(source: Path, options: ConversionOptions) -> ConversionPlan:
    """The CT series of a tree that have a structure which a pattern matches.

    Raises:
        ConfigError: No pattern.
    """
    if not options.roi:
        raise ConfigError("No structures are named: nothing would be a label. Say --roi 'LN*=lymph_node'; see --list.")
    labels = labels_of(options.roi)
    tree = read_annotated_tree(source, straighten=options.straighten)
    names = case_names(options)
    scans, left_out = [], []
    patients: dict[str, set[str]] = {}
    for place, series in enumerate(tree.index.series):
        annotations = tree.by_series.get(place, ())
        chosen = choose_reference(annotations, options.roi)
        if chosen is None and not options.unlabelled:
            left_out.append(f"Series {series.name}: {reason_without_reference(annotations)}.")
            continue
        case, subject = names(series)
        patients.setdefault(series.patient_id.strip(), set()).add(subject)
        load = partial(load_case, series, chosen, labels.names) if chosen else partial(load_scan, series)
        scans.append(
            PlannedScan(
                case,
                subject,
                _sources(chosen),
                load,
                TRAIN if chosen else "unlabelled",
                labelled=chosen is not None,
                fingerprint=fingerprint(series, chosen),
                private_words=partial(private_words, series, chosen),
            )
        )
    matched = any(scan.labelled for scan in scans)
    return ConversionPlan(
        labels=labels,
        scans=tuple(sorted(scans, key=lambda scan: scan.name)),
        counts={"ct_series": len(tree.index.series), "structure_files": structure_files(tree)},
        left_out=(*left_out, *passed_over(tree)),
        failed=unreadable(tree),
        notes=(*(require_matched(options.roi, tree.names) if matched else ()), *_issuers(patients)),
    )


def _issuers(patients: dict[str, set[str]]) -> tuple[str, ...]:
    return tuple(
        f"Subjects {', '.join(sorted(subjects))}: one PatientID of different issuers (IssuerOfPatientID), taken as "
        f"{len(subjects)} patients."
        for patient, subjects in patients.items()
        if patient and len(subjects) > 1
    )


def case_names(options: ConversionOptions) -> Callable[[Series], tuple[str, str]]:
    """What a series and its patient are called in the dataset: keyed pseudonyms, or the PatientID if asked.

    A patient without a PatientID is identified by the study. Two hospitals may give one PatientID to two people, so
    IssuerOfPatientID counts where there is one.
    """
    if options.keep_names:
        return _kept_names
    from lnsegfm.imaging.dicom.pseudonyms import read_key

    pseudonyms = read_key(options.key)

    def name(series: Series) -> tuple[str, str]:
        identity, patient = _identity(series), series.patient_id.strip()
        if patient:
            subject = pseudonyms.subject(patient, _issuer(series))
        else:
            subject = pseudonyms.subject(f"study {series.study_uid or identity}")
        return pseudonyms.case(identity) + _part(series), subject

    return name


def _issuer(series: Series) -> str:
    from lnsegfm.imaging.dicom.values import read_dataset, text

    try:
        return text(read_dataset(series.slices[0].path, ["IssuerOfPatientID"]), "IssuerOfPatientID")
    except DataError:  # gone since it was found: reading the case tells
        return ""


def _kept_names(series: Series) -> tuple[str, str]:
    patient = series.patient_id.strip()
    subject = re.sub(r"[^\w.-]+", "_", patient).strip("._")[:_LONGEST]
    if not patient:
        subject = f"no_id-{_short(series.study_uid or _identity(series))}"
    elif subject != patient:  # "A/1" and "A 1" are two patients
        subject = f"{subject or 'id'}-{_short(patient)}"
    # the UID tells a patient's scans apart in the same way however many of them are there
    return f"{subject}_{_short(_identity(series))}{_part(series)}", subject


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _identity(series: Series) -> str:
    """What tells a series from others, also where it has no UID, wherever the tree or zip lies."""
    first = series.slices[0]
    return series.uid or first.sop_instance_uid or f"{series.study_uid} {series.description} {first.path.name}"


def _part(series: Series) -> str:
    return f"_p{series.part}" if series.part else ""


def _sources(chosen: ReferenceChoice | None) -> tuple[str, ...]:
    return ("CT series", *(annotation.kind for annotation, _ in chosen.parts)) if chosen else ("CT series",)


def reason_without_reference(annotations: tuple[Annotation, ...]) -> str:
    """Why a series has no reference, in words."""
    if not annotations:
        return "no RTSTRUCT or SEG belongs to it"
    names = list(dict.fromkeys(name for annotation in annotations for name in annotation.names))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"no pattern matches its structures ({', '.join(names[:_SHOWN]) or 'none'}{more})"


def orphans(tree: AnnotatedTree) -> tuple[str, ...]:
    """One line for each structure file that belongs to no series."""
    return tuple(f"{annotation.kind} {annotation.path.name}: {why}." for annotation, why in tree.orphans)


def unreadable(tree: AnnotatedTree) -> tuple[str, ...]:
    """One line for everything that cannot be used and that would be a case: a series with structures, or structures."""
    drawn_on = {uid for annotation, _ in tree.orphans for uid in annotation.series_uids}
    series = (str(r) for r in tree.index.refused if set(r.series.split()[:1]) & drawn_on)
    return (*series, *(line for _, line in tree.unreadable))


def passed_over(tree: AnnotatedTree) -> tuple[str, ...]:
    """One line for everything else that goes nowhere: refused series without structures, structures without series."""
    failed = set(unreadable(tree))
    return (*(str(r) for r in tree.index.refused if str(r) not in failed), *orphans(tree))


def structure_files(tree: AnnotatedTree) -> int:
    """RTSTRUCT and SEG files that are there."""
    return len(tree.index.structures) + len(tree.index.segmentations)


CARD = SetCard(
    name="dicom",
    title="Any tree, or zip, of CT series with RTSTRUCT or DICOM SEG",
    url="",
    licence="yours: what the data's owner and your ethics board allow",
    citation="none",
    download="Export CT series and structures from the PACS or planning system into one folder; names do not matter.",
    layout="It holds no CT series with structures that --roi matches; `--list` shows what is there.",
    options=frozenset({"roi", "unlabelled", "keep_names", "key", "straighten"}),
    checks=(
        "each RTSTRUCT and SEG belongs to a series by UID, else by frame of reference",
        "every series is complete and straight (see the page on DICOM); with --straighten sheared ones are resampled",
        "no reference is empty",
    ),
    public=False,
    plan=plan,
)

"""``dicom``: any tree of CT series with RTSTRUCT or DICOM SEG, such as a clinic's export."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lnsegfm.datasets.convert.conversion_plan import (
    TRAIN,
    ConversionOptions,
    ConversionPlan,
    LoadedScan,
    PlannedScan,
    labels_of,
    require_matched,
)
from lnsegfm.datasets.convert.reference import (
    fingerprint,
    load_case,
    load_scan,
    private_words,
)
from lnsegfm.datasets.convert.set_card import SetCard
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.imaging.dicom.annotated_series import AnnotatedTree, read_annotated_tree
from lnsegfm.imaging.dicom.reference_choice import ReferenceChoice
from lnsegfm.imaging.dicom.tree_choice import choose_of_tree, passed_over_facts, passed_over_line
from lnsegfm.imaging.dicom.tree_references import (
    SeriesReference,
    TreeReferences,
    annotated_places,
    tree_references,
)

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.series_index import Series

_LONGEST = 40  # characters of a PatientID that a file's name keeps


def plan(source: Path, options: ConversionOptions) -> ConversionPlan:
    """The CT series of a tree that have a structure which a pattern matches.

    Raises:
        ConfigError: No pattern.
    """
    if not options.roi:
        raise ConfigError("No structures are named: nothing would be a label. Say --roi 'LN*=lymph_node'; see --list.")
    labels = labels_of(options.roi)
    tree = read_annotated_tree(
        source, straighten=options.straighten, resample_uneven=options.resample_uneven, options=options.pairing
    )
    references = tree_references(tree, options.roi)
    choice = choose_of_tree(tree.index.series, options.series, annotated=annotated_places(references))
    names = case_names(options)
    scans, left_out = [], []
    patients: dict[str, set[str]] = {}
    pairs = zip(tree.index.series, references.on, strict=True)
    taken = [(series, reference) for series, reference in pairs if choice.takes(series)]
    for series, reference in taken:
        if reference.why and not reference.fault and not options.unlabelled:
            left_out.append(f"Series {series.name}: {reference.why}.")
            continue
        case, subject = names(series)
        patients.setdefault(series.patient_id.strip(), set()).add(subject)
        scans.append(_planned(case, subject, series, reference, labels, fill_between=options.fill_between))
    return ConversionPlan(
        labels=labels,
        scans=tuple(sorted(scans, key=lambda scan: scan.name)),
        counts={"ct_series": len(tree.index.series), "structure_files": structure_files(tree)},
        left_out=(*left_out, *map(passed_over_line, choice.passed_over), *passed_over(tree, references)),
        failed=unreadable(tree, references),
        notes=(*_require_labels(options.roi, taken, tree), *_issuers(patients)),
        passed_over=tuple(map(passed_over_facts, choice.passed_over)),
    )


def _planned(
    case: str, subject: str, series: Series, reference: SeriesReference, labels: LabelMap, *, fill_between: bool
) -> PlannedScan:
    chosen = reference.chosen
    load: Callable[[], LoadedScan] = partial(load_scan, series)
    if reference.fault:
        load = partial(_refuse, f"Series {series.uid or 'without UID'}: {reference.why}.")
    elif chosen is not None:
        load = partial(load_case, series, chosen, labels.names, reference.notes, fill_between=fill_between)
    labelled = chosen is not None or reference.fault
    return PlannedScan(
        case,
        subject,
        _sources(chosen),
        load,
        TRAIN if labelled else "unlabelled",
        labelled=labelled,
        fingerprint=fingerprint(series, chosen),
        private_words=partial(private_words, series, chosen, reference.annotations),
    )


def _refuse(line: str) -> LoadedScan:
    raise DataError(line)


def _require_labels(
    patterns: Sequence[str], taken: Sequence[tuple[Series, SeriesReference]], tree: AnnotatedTree
) -> tuple[str, ...]:
    """A line for each pattern that matches no structure, where there is a reference at all.

    Raises:
        DataError: No structure gives a label any voxel: a network would learn that it does not exist.
    """
    candidates = [each for _, reference in taken for each in reference.choice.candidates]
    if not any(each.taken for each in candidates):
        return ()
    notes = require_matched(patterns, tree.names)
    given = {each.label for each in candidates if each.taken}
    refused = {each.label: each for each in candidates if each.label is not None and each.label not in given}
    if refused:
        raise DataError(*(
            f"Label {label}: no structure of any scan may give it. {each.structure.name!r} of "
            f"{each.annotation.path.name} is not taken: {each.why}."
            for label, each in refused.items()
        ))  # fmt: skip
    return notes


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


def orphans(references: TreeReferences) -> tuple[str, ...]:
    """One line for each structure file that belongs to no series."""
    return tuple(
        f"{annotation.kind} {annotation.path.name}: {why.rstrip('.')}." for annotation, why in references.without_series
    )


def unreadable(tree: AnnotatedTree, references: TreeReferences) -> tuple[str, ...]:
    """One line for everything that cannot be used and that would be a case: a series with structures, or structures."""
    return (*references.refused_series, *(line for _, line in tree.unreadable))


def passed_over(tree: AnnotatedTree, references: TreeReferences) -> tuple[str, ...]:
    """One line for everything else that goes nowhere: refused series without structures, structures without series."""
    failed = set(unreadable(tree, references))
    return (*(str(r) for r in tree.index.refused if str(r) not in failed), *orphans(references))


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
    options=frozenset(
        {
            "roi",
            "unlabelled",
            "keep_names",
            "key",
            "straighten",
            "resample_uneven",
            "fill_between",
            "accept_automatic",
            "pair_by_geometry",
            "series",
        }
    ),
    checks=(
        "each structure belongs to a series by the images, the series or the frame of reference that it names",
        "no reference is what an algorithm drew, unless --accept-automatic",
        "every series is complete and straight (see the page on DICOM); with --straighten sheared ones and with "
        "--resample-uneven uneven ones are resampled",
        "no reference is empty",
    ),
    public=False,
    plan=plan,
)

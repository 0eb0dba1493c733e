"""The doctor over DICOM: series, structure sets and segmentations, before they are converted to a dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lnsegfm.datasets.arranging_command import arranging
from lnsegfm.datasets.doctor.case_findings import CaseFindings
from lnsegfm.datasets.doctor.cohort_checks import Cohort, holds_hu
from lnsegfm.datasets.doctor.diagnose import CaseArrays, DiagnosedCase, Diagnosis
from lnsegfm.datasets.doctor.dicom_annotations import (
    AnnotatedStructure,
    TreeAnnotations,
    is_whole_patient,
    judge_structures,
    read_annotations,
)
from lnsegfm.datasets.doctor.dicom_references import reference_findings
from lnsegfm.datasets.doctor.finding import Finding, Severity, from_sentence, ordered
from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.annotated_series import PairingOptions
from lnsegfm.imaging.dicom.series import Refusal, Series, SeriesIndex, find_series, read_series
from lnsegfm.imaging.dicom.series_choice import PassedOver, SeriesChoice
from lnsegfm.imaging.dicom.series_index import SeriesOptions
from lnsegfm.imaging.dicom.tree_choice import choose_of_tree
from lnsegfm.imaging.dicom.tree_references import annotated_places
from lnsegfm.jobs.pieces import ItemWork, WorkSharer, do_here
from lnsegfm.progress import Progress
from lnsegfm.storage import content_hash


def diagnose_tree(
    root: Path,
    *,
    patterns: Sequence[str] = (),
    options: PairingOptions | None = None,
    selectors: Sequence[str] = (),
    stacks: SeriesOptions | None = None,
    sharer: WorkSharer = do_here,
    progress: Progress | None = None,
) -> Diagnosis:
    """Diagnose a folder tree, a file or a zip of DICOM: every series that is taken is read; a bad one stops nothing.

    Args:
        root: Where it is.
        patterns: ``NAME=label`` of the structures that are wanted; all of them unless given.
        options: What pairs structures with series beyond their UIDs, and whether what an algorithm drew is taken.
        selectors: Which series are taken (`lnsegfm.imaging.dicom.series_choice`); unless given, those with structures
            and one of each other scan.
        stacks: Which series are taken that fit no grid as they are; none unless given.
        sharer: Has the series read (`lnsegfm.jobs.pieces`); here, one after the other, unless given.
        progress: Reported to after each series.

    Raises:
        DataError: There is no CT series, whole or broken, no structure set and no segmentation.
    """
    stacks = stacks or SeriesOptions()
    index = find_series(root, straighten=stacks.straighten, resample_uneven=stacks.resample_uneven)
    if not (index.series or index.refused or index.structures or index.segmentations):
        held = ", ".join(f"{count} {modality} images" for modality, count in index.others) or "no DICOM"
        remedy = arranging(root, "Give a dataset, or a folder tree or zip with DICOM CT series")
        raise DataError(f"{root}: no CT in it ({held}). {remedy}.")
    findings = [_refused(refusal, among=bool(index.series)) for refusal in index.refused]
    annotations = read_annotations(index, findings, patterns, options)
    choice = choose_of_tree(index.series, selectors, annotated=annotated_places(annotations.references))
    findings += reference_findings(annotations.references, choice)
    findings += [_passed_over(each, among=bool(choice.taken)) for each in choice.passed_over]
    taken = [(s, on) for s, on in zip(index.series, annotations.on, strict=True) if choice.takes(s)]
    cohort = Cohort(None)
    for found in sharer(_reading(taken, annotations, named=bool(patterns)), progress):
        cohort.include(found.cohort)
        findings += found.findings
    cases = tuple(DiagnosedCase(series.name, series.grid, _reader(series, structures)) for series, structures in taken)
    every = ordered([*findings, *cohort.finish()])
    return Diagnosis(Path(root), every, cases, _facts(index, choice, annotations), dicom=True)


def _reading(
    taken: Sequence[tuple[Series, Sequence[AnnotatedStructure]]], annotations: TreeAnnotations, *, named: bool
) -> ItemWork[CaseFindings]:
    """The reading of series as work on items."""
    drawn = any(annotations.on)

    def make(number: int) -> CaseFindings:
        series, structures = taken[number]
        cohort, findings = Cohort(None), list[Finding]()
        findings += [
            from_sentence("series-note", "note", series.name, None, note, "Nothing needs doing")
            for note in series.notes
        ]
        has_reference = annotations.references.of(series).chosen is not None
        _add_series(series, structures, cohort, findings, has_reference, named=named)
        if not structures and drawn:
            what = "no structure set and no segmentation was drawn on it, as on other series here"
            remedy = "Nothing if it is not to be trained on"
            findings.append(Finding("not-annotated", "note", series.name, None, what, remedy))
        return CaseFindings(cohort, findings=tuple(findings))

    known = [
        [series.uid, series.part, series.straightened, series.uneven, repr(series.grid), _sizes(series)]
        + [[each.noun, each.name, each.points, each.taken] for each in structures]
        for series, structures in taken
    ]
    names = [series.name for series, _ in taken]
    return ItemWork(names, content_hash([known, named, drawn]), make, CaseFindings.to_json, CaseFindings.from_json)


def _sizes(series: Series) -> list[list[Any]]:
    """The files of a series by what they are, since an archive is unpacked to another place each time."""
    return [[each.sop_instance_uid, each.frame, each.path.stat().st_size] for each in series.slices]


def _add_series(
    series: Series,
    structures: Sequence[AnnotatedStructure],
    cohort: Cohort,
    findings: list[Finding],
    has_reference: bool,
    *,
    named: bool,
) -> None:
    try:
        volume = read_series(series)
    except DataError as error:
        findings += [_refused(Refusal(series.name, line)) for line in str(error).splitlines()]
        return
    hu = cohort.add_image(series.name, None, volume, series.grid)
    image = (volume, series.grid) if holds_hu(hu) else None
    findings += judge_structures(series.name, structures, image, series.grid, has_reference=has_reference, named=named)


def _reader(series: Series, structures: Sequence[AnnotatedStructure]) -> Callable[[], CaseArrays]:
    def read() -> CaseArrays:
        mask = np.zeros(series.grid.shape, bool)
        for structure in structures:
            if structure.taken and not is_whole_patient(structure):
                try:
                    mask |= structure.mask(lambda _: None)
                except DataError:
                    continue  # it is among the findings
        return CaseArrays(series.grid, read_series(series), mask if mask.any() else None)

    return read


def _refused(refusal: Refusal, *, among: bool = True) -> Finding:
    severity: Severity = "note" if refusal.harmless and among else "error"
    return from_sentence("series", severity, refusal.series, None, refusal.reason)


def _passed_over(passed_over: PassedOver, *, among: bool) -> Finding:
    severity: Severity = "note" if among else "error"
    remedy = "Nothing, or take it with --series"
    return Finding("passed-over", severity, passed_over.series.name, None, passed_over.short_reason, remedy)


def _facts(index: SeriesIndex, choice: SeriesChoice, annotations: TreeAnnotations) -> dict[str, object]:
    spacings = [series.grid.spacing_mm for series in choice.series]
    return {
        "cases": len(choice.taken),
        "passed_over": len(choice.passed_over),
        "refused": len(index.refused),
        "structures": {str(path): annotations.names[path] for path in index.structures},
        "segmentations": {str(path): annotations.names[path] for path in index.segmentations},
        "others": dict(index.others),
        "spacing_mm": {
            "order": "z, y, x",
            "smallest": [min(axis) for axis in zip(*spacings, strict=True)],
            "largest": [max(axis) for axis in zip(*spacings, strict=True)],
        },
    }

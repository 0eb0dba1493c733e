"""The doctor over DICOM: series, structure sets and segmentations, before they are converted to a dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lnsegfm.datasets.doctor.cohort_checks import Cohort, holds_hu
from lnsegfm.datasets.doctor.diagnose import CaseArrays, DiagnosedCase, Diagnosis
from lnsegfm.datasets.doctor.dicom_annotations import (
    WHOLE_PATIENT,
    AnnotatedStructure,
    TreeAnnotations,
    judge_structures,
    read_annotations,
)
from lnsegfm.datasets.doctor.finding import Finding, Severity, from_sentence, ordered
from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.series import Refusal, Series, SeriesIndex, find_series, read_series
from lnsegfm.progress import Progress


def diagnose_tree(root: Path, *, progress: Progress | None = None) -> Diagnosis:
    """Look at a folder tree, a file or a zip of DICOM: every series is read, a bad one stops nothing.

    Args:
        root: Where it is.
        progress: Reported to after each series.

    Raises:
        DataError: There is no CT series, whole or broken, no structure set and no segmentation.
    """
    found = find_series(root)
    if not (found.series or found.refused or found.structures or found.segmentations):
        held = ", ".join(f"{count} {modality} images" for modality, count in found.others) or "no DICOM"
        raise DataError(f"{root}: no CT in it ({held}). Give a dataset, or a folder tree or zip with DICOM CT series.")
    findings = [_refused(refusal, among=bool(found.series)) for refusal in found.refused]
    drawings = read_annotations(found, findings)
    cohort = Cohort(None)
    for done, (series, shapes) in enumerate(zip(found.series, drawings.on, strict=True), start=1):
        findings += [
            from_sentence("told", "note", series.name, None, note, "Nothing needs doing") for note in series.notes
        ]
        _look(series, shapes, cohort, findings)
        if progress is not None:
            progress.advance(done, len(found.series), series.name)
        if not shapes and any(drawings.on):
            what = "no structure set and no segmentation was drawn on it, as on other series here"
            findings.append(
                Finding("undrawn", "note", series.name, None, what, "Nothing if it is not to be trained on")
            )
    cases = tuple(
        DiagnosedCase(s.name, s.grid, _reader(s, on)) for s, on in zip(found.series, drawings.on, strict=True)
    )
    return Diagnosis(Path(root), ordered([*findings, *cohort.finish()]), cases, _facts(found, drawings), dicom=True)


def _look(series: Series, shapes: Sequence[AnnotatedStructure], cohort: Cohort, findings: list[Finding]) -> None:
    try:
        volume = read_series(series)
    except DataError as error:
        findings += [_refused(Refusal(series.name, line)) for line in str(error).splitlines()]
        return
    hu = cohort.image(series.name, None, volume, series.grid)
    image = (volume, series.grid) if holds_hu(hu) else None
    findings += judge_structures(series.name, shapes, image, series.grid)


def _reader(series: Series, shapes: Sequence[AnnotatedStructure]) -> Callable[[], CaseArrays]:
    def read() -> CaseArrays:
        mask = np.zeros(series.grid.shape, bool)
        for shape in shapes:
            if shape.name.lower().strip() not in WHOLE_PATIENT:
                try:
                    mask |= shape.mask(lambda _: None)
                except DataError:
                    continue  # it is among the findings
        return CaseArrays(series.grid, read_series(series), mask if mask.any() else None)

    return read


def _refused(refusal: Refusal, *, among: bool = True) -> Finding:
    severity: Severity = "note" if refusal.harmless and among else "error"
    return from_sentence("series", severity, refusal.series, None, refusal.reason)


def _facts(found: SeriesIndex, drawings: TreeAnnotations) -> dict[str, object]:
    spacings = [series.grid.spacing_mm for series in found.series]
    return {
        "cases": len(found.series),
        "refused": len(found.refused),
        "structures": {str(path): drawings.names[path] for path in found.structures},
        "segmentations": {str(path): drawings.names[path] for path in found.segmentations},
        "others": dict(found.others),
        "spacing_mm": {
            "order": "z, y, x",
            "smallest": [min(axis) for axis in zip(*spacings, strict=True)],
            "largest": [max(axis) for axis in zip(*spacings, strict=True)],
        },
    }

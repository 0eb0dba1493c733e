"""The doctor over a dataset: the check that precedes a training, and everything else that is worth a review."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lnsegfm.datasets.check import DatasetCheck, Problem, examined_together
from lnsegfm.datasets.dataset import Case, Dataset
from lnsegfm.datasets.doctor.case_findings import checking_work
from lnsegfm.datasets.doctor.cohort_checks import Cohort
from lnsegfm.datasets.doctor.finding import Finding, Severity, ordered
from lnsegfm.datasets.doctor.splits import judge_splits, test_images
from lnsegfm.errors import DataError
from lnsegfm.imaging.files import read_mask, read_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.jobs.pieces import WorkSharer, do_here
from lnsegfm.progress import Progress

FORMAT = "lnsegfm.doctor/1"
_FIX_OF = {
    "label-geometry": "copy-header",
    "nan": "nan-to-air",
    "duplicate-image": "drop-duplicates",
    "sheared": "straighten",
}


@dataclass(frozen=True, eq=False)
class CaseArrays:
    """The arrays of a case for its picture: image (z, y, x), or boolean mask of all labels, or both on one grid."""

    grid: Grid
    image: np.ndarray | None
    mask: np.ndarray | None


@dataclass(frozen=True, eq=False)
class DiagnosedCase:
    """A case that was diagnosed.

    Args:
        case: Its name, or the UID of its series.
        grid: Its geometry, where it could be read.
        read: Reads it again for its picture; raises DataError where that cannot be.
    """

    case: str
    grid: Grid | None
    read: Callable[[], CaseArrays]


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found.

    Args:
        source: The folder or file.
        findings: The worst first.
        cases: The cases, in the order of the source.
        facts: What the source is, for tables and JSON.
        dicom: It is DICOM, in which names of files and folders may hold a patient's.
        checked: Of a dataset the check that precedes a training.
    """

    source: Path
    findings: tuple[Finding, ...]
    cases: tuple[DiagnosedCase, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    dicom: bool = False
    checked: DatasetCheck | None = None

    def with_findings(self, further: Sequence[Finding]) -> Diagnosis:
        """The diagnosis with further findings."""
        return replace(self, findings=ordered([*self.findings, *further]))

    def with_severity(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(finding for finding in self.findings if finding.severity == severity)

    def to_json(self) -> dict[str, Any]:
        """Everything as a JSON file has it. ``problems`` are the errors."""
        return {
            "format": FORMAT,
            **self.facts,
            "problems": [
                {"case": f.case, "file": str(f.file) if f.file else None, "what": f.what, "remedy": f.remedy}
                for f in self.with_severity("error")
            ],
            "findings": [finding.to_json() for finding in self.findings],
        }


def diagnose(dataset: Dataset, *, sharer: WorkSharer = do_here, progress: Progress | None = None) -> Diagnosis:
    """Diagnose a dataset: every file of it is read, and one that is broken does not keep the rest from being reported.

    Args:
        dataset: The dataset; the images in its ``imagesTs`` are searched for scans that are in both sets.
        sharer: Has the cases read (`lnsegfm.jobs.pieces`); here, one after the other, unless given.
        progress: Reported to after each case.
    """
    cohort = Cohort(dataset.labels, ct=dataset.channels[0].lower().startswith("ct"))
    found = sharer(checking_work(dataset), progress)
    for case in found:
        cohort.include(case.cohort)
    checked = examined_together(dataset, [case.check for case in found if case.check is not None])
    errors = [_as_finding(problem) for problem in checked.problems]
    errors += _kept_empty(dataset, checked)
    errors += _add_test_images(dataset, cohort)
    reported = {(f.case, f.what.partition(" (")[0].split()[-1]) for f in errors if f.kind == "duplicate-image"}
    rest = [f for f in cohort.finish() if not (f.kind == "duplicate-scan" and (f.case, _duplicate_of(f)) in reported)]
    grids = {case.case: case.grid for case in checked.cases}
    return Diagnosis(
        dataset.root,
        ordered([*errors, *rest, *judge_splits(dataset)]),
        tuple(
            DiagnosedCase(case.name, grids.get(case.name), _reader(case, dataset.labels.ignore))
            for case in dataset.cases
        ),
        _facts(dataset, checked),
        checked=checked,
    )


def _kept_empty(dataset: Dataset, checked: DatasetCheck) -> list[Finding]:
    """A warning for each label that the user takes for one of a scan that holds nothing: a mistake looks the same."""
    what, remedy = "the label is empty, kept as a scan that holds nothing", "Make sure that it was looked at"
    files = {case.name: case.label for case in dataset.cases}
    empty = checked.empty if dataset.allow_empty else ()
    return [Finding("label-empty", "warning", name, files[name], what, remedy) for name in empty]


def _duplicate_of(finding: Finding) -> str:
    return finding.what.removeprefix("nearly the same image as case ").split(" (")[0].split(",")[0]


def _as_finding(problem: Problem) -> Finding:
    fix = _FIX_OF.get(problem.kind)
    if problem.kind == "label-geometry" and ": shape " in problem.what:
        fix = None  # a header cannot fix that
    return Finding(problem.kind, "error", problem.case, problem.file, problem.what, problem.remedy, fix)


def _add_test_images(dataset: Dataset, cohort: Cohort) -> list[Finding]:
    found = []
    for case, path in test_images(dataset.root).items():
        try:
            cohort.add_image(case, path, *read_volume(path), held_out=True)
        except DataError as error:
            what, _, remedy = str(error).removeprefix(f"{path}: ").rstrip(".").partition(". ")
            found.append(Finding("file", "warning", case, path, what, remedy))
    return found


def _reader(case: Case, ignore: int | None) -> Callable[[], CaseArrays]:
    def read() -> CaseArrays:
        image = read_volume(case.images[0]) if case.images else None
        try:
            label = read_mask(case.label) if case.label is not None else None
        except DataError:
            label = None  # the image alone is worth a picture
        if image is None and label is None:
            raise DataError(f"Case {case.name}: no file of it can be drawn. See what was found.")
        mask = (label[0] > 0) & (label[0] != (-1 if ignore is None else ignore)) if label is not None else None
        if image is None and label is not None:
            return CaseArrays(label[1], None, mask)
        assert image is not None
        return CaseArrays(image[1], image[0], mask if mask is not None and mask.shape == image[0].shape else None)

    return read


def _facts(dataset: Dataset, checked: DatasetCheck) -> dict[str, Any]:
    spacings = [case.grid.spacing_mm for case in checked.cases if case.grid is not None]
    covered = dataset.labels.covered
    holding = Counter(
        name for case in checked.cases for name, values in covered.items() if not set(values).isdisjoint(case.values)
    )
    return {
        "cases": len(dataset.cases),
        "channels": list(dataset.channels),
        "labels": dataset.labels.to_dataset_json(),
        "labels_from": dataset.labels_from,
        "spacing_mm": {
            "order": "z, y, x",
            "smallest": [min(axis) for axis in zip(*spacings, strict=True)],
            "largest": [max(axis) for axis in zip(*spacings, strict=True)],
        },
        "cases_with_label": {name: holding[name] for name in covered},
    }

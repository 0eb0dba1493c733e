"""What is found of one case, as processes hand it to each other before all cases are taken together."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lnsegfm.datasets.check import CaseCheck, LoadedCase, examine_case
from lnsegfm.datasets.dataset import Case, Dataset
from lnsegfm.datasets.doctor.cohort_checks import Cohort
from lnsegfm.datasets.doctor.finding import Finding
from lnsegfm.imaging.grid import Grid
from lnsegfm.jobs.pieces import ItemWork, file_identity
from lnsegfm.storage import content_hash


@dataclass(frozen=True)
class CaseFindings:
    """What is found of one case.

    Args:
        cohort: What it adds to what takes all cases together, with the findings about its scan and mask.
        check: The check that precedes a training; None of a series of DICOM.
        findings: Other findings.
    """

    cohort: Cohort
    check: CaseCheck | None = None
    findings: tuple[Finding, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {
            "check": self.check.to_json() if self.check is not None else None,
            "findings": [finding.to_json() for finding in self.findings],
            "cohort": _cohort_json(self.cohort),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> CaseFindings:
        """Read what `to_json` gave."""
        check = CaseCheck.from_json(content["check"]) if content["check"] is not None else None
        return cls(_cohort_of(content["cohort"]), check, tuple(map(Finding.from_json, content["findings"])))


def checking_work(dataset: Dataset) -> ItemWork[CaseFindings]:
    """The check of the cases of a dataset as work on items."""
    ct = dataset.channels[0].lower().startswith("ct")

    def make(number: int) -> CaseFindings:
        cohort = Cohort(dataset.labels, ct=ct)
        check = examine_case(
            dataset.cases[number],
            dataset.labels,
            lambda loaded: _add(cohort, loaded),
            allow_empty=dataset.allow_empty,
        )
        return CaseFindings(cohort, check)

    settings = [dataset.labels.to_record(), list(dataset.channels), dataset.allow_empty]
    identity = content_hash([settings, [_identity(case) for case in dataset.cases]])
    names = [case.name for case in dataset.cases]
    return ItemWork(names, identity, make, CaseFindings.to_json, CaseFindings.from_json)


def _add(cohort: Cohort, loaded: LoadedCase) -> None:
    image = loaded.images[0] if loaded.images and loaded.images[0][0] == loaded.case.images[0] else None
    if loaded.label is not None:
        cohort.add_labelled(loaded.case.name, image, loaded.label, loaded.case.unlabelled)
    elif image is not None:
        cohort.add_image(loaded.case.name, *image)


def _identity(case: Case) -> list[Any]:
    return [case.name, sorted(case.unlabelled), *map(file_identity, (*case.images, case.label))]


def _cohort_json(cohort: Cohort) -> dict[str, Any]:
    facts = cohort.facts
    return {
        "findings": [finding.to_json() for finding in cohort.findings],
        "grids": {case: [_text(file), asdict(grid)] for case, (file, grid) in facts.grids.items()},
        "signatures": {
            case: [str(array.dtype), list(array.shape), base64.b64encode(array.tobytes()).decode()]
            for case, array in facts.signatures.items()
        },
        "volumes_ml": {
            label: {case: [_text(file), float(volume)] for case, (file, volume) in by_case.items()}
            for label, by_case in facts.volumes_ml.items()
        },
        "centres": {
            label: {case: [_text(file), centre.tolist()] for case, (file, centre) in by_case.items()}
            for label, by_case in facts.centres.items()
        },
        "unlabelled": {case: sorted(names) for case, names in facts.unlabelled.items()},
    }


def _cohort_of(content: Mapping[str, Any]) -> Cohort:
    cohort = Cohort(None)
    cohort.findings += map(Finding.from_json, content["findings"])
    facts = cohort.facts
    facts.grids.update({case: (_path(file), Grid(**grid)) for case, (file, grid) in content["grids"].items()})
    for case, (dtype, shape, text) in content["signatures"].items():
        facts.signatures[case] = np.frombuffer(base64.b64decode(text), np.dtype(dtype)).reshape(shape)
    for label, volumes in content["volumes_ml"].items():
        facts.volumes_ml[label].update({case: (_path(file), volume) for case, (file, volume) in volumes.items()})
    for label, centres in content["centres"].items():
        facts.centres[label].update({case: (_path(file), np.array(xyz)) for case, (file, xyz) in centres.items()})
    facts.unlabelled.update({case: frozenset(names) for case, names in content["unlabelled"].items()})
    return cohort


def _text(file: Path | None) -> str | None:
    return str(file) if file is not None else None


def _path(text: str | None) -> Path | None:
    return Path(text) if text is not None else None

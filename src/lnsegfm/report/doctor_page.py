"""What the data doctor found, as one HTML file that needs no server, no network and no other file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from scipy import ndimage

from lnsegfm.datasets.doctor.diagnose import CaseArrays, DiagnosedCase, Diagnosis
from lnsegfm.datasets.doctor.finding import FIXES, SEVERITIES, Finding
from lnsegfm.errors import DataError
from lnsegfm.imaging.box import bounding_box
from lnsegfm.progress import Progress
from lnsegfm.report.pictures import Kind, Scene, draw_place
from lnsegfm.report.templates import render_page
from lnsegfm.storage import write_text

MOST_PICTURES = 300
_MOST_VOXELS = 20_000_000  # of a box in which a mask's components are labelled


def write_doctor_page(path: Path, diagnosis: Diagnosis, *, progress: Progress | None = None) -> None:
    """Write the page of a diagnosis, whole or not at all: findings, the worst first, and a picture of each case.

    Args:
        path: The HTML file.
        diagnosis: What was found. Its cases are read again for the pictures; of one that cannot be read the page
            says so.
        progress: Reported to after each case.
    """
    diagnosis = without_names(diagnosis)
    ranked = _worst_first(diagnosis)
    anchors = {case.case: f"case-{rank}" for rank, case in enumerate(ranked, start=1)}
    page = render_page(
        "doctor.html.j2",
        title="Data check: DICOM" if diagnosis.dicom else f"Data check: {diagnosis.source.name or diagnosis.source}",
        dicom=diagnosis.dicom,
        **_summary(diagnosis),
        findings=[_row(finding, anchors) for finding in diagnosis.findings],
        fixes=[(name, FIXES[name]) for name in FIXES if any(f.fix == name for f in diagnosis.findings)],
        cases=list(_cases(diagnosis, ranked, anchors, progress)),
        facts=list(_facts(diagnosis.facts)),
    )
    write_text(path, page)


def without_names(diagnosis: Diagnosis) -> Diagnosis:
    """A diagnosis of DICOM without the names of its files and folders, which may be a patient's; others as they are.

    Structure sets and segmentations are numbered in the order of the facts; other files are just files.
    """
    if not diagnosis.dicom:
        return diagnosis
    facts, places = dict(diagnosis.facts), {}
    for held, noun in (("structures", "structure set"), ("segmentations", "segmentation")):
        listed = dict(facts.get(held, {}))
        places.update({Path(path): f"{noun} {k}" for k, path in enumerate(listed, start=1)})
        facts[held] = {str(places[Path(path)]): names for path, names in listed.items()}
    known = {looked.case for looked in diagnosis.cases}
    findings = tuple(_nameless(finding, places, known) for finding in diagnosis.findings)
    return replace(diagnosis, findings=findings, facts=facts)


def _nameless(finding: Finding, places: Mapping[Path, str], known: set[str]) -> Finding:
    what, case = finding.what, finding.case
    if case not in known and f"File {case} " in what:
        what, case = what.replace(f"File {case} ", "A file "), ""  # a file that cannot be read is called by its name
    what = re.sub(r"\bFile .+ of series ", "A file of series ", what)
    if finding.file is None:
        return replace(finding, what=what, case=case)
    for name in (str(finding.file), finding.file.name):
        what = what.replace(name, "the file") if len(name) > 2 else what
    return replace(finding, what=what, case=case, file=Path(places.get(finding.file, "a file")))


def _summary(diagnosis: Diagnosis) -> dict[str, str]:
    errors, warnings, notes = (len(diagnosis.with_severity(severity)) for severity in SEVERITIES)
    numbers = (
        (errors, "error"),
        (warnings, "warning"),
        (notes, "note"),
        (len(diagnosis.cases), "series" if diagnosis.dicom else "case"),
    )
    *found, cases = (f"{n} {what}" if n == 1 or what == "series" else f"{n} {what}s" for n, what in numbers)
    counted = f"{', '.join(found)} in {cases}"
    if errors:
        return {"kind": "bad", "headline": "Not fit to train on", "counted": counted}
    if warnings:
        return {"kind": "open", "headline": "Fit to train on, and worth a review", "counted": counted}
    return {"kind": "good", "headline": "No errors or warnings", "counted": counted}


def _worst_first(diagnosis: Diagnosis) -> list[DiagnosedCase]:
    worst: dict[str, int] = {}
    for finding in diagnosis.findings:
        rank = SEVERITIES.index(finding.severity)
        worst[finding.case] = min(rank, worst.get(finding.case, rank))
    unique = list({case.case: case for case in diagnosis.cases}.values())
    return sorted(unique, key=lambda case: (worst.get(case.case, len(SEVERITIES)), case.case))


def _row(finding: Finding, anchors: Mapping[str, str]) -> dict[str, Any]:
    return {
        "severity": finding.severity,
        "rank": SEVERITIES.index(finding.severity),
        "kind": finding.kind,
        "case": finding.case,
        "anchor": anchors.get(finding.case),
        "file": finding.file.name if finding.file else "",
        "what": finding.what,
        "remedy": finding.remedy,
        "fix": finding.fix or "",
    }


def _cases(
    diagnosis: Diagnosis, ranked: list[DiagnosedCase], anchors: Mapping[str, str], progress: Progress | None
) -> Iterator[dict[str, Any]]:
    for done, case in enumerate(ranked, start=1):
        own = [_row(finding, anchors) for finding in diagnosis.findings if finding.case == case.case]
        svg, slices, without = "", "", f"No picture: the page stops after {MOST_PICTURES}."
        if done <= MOST_PICTURES:
            try:
                svg, slices = _drawn(case.case, case.read())
                without = ""
            except DataError:
                without = "No picture: it cannot be read."
        size = ""
        if case.grid is not None:
            voxels = " x ".join(map(str, case.grid.shape))
            size = f"{voxels} voxels of {' x '.join(f'{s:.4g}' for s in case.grid.spacing_mm)} mm (z, y, x)"
        yield {
            "case": case.case,
            "anchor": anchors[case.case],
            "line": size,
            "worst": own[0]["severity"] if own else "",
            "findings": own,
            "svg": Markup(svg),
            "slices": slices,
            "without": without,
        }
        if progress is not None:
            progress.advance(done, len(ranked), case.case)


def _drawn(case: str, shown: CaseArrays) -> tuple[str, str]:
    """The three views of a case, and where they lie."""
    masks: dict[Kind, np.ndarray] = {"reference": shown.mask} if shown.mask is not None else {}
    place = _place(shown)
    at = ", ".join(f"{axis} {k + 1} of {n}" for axis, k, n in zip("zyx", place, shown.grid.shape, strict=True))
    missing = "" if masks else "; no labels on it"
    return draw_place(
        Scene(shown.grid, shown.image, masks), place, title=f"Case {case}", whole=True
    ), f"Through voxel {at}{missing}"


def _place(shown: CaseArrays) -> tuple[int, int, int]:
    """A voxel in the middle of the mask's largest piece; the middle of the scan where there is none."""
    box = bounding_box(shown.mask) if shown.mask is not None else None
    if shown.mask is None or box is None:
        z, y, x = (n // 2 for n in shown.grid.shape)
        return z, y, x
    step = 1
    while shown.mask[box].size / step**3 > _MOST_VOXELS:
        step += 1
    pieces, count = ndimage.label(shown.mask[box][::step, ::step, ::step], structure=np.ones((3, 3, 3)))
    if not count:  # the thinning met none of its voxels
        voxels = np.argwhere(shown.mask[box])[0]
    else:
        voxels = np.argwhere(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1)
        voxels = voxels[np.argmin(((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1))] * step
    z, y, x = (int(start.start + at) for start, at in zip(box, voxels, strict=True))
    return z, y, x


def _facts(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in facts.items():
        words = name.replace("_", " ")
        if isinstance(value, (Mapping, list, tuple)) and not value:
            continue
        if name == "spacing_mm":
            low, high = (" x ".join(f"{v:.4g}" for v in value[end]) for end in ("smallest", "largest"))
            if low:
                yield f"spacing mm ({value['order']})", low if low == high else f"{low} to {high}"
        elif isinstance(value, Mapping):
            yield words, "; ".join(f"{key}: {_words(inner)}" for key, inner in value.items())
        else:
            yield words, _words(value)


def _words(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_words(v) for v in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)

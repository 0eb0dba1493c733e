"""Facts that are collected scan by scan, and findings that take all scans together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import ndimage

from lnsegfm.datasets.doctor.body import Body, find_body
from lnsegfm.datasets.doctor.duplicate_scans import find_duplicate_scans, signature
from lnsegfm.datasets.doctor.finding import Finding, Severity
from lnsegfm.datasets.doctor.fragments import can_lose_fragments
from lnsegfm.datasets.doctor.geometry import judge_grids, judge_nifti_header
from lnsegfm.datasets.doctor.hu import TISSUE_HU, HuFacts, judge_hu, measure_hu
from lnsegfm.datasets.doctor.mask_checks import AIR_HU, judge_air, judge_fragments, judge_place, judge_sides
from lnsegfm.datasets.doctor.sides import centre_mm, judge_other_side, judge_unnamed_sides, middle_x_mm, swapped
from lnsegfm.datasets.doubtful_labels import doubtful_labels
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.datasets.sided_labels import lone_sides, side_pairs
from lnsegfm.imaging.grid import Grid
from lnsegfm.messages import listed

_FEWEST = 5  # labelled cases that a volume is compared with
_OFF_VOLUME = 5.0


@dataclass(eq=False)
class CohortFacts:
    """What is kept of scans for findings that take them together.

    Args:
        grids: File and geometry of each scan.
        signatures: Each scan reduced to a few voxels.
        volumes_ml: Of labels by case the file of the mask, and the volume.
        unlabelled: Labels that are known not to be annotated, by case.
        centres: Of labels by case the file of the mask, and the centre (x, y, z), mm, from the middle of the body in x.
    """

    grids: dict[str, tuple[Path | None, Grid]] = field(default_factory=dict)
    signatures: dict[str, np.ndarray] = field(default_factory=dict)
    volumes_ml: dict[str, dict[str, tuple[Path | None, float]]] = field(default_factory=lambda: defaultdict(dict))
    unlabelled: dict[str, Collection[str]] = field(default_factory=dict)
    centres: dict[str, dict[str, tuple[Path | None, np.ndarray]]] = field(default_factory=lambda: defaultdict(dict))


@dataclass(eq=False)
class Cohort:
    """Scans that are added one after the other; ``findings`` grows.

    Args:
        labels: What the numbers in the masks mean; None where there are no masks.
        ct: Whether the images are CT: only then do HU mean anything.
    """

    labels: LabelMap | None
    ct: bool = True
    findings: list[Finding] = field(default_factory=list)
    facts: CohortFacts = field(default_factory=CohortFacts)

    def include(self, other: Cohort) -> None:
        """Add the scans of another cohort after those of this one, as if they had been added here."""
        self.findings += other.findings
        self.facts.grids.update(other.facts.grids)
        self.facts.signatures.update(other.facts.signatures)
        self.facts.unlabelled.update(other.facts.unlabelled)
        for label, volumes in other.facts.volumes_ml.items():
            self.facts.volumes_ml[label].update(volumes)
        for label, centres in other.facts.centres.items():
            self.facts.centres[label].update(centres)

    def add_image(
        self, case: str, file: Path | None, volume: np.ndarray, grid: Grid, *, held_out: bool = False
    ) -> HuFacts | None:
        """Add a scan (z, y, x) without a mask; one that is ``held_out`` is only compared with the others.

        Returns:
            Statistics of its values; None where it is no CT, or too small.
        """
        hu = measure_hu(volume) if self.ct else None
        small = signature(volume, hu.tissue if hu is not None else float(np.median(volume)))
        if small is not None:
            self.facts.signatures[f"{case} (imagesTs)" if held_out else case] = small
        if held_out:
            return hu
        self.facts.grids[case] = file, grid
        if file is not None and file.is_file():
            self.findings += judge_nifti_header(case, file)
        if hu is not None:
            self.findings += judge_hu(hu, case, file)
        if volume.size > 1 and volume.flat[0] == volume.flat[-1] and volume.min() == volume.max():
            what = f"every voxel is {volume.flat[0]:g}: there is no image in it"
            self.findings.append(Finding("uniform", "warning", case, file, what, "Export the scan again"))
        return hu

    def add_labelled(
        self,
        case: str,
        image: tuple[Path | None, np.ndarray, Grid] | None,
        label: tuple[Path | None, np.ndarray, Grid],
        unlabelled: Collection[str] = (),
    ) -> None:
        """Add a mask, its scan where it can be read, and the labels that are known not to be annotated."""
        hu = self.add_image(case, *image) if image is not None else None
        file, mask, grid = label
        if self.labels is None or mask.min() < 0 or mask.max() > max(self.labels.allowed):
            return  # the check reports values without a name
        self.facts.unlabelled[case] = unlabelled
        same_grid = image is not None and image[2].same_voxels(grid)
        scan = image if same_grid and holds_hu(hu) else None
        boxes = ndimage.find_objects(mask)
        centres: dict[str, np.ndarray] = {}
        for name, values in self.labels.covered.items():
            box = _around([boxes[value - 1] for value in values if value <= len(boxes)])
            if box is None:
                continue
            inside = self.labels.voxels(mask[box], name)
            fix = "drop-fragments" if name in can_lose_fragments(self.labels) else None
            if (centre := centre_mm(inside, grid, [axis.start for axis in box])) is not None:
                centres[name] = centre
            volume_ml = float(np.count_nonzero(inside)) * grid.voxel_volume_ml
            self.facts.volumes_ml[name][case] = file, volume_ml
            self.findings += judge_fragments(case, file, f"label {name}", inside, grid, fix=fix)
            if scan is not None:
                self.findings += judge_air(case, file, f"label {name}", scan[1][box][inside])
        body = find_body(scan[1], scan[2]) if scan is not None else None
        self._sides(case, file, centres, middle_x_mm(grid, body))
        if scan is not None and body is not None:
            self._outside(case, file, mask, scan, body)

    def _sides(self, case: str, file: Path | None, centres: dict[str, np.ndarray], middle_x: float) -> None:
        """Pairs that lie the wrong way round, and where the other labels lie."""
        pairs = side_pairs(self._names)
        wrong = swapped({name: float(centre[0]) for name, centre in centres.items()}, pairs)
        self.findings += judge_sides(case, file, "label", wrong)
        for name in centres.keys() - {name for left, right, _ in wrong for name in (left, right)}:
            self.facts.centres[name][case] = file, centres[name] - (middle_x, 0, 0)

    @property
    def _names(self) -> list[str]:
        return list(self.labels.names) if self.labels is not None else []

    def finish(self) -> list[Finding]:
        """Add what takes all scans together, after the last one; returns all findings."""
        self.findings += judge_grids(self.facts.grids)
        for first, second, correlation, axes in find_duplicate_scans(self.facts.signatures):
            how = f", mirrored along {axes}" if axes else ""
            what = f"nearly the same image as case {first}{how} (correlation {correlation:.3f} on a coarse grid)"
            remedy = "Look at both: keep one, or give them one subject in subjects.csv"
            self.findings.append(Finding("duplicate-scan", "warning", second, self._file(second), what, remedy))
        for name, volumes in self.facts.volumes_ml.items():
            self.findings += _volume_outliers(name, volumes)
        self._cohort_sides()
        self._not_everywhere()
        return self.findings

    def _cohort_sides(self) -> None:
        """Labels of a side that lie elsewhere in most cases, and labels that are sides without saying so."""
        sided = {name for pair in side_pairs(self._names) for name in pair} | set(lone_sides(self._names))
        for name in sorted(sided & self.facts.centres.keys()):
            offsets = {case: (file, float(centre[0])) for case, (file, centre) in self.facts.centres[name].items()}
            self.findings += judge_other_side(name, offsets)
        others = {
            name: {case: centre for case, (_, centre) in self.facts.centres[name].items()}
            for name in self._names
            if name not in sided and name in self.facts.centres
        }
        self.findings += judge_unnamed_sides(others, self.facts.volumes_ml)

    def _file(self, case: str) -> Path | None:
        return self.facts.grids[case][0] if case in self.facts.grids else None

    def _outside(
        self,
        case: str,
        file: Path | None,
        mask: np.ndarray,
        image: tuple[Path | None, np.ndarray, Grid],
        body: Body,
    ) -> None:
        if self.labels is None:
            return
        if body.table_in_front:
            what = "a table lies in front of the patient: prone, or turned upside down in the header"
            self.findings.append(Finding("table-in-front", "note", case, image[0], what, "Look at an axial slice"))
        outside = body.outside(mask)
        for name, values in self.labels.covered.items():
            ml = self.facts.volumes_ml[name].get(case, (None, 0.0))[1]
            voxels = round(ml / image[2].voxel_volume_ml)
            self.findings += judge_place(case, file, f"label {name}", sum(outside.get(v, 0) for v in values), voxels)

    def _not_everywhere(self) -> None:
        if self.labels is None:
            return
        for name in self.labels.names:
            annotated = [case for case, without in self.facts.unlabelled.items() if name not in without]
            lacking = [case for case in annotated if case not in self.facts.volumes_ml.get(name, {})]
            having = len(annotated) - len(lacking)
            if lacking:
                severity: Severity = "note" if having else "warning"
                most = doubtful_labels([name], {case: [name] * (case not in lacking) for case in annotated})
                missed = f", and most have it: perhaps not annotated in {listed(lacking)}" if most else ""
                what = f"label {name} occurs in {having} of {len(annotated)} labelled cases{missed}"
                remedy = "Nothing where the structure is absent; where nobody annotated it, list it in unlabelled.csv"
                self.findings.append(Finding("label-missing", severity, "", None, what, remedy))


def _around(boxes: Sequence[tuple[slice, ...] | None]) -> tuple[slice, ...] | None:
    """The smallest box around those of a label's values; None where the mask has none of them."""
    found = [box for box in boxes if box is not None]
    axes = [(min(a.start for a in axis), max(a.stop for a in axis)) for axis in zip(*found, strict=True)]
    return tuple(slice(*ends) for ends in axes) or None


def holds_hu(facts: HuFacts | None) -> bool:
    """Whether a scan's values are HU, closely enough to separate air from tissue."""
    return facts is not None and abs(facts.tissue) <= TISSUE_HU and facts.lowest < AIR_HU


def _volume_outliers(name: str, volumes: dict[str, tuple[Path | None, float]]) -> list[Finding]:
    """Volumes off the median by more than a factor of 5 and by 5 robust standard deviations of the logarithm."""
    if len(volumes) < _FEWEST:
        return []
    logs = {case: float(np.log(ml)) for case, (_, ml) in volumes.items()}
    middle = float(np.median(list(logs.values())))
    spread = 1.4826 * float(np.median([abs(v - middle) for v in logs.values()]))
    limit = max(float(np.log(_OFF_VOLUME)), 5 * spread)
    outliers = []
    for case, (file, ml) in volumes.items():
        if abs(logs[case] - middle) > limit:
            what = f"label {name} has {ml:.3g} ml, and the median of {len(volumes)} cases is {np.exp(middle):.3g} ml"
            remedy = "Look whether it is complete, or holds something else"
            outliers.append(Finding("label-volume", "warning", case, file, what, remedy))
    return outliers

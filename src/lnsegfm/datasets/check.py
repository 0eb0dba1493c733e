"""Whether a dataset can be trained on: everything that is wrong with any case, at once, one line each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lnsegfm.datasets.dataset import Case, Dataset, channel_of
from lnsegfm.datasets.doubtful_labels import doubtful_labels
from lnsegfm.datasets.labels import LabelMap, values_in
from lnsegfm.datasets.unlabelled import UNLABELLED
from lnsegfm.errors import DataError
from lnsegfm.grouped_lines import grouped_lines
from lnsegfm.imaging.files import read_mask, read_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.image_error import ImageError
from lnsegfm.imaging.orientation import same_voxels, turned_onto
from lnsegfm.imaging.scan_hash import scan_hash
from lnsegfm.imaging.stored_image import nifti_notes
from lnsegfm.messages import counted, listed
from lnsegfm.progress import Progress


@dataclass(frozen=True)
class Problem:
    """One problem of a dataset.

    Args:
        case: Name of the case.
        file: The file it is about; None where a file is missing.
        what: What is wrong, without a full stop.
        remedy: What to do about it, a sentence without its full stop.
        kind: What kind of thing, a word or two with hyphens.
    """

    case: str
    file: Path | None
    what: str
    remedy: str
    kind: str = "file"

    def __str__(self) -> str:
        file = f" {self.file}:" if self.file else ""
        return " ".join(f"Case {self.case}:{file} {self.what}. {self.remedy}.".split())


@dataclass(frozen=True)
class CaseCheck:
    """The check of one case.

    Args:
        case: Its name.
        problems: What is wrong with it.
        grid: Geometry of its first image that could be read.
        values: Distinct values in its label.
        scan_hashes: `scan_hash` of each image that could be read.
        notes: What a user should know of files that are read nevertheless, a line each.
        empty: Its label was read and holds nothing.
    """

    case: str
    problems: tuple[Problem, ...]
    grid: Grid | None
    values: tuple[int, ...]
    scan_hashes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    empty: bool = False

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values."""
        problems = [asdict(problem) | {"file": problem.file and str(problem.file)} for problem in self.problems]
        grid = None if self.grid is None else asdict(self.grid)
        return asdict(replace(self, problems=(), grid=None)) | {"problems": problems, "grid": grid}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> CaseCheck:
        """Read what `to_json` gave."""
        problems = (
            Problem(one["case"], one["file"] and Path(one["file"]), one["what"], one["remedy"], one["kind"])
            for one in table["problems"]
        )
        return cls(
            case=table["case"],
            problems=tuple(problems),
            grid=None if table["grid"] is None else Grid(**table["grid"]),
            values=tuple(table["values"]),
            scan_hashes=tuple(table["scan_hashes"]),
            notes=tuple(table["notes"]),
            empty=table["empty"],
        )


@dataclass(frozen=True, eq=False)
class LoadedCase:
    """The arrays of one case, for further checks.

    Args:
        case: The case.
        images: File, voxels (z, y, x) and grid of each image that could be read.
        label: The same of its label, if there is one that could be read, on the axes of the first image.
        problems: What is wrong with it.
    """

    case: Case
    images: tuple[tuple[Path, np.ndarray, Grid], ...]
    label: tuple[Path, np.ndarray, Grid] | None
    problems: tuple[Problem, ...]


CaseVisitor = Callable[[LoadedCase], None]
"""Is called with the arrays of each case while they are in memory."""


@dataclass(frozen=True)
class DatasetCheck:
    """The check of a dataset: case by case, and everything that is wrong with it."""

    cases: tuple[CaseCheck, ...]
    problems: tuple[Problem, ...]

    @property
    def empty(self) -> tuple[str, ...]:
        """Names of the cases whose labels hold nothing."""
        return tuple(case.case for case in self.cases if case.empty)

    def lacking(self, labels: LabelMap, names: Collection[str]) -> tuple[str, ...]:
        """The labels that none of some cases holds.

        Args:
            labels: Of the dataset.
            names: The cases.
        """
        held = {value for case in self.cases if case.case in names for value in case.values}
        return tuple(name for name, values in labels.covered.items() if held.isdisjoint(values))

    def holding(self, labels: LabelMap) -> dict[str, list[str]]:
        """The labels that each case's reference holds, by case; cases whose labels hold nothing at all are left out.

        Args:
            labels: Of the dataset.
        """
        values = {case.case: set(case.values) for case in self.cases if case.values and not case.empty}
        named = labels.covered.items()
        return {case: [n for n, of in named if not held.isdisjoint(of)] for case, held in values.items()}

    @property
    def scan_hashes(self) -> dict[str, str]:
        """`scan_hash` of each case's first channel."""
        return {case.case: case.scan_hashes[0] for case in self.cases if case.scan_hashes}


def check(dataset: Dataset, *, progress: Progress | None = None) -> list[Problem]:
    """Everything that keeps a dataset from being trained on; empty when nothing is.

    Args:
        dataset: The dataset. Every image and label of it is read.
        progress: Reported to after each case.
    """
    return list(examine(dataset, progress=progress).problems)


def require_usable(
    dataset: Dataset,
    *,
    progress: Progress | None = None,
    checked: DatasetCheck | None = None,
    absent: Collection[str] = (),
) -> DatasetCheck:
    """Check a dataset before anything runs.

    Notes on files that are read nevertheless go to ``progress``, and the scans that hold nothing, by name. A check that
    was made already is taken as it is. Labels that are said to be ``absent`` where they are empty are not in doubt.

    Raises:
        DataError: Something is wrong; one line for each thing.
    """
    checked = checked or examine(dataset, progress=progress)
    if checked.problems:
        raise DataError(*grouped_lines(map(str, checked.problems)))
    if progress is not None:
        for line in (line for case in checked.cases for line in case.notes):
            progress.stage(line)
        for line in _doubts(dataset, checked, absent):
            progress.stage(line)
        if checked.empty:
            number = f"{len(checked.empty)} of {counted(len(checked.cases), 'label')}"
            progress.stage(f"Empty, kept as scans that hold nothing: {number} ({', '.join(checked.empty)})")
    return checked


def _doubts(dataset: Dataset, checked: DatasetCheck, absent: Collection[str]) -> list[str]:
    """A line for each label that some cases lack and most have, unless they are known not to be annotated."""
    holding = checked.holding(dataset.labels)
    unlabelled = {case.name: case.unlabelled for case in dataset.cases}
    return [
        f"Label {label}: {len(cases)} of {counted(len(holding), 'case')} have none ({listed(cases)}), and it counts as "
        f"absent there in training. List them in {UNLABELLED} if nobody annotated it; --absent {label} says that it is"
        for label, cases in doubtful_labels(dataset.labels.names, holding, unlabelled=unlabelled, absent=absent).items()
    ]


def check_case(case: Case, labels: LabelMap, *, allow_empty: bool = False) -> list[Problem]:
    """What is wrong with one case by itself: its files, their geometry, their values."""
    return list(examine_case(case, labels, allow_empty=allow_empty).problems)


def examine(dataset: Dataset, *, progress: Progress | None = None, visit: CaseVisitor | None = None) -> DatasetCheck:
    """Read every case and check it; see :func:`check`.

    Args:
        dataset: The dataset.
        progress: As in :func:`check`.
        visit: Called with the arrays of each case; none are kept without it.
    """
    cases = []
    for done, case in enumerate(dataset.cases, start=1):
        cases.append(examine_case(case, dataset.labels, visit, allow_empty=dataset.allow_empty))
        if progress is not None:
            progress.advance(done, len(dataset.cases), case.name)
    return examined_together(dataset, cases)


def examined_together(dataset: Dataset, cases: Sequence[CaseCheck]) -> DatasetCheck:
    """The check of a dataset from those of its cases, in their order."""
    problems = [
        *(problem for case in cases for problem in case.problems),
        *(problem for case in dataset.cases for problem in _missing_channels(case, dataset.channels)),
        *_duplicate_names(dataset.cases),
        *_duplicate_images(dataset.cases, cases),
    ]
    return DatasetCheck(tuple(cases), tuple(dict.fromkeys(sorted(problems, key=lambda problem: problem.case))))


def examine_case(
    case: Case, labels: LabelMap, visit: CaseVisitor | None = None, *, allow_empty: bool = False
) -> CaseCheck:
    """Read one case and check it; see :func:`check_case`."""
    problems: list[Problem] = []
    hashes: list[str] = []
    images: list[tuple[Path, np.ndarray, Grid]] = []
    label: tuple[Path, np.ndarray, Grid] | None = None
    values: tuple[int, ...] = ()
    grid: Grid | None = None
    if not case.images:
        remedy = "Add its image or remove the label"
        problems.append(Problem(case.name, case.label, "a label without an image", remedy, "no-image"))
    for path in case.images:
        try:
            volume, own = read_volume(path)
        except ImageError as error:
            problems.append(Problem(case.name, path, error.what, error.remedy, error.kind))
            continue
        problems += _non_finite_voxels(case, path, volume)
        if min(own.shape) < 2:
            what = f"it is one slice ({'x'.join(map(str, own.shape))} voxels, z, y, x): networks take volumes"
            problems.append(Problem(case.name, path, what, "Give the whole scan", "single-slice"))
        hashes.append(scan_hash(volume, own))
        if visit is not None:
            images.append((path, volume, own))
        if grid is None:
            grid, first = own, path
        elif not same_voxels(own, grid):
            what = f"its geometry is not that of {first.name}: {own.difference(grid)}"
            problems.append(Problem(case.name, path, what, "Resample it onto the first channel", "channels"))
    if case.label is None:
        image = case.images[0] if case.images else None
        remedy = "Add its label or remove the image"
        problems.append(Problem(case.name, image, "an image without a label", remedy, "no-label"))
    else:
        try:
            label = (case.label, *read_mask(case.label))
        except ImageError as error:
            problems.append(Problem(case.name, case.label, error.what, error.remedy, error.kind))
        else:
            values = tuple(values_in(label[1]))
            problems += _check_label(case, case.label, label[2], values, labels, grid)
            problems += _unlabelled(case, case.label, values, labels)
            problems += [] if allow_empty and 0 in values else _empty_label(case, case.label, values, labels)
            if grid is not None:
                label = (case.label, *turned_onto(label[1], label[2], grid))
    if visit is not None:
        visit(LoadedCase(case, tuple(images), label, tuple(problems)))
    empty = 0 in values and not set(values) - {0, labels.ignore, *labels.dropped}
    return CaseCheck(case.name, tuple(problems), grid, values, tuple(hashes), _notes(case), empty)


def _notes(case: Case) -> tuple[str, ...]:
    files = (path for path in (*case.images, case.label) if path is not None)
    return tuple(f"Case {case.name}: {path.name}: {note}." for path in files for note in nifti_notes(path))


def _check_label(
    case: Case, path: Path, own: Grid, values: Sequence[int], labels: LabelMap, grid: Grid | None
) -> list[Problem]:
    problems = []
    if grid is not None and not same_voxels(own, grid):
        what = f"its geometry is not its image's: {own.difference(grid)}"
        remedy = "Resample the label onto the image, or copy the image's header where only the header is wrong"
        problems.append(Problem(case.name, path, what, remedy, "label-geometry"))
    if unknown := [value for value in values if value not in labels.allowed]:
        what = f"label values {_first_values(unknown)} are not among {labels}"
        remedy = "Name every value (--label NAME=VALUE) or renumber the mask"
        problems.append(Problem(case.name, path, what, remedy, "label-values"))
    return problems


def _unlabelled(case: Case, path: Path, values: Sequence[int], labels: LabelMap) -> list[Problem]:
    plain = {} if labels.regions else labels.covered
    held = [name for name, own in plain.items() if name in case.unlabelled and set(own) & set(values)]
    remedy = "Remove its line from unlabelled.csv, or take it out of the mask"
    problems = [
        Problem(case.name, path, f"label {name} is said to be unlabelled, and is there", remedy, "unlabelled")
        for name in held
    ]
    if case.unlabelled and labels.regions:
        what, remedy = "labels of regions cannot be left out of a case", "Remove its lines from unlabelled.csv"
        problems.append(Problem(case.name, path, what, remedy, "unlabelled"))
    if case.unlabelled >= set(labels.names):
        what, remedy = "all of its labels are said to be unlabelled", "Take the case out"
        problems.append(Problem(case.name, path, what, remedy, "unlabelled"))
    return problems


def _empty_label(case: Case, path: Path, values: Sequence[int], labels: LabelMap) -> list[Problem]:
    if set(values) - {0, labels.ignore, *labels.dropped}:
        return []
    remedy = "Annotate it, take the case out, or keep every such scan with --allow-empty: it truly holds nothing"
    if 0 not in values:  # ignored throughout
        remedy = "Annotate it or take the case out"
    return [Problem(case.name, path, "the label is empty", remedy, "label-empty")]


def _non_finite_voxels(case: Case, path: Path, volume: np.ndarray) -> list[Problem]:
    if not np.issubdtype(volume.dtype, np.inexact):
        return []
    count = sum(int(np.count_nonzero(~np.isfinite(part))) for part in volume)
    remedy = "Replace them, for CT by -1024 (air)"
    return [Problem(case.name, path, f"{count} voxels are NaN or infinite", remedy, "nan")] if count else []


def _missing_channels(case: Case, channels: Sequence[str]) -> list[Problem]:
    if not case.images:
        return []
    stated = [channel_of(case, image) for image in case.images]
    expected = set(range(len(channels)))
    present = set(range(len(stated))) if None in stated else {c for c in stated if c is not None}
    problems = []
    if missing := sorted(expected - present):
        named = ", ".join(f"_{c:04d} ({channels[c]})" for c in missing)
        problems.append(Problem(case.name, case.images[0], f"channel {named} is missing", "Add the file", "channels"))
    if surplus := sorted(present - expected):
        what = f"channel {', '.join(f'_{c:04d}' for c in surplus)} is not one of the dataset's {len(channels)}"
        remedy = "Name it in channel_names or remove the file"
        problems.append(Problem(case.name, case.images[-1], what, remedy, "channels"))
    return problems


def _duplicate_names(cases: Sequence[Case]) -> list[Problem]:
    by_name: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_name[case.name].append(case)
    problems = []
    for name, copies in by_name.items():
        if len(copies) > 1:
            files = {path: None for case in copies for path in (*case.images, case.label) if path is not None}
            what = f"this name occurs {len(copies)} times: {', '.join(path.name for path in files)}"
            problems.append(Problem(name, None, what, "Keep one image and one label of each name", "duplicate-name"))
    return problems


def _duplicate_images(cases: Sequence[Case], checks: Sequence[CaseCheck]) -> list[Problem]:
    first: dict[tuple[str, ...], Case] = {}
    problems = []
    for case, checked in zip(cases, checks, strict=True):
        if not case.images or len(checked.scan_hashes) != len(case.images):
            continue
        earlier = first.setdefault(checked.scan_hashes, case)
        if earlier.name != case.name:
            what = f"the same image as case {earlier.name} ({earlier.images[0].name})"
            problems.append(Problem(case.name, case.images[0], what, "Keep one of the two", "duplicate-image"))
    return problems


def _first_values(values: Sequence[int], most: int = 10) -> str:
    listed = ", ".join(map(str, values[:most]))
    return listed if len(values) <= most else f"{listed}, ... ({len(values)} in all)"

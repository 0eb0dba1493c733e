"""Divisions into training and held-out cases in which a case or patient is in both."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lnsegfm.datasets.dataset import Dataset
from lnsegfm.datasets.doctor.finding import Finding
from lnsegfm.datasets.nnunet_layout import case_of
from lnsegfm.errors import DataError
from lnsegfm.imaging.files import image_files
from lnsegfm.storage import read_json

SPLIT_FILES = ("splits.json", "splits_final.json")
TEST_FOLDER = "imagesTs"
_COUNTER = re.compile(r"(?P<subject>.*[^\W_].*?)[_\-. ]+(?:\d{1,2}|[a-zA-Z]|[tT]\d|pre|post)")
_MOST_PER_PATIENT = 4  # scans of one patient: more that share the start of their name are a site, not a patient


@dataclass(frozen=True)
class Division:
    """One division of cases.

    Args:
        source: Where it is stated, for people to read.
        file: The file that states it, if one does.
        trained: Names of the cases that are trained on.
        held_out: Names of those that are not.
    """

    source: str
    file: Path | None
    trained: frozenset[str]
    held_out: frozenset[str]


def test_images(root: Path) -> dict[str, Path]:
    """The first channel of the images in ``imagesTs``, by case."""
    folder = root / TEST_FOLDER
    if not folder.is_dir():
        return {}
    found: dict[str, Path] = {}
    for path in image_files(folder):
        found.setdefault(case_of(path), path)
    return found


def judge_splits(dataset: Dataset) -> list[Finding]:
    """What is wrong with the divisions that a dataset's folder states, and with its ``subjects.csv``."""
    names = [case.name for case in dataset.cases]
    tests = test_images(dataset.root)
    guessed = guess_subjects({*names, *tests})
    found: list[Finding] = []
    divisions = list(_stated(dataset.root, found))
    if tests:
        divisions.append(Division(f"imagesTr and {TEST_FOLDER}", None, frozenset(names), frozenset(tests)))
    for division in divisions:
        found += _shared(division, dataset.subjects, guessed)
    if unknown := sorted(set(dataset.subjects) - {*names, *tests}):
        what = f"subjects.csv names {len(unknown)} cases that are not here: {_first_names(unknown)}"
        found.append(Finding("subjects", "note", "", dataset.root / "subjects.csv", what, "Correct the names"))
    if not dataset.subjects and guessed:
        groups = _grouped(guessed)
        examples = "; ".join(", ".join(group) for group in list(groups.values())[:3])
        what = f"by their names {len(groups)} patients have several scans ({examples}), and there is no subjects.csv"
        remedy = "Write subjects.csv (case,subject), so that none of them is trained on and held out at once"
        found.append(Finding("subjects", "note", "", None, what, remedy))
    return found


def guess_subjects(names: Iterable[str]) -> dict[str, str]:
    """The patient of each case that seems to have several scans, by names such as ``p7_1`` and ``p7_2``.

    Names that share all but a counter of one or two digits, a letter, ``t0``, ``pre`` or ``post`` are taken for one
    patient's, if there are two to four of them, and if not all names share it.
    """
    names = sorted(set(names))
    starts = {name: match["subject"] for name in names if (match := _COUNTER.fullmatch(name))}
    groups = _grouped(starts)
    if len(groups) < 2 and len(starts) == len(names):
        return {}
    return {n: subject for subject, group in groups.items() if 2 <= len(group) <= _MOST_PER_PATIENT for n in group}


def _grouped(subjects: Mapping[str, str]) -> dict[str, list[str]]:
    groups = defaultdict(list)
    for name, subject in subjects.items():
        groups[subject].append(name)
    return dict(groups)


def _stated(root: Path, found: list[Finding]) -> Iterator[Division]:
    for name in SPLIT_FILES:
        file = root / name
        if not file.is_file():
            continue
        try:
            content = read_json(file)
            folds = content if isinstance(content, list) else [content]
            divisions = [_division(file, k, fold, len(folds)) for k, fold in enumerate(folds)]
        except DataError as error:
            remedy = 'Write {"shots": [...], "held_out": [...]} or nnU-Net\'s [{"train": [...], "val": [...]}]'
            found.append(Finding("split", "warning", "", file, str(error).rstrip("."), remedy))
            continue
        yield from divisions


def _division(file: Path, number: int, fold: Any, folds: int) -> Division:
    for trained, held_out in (("shots", "held_out"), ("train", "val")):
        if isinstance(fold, Mapping) and {trained, held_out} <= set(fold):
            lists = fold[trained], fold[held_out]
            if all(isinstance(part, list) and all(isinstance(n, str) for n in part) for part in lists):
                source = file.name if folds == 1 else f"{file.name}, fold {number}"
                return Division(source, file, frozenset(lists[0]), frozenset(lists[1]))
    raise DataError(f"{file.name}: fold {number} is no table of two lists of case names.")


def _shared(division: Division, stated: Mapping[str, str], guessed: Mapping[str, str]) -> list[Finding]:
    found = []
    remedy = "Take it out of one of the two: a result on held-out cases would be too good"
    for case in sorted(division.trained & division.held_out):
        what = f"it is trained on and held out at once ({division.source})"
        found.append(Finding("split", "warning", case, division.file, what, remedy))
    for source, subjects in (("subjects.csv", stated), ("their names", {} if stated else guessed)):
        trained = {subjects[case]: case for case in sorted(division.trained) if case in subjects}
        for case in sorted(division.held_out - division.trained):
            if case in subjects and (other := trained.get(subjects[case])) is not None:
                what = f"it is held out, and case {other} of the same patient (by {source}) is trained on"
                found.append(
                    Finding("subject-shared", "warning", case, division.file, f"{what} ({division.source})", remedy)
                )
    return found


def _first_names(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")

"""What is understood of a folder of scans and masks, before anything is written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lnsegfm.datasets.arrange.arrange_options import ArrangeOptions
from lnsegfm.datasets.arrange.case_pairing import FolderPairing, MaskFile, ScanFiles, pair
from lnsegfm.datasets.arrange.channels import channels_of, volumes_in
from lnsegfm.datasets.arrange.found_files import FoundFile, find_files
from lnsegfm.datasets.arrange.mask_parts import MaskPart, named_parts
from lnsegfm.datasets.arrange.unclear import require_clear, require_found
from lnsegfm.datasets.dataset import Case
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.datasets.listed_files import dataset_list, training_list
from lnsegfm.errors import DataError
from lnsegfm.messages import counted
from lnsegfm.storage import read_json

_VISIT = re.compile(
    r"(19|20)\d{2}([-_.]?\d{2}){0,2}|(ses|session|visit|scan|study|tp|timepoint|week|month|day|v|t)?[-_ ]?\d{1,3}"
    r"|baseline|follow[-_ ]?up[-_ ]?\d*|pre|post",
    re.IGNORECASE,
)
"""Folders within a patient's that name a date or a visit."""


@dataclass(frozen=True)
class ArrangedCase:
    """One case: its files, and what each is.

    Args:
        name: What it is called.
        subject: Whose scan it is, as far as folders tell.
        images: A file a channel; one file of several volumes is there once for each.
        volumes: Which volume of each file is meant; None where it has one.
        parts: What its mask is made of, the label that keeps a shared voxel first; none where it has no mask.
        unlabelled: Labels that other cases have a file for and this one has not.
    """

    name: str
    subject: str
    images: tuple[Path, ...]
    volumes: tuple[int | None, ...]
    parts: tuple[MaskPart, ...] = ()
    unlabelled: tuple[str, ...] = ()


@dataclass(frozen=True)
class Arrangement:
    """The cases of a folder, and what is not understood of it.

    Args:
        source: The folder.
        cases: In the order of their names.
        labels: What the masks will hold; None where there are none.
        labels_from: Where their names come from.
        channels: Names of the channels.
        images: Where images lie, ``*`` for the case, and how many there.
        masks: Likewise; ``NAME`` for the structure.
        left_over: Files that are not taken, by their places.
        left_out: Cases that are not written, one line each.
        failed: Cases that cannot be, one line each.
        notes: Remarks, one line each.
    """

    source: Path
    cases: tuple[ArrangedCase, ...]
    labels: LabelMap | None
    labels_from: str
    channels: tuple[str, ...]
    images: Mapping[str, int]
    masks: Mapping[str, int]
    left_over: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def plan_arrangement(source: Path, options: ArrangeOptions | None = None) -> Arrangement:
    """Find out what lies in a folder: cases, their images and masks, labels and channels; nothing is written.

    Args:
        source: The folder.
        options: What the user says about it.

    Raises:
        DataError: No images or masks in it, or more than one way to understand it; the line names the options.
        ConfigError: An option that does not fit it.
    """
    options = options or ArrangeOptions()
    if not source.is_dir():
        raise DataError(f"{source}: no such folder. Give the folder that holds images and masks.")
    files = find_files(source, options.images, options.labels)
    description = _description(source)
    listed = None if options.images or options.labels else _listed(source, description, files)
    pairing = listed or pair(files, source)
    require_clear(pairing)
    require_found(source, files, pairing, options)
    named = named_parts(source, pairing.masks, options, description)
    channels, failed = channels_of(source, pairing.scans, options, description)
    cases, left_out = [], []
    for name, scan in pairing.scans.items():
        parts = named.parts.get(name, ())
        if name in failed:
            continue
        if reason := _invalid(name):
            failed[name] = reason
        elif not parts and not options.unlabelled:
            left_out.append(f"Case {name}: no mask (--unlabelled takes the image alone, to imagesTs/).")
        else:
            cases.append(_case(scan, parts, named.missing.get(name, ())))
    taken = {case.name for case in cases}
    lone = [f.place for f in pairing.left_over] + [p for name in failed for p in _places(pairing, name)]
    notes = [*named.notes, *_other_modalities(pairing.left_over)]
    if (subjects := len({case.subject for case in cases})) < len(cases):
        notes.append(
            f"{counted(subjects, 'patient')} in {counted(len(cases), 'case')}, by their folders (subjects.csv)."
        )
    return Arrangement(
        source=source,
        cases=tuple(cases),
        labels=named.labels,
        labels_from=named.labels_from,
        channels=channels,
        images=Counter(image.role for name in taken for image in pairing.scans[name].images),
        masks=Counter(
            mask.role for name in taken for mask in pairing.masks.get(name, ()) if mask.file.path in named.used
        ),
        left_over=tuple(sorted(lone)),
        left_out=tuple(left_out),
        failed=tuple(failed.values()),
        notes=tuple(notes),
    )


def _case(scan: ScanFiles, parts: tuple[MaskPart, ...], missing: tuple[str, ...]) -> ArrangedCase:
    images = tuple(image.path for image in scan.images)
    count = volumes_in(images[0])
    if len(images) == 1 and count > 1:
        images, volumes = images * count, tuple(range(count))
        return ArrangedCase(scan.name, _subject(scan), images, volumes, parts, missing)
    return ArrangedCase(scan.name, _subject(scan), images, (None,) * len(images), parts, missing)


def _subject(scan: ScanFiles) -> str:
    """The folders that name a patient: those with a digit, without the dates and visits at their end."""
    dirs = list(scan.dirs)
    while len(dirs) > 1 and _VISIT.fullmatch(dirs[-1]):
        dirs.pop()
    return "_".join(dirs) if any(letter.isdigit() for letter in "".join(dirs)) else scan.name


def _invalid(name: str) -> str | None:
    try:
        Case(name, ())
    except DataError as error:
        return str(error)
    return None


def _places(pairing: FolderPairing, name: str) -> list[str]:
    files = [*pairing.scans[name].images, *(mask.file for mask in pairing.masks.get(name, ()))]
    return [file.place for file in files]


def _other_modalities(left_over: Sequence[FoundFile]) -> list[str]:
    roles = Counter(file.role for file in left_over if file.kind == "other")
    return [
        f"{counted(number, 'image')} {role}: taken for another modality, and left. Name them with --images if they are "
        "to be used."
        for role, number in sorted(roles.items())
    ]


def _description(source: Path) -> Mapping[str, Any]:
    if not (source / "dataset.json").is_file():
        return {}
    content = read_json(source / "dataset.json")
    return content if isinstance(content, Mapping) else {}


def _listed(source: Path, description: Mapping[str, Any], files: Sequence[FoundFile]) -> FolderPairing | None:
    """The cases that a ``dataset.json`` lists; None where it lists none."""
    if "dataset" in description:
        listed = dataset_list(source, description["dataset"], Case)
    else:
        listed = training_list(source, description, Case)
    if not listed:
        return None
    found = {file.path: file for file in files}

    def of(path: Path, kind: str) -> FoundFile:
        known = found.get(path) or next((f for f in files if f.path.exists() and f.path.samefile(path)), None)
        role = f"dataset.json: {kind}"
        return FoundFile(path, known.place if known else str(path), (), "", None, role)

    scans, masks = {}, {}
    for case in listed:
        scans[case.name] = ScanFiles(case.name, (), (case.name,), tuple(of(p, "images") for p in case.images))
        masks[case.name] = (MaskFile(of(case.label, "labels"), None),) if case.label else ()
    used = {f.place for s in scans.values() for f in s.images} | {m.file.place for ms in masks.values() for m in ms}
    return FolderPairing(scans, masks, tuple(file for file in files if file.place not in used))

"""``lynos``: 15 contrast-enhanced chest CTs, every mediastinal node outlined and given its station, NIfTI."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from lnsegfm.datasets.convert.conversion_plan import (
    ConversionOptions,
    ConversionPlan,
    LoadedScan,
    PlannedScan,
    as_stored_hu,
    fingerprint_of,
    labels_of,
    require_matched,
)
from lnsegfm.datasets.convert.mask_placement import place_by_position
from lnsegfm.datasets.convert.node_stations import STATION, read_stations
from lnsegfm.datasets.convert.set_card import SetCard
from lnsegfm.datasets.convert.tcia_collection import missing_numbers, require_folder
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.imaging.dicom.rois import match_rois
from lnsegfm.imaging.files import read_mask, read_volume

PATTERNS = ("LymphNodes=lymph_node",)
EXPECTED = {"patients": 15}
NODES = "LymphNodes"
_DATA = re.compile(r"(?P<patient>[Pp]at\d+)_data\.nii\.gz")
_MASK = re.compile(r"[Pp]at\d+_labels_(?P<structure>\w+)\.nii\.gz")
_TABLE = "stations_sto.csv"
Part = tuple[Path, int, tuple[int, ...] | None]
"""A file, the value of its label, and which of its values count (None: every one above 0)."""


def plan(source: Path, options: ConversionOptions) -> ConversionPlan:
    """The patients' folders that have a scan and a structure, or a station of nodes, which a pattern matches."""
    require_folder(source)
    patterns = options.roi or PATTERNS
    labels = labels_of(patterns)
    stations = _stations(source, patterns)
    scans, left_out, failed = [], [], []
    called: set[str] = set()
    found: dict[str, Path] = {}
    for path in sorted(source.rglob("*_data.nii.gz")):
        if not (match := _DATA.fullmatch(path.name)):
            continue
        patient = match["patient"].lower()
        if patient in found:
            failed.append(f"Case {patient}: it is there twice. Give one copy of the set; the first is taken.")
            continue
        found[patient] = path
        structures = {m["structure"]: p for p in sorted(path.parent.iterdir()) if (m := _MASK.fullmatch(p.name))}
        parts, names = _parts(structures, stations.get(patient, {}), patterns, labels)
        called.update(names)
        if not parts:
            left_out.append(
                f"Case {patient}: none of its structures ({', '.join(names)}) matches {', '.join(patterns)}."
            )
            continue
        files = (path, *dict.fromkeys(file for file, _, _ in parts))
        mark = fingerprint_of([[value, list(only or ())] for _, value, only in parts], files)
        sources = tuple(file.name for file in files)
        load = partial(_load, path, parts, labels)
        scans.append(PlannedScan(patient, patient, sources, load, may_be_empty=True, fingerprint=mark))
    return ConversionPlan(
        labels=labels,
        scans=tuple(scans),
        counts={"patients": len(found)},
        missing=missing_numbers(found, "pat", range(1, EXPECTED["patients"] + 1), 1),
        left_out=tuple(left_out),
        failed=tuple(failed),
        notes=require_matched(patterns, sorted(called)) if scans else (),
    )


def _stations(source: Path, patterns: Sequence[str]) -> Mapping[str, Mapping[str, tuple[int, ...]]]:
    """Numbers of nodes by patient and station, where a pattern asks for stations."""
    if not any(pattern.strip().lower().startswith(STATION) for pattern in patterns):
        return {}
    tables = sorted(source.rglob(_TABLE)) or sorted(source.parent.glob(_TABLE))
    return read_stations(tables[0] if tables else source / _TABLE)


def _parts(
    structures: Mapping[str, Path],
    stations: Mapping[str, tuple[int, ...]],
    patterns: Sequence[str],
    labels: LabelMap,
) -> tuple[list[Part], tuple[str, ...]]:
    """What a patient's reference is made of, the lowest label first, and the names that patterns may match."""
    numbers = stations if NODES in structures else {}
    names = (*structures, *numbers)
    matched = match_rois(names, patterns, strict=False)
    parts: list[Part] = [
        (structures[name], labels.names[label], None)
        if name in structures
        else (structures[NODES], labels.names[label], numbers[name])
        for name, label in zip(matched.names, matched.labels, strict=True)
        if label
    ]
    return sorted(parts, key=lambda part: part[1]), names


def _load(scan: Path, parts: Sequence[Part], labels: LabelMap) -> LoadedScan:
    hu, grid = read_volume(scan)
    mask = np.zeros(grid.shape, np.uint8 if max(labels.names.values()) < 256 else np.uint16)
    notes: list[str] = []
    for path, value, only in parts:
        voxels, note = place_by_position(*read_mask(path), grid)
        notes += [note] if note and note not in notes else []
        inside = voxels > 0 if only is None else np.isin(voxels, only)
        if shared := int(np.count_nonzero(inside & (mask > 0) & (mask != value))):
            notes.append(f"{shared} voxels of {path.name} have an earlier label")
        mask[inside & (mask == 0)] = value
    given = {value for _, value, _ in parts}
    notes += [
        f"{label} is background everywhere in this case: nothing gives it"
        for label, value in labels.names.items()
        if value not in given
    ]
    return LoadedScan((as_stored_hu(hu),), grid, mask, tuple(notes))


CARD = SetCard(
    name="lynos",
    title="LyNoS: mediastinal lymph nodes in contrast-enhanced CT, fully annotated, with stations",
    url="https://github.com/raidionics/LyNoS",
    licence="MIT",
    citation=(
        "Bouget et al. (2023), Mediastinal lymph nodes segmentation using 3D convolutional neural network ensembles "
        "and anatomical priors guiding, Computer Methods in Biomechanics and Biomedical Engineering: Imaging & "
        "Visualization 11(1), https://doi.org/10.1080/21681163.2022.2043778"
    ),
    download="LyNoS.zip, unpacked, by way of the page above (Zenodo, Hugging Face: andreped/LyNoS).",
    layout=(
        "Expected: Pat1/ to Pat15/ with pat1_data.nii.gz, pat1_labels_LymphNodes.nii.gz, further pat1_labels_*.nii.gz, "
        "and stations_sto.csv."
    ),
    expected=EXPECTED,
    sources=(
        "folders, file names, stations after IASLC, licence: README of raidionics/LyNoS, listing of andreped/LyNoS",
        "the value of a voxel is the number of its node: loader of constantinpape/torch-em",
        "structures Azygos, BrachiocephalicVeins, Esophagus, SubCarArt: the same listing",
    ),
    checks=(
        "patients Pat1 to Pat15 are there",
        "voxels of each mask and its CT coincide; nothing is resampled",
        "a station that a pattern names and no node has is refused",
    ),
    open_points=(
        "columns of stations_sto.csv: not found. A patient, a number and stations are looked for by the columns' "
        "names, and the file is refused where they are not clear; without a pattern `station_...` it is not read",
        "a node of several stations counts for the first, its primary one",
        "15 or 14 patients in the copies: the loader of one copy lists Pat1 to Pat14",
    ),
    options=frozenset({"roi"}),
    plan=plan,
)

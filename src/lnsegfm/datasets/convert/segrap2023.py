"""``segrap2023``: nasopharyngeal carcinoma, a plain and a contrast-enhanced CT that are registered, NIfTI."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from lnsegfm.datasets.convert.conversion_plan import (
    TRAIN,
    ConversionOptions,
    ConversionPlan,
    LoadedScan,
    PlannedScan,
    as_stored_hu,
    fingerprint_of,
    labels_of,
    require_matched,
)
from lnsegfm.datasets.convert.mask_placement import require_same_grid
from lnsegfm.datasets.convert.set_card import SetCard
from lnsegfm.datasets.convert.tcia_collection import missing_numbers, require_folder
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.imaging.dicom.rois import match_rois
from lnsegfm.imaging.files import image_files, read_mask, read_volume, stem

PATTERNS = ("GTVnd=lymph_node",)
IMAGES = {"plain": ("image",), "contrast": ("image_contrast",), "both": ("image", "image_contrast")}
EXPECTED = {"training_cases": 120}
_CASE = re.compile(r"segrap_\d{4}")


def plan(source: Path, options: ConversionOptions) -> ConversionPlan:
    """The case folders below a folder that have the scans and a structure which a pattern matches."""
    require_folder(source)
    patterns = options.roi or PATTERNS
    labels = labels_of(patterns)
    wanted = IMAGES[options.channels]
    scans, left_out, failed = [], [], []
    called: set[str] = set()
    folders = sorted(
        (p for p in source.rglob("segrap_*") if p.is_dir() and _CASE.fullmatch(p.name)), key=lambda p: p.name
    )
    for folder in folders:
        files = {stem(p): p for p in image_files(folder)}
        if lacking := [name for name in wanted if name not in files]:
            failed.append(f"Case {folder.name}: {', '.join(lacking)} is not there. Fetch the case again.")
            continue
        images = [files[name] for name in wanted]
        structures = {name: path for name, path in files.items() if name not in IMAGES["both"]}
        matched = match_rois(tuple(structures), patterns, strict=False)
        called.update(structures)
        taken = [
            (structures[n], labels.names[label])
            for n, label in zip(matched.names, matched.labels, strict=True)
            if label
        ]
        if not taken and not options.unlabelled:
            left_out.append(f"Case {folder.name}: no file of it matches {', '.join(patterns)}.")
            continue
        taken.sort(key=lambda pair: (pair[1], pair[0].name))
        sources = tuple(f"{folder.name}/{path.name}" for path in (*images, *(path for path, _ in taken)))
        load = partial(_load, images, taken, labels)
        part = TRAIN if taken else "unlabelled"
        mark = fingerprint_of([], (*images, *(path for path, _ in taken)))
        scans.append(
            PlannedScan(folder.name, folder.name, sources, load, part, bool(taken), may_be_empty=True, fingerprint=mark)
        )
    names = sorted({folder.name for folder in folders})
    return ConversionPlan(
        labels=labels,
        scans=tuple(scans),
        channels=("CT",) * len(wanted),
        counts={"training_cases": len(names)},
        missing=missing_numbers(names, "segrap_", range(EXPECTED["training_cases"]), 4),
        left_out=tuple(left_out),
        failed=tuple(failed),
        notes=require_matched(patterns, sorted(called)) if any(scan.labelled for scan in scans) else (),
    )


def _load(images: list[Path], structures: list[tuple[Path, int]], labels: LabelMap) -> LoadedScan:
    first, grid = read_volume(images[0])
    volumes = [as_stored_hu(first)]
    for path in images[1:]:
        volume, other = read_volume(path)
        require_same_grid(other, grid, "Plain and contrast-enhanced scan")
        volumes.append(as_stored_hu(volume))
    if not structures:
        return LoadedScan(tuple(volumes), grid, None)
    mask = np.zeros(grid.shape, np.uint8)
    overlap: Mapping[str, int] = {}
    for path, value in structures:
        part, other = read_mask(path)
        require_same_grid(other, grid, f"Scan and {stem(path)}")
        inside = part > 0
        if shared := int(np.count_nonzero(inside & (mask > 0) & (mask != value))):
            overlap = {**overlap, stem(path): shared}
        mask[inside & (mask == 0)] = value
    notes = [f"{n} voxels of {name} have an earlier label" for name, n in overlap.items()]
    given = {value for _, value in structures}
    for label in (label for label, value in labels.names.items() if value not in given):
        notes.append(f"{label} is background everywhere in this case: no file gives it")
    return LoadedScan(tuple(volumes), grid, mask, tuple(notes))


CARD = SetCard(
    name="segrap2023",
    title="SegRap2023: organs at risk and gross tumour volumes of nasopharyngeal carcinoma, training set",
    url="https://segrap2023.grand-challenge.org/dataset/",
    licence="the challenge's end user agreement, to be signed; a redistribution states CC BY-NC 4.0",
    citation=(
        "Luo et al., SegRap2023: A benchmark of organs-at-risk and gross tumor volume segmentation for radiotherapy "
        "planning of nasopharyngeal carcinoma, Medical Image Analysis 2025, https://doi.org/10.1016/j.media.2024.103447"
    ),
    download="Sign the agreement on the challenge's page; unpack SegRap2023_Training_Set_120cases.zip.",
    layout="Expected: folders segrap_0000 and so on with image.nii.gz, image_contrast.nii.gz, GTVnd.nii.gz.",
    expected=EXPECTED,
    sources=(
        "file names, counts (2 scans, 45 organs, 2 tumour volumes a case): descriptions, loaders in public "
        "repositories",
        "agreement, licence of the redistribution, DOI: loader of constantinpape/torch-em",
    ),
    checks=(
        "cases segrap_0000 to segrap_0119 are there",
        "both scans and every structure of a case have one geometry",
    ),
    open_points=(
        "whether patients without nodal tumour have an empty GTVnd or none: not found; an empty one is a "
        "finding, without "
        "the file the case is left out and told",
        "the one-hot labels (Task001, Task002) are not read: the separate masks hold the same",
        "SegRap2025: its first task uses this set; its second (lymph-node clinical target volumes, 0 to 6) outlines "
        "levels, not nodes, is published in nnU-Net's layout already, and is not converted",
    ),
    options=frozenset({"roi", "channels", "unlabelled"}),
    plan=plan,
)

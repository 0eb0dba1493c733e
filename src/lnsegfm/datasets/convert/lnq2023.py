"""``lnq2023``: mediastinal nodes in chest CT, NRRD; the training part is annotated in part only."""

from __future__ import annotations

import re
from collections import Counter
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
)
from lnsegfm.datasets.convert.mask_placement import place_by_position
from lnsegfm.datasets.convert.partial_annotation import mark_unannotated
from lnsegfm.datasets.convert.set_card import SetCard
from lnsegfm.datasets.convert.tcia_collection import missing_count, require_folder, target_part
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import ConfigError
from lnsegfm.imaging.files import read_mask, read_volume

PARTS = {"train": TRAIN, "val": "validation", "test": "test"}
EXPECTED = {"train": 393, "validation": 20, "test": 100}
_FILE = re.compile(r"lnq2023-(train|val|test)-(\d+)-(ct|seg)\.nrrd")


def plan(source: Path, options: ConversionOptions) -> ConversionPlan:
    """The scans below a folder, by their names; held-out parts keep their place unless one is asked for alone."""
    if options.part is not None and options.part not in PARTS.values():
        raise ConfigError(f"--part {options.part}: there is no such part. Use one of {', '.join(PARTS.values())}.")
    require_folder(source)
    partly = options.part in (None, TRAIN)
    labels = LabelMap({"lymph_node": 1}, ignore=2 if partly else None)
    files: dict[tuple[str, str], dict[str, Path]] = {}
    left_out, failed, scans = [], [], []
    for path in sorted(p for p in source.rglob("lnq2023-*.nrrd") if p.is_file()):
        if match := _FILE.fullmatch(path.name):
            kinds = files.setdefault((match[1], match[2]), {})
            if match[3] in kinds:
                failed.append(f"{path.name}: it is there twice. Keep one; the first is taken.")
            kinds.setdefault(match[3], path)
    for (short, number), kinds in sorted(files.items()):
        name, own = f"lnq2023-{short}-{number}", PARTS[short]
        part = target_part(own, options.part)
        if part is None:
            continue
        if "ct" not in kinds:
            failed.append(f"Case {name}: its scan {name}-ct.nrrd is not there. Fetch it.")
        elif "seg" not in kinds and own == TRAIN:
            failed.append(f"Case {name}: its segmentation {name}-seg.nrrd is not there. Fetch it.")
        elif "seg" not in kinds and not options.unlabelled:
            left_out.append(f"Case {name}: no segmentation (--unlabelled converts the scan alone).")
        else:
            rule = (labels.ignore, options.shell_mm) if own == TRAIN else None
            load = partial(_load, kinds["ct"], kinds.get("seg"), rule)
            sources = tuple(path.name for path in kinds.values())
            mark = fingerprint_of([], kinds.values())
            scans.append(PlannedScan(name, name, sources, load, part, labelled="seg" in kinds, fingerprint=mark))
    counted = Counter(PARTS[short] for (short, _), kinds in files.items() if "ct" in kinds)
    asked = {part: n for part, n in EXPECTED.items() if options.part in (None, part)}
    return ConversionPlan(
        labels=labels,
        scans=tuple(scans),
        counts={part: counted[part] for part in EXPECTED},
        missing=tuple(line for part, n in asked.items() for line in missing_count(f"{part} scans", counted[part], n)),
        left_out=tuple(left_out),
        failed=tuple(failed),
    )


def _load(scan: Path, segmentation: Path | None, rule: tuple[int | None, float] | None) -> LoadedScan:
    hu, grid = read_volume(scan)
    hu = as_stored_hu(hu)
    if segmentation is None:
        return LoadedScan((hu,), grid, None)
    mask, note = place_by_position(*read_mask(segmentation), grid)
    mask = (mask > 0).astype(np.uint8)
    if rule is not None and rule[0] is not None:
        mask = mark_unannotated(mask, hu, grid.spacing_mm, rule[0], rule[1])
    return LoadedScan((hu,), grid, mask, (note,) if note else ())


CARD = SetCard(
    name="lnq2023",
    title="LNQ2023: Mediastinal Lymph Node Quantification challenge",
    url="https://lnq2023.grand-challenge.org/",
    licence="CC BY 4.0 (of the same scans on TCIA; the terms of the challenge's own download were not found)",
    citation=(
        "Dorent et al., LNQ 2023 challenge: Benchmark of weakly-supervised techniques for mediastinal lymph node "
        "quantification, MELBA 2025:001, https://arxiv.org/abs/2408.10069. Idris et al. (2024), Mediastinal Lymph Node "
        "Quantification (LNQ): Segmentation of Heterogeneous CT Data (Version 1), The Cancer Imaging Archive, "
        "https://doi.org/10.7937/QVAZ-JA09"
    ),
    download=(
        "From the challenge's page (https://doi.org/10.5281/zenodo.7844666), or as mediastinal-lymph-node-seg from "
        "TCIA."
    ),
    layout="Expected: lnq2023-train-0001-ct.nrrd, lnq2023-train-0001-seg.nrrd and so on, at any depth.",
    expected=EXPECTED,
    sources=(
        "file names: converters and loaders in public repositories (train/, val/, test/ folders)",
        "513 scans, 120 fully and 393 partially annotated, licence, DOI: lnqproject.org, which quotes TCIA",
        "20 validation and 100 test scans: lnqproject.org/challenge, which says 383 for training where TCIA has 393",
        "one node of five annotated in the training part: team IMR's description",
        "rule for unannotated voxels: Fischer et al., MELBA 2024:008, https://arxiv.org/abs/2406.14365",
    ),
    checks=(
        "number of scans of each part",
        "voxels of segmentation and scan coincide; one that covers a part of the scan is put in place without "
        "resampling",
        "no reference is empty",
    ),
    open_points=("whether the test part's segmentations are in the challenge's own download: not found",),
    options=frozenset({"part", "shell_mm", "unlabelled"}),
    plan=plan,
)

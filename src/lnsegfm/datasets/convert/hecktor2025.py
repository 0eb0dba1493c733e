"""``hecktor2025``: PET/CT of head and neck, the CT alone; primary tumours and involved nodes, NIfTI."""

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
from lnsegfm.datasets.convert.set_card import SetCard
from lnsegfm.datasets.convert.tcia_collection import require_folder
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.imaging.files import read_mask, read_volume
from lnsegfm.messages import counted
from lnsegfm.storage import sha256

LABELS = LabelMap({"primary_tumour": 1, "lymph_node": 2})
EXPECTED = {"studies": 1123}
_SCAN = re.compile(r"(?P<case>[A-Za-z]+[-_]\d+)__(?P<kind>\w+)\.nii\.gz")
_OTHERS = {"PT": "PET scans", "CTPlanning": "planning CTs", "RTDOSE": "dose maps"}


def plan(source: Path, options: ConversionOptions) -> ConversionPlan:
    """The CTs below a folder and the masks in their folders, or in ``labelsTr/`` beside ``imagesTr/``."""
    require_folder(source)
    scans: dict[str, list[Path]] = {}
    others: Counter[str] = Counter()
    for path in sorted(source.rglob("*__*.nii.gz")):
        if not (match := _SCAN.fullmatch(path.name)):
            continue
        if match["kind"] == "CT":
            scans.setdefault(match["case"], []).append(path)
        else:
            others[match["kind"]] += 1
    planned, left_out, failed = [], [], []
    for case, found in sorted(scans.items()):
        with_mask = [(scan, mask) for scan in found if (mask := _mask_of(scan, case)) is not None]
        if len(with_mask) > 1 and len({sha256(mask) for _, mask in with_mask}) > 1:
            failed.append(f"Case {case}: it is there with different masks. Give one copy of the set.")
        elif with_mask:
            scan, mask = with_mask[0]
            load = partial(_load, scan, mask)
            sources = (scan.name, mask.name)
            mark = fingerprint_of([], (scan, mask))
            planned.append(PlannedScan(case, case, sources, load, may_be_empty=True, fingerprint=mark))
        elif options.unlabelled:
            load, mark = partial(_load, found[0], None), fingerprint_of([], found[:1])
            planned.append(PlannedScan(case, case, (found[0].name,), load, "unlabelled", False, fingerprint=mark))
        else:
            left_out.append(f"Case {case}: no mask {case}.nii.gz (--unlabelled converts the scan alone).")
    left_out += [
        f"{counted(count, _OTHERS.get(kind, f'{kind} images').removesuffix('s'))}: the CT alone is converted."
        for kind, count in sorted(others.items())
    ]
    return ConversionPlan(
        labels=LABELS,
        scans=tuple(planned),
        counts={"studies": len(scans), "with_masks": sum(scan.part == TRAIN for scan in planned)},
        left_out=tuple(left_out),
        failed=tuple(failed),
    )


def _mask_of(scan: Path, case: str) -> Path | None:
    """The mask of a CT: in its folder, or in the ``labelsTr`` beside it, where a hyphen may be an underscore."""
    for folder in (scan.parent, scan.parent.parent / "labelsTr"):
        for name in dict.fromkeys((case, case.replace("-", "_"))):
            if (mask := folder / f"{name}.nii.gz").is_file():
                return mask
    return None


def _load(scan: Path, mask: Path | None) -> LoadedScan:
    hu, grid = read_volume(scan)
    hu = as_stored_hu(hu)
    if mask is None:
        return LoadedScan((hu,), grid, None)
    voxels, note = place_by_position(*read_mask(mask), grid)
    values = np.unique(voxels)
    notes = [note] if note else []
    notes += [f"no {name} in its mask" for name, value in LABELS.names.items() if value not in values]
    highest = int(values[-1])  # values that no label has are refused with their number
    return LoadedScan((hu,), grid, voxels.astype(np.uint8 if highest < 256 else np.uint16), tuple(notes))


CARD = SetCard(
    name="hecktor2025",
    title="HECKTOR 2025: head and neck tumours and nodes in PET/CT, the CT part of the training data",
    url="https://hecktor25.grand-challenge.org/dataset/",
    licence="the challenge's end user agreement, to be requested on its page; its terms were not found in print",
    citation=(
        "Saeed, Hassan, Hardan et al. (2025), A multimodal and multi-centric head and neck cancer dataset for "
        "segmentation, diagnosis and outcome prediction, https://doi.org/10.48550/arXiv.2509.00367"
    ),
    download="Request access on the challenge's page, and unpack hecktor2025_training.",
    layout=(
        "Expected: Task 1/CHUM-001/ with CHUM-001__CT.nii.gz, CHUM-001__PT.nii.gz and the mask CHUM-001.nii.gz, at any "
        "depth; or imagesTr/ and labelsTr/ with the same names."
    ),
    expected=EXPECTED,
    sources=(
        "folders, file names, labels 1 (GTVp) and 2 (GTVn): the challenge's page on its data, "
        "README of BioMedIA-MBZUAI/HECKTOR2025",
        "the older layout with imagesTr and labelsTr (CHUM_001.nii.gz): an earlier version of that page",
        "1,123 studies of 10 centres, training and test together: abstract of arXiv 2509.00367",
    ),
    checks=(
        "each CT has a mask in its folder; a patient who lies in several tasks' folders counts once",
        "voxels of mask and CT coincide; nothing is resampled",
        "values other than 0, 1 and 2 are refused; a mask without nodes or without a tumour is noted",
    ),
    open_points=(
        "how many of the 1,123 studies are training data: not found, so none is reported as missing",
        "PET, planning CT and dose map are left out, with their number",
        "whether each mask is on the CT's grid, as the page asks of predictions: one that is not is refused",
        "whether an empty mask means that nothing is there: it is converted so, with a note",
    ),
    options=frozenset({"unlabelled"}),
    plan=plan,
)

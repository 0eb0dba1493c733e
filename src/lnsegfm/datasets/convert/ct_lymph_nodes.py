"""``ct-lymph-nodes``: the NIH's mediastinal and abdominal nodes, DICOM CT with NIfTI masks or DICOM SEG."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from lnsegfm.datasets.convert.conversion_plan import ConversionOptions, ConversionPlan, LoadedScan, PlannedScan
from lnsegfm.datasets.convert.mask_placement import place_by_axes, place_by_position
from lnsegfm.datasets.convert.partial_annotation import require_soft_tissue
from lnsegfm.datasets.convert.reference import choose_reference, fingerprint, load_case, load_scan
from lnsegfm.datasets.convert.set_card import SetCard
from lnsegfm.datasets.convert.tcia_collection import CollectionScan, find_scans, missing_numbers, unconverted
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.reference_choice import ReferenceChoice
from lnsegfm.imaging.files import read_mask

PATTERNS = ("*=lymph_node",)
EXPECTED = {"mediastinal": 90, "abdominal": 86}
_PREFIXES = {"mediastinal": "MED_LYMPH_", "abdominal": "ABD_LYMPH_"}
_MASK = "_mask.nii.gz"


def plan(source: Path, options: ConversionOptions) -> ConversionPlan:
    """The scans of the collection that have a DICOM SEG, or else a NIfTI mask named after the patient."""
    labels = LabelMap({"lymph_node": 1})
    members, tree, left_out = find_scans(source, tuple(_PREFIXES.values()))
    masks: dict[str, Path] = {}
    for folder in (source, *([options.masks] if options.masks else [])):
        for path in sorted(folder.rglob(f"*{_MASK}")):
            masks[path.name.removesuffix(_MASK)] = path
    scans = []
    for member in members:
        chosen = (
            choose_reference([a for a in member.annotations if a.kind == "SEG"], PATTERNS, accept_automatic=True)
            if options.masks is None
            else None
        )
        file = masks.get(member.subject)
        if chosen is not None:
            load, origin = partial(_load_seg, member, chosen, labels), chosen.parts[0][0].uid
            mark = fingerprint(member.series, chosen)
        elif file is not None:
            load, origin = partial(_load_mask, member, file), file.name
            mark = fingerprint(member.series, files=(file,))
        else:
            left_out.append(f"Case {member.case}: neither a SEG nor {member.subject}{_MASK} is there.")
            continue
        scans.append(PlannedScan(member.case, member.subject, (member.series.uid, origin), load, fingerprint=mark))
    subjects = {member.subject for member in members}
    counts = {part: sum(s.startswith(prefix) for s in subjects) for part, prefix in _PREFIXES.items()}
    missing = [
        line for part, n in EXPECTED.items() for line in missing_numbers(subjects, _PREFIXES[part], range(1, n + 1), 3)
    ]
    return ConversionPlan(
        labels=labels, scans=tuple(scans), counts=counts, missing=tuple(missing), **unconverted(tree, left_out)
    )


def _load_seg(member: CollectionScan, chosen: ReferenceChoice, labels: LabelMap) -> LoadedScan:
    loaded = load_case(member.series, chosen, labels.names)
    if loaded.mask is not None:
        require_soft_tissue(loaded.mask, loaded.images[0])
    return loaded


def _load_mask(member: CollectionScan, file: Path) -> LoadedScan:
    """Each node has a number of its own in these masks; their origin is not relied upon."""
    loaded = load_scan(member.series)
    values, grid = read_mask(file)
    try:
        values, note = place_by_position(values, grid, loaded.grid)
    except DataError:
        values, note = place_by_axes(values, grid, loaded.grid)
    mask = (values > 0).astype(np.uint8)
    require_soft_tissue(mask, loaded.images[0])
    return LoadedScan(loaded.images, loaded.grid, mask, (*loaded.notes, *([note] if note else [])))


CARD = SetCard(
    name="ct-lymph-nodes",
    title="CT Lymph Nodes (NIH Clinical Center)",
    url="https://www.cancerimagingarchive.net/collection/ct-lymph-nodes/",
    licence="CC BY 3.0",
    citation=(
        "Roth et al. (2015), A new 2.5 D representation for lymph node detection in CT, The Cancer Imaging Archive, "
        "https://doi.org/10.7937/K9/TCIA.2015.AQIIDCNM. Roth et al., MICCAI 2014, "
        "https://doi.org/10.1007/978-3-319-10404-1_65. Seff et al., MICCAI 2015 (masks), "
        "https://doi.org/10.1007/978-3-319-24571-3_7"
    ),
    download=(
        "CT (and SEG, since 2023) with the NBIA Data Retriever, about 58 GB; MED_ABD_LYMPH_MASKS.zip, unpacked, "
        "for --masks."
    ),
    layout=(
        "Expected: DICOM below the folder, PatientID MED_LYMPH_001 or ABD_LYMPH_001, and SEG or "
        "MED_LYMPH_001_mask.nii.gz."
    ),
    expected=EXPECTED,
    sources=(
        "90 mediastinal and 86 abdominal patients, 388 and 595 nodes, licence, SEG since version 5: TCIA's "
        "text as quoted by "
        "tensorflow/datasets issue 2382 and by the redistribution Angelou0516/CT_Lymph_Nodes",
        "mask names, numbers of nodes as values, axes of masks (L, P, S) as the CT's: loader of "
        "constantinpape/torch-em",
        "one CT series, one SEG and one NIfTI mask a patient; masks in a folder for each patient: card of the same "
        "redistribution, preparation script of MIC-DKFZ/nnDetection",
        "MED_LYMPH_043, incomplete volume: Bouget et al. as told by team IMR (Hanx-Zhang/Lymph-Node-Mapping)",
    ),
    checks=(
        "patients MED_LYMPH_001 to 090 and ABD_LYMPH_001 to 086 are there",
        "voxels of mask and CT coincide by position, else by axes and size (then told); nothing is mirrored on a guess",
        "at least 80 % of the labelled voxels lie on soft tissue: a mask with wrong axes is refused",
        "a volume equal to an earlier one, voxel for voxel, is left out",
    ),
    open_points=(
        "which volumes are published twice: no list was found, so duplicates are found by their voxels; scans of one "
        "patient that were reconstructed anew are not found so",
        "mediastinal scans are annotated in part: Bouget et al. outlined further nodes; nothing is marked "
        "`ignore` here",
        "MED_LYMPH_043 is said to have an incomplete volume: it is converted if its slices are complete",
        "number of nodes: not checked",
    ),
    options=frozenset({"masks"}),
    drops_duplicates=True,
    plan=plan,
)

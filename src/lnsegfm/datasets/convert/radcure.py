"""``radcure``: head-and-neck planning CTs with RTSTRUCT, or with masks that a release supplies."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from lnsegfm.datasets.convert.conversion_plan import (
    ConversionOptions,
    ConversionPlan,
    LoadedScan,
    PlannedScan,
    labels_of,
    require_matched,
)
from lnsegfm.datasets.convert.dicom import structure_files
from lnsegfm.datasets.convert.mask_placement import place_by_position
from lnsegfm.datasets.convert.reference import choose_reference, fingerprint, load_case, load_scan
from lnsegfm.datasets.convert.set_card import SetCard
from lnsegfm.datasets.convert.tcia_collection import find_scans, missing_count, unconverted
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.dicom.tree_references import reason_without_reference
from lnsegfm.imaging.files import ending, read_mask, stem

PATTERNS = ("GTVn*=lymph_node",)
EXPECTED = {"patients": 3346}


def plan(source: Path, options: ConversionOptions) -> ConversionPlan:
    """The patients of the collection whose nodal gross tumour volumes are outlined, or whose mask is supplied."""
    if options.roi and options.masks:
        raise ConfigError("--roi and --masks: masks have no names of structures to choose by. Give one of the two.")
    patterns = options.roi or PATTERNS
    labels = labels_of(patterns)
    members, tree, left_out = find_scans(source, ("RADCURE-",))
    masks = mask_files(options.masks, [member.subject for member in members]) if options.masks else {}
    scans, origin = [], tuple[str, ...]()
    for member in members:
        if options.masks:
            if member.subject not in masks:
                left_out.append(f"Case {member.case}: no mask in the folder of masks.")
                continue
            load, origin = partial(_load_masked, member.series, masks[member.subject]), (masks[member.subject].name,)
            mark = fingerprint(member.series, files=(masks[member.subject],))
        else:
            chosen = choose_reference(member.annotations, patterns, accept_automatic=True)
            if chosen is None:
                left_out.append(f"Case {member.case}: {reason_without_reference(member.annotations)}.")
                continue
            load = partial(load_case, member.series, chosen, labels.names)
            origin = tuple(annotation.uid for annotation, _ in chosen.parts)
            mark = fingerprint(member.series, chosen)
        scans.append(PlannedScan(member.case, member.subject, (member.series.uid, *origin), load, fingerprint=mark))
    counts = {"patients": len({m.subject for m in members}), "structure_files": structure_files(tree)}
    return ConversionPlan(
        labels=labels,
        scans=tuple(scans),
        counts=counts,
        missing=missing_count("patients", counts["patients"], EXPECTED["patients"]),
        notes=require_matched(patterns, tree.names) if scans and not options.masks else (),
        **unconverted(tree, left_out),
    )


def mask_files(folder: Path, subjects: list[str]) -> dict[str, Path]:
    """The mask of each patient: the one file below a folder whose name starts with the patient's.

    Raises:
        DataError: A patient has several.
    """
    by_patient: dict[str, Path] = {}
    wanted = set(subjects)
    for path in sorted(p for p in folder.rglob("*") if ending(p) and not p.name.startswith(".") and p.is_file()):
        match = re.match(r"[A-Za-z]+(?:[-_][A-Za-z]+)*[-_]\d+", stem(path))
        if match is None or match[0] not in wanted:
            continue
        if match[0] in by_patient:
            raise DataError(
                f"{folder}: patient {match[0]} has several masks ({by_patient[match[0]].name}, {path.name}). Keep one."
            )
        by_patient[match[0]] = path
    return by_patient


def _load_masked(series: Series, file: Path) -> LoadedScan:
    loaded = load_scan(series)
    mask, note = place_by_position(*read_mask(file), series.grid)
    return LoadedScan(
        loaded.images, series.grid, (mask > 0).astype("uint8"), (*loaded.notes, *([note] if note else []))
    )


CARD = SetCard(
    name="radcure",
    title="RADCURE: Computed Tomography Images from Large Head and Neck Cohort (version 4)",
    url="https://www.cancerimagingarchive.net/collection/radcure/",
    licence="images and RTSTRUCT: TCIA Restricted licence, now under NIH controlled access; clinical table: CC BY 4.0",
    citation=(
        "Welch et al. (2023), Computed Tomography Images from Large Head and Neck Cohort (RADCURE) (Version 4), The "
        "Cancer Imaging Archive, https://doi.org/10.7937/J47W-NM11. Welch et al., RADCURE: An open-source "
        "head and neck "
        "cancer CT dataset for clinical radiation therapy insights, Medical Physics 2024, "
        "https://doi.org/10.1002/mp.16971"
    ),
    download="Ask for access on the collection's page; fetch it with the NBIA Data Retriever (about 333 GB).",
    layout="Expected: DICOM below the folder, PatientID RADCURE-0005 and so on, CT series with RTSTRUCT.",
    expected=EXPECTED,
    sources=(
        "DOI, citation, licence and number of patients: data-source notes of public repositories that quote "
        "TCIA's page",
        "names GTVp and GTVn_*: the pipeline for RADCURE of its publishers' own group (bhklab/med-imagetools)",
    ),
    checks=(
        "number of patients",
        "RTSTRUCT belongs to its CT by series UID, else frame of reference",
        "with --masks: voxels of mask and CT coincide",
    ),
    open_points=(
        "number of CT series, RTSTRUCT files and patients with nodal volumes: not checked, not found",
        "TCIA's own page could not be read here; what is said of it comes from those who quote it",
        "layout of the masks that come with the foundation models: not found; files that start with the PatientID are "
        "taken, every value above 0 as lymph_node",
    ),
    options=frozenset({"roi", "masks"}),
    plan=plan,
)

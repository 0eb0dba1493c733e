"""``mediastinal-lymph-node-seg``: the LNQ scans as The Cancer Imaging Archive has them, DICOM CT and DICOM SEG."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from lnsegfm.datasets.convert.conversion_plan import TRAIN, ConversionOptions, ConversionPlan, LoadedScan, PlannedScan
from lnsegfm.datasets.convert.dicom import structure_files
from lnsegfm.datasets.convert.partial_annotation import mark_unannotated
from lnsegfm.datasets.convert.reference import choose_reference, fingerprint, load_case
from lnsegfm.datasets.convert.set_card import SetCard
from lnsegfm.datasets.convert.tcia_collection import (
    CollectionScan,
    find_scans,
    missing_count,
    target_part,
    unconverted,
)
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import ConfigError
from lnsegfm.imaging.dicom.reference_choice import ReferenceChoice
from lnsegfm.imaging.dicom.tree_references import reason_without_reference

PATTERNS = ("*=lymph_node",)
FULLY = "fully_annotated"
EXPECTED = {"ct_series": 513, "fully_annotated": 120, "partially_annotated": 393}


def plan(source: Path, options: ConversionOptions) -> ConversionPlan:
    """The scans of the collection; the fully annotated ones are held out unless they are asked for alone.

    A segmentation whose SeriesDescription does not say that it is complete is taken as partial.
    """
    if options.part not in (None, TRAIN, FULLY):
        raise ConfigError(
            f"--part {options.part}: there is no such part. Use {TRAIN} (partially annotated) or {FULLY}."
        )
    labels = LabelMap({"lymph_node": 1}, ignore=2 if options.part in (None, TRAIN) else None)
    members, tree, left_out = find_scans(source, ("case_",))
    scans, of_kind = [], {"fully_annotated": 0, "partially_annotated": 0}
    for member in members:
        chosen = choose_reference([a for a in member.annotations if a.kind == "SEG"], PATTERNS, accept_automatic=True)
        if chosen is None:
            left_out.append(f"Case {member.case}: {reason_without_reference(member.annotations)}.")
            continue
        kind = annotated(chosen.parts[0][0].description)
        of_kind["fully_annotated" if kind == "full" else "partially_annotated"] += 1
        part = target_part(FULLY if kind == "full" else TRAIN, options.part)
        if part is not None:
            load = partial(_load, member, chosen, labels, options.shell_mm, kind)
            origin, mark = (member.series.uid, chosen.parts[0][0].uid), fingerprint(member.series, chosen)
            scans.append(PlannedScan(member.case, member.subject, origin, load, part, fingerprint=mark))
    counts = {"ct_series": len(members), **of_kind, "structure_files": structure_files(tree)}
    missing = [line for what, n in EXPECTED.items() for line in missing_count(what.replace("_", " "), counts[what], n)]
    return ConversionPlan(
        labels=labels, scans=tuple(scans), counts=counts, missing=tuple(missing), **unconverted(tree, left_out)
    )


def annotated(description: str) -> str:
    """``full``, ``partial`` or ``unstated``, by what a segmentation's SeriesDescription says."""
    words = description.casefold()
    if "fully annotated" in words:
        return "full"
    return "partial" if "partially annotated" in words else "unstated"


def _load(member: CollectionScan, chosen: ReferenceChoice, labels: LabelMap, shell_mm: float, kind: str) -> LoadedScan:
    loaded = load_case(member.series, chosen, labels.names)
    if kind == "full" or labels.ignore is None or loaded.mask is None:
        return loaded
    mask = mark_unannotated(loaded.mask, loaded.images[0], loaded.grid.spacing_mm, labels.ignore, shell_mm)
    note = ("SeriesDescription does not say how completely it is annotated: taken as partial",)
    return replace(loaded, mask=mask, notes=loaded.notes + (note if kind == "unstated" else ()))


CARD = SetCard(
    name="mediastinal-lymph-node-seg",
    title=(
        "Mediastinal-Lymph-Node-SEG: Mediastinal Lymph Node Quantification (LNQ), Segmentation of Heterogeneous CT Data"
    ),
    url="https://www.cancerimagingarchive.net/collection/mediastinal-lymph-node-seg/",
    licence="CC BY 4.0",
    citation=(
        "Idris et al. (2024), Mediastinal Lymph Node Quantification (LNQ): Segmentation of Heterogeneous CT Data "
        "(Version 1), The Cancer Imaging Archive, https://doi.org/10.7937/QVAZ-JA09"
    ),
    download="With the NBIA Data Retriever from the collection's page, or from the Imaging Data Commons (about 35 GB).",
    layout="Expected: DICOM below the folder, PatientID case_0001 and so on, each with a CT series and a SEG.",
    expected=EXPECTED,
    sources=(
        "513 patients, 513 CT and 513 SEG series, 120 fully and 393 partially annotated, licence, DOI: lnqproject.org",
        "SeriesDescription `Fully Annotated` or `Partially Annotated`: card of the redistribution "
        "YongchengYAO/LNQ2023-Lite",
        "PatientIDs case_0669 and so on: tables of the redistribution Angelou0516/Mediastinal-Lymph-Node-SEG; "
        "case_0005, one CT and one SEG series: test data of bhklab/med-image_test-data",
        "rule for unannotated voxels: Fischer et al., MELBA 2024:008, https://arxiv.org/abs/2406.14365",
    ),
    checks=(
        "number of CT series, of fully and of partially annotated ones",
        "SEG belongs to its CT by series UID, else frame of reference; its frames lie on the CT's slices",
        "no reference is empty",
    ),
    open_points=("names of the segments: not found; every segment is taken as lymph_node",),
    options=frozenset({"part", "shell_mm"}),
    plan=plan,
)

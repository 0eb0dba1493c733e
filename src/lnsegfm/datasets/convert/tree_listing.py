"""What a DICOM tree holds, for people to choose patterns by; nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lnsegfm.datasets.convert.reference import choose_reference
from lnsegfm.imaging.dicom.annotated_series import read_annotated_tree
from lnsegfm.imaging.dicom.rois import match_rois


def list_tree(source: Path, roi: tuple[str, ...] = (), *, straighten: bool = False) -> dict[str, Any]:
    """Series, structures and the labels that patterns give them, as a table that JSON can hold.

    Series are named by UID and description; the patient's name and ID are not in it.

    Raises:
        DataError: The folder cannot be read.
    """
    tree = read_annotated_tree(source, straighten=straighten)
    series = []
    for place, each in enumerate(tree.index.series):
        annotations = tree.by_series.get(place, ())
        chosen = choose_reference(annotations, roi) if roi else None
        series.append({
            "series": each.uid,
            "part": each.part,
            "description": each.description,
            "shape": list(each.grid.shape),
            "spacing_mm": list(each.grid.spacing_mm),
            "notes": list(each.notes),
            "structures": [
                {
                    "kind": annotation.kind,
                    "file": annotation.path.name,
                    "taken": chosen is not None and any(annotation is part for part, _ in chosen.parts),
                    "rois": _labelled(annotation.names, roi),
                }
                for annotation in annotations
            ],
        })  # fmt: skip
    return {
        "format": "lnsegfm.dicom-list/1",
        "series": series,
        "without_series": [
            {"kind": a.kind, "file": a.path.name, "why": why, "rois": list(a.names)} for a, why in tree.orphans
        ],
        "refused": [str(refusal) for refusal in tree.index.refused] + [line for _, line in tree.unreadable],
        "other_images": dict(tree.index.others),
    }


def _labelled(names: tuple[str, ...], roi: tuple[str, ...]) -> list[dict[str, str | None]]:
    labels = match_rois(names, roi, strict=False).labels if roi else (None,) * len(names)
    return [{"name": name, "label": label} for name, label in zip(names, labels, strict=True)]

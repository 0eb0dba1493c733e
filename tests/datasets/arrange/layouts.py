"""Folders as clinics and public sets have them: each builder writes three patients in one layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lnsegfm.imaging.files import write_mask, write_volume
from lnsegfm.imaging.grid import Grid

GRID = Grid((4, 6, 8), (3.0, 1.0, 1.0), (-4.0, 2.0, 7.0))
PATIENTS = ("P1", "P2", "P10")


def scan(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1000, GRID.shape).astype(np.int16)


def mask(patient: int, value: int = 1) -> np.ndarray:
    """A box whose place is the patient's and the value's."""
    voxels = np.zeros(GRID.shape, np.uint8)
    voxels[1:3, value : value + 2, patient + 1 : patient + 3] = value
    return voxels


def both(patient: int) -> np.ndarray:
    return np.maximum(mask(patient, 1), mask(patient, 3) // 3 * 2)


Builder = Callable[[Path], None]


def files(image: str, *labels: str, ending: str = ".nii.gz", structures: bool = False) -> Builder:
    """A layout by its patterns; ``{p}`` is the patient's name, ``{half}`` train or val."""

    def build(root: Path) -> None:
        for number, patient in enumerate(PATIENTS):
            name = {
                "p": patient.removeprefix("P") if "img{p}" in image else patient,
                "half": ["train", "val", "val"][number],
            }
            write_volume(root / f"{image.format(**name)}{ending}", scan(number), GRID)
            for k, label in enumerate(labels):
                voxels = (mask(number, 1 + 2 * k) > 0).astype(np.uint8) if structures else both(number)
                write_mask(root / f"{label.format(**name)}{ending}", voxels, GRID)

    return build


def listed(image: str, label: str, *, on_disk: str | None = None) -> Builder:
    """With a ``dataset.json`` as MSD and nnU-Net version 1 write it."""

    def build(root: Path) -> None:
        files(on_disk or image, label)(root)
        entries = [
            {key: f"./{name.format(p=p)}.nii.gz" for key, name in (("image", image), ("label", label))}
            for p in PATIENTS
        ]
        content = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "node", "2": "vessel"}}
        (root / "dataset.json").write_text(json.dumps({**content, "training": entries, "test": []}))

    return build


@dataclass(frozen=True)
class Layout:
    """A layout and what is said about it."""

    build: Builder
    options: dict[str, tuple[str, ...]] = field(default_factory=dict)
    structures: tuple[str, ...] = ()
    names: tuple[str, ...] = PATIENTS


WHOLE = {
    "a folder a patient": Layout(files("{p}/CT_image", "{p}/CT_mask")),
    "a folder a patient, generic names": Layout(files("{p}/image", "{p}/label")),
    "folders in folders": Layout(files("data/site/{p}/CT/image", "data/site/{p}/Mask/segmentation")),
    "names repeat the patient": Layout(files("{p}/{p}_ct", "{p}/{p}_gt")),
    "HECKTOR": Layout(files("{p}/{p}__CT", "{p}/{p}")),
    "images and labels_oar": Layout(files("images/{p}", "labels_oar/{p}")),
    "imagesTr without dataset.json": Layout(files("imagesTr/{p}_0000", "labelsTr/{p}")),
    "folders of other words": Layout(files("CT/{p}", "Segmentations/{p}")),
    "folders a kind, folders a patient": Layout(files("scans/{p}/ct", "masks/{p}/mask")),
    "names with words in folders a kind": Layout(files("images/{p}_ct", "labels/{p}_seg")),
    "case names with words": Layout(
        files("images/seg_{p}", "labels/seg_{p}"), names=tuple(f"seg_{p}" for p in PATIENTS)
    ),
    **{
        f"one folder, {suffix}": Layout(files("{p}", f"{{p}}{suffix}"))
        for suffix in ("_seg", "-label", "_mask", "_gt", "_segmentation", "-mask", "_labels", "_GroundTruth", ".seg")
    },
    "one folder, both named": Layout(files("{p}_CT", "{p}_CT_seg")),
    "one folder, word first": Layout(files("img_{p}", "mask_{p}")),
    "one folder, NRRD": Layout(files("{p}", "{p}-label", ending=".nrrd")),
    "hyphen against underscore": Layout(
        files("images/CHUM-{p}", "labels/CHUM_{p}"), names=tuple(f"CHUM-{p}" for p in PATIENTS)
    ),
    "MSD": Layout(listed("imagesTr/{p}", "labelsTr/{p}")),
    "nnU-Net v1": Layout(listed("imagesTr/{p}", "labelsTr/{p}", on_disk="imagesTr/{p}_0000")),
    "MSD with other names": Layout(listed("a/{p}_x", "b/{p}_y"), names=tuple(f"{p}_y" for p in PATIENTS)),
    "LiTS": Layout(files("volume-{p}", "segmentation-{p}")),
    "KiTS": Layout(files("{p}/imaging", "{p}/segmentation")),
    "SegTHOR": Layout(files("{p}/{p}", "{p}/GT")),
    "BTCV": Layout(files("img/img{p}", "label/label{p}"), names=("1", "2", "10")),
    "a folder that all have": Layout(files("{p}/NIFTI/CT", "{p}/NIFTI/mask")),
    "folders that all of a kind have": Layout(files("{p}/Planning study/x/ct", "{p}/Contoured/mask")),
    "halves": Layout(files("images/{half}/{p}", "labels/{half}/{p}")),
    "centres": Layout(files("{half}/{p}_ct", "{half}/{p}_seg")),
    "patterns": Layout(files("A/{p}/1", "A/{p}/2"), {"images": ("A/*/1.nii.gz",), "labels": ("A/*/2.nii.gz",)}),
    "patterns of folders": Layout(files("one/{p}", "two/{p}"), {"images": ("one",), "labels": ("two/",)}),
    "patterns within names": Layout(
        files("x/{p}-a", "x/{p}-b"), {"images": ("x/*-a.nii.gz",), "labels": ("x/*-b.nii.gz",)}
    ),
    "any depth": Layout(
        files("u/v/{p}/a", "u/v/{p}/b"), {"images": ("**/a.nii.gz",), "labels": ("**/b.nii.gz",)},
        names=tuple(f"u_v_{p}" for p in PATIENTS),
    ),
}  # fmt: skip
PARTS = ("Cord", "Parotid_L")
STRUCTURES = {
    "TotalSegmentator": Layout(files("{p}/ct", *(f"{{p}}/segmentations/{s}" for s in PARTS), structures=True)),
    "beside the image": Layout(files("{p}/image", *(f"{{p}}/{s}" for s in PARTS), structures=True)),
    "one folder, names": Layout(files("{p}", *(f"{{p}}_{s}" for s in PARTS), structures=True)),
    "one folder, image named": Layout(files("{p}_ct", *(f"{{p}}_{s}" for s in PARTS), structures=True)),
    "LyNoS": Layout(files("Pat/{p}/{p}_data", *(f"Pat/{{p}}/{{p}}_labels_{s}" for s in PARTS), structures=True)),
    "masks in a folder, names": Layout(files("images/{p}", *(f"masks/{{p}}_{s}" for s in PARTS), structures=True)),
    "masks in folders of patients": Layout(files("images/{p}", *(f"masks/{{p}}/{s}" for s in PARTS), structures=True)),
    "masks in folders of structures": Layout(
        files("images/{p}", *(f"masks/{s}/{{p}}" for s in PARTS), structures=True)
    ),
    "mask behind the structure": Layout(files("{p}/ct", *(f"{{p}}/{s}_mask" for s in PARTS), structures=True)),
    "structures in folders without a word": Layout(files("CT/{p}", *(f"{s}/{{p}}" for s in PARTS), structures=True)),
    "a folder that says nothing": Layout(files("{p}/CT", *(f"{{p}}/RTSTRUCT/{s}" for s in PARTS), structures=True)),
    "patterns": Layout(
        files("q/{p}/one", *(f"q/{{p}}/two/{s}" for s in PARTS), structures=True),
        {"images": ("q/*/one.nii.gz",), "labels": ("q/*/two/*.nii.gz",)},
    ),
}

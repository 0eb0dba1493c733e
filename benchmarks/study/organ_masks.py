"""Masks of OpenKBP's organs with other numbers, both parotids as one label."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk

# The parotids become one label: the study's bases mirror the scans, which makes right of left.
ORGANS = {"Brainstem": 1, "SpinalCord": 2, "Parotid": 3, "Mandible": 4}
TO_ORGANS = {1: 1, 2: 2, 3: 3, 4: 3, 5: 4}
LARYNX = 6


def write_mask(data: Path, case: str, values: Mapping[int, int], label: Path) -> None:
    """Write a case's organs with other numbers; an organ without one is left out."""
    organs = sitk.ReadImage(str(data / "labels_oar" / f"{case}.nii.gz"))
    found = sitk.GetArrayFromImage(organs)
    mask = np.zeros_like(found, dtype=np.uint8)
    for old, new in values.items():
        mask[found == old] = new
    wanted = sitk.GetImageFromArray(mask)
    wanted.CopyInformation(organs)
    sitk.WriteImage(wanted, str(label), True)

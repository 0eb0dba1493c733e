"""Masks as NIfTI."""

from __future__ import annotations

from pathlib import Path

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.imaging.files import write_mask
from lnsegfm.prediction.writers.mask_writer import MaskExport


class NiftiWriter:
    """A mask as ``CASE.nii.gz``, on the scan's grid."""

    name = "nifti"
    needs_series = False

    def file_name(self, case: str) -> str:
        """``CASE.nii.gz``."""
        return f"{case}.nii.gz"

    def check_labels(self, labels: LabelMap, per_node: bool) -> None:
        """NIfTI holds no names: every label will do."""

    def write(self, export: MaskExport, destination: Path) -> None:
        """Write it, as unsigned integers of 8 or 16 bits.

        Raises:
            ImageError: Values beyond 65535.
        """
        write_mask(destination, export.mask, export.grid)

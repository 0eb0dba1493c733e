"""Masks as DICOM structure sets."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.prediction.writers.dicom_names import require_dicom_names
from lnsegfm.prediction.writers.mask_writer import MaskExport


class RtstructWriter:
    """A mask as ``CASE.rtstruct.dcm``: a structure for each label or node, read back before it is put in place."""

    name = "rtstruct"
    needs_series = True

    def file_name(self, case: str) -> str:
        """``CASE.rtstruct.dcm``."""
        return f"{case}.rtstruct.dcm"

    def check_labels(self, labels: LabelMap, per_node: bool) -> None:
        """Names of structures are DICOM long strings.

        Raises:
            ConfigError: A label that is none.
        """
        require_dicom_names(self.name, labels, per_node)

    def write(self, export: MaskExport, destination: Path) -> None:
        """Write it.

        Raises:
            DataError: No series, one without a frame of reference, or a file that does not give the mask back.
        """
        from lnsegfm.imaging.dicom import rtstruct_write

        if export.series is None:
            raise DataError(f"Case {export.case}: a structure set refers to a DICOM series. Give the scan as DICOM.")
        algorithm = ", ".join(part for part in (f"lnsegfm {version('lnsegfm')}", export.model) if part)
        rtstruct_write.write_rtstruct(
            destination,
            export.mask,
            dict(export.labels.names),
            export.series,
            instances=export.instances,
            names=export.instance_names,
            algorithm=algorithm,
            description=f"Made by {algorithm}.",
        )

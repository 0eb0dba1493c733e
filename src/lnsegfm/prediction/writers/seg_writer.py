"""Masks as DICOM segmentations."""

from __future__ import annotations

from pathlib import Path

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.prediction.writers.dicom_names import TEXT, require_dicom_names
from lnsegfm.prediction.writers.mask_writer import MaskExport


class SegWriter:
    """A mask as ``CASE.seg.dcm``: a segment for each label or node, read back before it is put in place."""

    name = "seg"
    needs_series = True

    def file_name(self, case: str) -> str:
        """``CASE.seg.dcm``."""
        return f"{case}.seg.dcm"

    def check_labels(self, labels: LabelMap, per_node: bool) -> None:
        """Names of segments are DICOM long strings.

        Raises:
            ConfigError: A label that is none.
        """
        require_dicom_names(self.name, labels, per_node)

    def write(self, export: MaskExport, destination: Path) -> None:
        """Write it.

        Raises:
            DataError: No series, one without a frame of reference, or a file that does not give the mask back.
        """
        from lnsegfm.imaging.dicom import seg_write
        from lnsegfm.imaging.dicom.seg_encode import SegProvenance

        if export.series is None:
            raise DataError(f"Case {export.case}: a segmentation refers to a DICOM series. Give the scan as DICOM.")
        seg_write.write_seg(
            destination,
            export.mask,
            dict(export.labels.names),
            export.series,
            instances=export.instances,
            names=export.instance_names,
            regions=dict(export.labels.regions),
            provenance=SegProvenance(model=export.model[:TEXT].strip()),
        )

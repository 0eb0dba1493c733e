"""Masks as DICOM structure sets."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.prediction.writers.dicom_names import require_dicom_names
from lnsegfm.prediction.writers.mask_writer import ExportNotes, MaskExport

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.rtstruct_write import WrittenStructures


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

    def write(self, export: MaskExport, destination: Path) -> ExportNotes:
        """Write it; of a mask without a voxel there is none.

        Raises:
            DataError: No series, one without a frame of reference, or a file that does not give the mask back.
        """
        from lnsegfm.imaging.dicom import rtstruct_write
        from lnsegfm.imaging.dicom.dicom_errors import EmptyStructureSet

        if export.series is None:
            raise DataError(f"Case {export.case}: a structure set refers to a DICOM series. Give the scan as DICOM.")
        algorithm = ", ".join(part for part in (f"lnsegfm {version('lnsegfm')}", export.model) if part)
        try:
            written = rtstruct_write.write_rtstruct(
                destination,
                export.mask,
                dict(export.labels.names),
                export.series,
                instances=export.instances,
                names=export.instance_names,
                regions=dict(export.labels.regions),
                algorithm=algorithm,
                description=f"Made by {algorithm}.",
                options=export.rtstruct,
            )
        except EmptyStructureSet:
            note = "Nothing was found: no structure set is written, since one needs a structure."
            return ExportNotes(notes=(note,), nothing_found=True)
        return _notes(written, export)


def _notes(written: WrittenStructures, export: MaskExport) -> ExportNotes:
    renamed = {full: name for full, name in written.names.items() if full != name}
    details: dict[str, Any] = {"names": renamed, "left_out": list(written.left_out)}
    notes = list(written.notes)
    if (thin := export.rtstruct.thin) is not None:
        details["structures"] = {
            name: {
                "points": each.points,
                "exact_points": each.exact_points,
                "volume_change": written.differences[name].volume,
                "differing_voxels": written.differences[name].voxels,
            }
            for name, each in written.contours.items()
        }
        points, exact = (sum(getattr(c, n) for c in written.contours.values()) for n in ("points", "exact_points"))
        most = max(abs(difference.volume) for difference in written.differences.values())
        notes.append(
            f"Contours have {points} points instead of {exact}, by up to {thin.mm:g} mm off the voxels' edges; volumes "
            f"change by at most {most:.2%}."
        )
    return ExportNotes(notes=tuple(notes), details=details)

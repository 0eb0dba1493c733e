"""The interface of a file format that masks are written in.

A new format is one class with these members and one line in `lnsegfm.prediction.writers.writer_table`, or, in a package
of its own, an entry point of the group ``lnsegfm.writers`` that names an instance. It is then a value of ``--format``::

    class NrrdWriter:
        name = "nrrd"
        needs_series = False

        def file_name(self, case: str) -> str:
            return f"{case}.copy.nrrd"

        def check_labels(self, labels: LabelMap, per_node: bool) -> None:
            pass  # every label has a name in this format

        def write(self, export: MaskExport, destination: Path) -> None:  # or ExportNotes
            write_mask(destination, export.mask, export.grid)

``lnsegfm predict`` calls ``check_labels`` once, before the first scan is read, and ``write`` once for each mask, after
the mask itself is in place. A file that is there is not written again unless its mask was changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.imaging.dicom.rtstruct_options import RtstructOptions
from lnsegfm.imaging.grid import Grid

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.series import Series


@dataclass(frozen=True, eq=False, kw_only=True)
class MaskExport:
    """A mask to be written, and what is known of it.

    Args:
        case: Name of the case.
        mask: Label values (z, y, x); 0 is background.
        grid: Where its voxels lie, in mm, LPS.
        labels: What its values mean.
        series: The DICOM series that it is the mask of; None for a scan that was an image.
        instances: Number of the node that a voxel belongs to (z, y, x), 0 for none; None where a structure is a label.
            Of regions one such array each, in the order of the labels (regions, z, y, x).
        instance_names: What each number of ``instances`` is called, such as ``lymph_node 3``.
        model: What files call the model; "" where it is not known.
        rtstruct: How structure sets are written.
    """

    case: str
    mask: np.ndarray
    grid: Grid
    labels: LabelMap
    series: Series | None = None
    instances: np.ndarray | None = None
    instance_names: Mapping[int, str] | None = None
    model: str = ""
    rtstruct: RtstructOptions = field(default_factory=RtstructOptions)


@dataclass(frozen=True, kw_only=True)
class ExportNotes:
    """What a writer says of a file, for the record of the case.

    Args:
        notes: What differs between mask and file, one line each.
        details: More of it, plainly.
        nothing_found: There is no file, because the format has none of a mask without a voxel.
    """

    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    nothing_found: bool = False

    def to_json(self) -> dict[str, Any]:
        """What there is to say, plainly; empty where nothing is."""
        said = {"notes": list(self.notes), **self.details, "nothing_found": self.nothing_found}
        return {name: value for name, value in said.items() if value}


class MaskWriter(Protocol):
    """Writes masks in one format."""

    @property
    def name(self) -> str:
        """What ``--format`` calls it: lower case, no comma."""

    @property
    def needs_series(self) -> bool:
        """Whether it refers to a DICOM series, so that scans which are images have no such file."""

    def file_name(self, case: str) -> str:
        """Name of a case's file, which starts with ``CASE.`` and is no other writer's."""

    def check_labels(self, labels: LabelMap, per_node: bool) -> None:
        """Refuse labels that the format has no room for, before hours of predicting.

        Args:
            labels: Of the model.
            per_node: Whether each node will be a structure of its own, named by its label and a number.

        Raises:
            ConfigError: A label that cannot be written.
        """

    def write(self, export: MaskExport, destination: Path) -> ExportNotes | None:
        """Write a mask, or raise; say what differs between mask and file, if anything does.

        The file appears whole or not at all: `lnsegfm.storage` has what that takes. A format that can be read should
        be, and compared with the mask, before it is put in place.

        Args:
            export: The mask, all of it: an empty one is written, too.
            destination: The file.

        Raises:
            DataError: The file does not give the mask back, or the series cannot be referred to. The case is then
                reported as failed and the other formats are written.
        """

"""All that is written for one case: mask, sidecars, exports and the record that tells of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from lnsegfm.datasets.dataset import Case
from lnsegfm.datasets.labels import node_labels
from lnsegfm.errors import DataError
from lnsegfm.evaluation.flags import Flag, Overlap, flags_of
from lnsegfm.evaluation.mask_statistics import measure_mask
from lnsegfm.imaging.files import read_mask, read_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.scan_hash import scan_hash
from lnsegfm.prediction.case_names import identity
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.results import PredictedMask
from lnsegfm.prediction.scans import Scans
from lnsegfm.prediction.writers.case_records import (
    DONE,
    FAILED,
    CaseRecord,
    describe_series,
    read_record,
    record_file,
    write_record,
)
from lnsegfm.prediction.writers.cohort_summary import read_series_index
from lnsegfm.prediction.writers.mask_exports import MaskExports
from lnsegfm.prediction.writers.mask_origin import MaskOrigin
from lnsegfm.prediction.writers.sidecars import (
    NodesByLabel,
    has_nodes,
    has_probabilities,
    measured_nodes,
    remove_nodes,
    remove_sidecars,
    sidecars_of,
    write_case_probabilities,
    write_nodes,
)
from lnsegfm.storage import sha256


class Need(Enum):
    """What is to be done for a case."""

    PREDICT = "predict"
    COMPLETE = "complete"
    """Its mask is there; its sidecars are not, or belong to another mask."""
    NOTHING = "nothing"


class CaseOutputs:
    """Writes what belongs to the cases of one folder; who calls it holds the case.

    Args:
        out: The folder.
        origin: What its masks are made by.
        scans: What is predicted.
        options: What is written.
        measure: Measure the nodes of each mask for the summary, also where no table of them is wanted.

    Raises:
        ConfigError: As `MaskExports`.
    """

    def __init__(
        self, out: Path, origin: MaskOrigin, scans: Scans, options: PredictOptions, *, measure: bool = True
    ) -> None:
        self.out, self.origin, self.scans, self.options = out, origin, scans, options
        self.exports = MaskExports(
            out, origin.labels, scans, options.formats, options.per_node, origin.title, options.rtstruct
        )
        self._measure = measure
        self._owners = read_series_index(out)

    def mask_file(self, case: str) -> Path:
        """Where the mask of a case lies."""
        return self.out / f"{case}{self.origin.mask_ending}"

    def need(self, case: str, generation: int | None) -> Need:
        """What is to be done for a case.

        Args:
            case: Its name.
            generation: Of the folder; None before it is known.

        Raises:
            DataError: Its mask is there and is another series', or was corrected by hand, and probabilities are wanted.
        """
        mask, record = self.mask_file(case), read_record(self.out, case)
        if not mask.is_file():
            return Need.PREDICT
        if self.options.overwrite and (generation is None or record is None or record.generation < generation):
            return Need.PREDICT
        if self._owner(case, record) not in (None, self._identity(case)):
            raise DataError(f"{mask.name} is the mask of another series with this name. Name another --out.")
        if record is not None and record.made_by not in (None, self.origin.made_by):
            return Need.PREDICT  # an --overwrite with other settings was interrupted
        edited = self.edited(case)
        if self.options.probabilities and not has_probabilities(self.out, case):
            if edited:
                raise DataError(
                    f"{mask.name} was corrected by hand, and probabilities are a prediction's. Leave out "
                    "--probabilities, or --overwrite."
                )
            return Need.PREDICT
        return Need.COMPLETE if edited or record is None or self._lacks(record) else Need.NOTHING

    def edited(self, case: str) -> bool:
        """Whether somebody changed a mask after its record was written."""
        record = read_record(self.out, case)
        return record is not None and record.mask_sha256 not in ("", sha256(self.mask_file(case)))

    def before_mask(self, case: Case, predicted: PredictedMask, generation: int) -> None:
        """Write what belongs to a mask that is about to appear; what belonged to the one before goes, and it, too.

        However the process ends, a mask that is there has its record.

        Args:
            case: The case, its image in a file.
            predicted: The prediction.
            generation: Of the folder.

        """
        mask, grid = read_mask(predicted.mask)
        flags = None
        if self.options.flags:
            flags = self._flags(case.name, predicted.scan, mask, grid, predicted.scan_hash, predicted.mirrored)
        nodes = self._nodes(mask, grid)
        before = read_record(self.out, case.name)
        self.mask_file(case.name).unlink(missing_ok=True)  # first: no mask ever has another one's record
        record_file(self.out, case.name).unlink(missing_ok=True)
        self.exports.remove(case.name, before)
        remove_sidecars(self.out, case.name)
        if predicted.probabilities is not None:
            write_case_probabilities(self.out, case.name, predicted.probabilities)
        if nodes is not None and self.options.nodes:
            write_nodes(self.out, case.name, nodes)
        made = CaseRecord(case=case.name, made_by=self.origin.made_by, generation=generation, flags=flags)
        write_record(self.out, self._described(made, mask, grid, sha256(predicted.mask), nodes))

    def complete(self, case: Case) -> None:
        """Add all that a mask that is there lacks; how mirrored predictions agreed is not known any more.

        Args:
            case: The case, its image in a file.

        Raises:
            DataError: The mask or the scan cannot be read, they do not belong together, or as `export`.
        """
        file = self.mask_file(case.name)
        mask, grid = read_mask(file)
        self.exports.require_series(case.name, file, grid)
        record, digest = read_record(self.out, case.name) or CaseRecord(case=case.name), sha256(file)
        if record.mask_sha256 != digest:
            if record.mask_sha256:
                remove_nodes(self.out, case.name)  # their numbers would not be those of the structures
                record = replace(record, edited=True)
            record = replace(record, nodes=None, exports=(), export_notes={})
        if record.exports and self.exports.stale(record):
            record = replace(record, exports=(), export_notes={})
        if not record.exports:
            self.exports.remove(case.name, read_record(self.out, case.name))
        if self._lacks_flags(record):
            record = replace(record, flags=self._flags(case.name, self._ct(case), mask, grid, self._scan_hash(case)))
        nodes = self._nodes(mask, grid) if record.nodes is None or self._lacks_table(case.name) else None
        if nodes is not None and self._lacks_table(case.name):
            write_nodes(self.out, case.name, nodes)
        record = self._described(record, mask, grid, digest, nodes)
        write_record(self.out, record)
        self._export(record, mask, grid)

    def export(self, case: str) -> None:
        """Write the exports of a mask that are missing.

        Raises:
            DataError: An export that cannot be written, or does not give the mask back; the record names the others.
        """
        record = read_record(self.out, case)
        if record is None or not self.exports.missing(record):
            return  # the mask is not read for nothing
        self._export(record, *read_mask(self.mask_file(case)))

    def fail(self, case: str, reason: str) -> None:
        """Record that a case failed; what its mask's record tells stays."""
        record = read_record(self.out, case) or CaseRecord(case=case, series=self._series(case))
        write_record(self.out, replace(record, status=FAILED, reason=reason))

    def flags(self, case: str) -> tuple[Flag, ...]:
        """The flags of a case, where any were looked for."""
        record = read_record(self.out, case)
        return record.flags or () if record is not None else ()

    def export_notes(self, case: str) -> tuple[str, ...]:
        """What differs between the mask of a case and its exports in the formats that are wanted, a line each."""
        record = read_record(self.out, case)
        said = record.export_notes if record is not None else {}
        return tuple(note for name in self.options.formats for note in said.get(name, {}).get("notes", ()))

    def _export(self, record: CaseRecord, mask: np.ndarray, grid: Grid) -> None:
        if not self.exports.missing(record):
            return
        written, notes, problems = self.exports.write(record, mask, grid)
        changed = replace(record, exports=written, export_notes=notes, per_node=self.options.per_node)
        write_record(self.out, changed)
        if problems:
            raise DataError(" ".join(problems))

    def _lacks(self, record: CaseRecord) -> bool:
        return (
            record.status != DONE
            or self._lacks_flags(record)
            or self._lacks_table(record.case)
            or (self._measure and record.nodes is None)
            or bool(self.exports.missing(record))
        )

    def _lacks_flags(self, record: CaseRecord) -> bool:
        return self.options.flags and record.flags is None

    def _lacks_table(self, case: str) -> bool:
        return self.options.nodes and not has_nodes(self.out, case)

    def _ct(self, case: Case) -> np.ndarray | None:
        with self.scans.opened(case) as scan:
            return None if self.origin.ct is None else read_volume(scan.images[self.origin.ct])[0]

    def _scan_hash(self, case: Case) -> str | None:
        if not self.origin.trained_scans:
            return None
        with self.scans.opened(case) as scan:
            return scan_hash(*read_volume(scan.images[0]))

    def _flags(
        self,
        case: str,
        scan_hu: np.ndarray | None,
        mask: np.ndarray,
        grid: Grid,
        scan: str | None,
        mirrored: Mapping[str, Overlap] | None = None,
    ) -> tuple[Flag, ...]:
        origin = self.origin
        measured = measure_mask(scan_hu, mask, grid, origin.labels.covered, axes=origin.trained.codes)
        known = scan in origin.trained_scans.scans
        return flags_of(case, measured, origin.domains, mirrored, origin.trained, trained_on=known)

    def _nodes(self, mask: np.ndarray, grid: Grid) -> NodesByLabel | None:
        return measured_nodes(mask, grid, self.origin.labels) if self.options.nodes or self._measure else None

    def _described(
        self, record: CaseRecord, mask: np.ndarray, grid: Grid, digest: str, nodes: NodesByLabel | None
    ) -> CaseRecord:
        """The record with all that can be seen of a mask."""
        summary = record.nodes
        if nodes is not None:
            of_nodes = {label: nodes[label] for label in node_labels(self.origin.labels.names)}
            summary = {
                label: {
                    "number": len(measured),
                    "largest_short_axis_mm": max((node.short_axis_mm for node in measured), default=None),
                }
                for label, measured in of_nodes.items()
            }
        return replace(
            record,
            status=DONE,
            reason="",
            model=record.model or self.origin.title,
            mask=self.mask_file(record.case).name,
            mask_sha256=digest,
            shape=tuple(grid.shape),
            spacing_mm=tuple(grid.spacing_mm),
            volumes_ml={
                name: int(np.count_nonzero(self.origin.labels.voxels(mask, name))) * grid.voxel_volume_ml
                for name in self.origin.labels.names
            },
            nodes=summary,
            sidecars=sidecars_of(self.out, record.case),
            per_node=record.per_node if record.exports else self.options.per_node,
            series=self._series(record.case),
        )

    def _series(self, case: str) -> dict[str, Any] | None:
        return describe_series(self.scans.series.get(case))

    def _identity(self, case: str) -> str:
        """Which series a case is; "" for an image."""
        return identity(self.scans.series[case]) if case in self.scans.series else ""

    def _owner(self, case: str, record: CaseRecord | None) -> str | None:
        """Whose the mask of a name is: a series, "" for an image; None where nobody knows."""
        return record.series_identity if record is not None else self._owners.get(case)

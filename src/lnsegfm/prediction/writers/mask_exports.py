"""A mask in the formats that ``--format`` names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.imaging.dicom.rtstruct_options import RtstructOptions
from lnsegfm.imaging.grid import Grid
from lnsegfm.prediction.inputs import one_line
from lnsegfm.prediction.scans import Scans
from lnsegfm.prediction.writers.case_records import CaseRecord
from lnsegfm.prediction.writers.mask_writer import MaskExport, MaskWriter
from lnsegfm.prediction.writers.node_instances import number_nodes
from lnsegfm.prediction.writers.rtstruct_writer import RtstructWriter
from lnsegfm.prediction.writers.writer_table import MASK, WRITERS, formats_named


class MaskExports:
    """The exports of the masks of one folder.

    Args:
        out: The folder.
        labels: What the masks hold.
        scans: What is predicted.
        formats: Names of formats; the mask itself is always written.
        per_node: A structure for each node, numbered as in the table of nodes, instead of one for each label.
        model: What files call the model.
        rtstruct: How structure sets are written.

    Raises:
        ConfigError: A format that is not known, that refers to a DICOM series where no scan is one, or that has no
            room for the labels; or settings of structure sets where none is written.
    """

    def __init__(
        self,
        out: Path,
        labels: LabelMap,
        scans: Scans,
        formats: Iterable[str] = (),
        per_node: bool = False,
        model: str = "",
        rtstruct: RtstructOptions | None = None,
    ) -> None:
        self.rtstruct = rtstruct or RtstructOptions()
        self.out, self.labels, self.scans, self.per_node, self.model = out, labels, scans, per_node, model
        self._known, _ = WRITERS.usable()  # a plugin that cannot be loaded is no matter while nobody names it
        self._writers = tuple(WRITERS[name] for name in formats_named(formats) if name != MASK)
        of_series = [writer.name for writer in self._writers if writer.needs_series]
        if of_series and not scans.series:
            raise ConfigError(
                f"--format {','.join(of_series)}: it refers to a DICOM series, and no scan is one. Give DICOM scans."
            )
        given = self.rtstruct.to_json()
        if given and RtstructWriter.name not in (writer.name for writer in self._writers):
            option, value = next(iter(given.items()))
            value = self.rtstruct.add_to if option == "add_to" else value
            named = f"--{option.replace('_', '-')}" + ("" if value is True else f" {value}")
            raise ConfigError(f"{named}: no structure set is written. Add --format rtstruct.")
        if self.rtstruct.add_to is not None and not self.rtstruct.add_to.exists():
            raise ConfigError(f"--add-to {self.rtstruct.add_to}: no such file or folder. Check the path.")
        for writer in self._writers:  # now, and not after hours of predicting
            writer.check_labels(labels, per_node)

    def missing(self, record: CaseRecord) -> tuple[MaskWriter, ...]:
        """The formats that are wanted of a case and not there, or there otherwise than wanted."""
        wanted = [w for w in self._writers if not w.needs_series or record.case in self.scans.series]
        return tuple(w for w in wanted if record.per_node != self.per_node or not self._stands(w, record))

    def stale(self, record: CaseRecord) -> bool:
        """Whether what is there has a structure a node where now one a label is wanted, or the other way."""
        return bool(self._writers) and record.per_node != self.per_node

    def remove(self, case: str, record: CaseRecord | None) -> None:
        """Remove the exports of a mask that is replaced."""
        named = record.exports if record is not None else ()
        ours = {writer.file_name(case) for name, writer in self._known.items() if name != MASK}
        for name in ours | {name for name in named if name.startswith(f"{case}.") and Path(name).name == name}:
            (self.out / name).unlink(missing_ok=True)

    def write(
        self, record: CaseRecord, mask: np.ndarray, grid: Grid
    ) -> tuple[tuple[str, ...], Mapping[str, Mapping[str, Any]], list[str]]:
        """Write the formats of a mask that are missing.

        Returns:
            The names of all exports that are there now, what their writers say of each format, and what is wrong with
            those that are not there, a line each.
        """
        missing = self.missing(record)
        there = [w.file_name(record.case) for w in self._known.values() if self._is_there(w, record)]
        instances, names = number_nodes(mask, self.labels) if missing and self.per_node else (None, None)
        export = MaskExport(
            case=record.case,
            mask=mask,
            grid=grid,
            labels=self.labels,
            series=self.scans.series.get(record.case),
            instances=instances,
            instance_names=names,
            model=self.model,
            rtstruct=self.rtstruct,
        )
        notes, problems = dict(record.export_notes), list[str]()
        for writer in missing:
            try:
                said = writer.write(export, self.out / writer.file_name(record.case))
                notes[writer.name] = (said.to_json() if said is not None else {}) | self._settings(writer)
                if not notes[writer.name].get("nothing_found"):
                    there.append(writer.file_name(record.case))
            except Exception as error:  # whatever is wrong with one file, the others are wanted
                problems.append(one_line(error))
        order = [writer.file_name(record.case) for writer in self._known.values()]
        said_of = {name: said for name, said in notes.items() if said}
        return tuple(sorted(set(there), key=order.index)), said_of, list(dict.fromkeys(problems))

    def require_series(self, case: str, mask_file: Path, grid: Grid) -> None:
        """Refuse a mask that lies on another grid than its series.

        Raises:
            DataError: It does.
        """
        series = self.scans.series.get(case)
        if series is not None and (difference := grid.difference(series.grid)):
            raise DataError(f"{mask_file.name}: it is not the mask of this series ({difference}). Name another --out.")

    def _stands(self, writer: MaskWriter, record: CaseRecord) -> bool:
        """Whether a format is there, or known to have no file of this mask, as it would be written now."""
        noted = record.export_notes.get(writer.name, {})
        complete = noted.get("nothing_found", False) or self._is_there(writer, record)
        return complete and noted.get("options", {}) == self._settings(writer).get("options", {})

    def _settings(self, writer: MaskWriter) -> dict[str, Any]:
        given = self.rtstruct.to_json() if writer.name == RtstructWriter.name else {}
        return {"options": dict(given)} if given else {}

    def _is_there(self, writer: MaskWriter, record: CaseRecord) -> bool:
        name = writer.file_name(record.case)
        return name in record.exports and (self.out / name).is_file()

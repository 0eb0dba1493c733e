"""Masks for the clinic: RTSTRUCT and DICOM SEG beside each mask, a record of each case, and a summary of all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from lnsegfm.datasets.dataset import Case
from lnsegfm.datasets.labels import LabelMap, node_labels, nodes_among
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.evaluation.flags import Flag
from lnsegfm.evaluation.nodes import measure_nodes
from lnsegfm.imaging.files import read_mask
from lnsegfm.imaging.grid import Grid
from lnsegfm.prediction.case_names import identity
from lnsegfm.prediction.inputs import Failure, Scans, one_line
from lnsegfm.prediction.writers.cohort_summary import NOTICE, write_summary
from lnsegfm.prediction.writers.node_instances import number_nodes
from lnsegfm.storage import read_json, sha256, write_json

CASE_FORMAT, SERIES_FORMAT = "lnsegfm.case/1", "lnsegfm.series/1"
TEXT = 64
"""Characters of a DICOM long string, as the name of a structure or segment is."""


class Format(StrEnum):
    """What a mask is written as; NIfTI always is."""

    NIFTI = "nifti"
    RTSTRUCT = "rtstruct"
    SEG = "seg"


@dataclass(frozen=True)
class Exports:
    """Writes beside the masks of one folder.

    Args:
        out: The folder.
        labels: What the masks hold.
        scans: What was predicted.
        formats: What to write for cases from DICOM.
        per_node: A structure or segment for each node, numbered as in the table of nodes.
        model: What the files call the model; "" where it is not known.

    Raises:
        ConfigError: A DICOM format for scans none of which is DICOM, or for labels that DICOM has no room for.
    """

    out: Path
    labels: LabelMap
    scans: Scans
    formats: tuple[Format, ...] = (Format.NIFTI,)
    per_node: bool = False
    model: str = ""

    def __post_init__(self) -> None:
        if not self._wanted:
            return
        named = ",".join(self._wanted)
        if not self.scans.series:
            raise ConfigError(f"--format {named}: it refers to a DICOM series, and no scan is one. Give DICOM scans.")
        for label in self.labels.names:  # now, and not after hours of predicting
            by_node = self.per_node and label in nodes_among(self.labels.names)
            room = TEXT - len(" 65535") if by_node else TEXT
            if len(label) > room or "\\" in label or label != label.strip():
                raise ConfigError(
                    f"--format {named}: label {label[:TEXT]!r} is no name in DICOM, which takes {room} characters "
                    "here, no backslash and no blanks at the ends. Rename it in the model's dataset.json."
                )

    @property
    def _wanted(self) -> tuple[Format, ...]:
        return tuple(kind for kind in Format if kind in self.formats and kind != Format.NIFTI)

    def file(self, case: str, kind: Format) -> Path:
        """Where a case's export lies."""
        return self.out / f"{case}.{kind}.dcm"

    def record(self, case: str) -> Path:
        """Where a case's record lies."""
        return self.out / f"{case}.case.json"

    def claim(self, masks: Mapping[str, Path], *, overwrite: bool) -> tuple[Failure, ...]:
        """Write down which series each case is, before the first mask, and tell the cases whose masks are another's.

        A mask must never pass for that of a series with the same name, such as a patient's next examination.

        Args:
            masks: The file of each case's mask, there or not.
            overwrite: Whether masks that are there are made anew, whosever they are.
        """
        before = self._claimed()
        now = {case.name: self._identity(case.name) for case in self.scans.cases}
        taken = [n for n, mine in now.items() if masks[n].is_file() and self._owner(n, before) not in (None, mine)]
        claimed = before | {name: uid for name, uid in now.items() if uid and name not in taken}
        if claimed:
            self._write_claimed(claimed)
        if overwrite:  # each when its mask is made: see ``replace``
            return ()
        return tuple(
            Failure(name, f"{masks[name].name} is the mask of another series with this name. Name another --out.")
            for name in taken
        )

    def replace(self, case: Case, mask_file: Path) -> None:
        """Before a mask appears: what was written for the one before goes, and that one itself if it is another's."""
        self._forget(case.name)
        claimed, mine = self._claimed(), self._identity(case.name)
        if claimed.get(case.name, "") == mine:
            return
        mask_file.unlink(missing_ok=True)  # first: a process that is killed here leaves no mask under a wrong name
        self._write_claimed({name: uid for name, uid in (claimed | {case.name: mine}).items() if uid})

    def lacks(self, case: Case, mask_file: Path) -> bool:
        """Whether something wanted is missing that a mask gives, or was written otherwise or for another mask."""
        record = self._told(case.name)
        if record is None or record.get("mask_sha256") != sha256(mask_file):
            return True
        if case.name not in self.scans.series or not self._wanted:
            return False
        return self._other_pieces(record) or any(not self._is_there(case.name, kind, record) for kind in self._wanted)

    def edited(self, case: Case, mask_file: Path) -> bool:
        """Whether somebody changed a mask after its record was written."""
        record = self._told(case.name)
        return record is not None and record.get("mask_sha256") != sha256(mask_file)

    def write(self, case: Case, mask_file: Path) -> None:
        """Write the exports of a mask that are missing, then its record, which says which are there.

        Raises:
            DataError: An export that does not give the mask back, voxel for voxel, or a series that cannot be referred
                to; the record is there, without that export.
        """
        record, digest = self._told(case.name), sha256(mask_file)
        if record is None or record.get("mask_sha256") != digest or self._other_pieces(record):
            self._forget(case.name)
            record = {}
        mask, grid = read_mask(mask_file)
        series = self.scans.series.get(case.name)
        if series is not None and (difference := grid.difference(series.grid)):
            raise DataError(f"{mask_file.name}: it is not the mask of this series ({difference}). Name another --out.")
        there = [kind for kind in Format if self._is_there(case.name, kind, record)]
        missing = [kind for kind in self._wanted if kind not in there] if series is not None else []
        pieces = number_nodes(mask, self.labels) if missing and self.per_node else (None, None)
        problems: list[str] = []
        for kind in missing:
            try:
                self._export(case.name, kind, mask, *pieces)
                there.append(kind)
            except Exception as error:  # whatever is wrong with one file, the other is wanted
                problems.append(one_line(error))
        told = self._measured(mask, grid) | {
            "format": CASE_FORMAT,
            "notice": NOTICE,
            "case": case.name,
            "model": self.model,
            "mask": mask_file.name,
            "mask_sha256": digest,
            "exports": [self.file(case.name, kind).name for kind in Format if kind in there],
            "per_node": self.per_node if self._wanted else record.get("per_node", self.per_node),
        }
        write_json(self.record(case.name), told | self._origin(case.name))
        if problems:
            raise DataError(" ".join(dict.fromkeys(problems)))

    def summarise(self, done: Iterable[str], failed: Sequence[Failure], flags: Sequence[Flag]) -> None:
        """Write what became of all scans: ``summary.json`` and ``summary.csv``."""
        made = set(done)
        rows: list[dict[str, Any]] = []
        for case in self.scans.cases:
            lost = [failure.reason for failure in failed if failure.case == case.name]
            reasons = [flag.reason for flag in flags if flag.case == case.name]
            status = "failed" if lost else "predicted" if case.name in made else "was there"
            told = {"case": case.name, "status": status, "reason": " ".join(lost), "look": reasons}
            rows.append(told | (self._told(case.name) or {}) | told)
        write_summary(self.out, self.labels, rows, self.scans.refused)

    def _export(
        self, case: str, kind: Format, mask: np.ndarray, instances: np.ndarray | None, names: Mapping[int, str] | None
    ) -> None:
        from lnsegfm.imaging.dicom.rtstruct_write import write_rtstruct
        from lnsegfm.imaging.dicom.seg_encode import SegProvenance
        from lnsegfm.imaging.dicom.seg_write import write_seg

        file, values, series = self.file(case, kind), dict(self.labels.names), self.scans.series[case]
        if kind == Format.SEG:
            provenance = SegProvenance(model=self.model[:TEXT].strip())
            write_seg(file, mask, values, series, instances=instances, names=names, provenance=provenance)
            return
        algorithm = ", ".join(part for part in (f"lnsegfm {version('lnsegfm')}", self.model) if part)
        write_rtstruct(
            file,
            mask,
            values,
            series,
            instances=instances,
            names=names,
            algorithm=algorithm,
            description=f"Made by {algorithm}.",
        )

    def _measured(self, mask: np.ndarray, grid: Grid) -> dict[str, Any]:
        values = self.labels.names
        nodes = {name: measure_nodes(mask == values[name], grid) for name in node_labels(values)}
        return {
            "shape": list(grid.shape),
            "spacing_mm": list(grid.spacing_mm),
            "volumes_ml": {
                name: int(np.count_nonzero(mask == value)) * grid.voxel_volume_ml for name, value in values.items()
            },
            "nodes": {
                label: {
                    "number": len(found),
                    "largest_short_axis_mm": max((n.short_axis_mm for n in found), default=None),
                }
                for label, found in nodes.items()
            },
        }

    def _origin(self, case: str) -> dict[str, Any]:
        series = self.scans.series.get(case)
        if series is None:
            return {}
        told = {
            "identity": identity(series),
            "uid": series.uid,
            "study_uid": series.study_uid,
            "description": series.description,
            "number": series.number,
            "slices": len(series.slices),
            "notes": list(series.notes),
            "straightened": series.straightened,
        }
        return {"series": told}

    def _identity(self, case: str) -> str:
        """Which series a case is; "" for an image."""
        return identity(self.scans.series[case]) if case in self.scans.series else ""

    def _owner(self, case: str, claimed: Mapping[str, str]) -> str | None:
        """Whose the mask of a name is: a series, "" for an image; None where nobody knows."""
        if case in claimed:
            return claimed[case]
        record = self._told(case)
        return None if record is None else str(record.get("series", {}).get("identity", ""))

    def _claimed(self) -> dict[str, str]:
        file = self.out / "series.json"
        if not file.is_file():
            return {}
        content = read_json(file)
        known = isinstance(content, dict) and content.get("format") == SERIES_FORMAT
        if not known or not isinstance(content.get("series"), dict):
            raise DataError(f"{file}: not of the format {SERIES_FORMAT}. Remove it, and run the same command again.")
        return dict(content["series"])

    def _write_claimed(self, claimed: Mapping[str, str]) -> None:
        write_json(self.out / "series.json", {"format": SERIES_FORMAT, "series": dict(claimed)})

    def _told(self, case: str) -> dict[str, Any] | None:
        """A case's record; None where there is none, or a damaged one, which is then written anew."""
        try:
            content = read_json(self.record(case))
        except DataError:
            return None
        return content if isinstance(content, dict) and content.get("format") == CASE_FORMAT else None

    def _other_pieces(self, record: Mapping[str, Any]) -> bool:
        """Whether what is there was written a structure a node where now one a label is wanted, or the other way."""
        return bool(self._wanted) and record.get("per_node") != self.per_node

    def _is_there(self, case: str, kind: Format, record: Mapping[str, Any]) -> bool:
        file = self.file(case, kind)
        return file.name in record.get("exports", ()) and file.is_file()

    def _forget(self, case: str) -> None:
        """Remove what was written for a mask; the record goes first, so that it never tells of another's exports."""
        for file in (self.record(case), *(self.file(case, kind) for kind in Format)):
            file.unlink(missing_ok=True)

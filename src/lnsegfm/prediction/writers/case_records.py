"""One record a case: all that is known of it, in ``CASE.case.json``.

A record is written whole and never changed, only replaced by another whole one, by the process that holds the case
(`lnsegfm.prediction.shared_folder`). Everything else that tells of several cases is derived from the records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnsegfm.errors import DataError
from lnsegfm.evaluation.flags import Flag
from lnsegfm.prediction.case_names import identity
from lnsegfm.storage import read_json, write_json

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.series import Series
    from lnsegfm.imaging.dicom.series_choice import PassedOver

CASE_FORMAT = "lnsegfm.case/2"
ENDING = ".case.json"
NOTICE = "Research software. Not for clinical use."
DONE, FAILED = "done", "failed"


@dataclass(frozen=True, kw_only=True)
class CaseRecord:
    """What is known of one case.

    Args:
        case: Its name.
        status: ``done`` or ``failed``.
        reason: Why it failed, in one line.
        model: What files call the model.
        made_by: Hashes of the model's weights and the settings that the mask depends on; None of a mask that was there
            before the record.
        generation: How many times the folder had been overwritten when the mask was made.
        mask: The mask's file; "" where there is none.
        mask_sha256: SHA-256 of its content.
        edited: Somebody changed the mask after it was made.
        shape: Its grid (z, y, x).
        spacing_mm: Of its grid (z, y, x).
        volumes_ml: Volume of each label.
        nodes: Number and largest short axis of each label of nodes; None where nobody measured them.
        flags: Reasons to review the mask; None where nobody looked for any.
        sidecars: Tables of nodes and probabilities of the mask.
        exports: The mask in other formats.
        export_notes: By format what its writer says: ``notes``, a line each, names that were changed, labels that were
            left out, points and volumes of thinned contours, the options it was written with, and ``nothing_found``
            where there is no file because the mask has no voxel.
        per_node: Whether a structure there is a node, instead of a label.
        series: The DICOM series that it is the mask of; None of an image.
    """

    case: str
    status: str = DONE
    reason: str = ""
    model: str = ""
    made_by: Mapping[str, Any] | None = None
    generation: int = 0
    mask: str = ""
    mask_sha256: str = ""
    edited: bool = False
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    volumes_ml: Mapping[str, float] | None = None
    nodes: Mapping[str, Mapping[str, Any]] | None = None
    flags: tuple[Flag, ...] | None = None
    sidecars: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    export_notes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    per_node: bool = False
    series: Mapping[str, Any] | None = None

    @property
    def series_identity(self) -> str:
        """Which series it is; "" for an image."""
        return str(self.series["identity"]) if self.series is not None else ""

    def to_json(self) -> dict[str, Any]:
        """A plain table."""
        return {"format": CASE_FORMAT, "notice": NOTICE, **asdict(self)}

    @classmethod
    def from_json(cls, content: Any) -> CaseRecord:
        """Read what `to_json` gave.

        Raises:
            DataError: It is something else.
        """
        if not isinstance(content, dict) or content.get("format") != CASE_FORMAT:
            raise DataError(f"Record of a case: not of the format {CASE_FORMAT}. Run the same command again.")
        known = {each.name: content.get(each.name, each.default) for each in fields(cls)}
        try:
            for name in ("shape", "spacing_mm", "sidecars", "exports"):
                known[name] = tuple(known[name])
            known["export_notes"] = {name: dict(said) for name, said in content.get("export_notes", {}).items()}
            if known["flags"] is not None:
                known["flags"] = tuple(map(Flag.from_json, known["flags"]))
            if not isinstance(known["case"], str) or not isinstance(known["generation"], int):
                raise TypeError("its case or generation is of another kind")
            if known["series"] is not None and not isinstance(known["series"]["identity"], str):
                raise TypeError("its series has no identity")
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise DataError(f"Record of a case: damaged ({error}). Run the same command again.") from None
        return cls(**known)


def record_file(out: Path, case: str) -> Path:
    """Where the record of a case lies."""
    return out / f"{case}{ENDING}"


def read_record(out: Path, case: str) -> CaseRecord | None:
    """The record of a case; None where there is none, or a damaged one, which is then written anew."""
    try:
        return CaseRecord.from_json(read_json(record_file(out, case)))
    except DataError:
        return None


def write_record(out: Path, record: CaseRecord) -> None:
    """Write a record, whole or not at all."""
    write_json(record_file(out, record.case), record.to_json())


def records_in(out: Path) -> list[CaseRecord]:
    """The records of a folder, by the names of their cases; damaged ones are left out."""
    names = sorted(file.name.removesuffix(ENDING) for file in out.glob(f"*{ENDING}") if not file.name.startswith("."))
    return [record for name in names if (record := read_record(out, name)) is not None and record.case == name]


def describe_series(series: Series | None) -> dict[str, Any] | None:
    """What a record tells of a series; nothing of the patient."""
    if series is None:
        return None
    return {
        "identity": identity(series),
        "uid": series.uid,
        "study_uid": series.study_uid,
        "description": series.description,
        "number": series.number,
        "slices": len(series.slices),
        "notes": list(series.notes),
        "straightened": series.straightened,
        "uneven": series.uneven,
    }


def describe_passed_over(passed_over: PassedOver) -> dict[str, Any]:
    """What files tell of a series that was not taken; nothing of the patient, and no description."""
    series, instead = passed_over.series, passed_over.instead
    return {
        "series": series.uid,
        "part": series.part,
        "number": series.number,
        "plane": series.traits.plane,
        "thickness_mm": series.traits.thickness_mm,
        "step_mm": series.traits.step_mm,
        "kernel": list(series.traits.kernel),
        "kind": passed_over.kind,
        "reason": passed_over.what,
        "taken_instead": instead.uid if instead is not None else None,
    }

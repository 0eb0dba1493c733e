"""Write a plan as an nnU-Net raw dataset, case by case: the same call continues an interrupted conversion.

The folder gets ``imagesTr`` and ``labelsTr`` (``imagesTs`` and ``labelsTs`` for held-out parts and for scans without a
reference), ``cases/NAME.json`` written last for each case, ``dataset.json``, ``subjects.csv`` and ``conversion.json``.
No file holds a date, so a repeated conversion gives the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lnsegfm.datasets.arranging_command import arranging
from lnsegfm.datasets.convert.conversion_plan import (
    TRAIN,
    ConversionOptions,
    ConversionPlan,
    LoadedScan,
    PlannedScan,
    count_voxels,
)
from lnsegfm.datasets.convert.conversion_record import (
    FORMAT,
    RECORD,
    conversion_identity,
    redact,
    require_same_conversion,
    write_descriptions,
)
from lnsegfm.datasets.convert.set_card import SetCard
from lnsegfm.datasets.doctor.hu import hu_warnings
from lnsegfm.datasets.labels import LabelMap, values_in
from lnsegfm.datasets.nnunet_layout import image_name, label_name
from lnsegfm.errors import DataError, LnSegFmError
from lnsegfm.imaging.files import write_mask, write_volume
from lnsegfm.progress import Progress
from lnsegfm.storage import LOCK, PARTIAL, clear_partials, read_json, try_lock, write_json

_SHOWN = 20  # reasons that are listed where nothing can be converted
_PLACES = {True: ("imagesTr", "labelsTr"), False: ("imagesTs", "labelsTs")}
_FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs", "cases")


@dataclass(frozen=True)
class ConversionResult:
    """The outcome of a conversion.

    Args:
        out: The dataset.
        written: Cases that this call wrote.
        kept: Cases that were already in the dataset.
        duplicates: Cases left out because an earlier one has the same voxels, by their names.
        failed: What could not be converted, one line each.
        left_out: What is in the source and was not converted, one line each.
        missing: What a published set has and the source has not, one line each.
        notes: Remarks about what was converted, one line each.
    """

    out: Path
    written: tuple[str, ...]
    kept: tuple[str, ...]
    duplicates: Mapping[str, str]
    failed: tuple[str, ...]
    left_out: tuple[str, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...] = ()


def convert(
    card: SetCard,
    source: Path,
    out: Path,
    options: ConversionOptions | None = None,
    *,
    progress: Progress | None = None,
) -> ConversionResult:
    """Convert a source to a dataset.

    A finished case is kept unless its source has changed; a case that fails is reported and does not stop the rest.

    Args:
        card: Of the set (see ``SETS``).
        source: The folder that holds it.
        out: Folder for the dataset: new, or one that the same source was converted to.
        options: Options of the conversion.
        progress: Reported to after each case.

    Raises:
        ConfigError: An option that means nothing to this set.
        DataError: No such source, no case in it, a label that no structure gets, a folder that holds something else,
            or one that another process converts to.
    """
    identity, plan = planned_conversion(card, source, out, options or ConversionOptions())
    out.mkdir(parents=True, exist_ok=True)
    with hold_conversion(out):
        write_json(out / RECORD, {"format": FORMAT, "complete": False, "identity": identity})
        for folder in (out, *(out / name for name in _FOLDERS)):
            clear_partials(folder)
        run = ConversionRun(card, plan, out)
        for done, scan in enumerate(plan.scans, start=1):
            run.take(scan)
            if progress is not None:
                progress.advance(done, len(plan.scans), scan.name)
        run.keep_others()
        write_descriptions(out, card, plan, identity, run.records, run.failed)
    return ConversionResult(
        out=out,
        written=tuple(run.written),
        kept=tuple(run.kept),
        duplicates={r["case"]: r["duplicate_of"] for r in run.records if r["duplicate_of"]},
        failed=(*plan.failed, *(f"Case {name}: {why}" for name, (why, _) in run.failed.items())),
        left_out=plan.left_out,
        missing=plan.missing,
        notes=(*plan.notes, *run.notes),
    )


def planned_conversion(
    card: SetCard, source: Path, out: Path, options: ConversionOptions
) -> tuple[dict[str, Any], ConversionPlan]:
    """The identity of a conversion, and its plan; nothing is written.

    Raises:
        ConfigError: As `convert`.
        DataError: As `convert`.
    """
    _require_apart(source, out)
    identity = conversion_identity(card, source, out, options)
    require_same_conversion(out, identity)
    plan = card.plan(source, options)
    if not plan.scans:
        why = plan.failed + plan.left_out
        more = (f"{len(why) - _SHOWN} more of this kind.",) if len(why) > _SHOWN else ()
        layout = arranging(source, card.layout.rstrip("."))
        head = () if plan.failed else (f"{source}: it holds no case of {card.name}. {layout}.",)
        raise DataError(*head, *why[:_SHOWN], *more)
    return identity, plan


@contextmanager
def hold_conversion(out: Path, part: str = "") -> Iterator[None]:
    """Keep others from converting to a folder; parts of one conversion do so at the same time.

    Args:
        out: The folder.
        part: Which part; "" for all of it.

    Raises:
        DataError: Another process converts to it, all of it or the same part.
    """
    busy = DataError(f"{out}: another process converts to it just now. Wait for that one.")
    mine = try_lock(out / f"{PARTIAL}convert{f'-part-{part}' if part else ''}{LOCK}")
    if mine is None:
        raise busy
    with mine:
        others = [out / f"{PARTIAL}convert{LOCK}"] if part else list(out.glob(f"{PARTIAL}convert-part-*{LOCK}"))
        for place in others:
            held = try_lock(place)
            if held is None:
                raise busy
            held.release()
        yield


class ConversionRun:
    """One conversion under way."""

    def __init__(self, card: SetCard, plan: ConversionPlan, out: Path) -> None:
        self.card, self.plan, self.out = card, plan, out
        self.written: list[str] = []
        self.kept: list[str] = []
        self.failed: dict[str, tuple[str, str]] = {}  # by case: the message for the terminal, and for the dataset
        self.records: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self._first: dict[str, str] = {}  # hash of a volume to the first case that has it

    def take(self, scan: PlannedScan) -> None:
        """Convert one case, unless it is finished and unchanged."""
        record = self._finished(scan)
        if record is not None:
            self.kept.append(scan.name)
            notes = record["notes"]
        else:
            try:
                loaded = self._judged(scan.load())
                self._remove(scan.name)
                record = self._write(scan, loaded)
            except Exception as error:  # whatever a file raises, the other cases are converted
                self._remove(scan.name)
                message = (
                    str(error) if isinstance(error, LnSegFmError | OSError) else f"{type(error).__name__}: {error}"
                )
                self.failed[scan.name] = (" ".join(message.split()), self._redacted(scan, " ".join(message.split())))
                return
            write_json(self._sidecar(scan.name), record)
            self.written.append(scan.name)
            notes = loaded.notes
        self.notes += [f"Case {scan.name}: {note.rstrip('.')}." for note in notes]
        self._first.setdefault(record["voxels_sha256"], scan.name)
        self.records.append(record)

    def _judged(self, loaded: LoadedScan) -> LoadedScan:
        """A scan with what the doctor says of a CT's HU among its notes."""
        if not self.plan.channels[0].lower().startswith("ct") or not loaded.images:
            return loaded
        return replace(loaded, notes=(*loaded.notes, *hu_warnings(loaded.images[0])))

    def keep_others(self) -> None:
        """Keep cases of earlier calls that are no longer in the source, with a note."""
        planned = {scan.name for scan in self.plan.scans}
        for sidecar in sorted((self.out / "cases").glob("*.json")):
            record = _read_record(sidecar)
            if sidecar.stem not in planned and record is not None and self._complete(record):
                self.kept.append(sidecar.stem)
                self.records.append(record)
                self.notes.append(
                    f"Case {sidecar.stem}: this call did not find it in the source. It stays in the dataset; convert "
                    "to a new folder to be without it."
                )

    def unfinished(self) -> list[str]:
        """Names of the cases that are still to be converted."""
        names = []
        for scan in self.plan.scans:
            if (record := self._finished(scan)) is None:
                names.append(scan.name)
            else:
                self._first.setdefault(record["voxels_sha256"], scan.name)
        return names

    def _finished(self, scan: PlannedScan) -> dict[str, Any] | None:
        """The record of a case that is complete and of the same source; None where there is none."""
        record = _read_record(self._sidecar(scan.name))
        if record is None or record.get("fingerprint") != scan.fingerprint or not self._complete(record):
            return None
        # what an earlier case is may have changed since: it failed, or came later
        return record if record["duplicate_of"] == self._duplicate(record["voxels_sha256"]) else None

    def _duplicate(self, digest: str) -> str | None:
        return self._first.get(digest) if self.card.drops_duplicates else None

    def _complete(self, record: Mapping[str, Any]) -> bool:
        """Every file of a case is there."""
        if record["duplicate_of"]:
            return True
        images, labels = _PLACES[record["part"] == TRAIN and record["voxels"] is not None]
        files = [self.out / images / image_name(record["case"], channel) for channel in range(len(self.plan.channels))]
        if record["voxels"] is not None:
            files.append(self.out / labels / label_name(record["case"]))
        return all(file.is_file() for file in files)

    def _sidecar(self, name: str) -> Path:
        return self.out / "cases" / f"{name}.json"

    def _write(self, scan: PlannedScan, loaded: LoadedScan) -> dict[str, Any]:
        _require_sound(scan, loaded, self.plan)
        digest = _voxel_hash(loaded)
        record = {
            "case": scan.name,
            "subject": scan.subject,
            "part": scan.part,
            "sources": list(scan.sources),
            "fingerprint": scan.fingerprint,
            "shape": list(loaded.grid.shape),
            "spacing_mm": list(loaded.grid.spacing_mm),
            "voxels": _voxels_by_label(loaded.mask, self.plan.labels) if loaded.mask is not None else None,
            "voxels_sha256": digest,
            "duplicate_of": self._duplicate(digest),
            "notes": [self._redacted(scan, note) for note in loaded.notes],
        }
        if record["duplicate_of"]:
            return record
        images, labels = _PLACES[scan.part == TRAIN and scan.labelled]
        for channel, image in enumerate(loaded.images):
            write_volume(self.out / images / image_name(scan.name, channel), image, loaded.grid)
        if loaded.mask is not None:
            write_mask(self.out / labels / label_name(scan.name), loaded.mask, loaded.grid)
        return record

    def _redacted(self, scan: PlannedScan, line: str) -> str:
        return line if self.card.public else redact(line, scan.private_words())

    def _remove(self, name: str) -> None:
        """Take a case out, its record first; it may have lain among those without a reference."""
        self._sidecar(name).unlink(missing_ok=True)
        for images, labels in _PLACES.values():
            for channel in range(len(self.plan.channels)):
                (self.out / images / image_name(name, channel)).unlink(missing_ok=True)
            (self.out / labels / label_name(name)).unlink(missing_ok=True)


def _read_record(sidecar: Path) -> dict[str, Any] | None:
    """The record of a case; None where there is none, or none that this software wrote."""
    if not sidecar.is_file():
        return None
    try:
        record = read_json(sidecar)
    except DataError:
        return None
    needed = {"case", "subject", "part", "voxels", "voxels_sha256", "duplicate_of", "notes"}
    sound = isinstance(record, dict) and needed <= set(record) and record["case"] == sidecar.stem
    return record if sound else None


def _require_apart(source: Path, out: Path) -> None:
    if not source.exists():
        raise DataError(f"{source}: no such folder. Give the folder that holds the set.")
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: it is a file. Give a folder for the dataset.")
    inner, outer = source.resolve(), out.resolve()
    if outer.is_relative_to(inner) or inner.is_relative_to(outer):
        raise DataError(f"{out}: dataset and source lie within each other. Give the dataset a folder of its own.")


def _require_sound(scan: PlannedScan, loaded: LoadedScan, plan: ConversionPlan) -> None:
    if len(loaded.images) != len(plan.channels):
        raise DataError(f"{len(loaded.images)} images for {len(plan.channels)} channels. Complete the case.")
    if (loaded.mask is not None) != scan.labelled:
        raise DataError("A reference was expected and not found, or the other way round. Look at the source.")
    if loaded.mask is None:
        return
    values = set(values_in(loaded.mask))
    if unknown := sorted(values - plan.labels.allowed):
        raise DataError(f"Its mask holds {unknown}, which no label has ({plan.labels}). Export it again.")
    if not scan.may_be_empty and not values & set(plan.labels.names.values()):
        why = "; ".join(loaded.without_voxels) or "nothing was drawn within the scan"
        raise DataError(f"Its reference is empty: {why}. Leave the case out, or outline it.")


def _voxels_by_label(mask: np.ndarray, labels: LabelMap) -> dict[str, int]:
    counts = count_voxels(mask, max(labels.allowed))
    return {name: int(counts[value]) for name, value in labels.to_dataset_json().items() if value}


def _voxel_hash(loaded: LoadedScan) -> str:
    """A hash that is equal for scans of equal voxels and spacing, whatever their origin."""
    digest = hashlib.sha256(repr((loaded.grid.shape, loaded.grid.spacing_mm)).encode())
    for image in loaded.images:
        digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()

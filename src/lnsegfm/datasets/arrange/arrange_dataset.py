"""Write an arrangement as an nnU-Net raw dataset, case by case: the same call continues an interrupted one.

Images are copied byte for byte, or linked, where their format is the dataset's and they hold one volume; else their
voxels are written in it. A case is complete when ``cases/NAME.json`` is there. Nothing in the source is changed.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lnsegfm.datasets.arrange.arrange_options import ArrangeOptions
from lnsegfm.datasets.arrange.arrangement import ArrangedCase, Arrangement, plan_arrangement
from lnsegfm.datasets.arrange.merged_mask import MergedMask, merge_parts
from lnsegfm.datasets.arrange.split_volumes import read_one_volume
from lnsegfm.datasets.convert.conversion_plan import fingerprint_of, hash_path
from lnsegfm.datasets.labels import VALUES
from lnsegfm.datasets.nnunet_layout import dataset_description, image_name, label_name
from lnsegfm.datasets.subjects import SUBJECTS
from lnsegfm.datasets.unlabelled import UNLABELLED
from lnsegfm.errors import DataError, LnSegFmError
from lnsegfm.imaging.files import IMAGE_ENDINGS, ending, read_grid, read_volume, write_mask, write_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.messages import counted
from lnsegfm.progress import Progress
from lnsegfm.storage import LOCK, PARTIAL, atomic_write, clear_partials, read_json, try_lock, write_json, write_text

FORMAT = "lnsegfm.arrangement/1"
RECORD = "arrangement.json"
_FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "cases")


@dataclass(frozen=True)
class ArrangeResult:
    """The outcome of an arrangement.

    Args:
        out: The dataset.
        plan: What was understood of the source.
        written: Cases that this call wrote.
        kept: Cases that were there already.
        failed: What could not be arranged, one line each.
        notes: Remarks, one line each.
    """

    out: Path
    plan: Arrangement
    written: tuple[str, ...]
    kept: tuple[str, ...]
    failed: tuple[str, ...]
    notes: tuple[str, ...]


def arrange(
    source: Path,
    out: Path,
    options: ArrangeOptions | None = None,
    *,
    plan: Arrangement | None = None,
    progress: Progress | None = None,
) -> ArrangeResult:
    """Write the scans and masks of a folder as a dataset.

    Args:
        source: The folder; nothing in it is changed.
        out: Folder for the dataset: new, or one that the same source was arranged to.
        options: What the user says about the source.
        plan: What was understood of it, where that was found out already.
        progress: Reported to after each case.

    Raises:
        DataError: As `plan_arrangement`; a folder that holds something else, or that another process writes to.
    """
    options = options or ArrangeOptions()
    identity = {"source": hash_path(source), "options": options.identity()}
    _require_usable(source, out, identity)
    plan = plan or plan_arrangement(source, options)
    if not plan.cases:
        raise DataError(*(plan.failed or plan.left_out or (f"{source}: no case in it. Give images with masks.",)))
    out.mkdir(parents=True, exist_ok=True)
    lock = try_lock(out / f"{PARTIAL}arrange{LOCK}")
    if lock is None:
        raise DataError(f"{out}: another process arranges files to it just now. Wait for that one.")
    with lock:
        write_json(out / RECORD, {"format": FORMAT, "complete": False, "identity": identity})
        for folder in (out, *(out / name for name in _FOLDERS)):
            clear_partials(folder)
        writer = _Writer(plan, out, options.link)
        for done, case in enumerate(plan.cases, start=1):
            writer.take(case)
            if progress is not None:
                progress.advance(done, len(plan.cases), case.name)
        _describe(out, plan, writer, identity)
    failed = (*plan.failed, *(f"Case {name}: {why}" for name, why in writer.failed.items()))
    notes = (*plan.notes, *writer.notes())
    return ArrangeResult(out, plan, tuple(writer.written), tuple(writer.kept), failed, notes)


class _Writer:
    """One arrangement under way."""

    def __init__(self, plan: Arrangement, out: Path, link: bool) -> None:
        self.plan, self.out, self.link = plan, out, link
        self.written: list[str] = []
        self.kept: list[str] = []
        self.failed: dict[str, str] = {}
        self.records: list[dict[str, Any]] = []
        endings = Counter(ending(image) or "" for case in plan.cases for image in case.images)
        self.ending = max(IMAGE_ENDINGS, key=lambda e: endings[e])

    def take(self, case: ArrangedCase) -> None:
        """Write one case, unless it is there and of the same files."""
        mark = self._mark(case)
        record = self._finished(case, mark)
        if record is not None:
            self.kept.append(case.name)
        else:
            try:
                record = self._write(case, mark)
            except Exception as error:  # whatever a file raises, the other cases are written
                self._remove(case.name)
                known = isinstance(error, LnSegFmError | OSError)
                self.failed[case.name] = " ".join((str(error) if known else f"{type(error).__name__}: {error}").split())
                return
            write_json(self._sidecar(case.name), record)
            self.written.append(case.name)
        self.records.append(record)

    def notes(self) -> list[str]:
        """What was noticed while writing, of all cases together."""
        shared: dict[tuple[str, str], list[int]] = defaultdict(list)
        hidden: Counter[str] = Counter()
        lines = []
        for record in self.records:
            for one, other, count in record["shared"]:
                shared[one, other].append(count)
            hidden.update(record["hidden"])
            lines += [f"Case {record['case']}: {note}." for note in record["notes"]]
        return [
            *(
                f"{sum(counts)} voxels in {counted(len(counts), 'case')} are in {one} and in {other}: given to {one}, "
                "whose value is lower."
                for (one, other), counts in sorted(shared.items())
            ),
            *(
                f"{label}: in {counted(n, 'case')} all of it lies in labels of lower values, so nothing is left of it. "
                f"Give it a lower value: --label {label}=1."
                for label, n in sorted(hidden.items())
            ),
            *lines,
        ]

    def _mark(self, case: ArrangedCase) -> str:
        parts = [[part.label, part.value, part.layer] for part in case.parts]
        labels = self.plan.labels.to_dataset_json() if self.plan.labels else None
        with suppress(OSError):
            return fingerprint_of([parts, labels, self.ending], [*case.images, *(part.path for part in case.parts)])
        return ""

    def _finished(self, case: ArrangedCase, mark: str) -> dict[str, Any] | None:
        try:
            record = read_json(self._sidecar(case.name))
        except DataError:
            return None
        sound = isinstance(record, dict) and {"case", "fingerprint", "shared", "hidden", "notes", "files"} <= set(
            record
        )
        if not sound or not mark or record["fingerprint"] != mark:
            return None
        return record if all((self.out / name).is_file() for name in record["files"]) else None

    def _write(self, case: ArrangedCase, mark: str) -> dict[str, Any]:
        folder = "imagesTr" if case.parts else "imagesTs"
        grid = read_grid(case.images[0]) if case.volumes[0] is None else read_one_volume(case.images[0], 0)[1]
        merged = merge_parts(case.parts, self.plan.labels, grid) if case.parts and self.plan.labels else None
        self._remove(case.name)
        files = []
        for channel, (image, volume) in enumerate(zip(case.images, case.volumes, strict=True)):
            place = self.out / folder / image_name(case.name, channel, self.ending)
            self._image(image, volume, place, grid)
            files.append(place)
        if merged is not None:
            place = self.out / "labelsTr" / label_name(case.name, self.ending)
            self._mask(case, merged, place, grid)
            files.append(place)
        root = self.plan.source
        return {
            "case": case.name,
            "subject": case.subject,
            "fingerprint": mark,
            "files": [file.relative_to(self.out).as_posix() for file in files],
            "images": [_place(image, root) for image in case.images],
            "masks": [
                {"file": _place(part.path, root), "label": part.label, "value": part.value} for part in case.parts
            ],
            "voxels": dict(merged.voxels) if merged else None,
            "shared": [[*pair, count] for pair, count in merged.shared.items()] if merged else [],
            "hidden": list(merged.hidden) if merged else [],
            "notes": [*(merged.notes if merged else ()), *_empty(merged)],
        }

    def _image(self, image: Path, volume: int | None, place: Path, grid: Grid) -> None:
        if volume is not None:
            write_volume(place, *read_one_volume(image, volume))
            return
        if not read_grid(image).same_voxels(grid):
            raise DataError(f"{image.name} and the first channel have different geometries. Resample one to the other.")
        if ending(image) == self.ending:
            self._copy(image, place)
        else:
            write_volume(place, *read_volume(image))

    def _mask(self, case: ArrangedCase, merged: MergedMask, place: Path, grid: Grid) -> None:
        source = case.parts[0].path
        if merged.unchanged and ending(source) == self.ending and not source.name.lower().endswith(".seg.nrrd"):
            self._copy(source, place)
        else:
            write_mask(place, merged.mask, grid)

    def _copy(self, source: Path, place: Path) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        if self.link:
            with suppress(OSError):  # another file system, or one without links
                os.link(source.resolve(), place)
                return
        with atomic_write(place) as partial:
            shutil.copyfile(source, partial)

    def _sidecar(self, name: str) -> Path:
        return self.out / "cases" / f"{name}.json"

    def _remove(self, name: str) -> None:
        """Take a case out, its record first."""
        self._sidecar(name).unlink(missing_ok=True)
        for channel in range(len(self.plan.channels)):
            for folder in ("imagesTr", "imagesTs"):
                (self.out / folder / image_name(name, channel, self.ending)).unlink(missing_ok=True)
        (self.out / "labelsTr" / label_name(name, self.ending)).unlink(missing_ok=True)


def _place(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _empty(merged: MergedMask | None) -> list[str]:
    return ["its mask is empty"] if merged is not None and not any(merged.voxels.values()) else []


def _require_usable(source: Path, out: Path, identity: Mapping[str, Any]) -> None:
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: it is a file. Give a folder for the dataset.")
    inner, outer = source.resolve(), out.resolve()
    if outer.is_relative_to(inner) or inner.is_relative_to(outer):
        raise DataError(f"{out}: dataset and source lie within each other. Give the dataset a folder of its own.")
    record = out / RECORD
    if record.is_file():
        content = read_json(record)
        if not isinstance(content, dict) or content.get("identity") != dict(identity):
            raise DataError(
                f"{out}: it holds the arrangement of another source, or with other options. Give a new folder."
            )
    elif out.is_dir() and any(not entry.name.startswith(PARTIAL) for entry in out.iterdir()):
        raise DataError(f"{out}: the folder holds something that is no arrangement. Give a new folder.")


def _describe(out: Path, plan: Arrangement, writer: _Writer, identity: Mapping[str, Any]) -> None:
    """Write the files about the dataset as a whole."""
    done = {record["case"]: record for record in writer.records}
    cases = [case for case in plan.cases if case.name in done]
    training = sum(1 for case in cases if case.parts)
    description = dataset_description(plan.channels, plan.labels, training, writer.ending)
    if plan.labels is not None:
        description.pop(VALUES, None)
        description |= plan.labels.as_written()  # the masks keep their values, gaps among them
    write_json(out / "dataset.json", description)
    if len({case.subject for case in cases}) < len(cases):
        _write_csv(out / SUBJECTS, ("case", "subject"), [(case.name, case.subject) for case in cases])
    missing = [(case.name, label) for case in cases for label in case.unlabelled]
    if missing:
        _write_csv(out / UNLABELLED, ("case", "label"), missing)
    write_json(out / RECORD, {
        "format": FORMAT,
        "complete": not writer.failed and not plan.failed,
        "identity": dict(identity),
        "images": dict(plan.images),
        "masks": dict(plan.masks),
        "labels_from": plan.labels_from,
        "left_over": list(plan.left_over),
        "left_out": list(plan.left_out),
        "failed": [*plan.failed, *(f"Case {name}: {why}" for name, why in writer.failed.items())],
        "notes": [*plan.notes, *writer.notes()],
        "cases": writer.records,
    })  # fmt: skip


def _write_csv(file: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows(rows)
    write_text(file, text.getvalue())

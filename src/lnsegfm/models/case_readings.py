"""What a pretraining has to know of each scan before it can be prepared, by reading it once.

Check, hashes, fingerprint, and what the training domain measures: all from one look at the voxels, in several
processes. Preparing needs a second look, because plans follow from the fingerprint of all. What was found is kept by
scan until the run is finished, under a hash of all that it depends on, so that a call that was stopped reads no scan
twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lnsegfm.case_processes import JOIN_AFTER_S, Work, shared_out
from lnsegfm.datasets.check import CaseCheck, DatasetCheck, LoadedCase, examine_case, examined_together
from lnsegfm.datasets.dataset import Case, Dataset
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.evaluation.mask_statistics import LabelStatistics, MaskStatistics, measure_mask
from lnsegfm.imaging.image_objects import Volume
from lnsegfm.imaging.orientation import turned_onto
from lnsegfm.jobs.parts import ListPart, PartsPending
from lnsegfm.models.fingerprint import CaseFingerprint, foreground_share
from lnsegfm.nnunet.planners import cropped_scan
from lnsegfm.progress import Progress
from lnsegfm.storage import atomic_write, content_hash, read_json, sha256, write_json

FORMAT = "lnsegfm.reading/1"
READER = "lnsegfm.models.case_readings:reader"


@dataclass(frozen=True)
class Readings:
    """What was found in the scans of a data set.

    Args:
        checked: Case by case, and everything that is wrong.
        file_hashes: SHA-256 of every file.
        fingerprints: Of the scans that train, by name, in their order; of those with problems there is none.
        statistics: Of the same scans.
    """

    checked: DatasetCheck
    file_hashes: Mapping[Path, str]
    fingerprints: Mapping[str, CaseFingerprint]
    statistics: Mapping[str, MaskStatistics]


def read_cases(
    dataset: Dataset,
    training: Sequence[str],
    folder: Path,
    progress: Progress,
    *,
    axes: str | None,
    channel: int | None,
    processes: int = 1,
    join_after_s: float = JOIN_AFTER_S,
    part: ListPart | None = None,
) -> Readings:
    """Read every scan of a data set once.

    Args:
        dataset: The scans.
        training: Names of those that train, in their order.
        folder: Where the findings are kept, one scan a file; those of unchanged files are taken from there.
        progress: Reported to after each scan.
        axes: The axis code to which scans are turned; None leaves them as they are stored.
        channel: The channel whose HU the training domain measures; None where there is none.
        processes: That read scans, at most.
        join_after_s: As of `lnsegfm.case_processes.shared_out`.
        part: Read these scans alone, and take what others have found in the rest.

    Raises:
        PartsPending: Others have not yet read the rest.
    """
    labels = dataset.labels
    setup = {
        "labels": asdict(labels) | {"dropped": sorted(labels.dropped)},
        "allow_empty": dataset.allow_empty,
        "axes": axes,
        "channel": channel,
        "most": foreground_share(len(training)),
        "folder": str(folder),
    }
    tasks = [{"case": case.to_json(), "trains": case.name in set(training)} for case in dataset.cases]
    names = [case.name for case in dataset.cases]
    mine = list(range(len(tasks))) if part is None else part.take(range(len(tasks)))
    found: dict[int, Any] = {}
    for order, file in shared_out(
        READER,
        setup,
        [tasks[number] for number in mine],
        names=[names[number] for number in mine],
        processes=processes,
        join_after_s=join_after_s,
    ):
        found[mine[order]] = file
        progress.advance(len(found), len(mine), names[mine[order]])
    if part is not None:
        found |= _of_others(part, setup, tasks, found)
    records = [read_json(Path(found[number])) for number in range(len(tasks))]
    checks = [CaseCheck.from_json(record["check"]) for record in records]
    hashes = {Path(path): digest for record in records for path, digest in record["sha256"].items()}
    whole = {name: (record, Path(found[i])) for i, (name, record) in enumerate(zip(names, records, strict=True))}
    read = [name for name in training if whole[name][0]["fingerprint"] is not None]
    return Readings(
        examined_together(dataset, checks),
        hashes,
        {name: _fingerprint_of(*whole[name]) for name in read},
        {name: _statistics_of(whole[name][0]["statistics"]) for name in read},
    )


def _of_others(
    part: ListPart, setup: Mapping[str, Any], tasks: Sequence[Any], found: Mapping[int, Any]
) -> dict[int, str]:
    """The files of what other parts found in the scans that are not of this one."""
    files = {number: _finding(setup, task) for number, task in enumerate(tasks) if number not in found}
    lacking = sorted({number % part.of + 1 for number, file in files.items() if not file.is_file()})
    if lacking:
        raise PartsPending(part, len(found), lacking, "read")
    return {number: str(file) for number, file in files.items()}


def reader(setup: Mapping[str, Any]) -> Work:
    """What reads a scan, for any process (`lnsegfm.case_processes`); it gives the file of what it found.

    Args:
        setup: As `read_cases` makes it.
    """
    labels = LabelMap(
        setup["labels"]["names"],
        setup["labels"]["ignore"],
        tuple((name, tuple(values)) for name, values in setup["labels"]["regions"]),
        tuple((name, tuple(values)) for name, values in setup["labels"]["merged"]),
        frozenset(setup["labels"]["dropped"]),
    )

    def read(task: Any) -> str:
        case, file = Case.from_json(task["case"]), _finding(setup, task)
        if not file.is_file():
            _read(case, _files_of(case), labels, setup, file, trains=task["trains"])
        return str(file)

    return read


def _finding(setup: Mapping[str, Any], task: Any) -> Path:
    """The file of what is found in a scan."""
    asked = {key: value for key, value in setup.items() if key != "folder"}
    states = [_state(path) for path in _files_of(Case.from_json(task["case"]))]
    return Path(setup["folder"]) / f"{content_hash([FORMAT, asked, task, states])[:32]}.json"


def _files_of(case: Case) -> list[Path]:
    return [path for path in (*case.images, case.label) if path is not None]


def _read(
    case: Case, files: Sequence[Path], labels: LabelMap, setup: Mapping[str, Any], file: Path, *, trains: bool
) -> None:
    """Look at a scan and keep what is found; the foreground's intensities, a file of their own, come first."""
    record: dict[str, Any] = {"format": FORMAT, "fingerprint": None, "statistics": None}

    def look(loaded: LoadedCase) -> None:
        wanted = 1 if setup["channel"] is None else setup["channel"] + 1
        if not trains or loaded.problems or loaded.label is None or len(loaded.images) < wanted:
            return
        scans = [Volume(array, grid, str(path)) for path, array, grid in loaded.images]
        try:
            cropped, mask, spacing, share = cropped_scan(scans, Volume(*loaded.label[1:]), setup["axes"])
        except DataError:  # channels that do not fit one another, of which the check tells
            return
        values = CaseFingerprint.of(cropped, mask, spacing, share, setup["most"])
        with atomic_write(file.with_suffix(".npy")) as partial:
            np.save(partial, values.intensities)
        record["fingerprint"] = {"spacing": values.spacing, "shape": values.shape, "share": values.share}
        scan = None if setup["channel"] is None else scans[setup["channel"]]
        _, array, grid = loaded.label
        if scan is not None:
            array, grid = turned_onto(array, grid, scan.grid)
        image = None if scan is None else scan.array
        record["statistics"] = asdict(measure_mask(image, array, grid, labels.covered, axes=setup["axes"]))

    record["check"] = examine_case(case, labels, look, allow_empty=setup["allow_empty"]).to_json()
    record["sha256"] = {str(path): sha256(path) for path in files if path.is_file()}
    write_json(file, record)


def _state(path: Path) -> list[Any]:
    """What changes when a file is written, copied over or replaced."""
    try:
        state = path.stat()
    except OSError:
        return [str(path), None]
    return [str(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]


def _fingerprint_of(record: Mapping[str, Any], file: Path) -> CaseFingerprint:
    intensities = np.load(file.with_suffix(".npy"), allow_pickle=False)
    return CaseFingerprint(**record["fingerprint"], intensities=intensities)


def _statistics_of(table: Mapping[str, Any]) -> MaskStatistics:
    labels = {name: LabelStatistics(**one) for name, one in table["labels"].items()}
    tuples = {name: tuple(table[name]) for name in ("spacing_mm", "extent_mm", "axes")}
    scan_hu = None if table["scan_hu"] is None else tuple(table["scan_hu"])
    return MaskStatistics(**{**table, **tuples, "scan_hu": scan_hu, "labels": labels})

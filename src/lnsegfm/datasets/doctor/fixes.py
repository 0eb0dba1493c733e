"""A fixed copy of a dataset: only what was asked for, only where the doctor found it, and all of it listed."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lnsegfm.datasets.dataset import Case, Dataset
from lnsegfm.datasets.doctor.diagnose import Diagnosis
from lnsegfm.datasets.doctor.finding import FIXES
from lnsegfm.datasets.doctor.fragments import can_lose_fragments, remove_fragments
from lnsegfm.datasets.doctor.hu import CLIP_HU
from lnsegfm.datasets.labels import node_labels
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.imaging.files import read_grid, read_mask, read_volume, write_mask, write_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.progress import Progress
from lnsegfm.storage import atomic_write, new_folder, read_json, write_json

RECORD = "fixes.json"
FORMAT = "lnsegfm.fixes/1"
_DESCRIPTIONS = ("dataset.json", "labels.json", "subjects.csv")
_SPLITS = ("splits.json", "splits_final.json")
_FOLDERS = ("imagesTs", "labelsTs")
_IMAGE_FIXES = ("nan-to-air", "offset-1024", "clip-hu")


def write_fixed_copy(
    dataset: Dataset, diagnosis: Diagnosis, fixes: Sequence[str], out: Path, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Write a copy of a dataset to ``out`` with the fixes asked for; the original is only read.

    Files without a finding that one of ``fixes`` applies to are copied byte for byte. ``fixes.json`` lists every file
    that differs from its original, and how. The copy is made beside ``out`` and renamed when it is complete, so one
    that was interrupted never looks like a dataset.

    Args:
        dataset: The dataset.
        diagnosis: What ``diagnose`` found in it.
        fixes: Names of ``FIXES``.
        out: A folder that does not exist or is empty.
        progress: Reported to after each case.

    Returns:
        What ``fixes.json`` holds.

    Raises:
        ConfigError: An unknown fix, or a place that is taken or lies in the dataset.
        DataError: The dataset names files outside its folder.
    """
    require_fixable(dataset, fixes, out)
    with new_folder(out) as content:
        return _copy(dataset, diagnosis, fixes, content, progress)


def _copy(
    dataset: Dataset, diagnosis: Diagnosis, fixes: Sequence[str], out: Path, progress: Progress | None
) -> dict[str, Any]:
    asked: dict[tuple[str, Path], set[str]] = defaultdict(set)
    for finding in diagnosis.findings:
        if finding.fix is not None and finding.fix in fixes and finding.file is not None:
            asked[finding.case, finding.file].add(finding.fix)
    done: list[dict[str, Any]] = []
    dropped = {case for (case, _), names in asked.items() if "drop-duplicates" in names}
    written: set[Path] = set()
    for number, case in enumerate(dataset.cases, start=1):
        if case.name in dropped:
            done.append({"fix": "drop-duplicates", "case": case.name, "file": None, "what": "the case was left out"})
        else:
            for path in (*case.images, *([case.label] if case.label else [])):
                if path not in written and path.is_file():
                    written.add(path)
                    place = out / path.relative_to(dataset.root)
                    done += _write(case, path, place, asked[case.name, path], dataset)
        if progress is not None:
            progress.advance(number, len(dataset.cases), case.name)
    left_out = _copy_other_files(dataset, out, dropped)
    record = {
        "format": FORMAT,
        "source": str(dataset.root),
        "asked": list(fixes),
        "done": done,
        "files": len(written),
        "not_copied": left_out,
    }
    write_json(out / RECORD, record)
    return record


def require_fixable(dataset: Dataset, fixes: Sequence[str], out: Path) -> None:
    """Refuse, before any work is done, what :func:`write_fixed_copy` cannot do.

    Raises:
        ConfigError: As there.
        DataError: As there.
    """
    for name in fixes:
        if name not in FIXES:
            raise ConfigError(f"--fix {name}: there is no such fix. Use {', '.join(FIXES)}.")
    inside, root = out.resolve(), dataset.root.resolve()
    if inside == root or root in inside.parents or inside in root.parents:
        raise ConfigError(f"--out {out}: it lies in the dataset or holds it. Name a folder elsewhere.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out}: there is something already. Name a new folder.")
    for case in dataset.cases:
        for path in (*case.images, *([case.label] if case.label else [])):
            if not path.is_relative_to(dataset.root) or ".." in path.relative_to(dataset.root).parts:
                raise DataError(f"{path}: it lies outside {dataset.root}. Copy the files into one folder to fix them.")


def _write(case: Case, path: Path, place: Path, fixes: set[str], dataset: Dataset) -> list[dict[str, Any]]:
    """Copy one file, with its fixes; returns what was done to it."""
    done: list[tuple[str, str]] = []
    if path == case.label and fixes:
        mask, grid = read_mask(path, straighten="straighten" in fixes)
        done += _straightening(fixes, grid)
        mask, grid = _fixed_label(case, mask, grid, fixes, dataset, done)
        if done:
            write_mask(place, mask, grid)
    elif fixes:
        volume, grid = read_volume(path, straighten="straighten" in fixes)
        done += _straightening(fixes, grid)
        volume = _fixed_image(volume, fixes, done)
        if done:
            write_volume(place, volume, grid)
    if not done:
        with atomic_write(place) as partial:
            shutil.copyfile(path, partial)
    return [
        {"fix": fix, "case": case.name, "file": str(place.relative_to(_root_of(place, path, dataset))), "what": what}
        for fix, what in done
    ]


def _straightening(fixes: set[str], grid: Grid) -> list[tuple[str, str]]:
    size = " x ".join(map(str, grid.shape))
    what = f"resampled onto a grid at right angles of {size} voxels (z, y, x)"
    return [("straighten", what)] if "straighten" in fixes else []


def _root_of(place: Path, path: Path, dataset: Dataset) -> Path:
    return place.parents[len(path.relative_to(dataset.root).parts) - 1]


def _fixed_label(
    case: Case, mask: np.ndarray, grid: Grid, fixes: set[str], dataset: Dataset, done: list[tuple[str, str]]
) -> tuple[np.ndarray, Grid]:
    if "copy-header" in fixes and case.images:
        own = read_grid(case.images[0])
        if own.shape == grid.shape and (difference := grid.difference(own)):
            done.append(("copy-header", f"took the geometry of {case.images[0].name}: {difference}"))
            grid = own
    if "drop-fragments" in fixes:
        for name in can_lose_fragments(dataset.labels):
            there = dataset.labels.voxels(mask, name)
            cleaned = remove_fragments(mask, there, grid, nodes=bool(node_labels([name])))
            if removed := int(np.count_nonzero(cleaned != mask)):
                done.append(("drop-fragments", f"label {name}: voxels that became background: {removed}"))
            mask = cleaned
    return mask, grid


def _fixed_image(volume: np.ndarray, fixes: Iterable[str], done: list[tuple[str, str]]) -> np.ndarray:
    for fix in (name for name in _IMAGE_FIXES if name in fixes):
        if fix == "nan-to-air":
            invalid = ~np.isfinite(volume)
            done.append((fix, f"{int(invalid.sum())} voxels became -1024"))
            volume = np.where(invalid, np.array(-1024, volume.dtype), volume)
        elif fix == "offset-1024":
            done.append((fix, "1024 was subtracted from every voxel"))
            volume = _as_int16(volume.astype(np.float64 if volume.dtype == np.float64 else np.float32) - 1024, volume)
        else:
            outside = int(np.count_nonzero((volume < CLIP_HU[0]) | (volume > CLIP_HU[1])))
            done.append((fix, f"{outside} voxels were clipped to {CLIP_HU[0]} to {CLIP_HU[1]} HU"))
            volume = np.clip(volume, *CLIP_HU)
    return volume


def _as_int16(values: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Whole numbers as int16 where the scan held whole numbers and they fit, else as they are."""
    if np.issubdtype(before.dtype, np.integer) and values.min() >= -32768 and values.max() <= 32767:
        return values.astype(np.int16)
    return values


def _copy_other_files(dataset: Dataset, out: Path, dropped: set[str]) -> list[str]:
    """Copy descriptions and test cases; returns the files left out because they name cases that were dropped."""
    left_out = [name for name in _SPLITS if dropped and (dataset.root / name).is_file()]
    for name in (*_DESCRIPTIONS, *_SPLITS):
        source = dataset.root / name
        if not source.is_file() or name in left_out:
            continue
        if name == "dataset.json" and dropped:
            write_json(out / name, _without(read_json(source), dataset, dropped))
            continue
        with atomic_write(out / name) as partial:
            shutil.copyfile(source, partial)
    for folder in _FOLDERS:
        for path in sorted((dataset.root / folder).rglob("*")) if (dataset.root / folder).is_dir() else []:
            if path.is_file():
                with atomic_write(out / path.relative_to(dataset.root)) as partial:
                    shutil.copyfile(path, partial)
    return left_out


def _without(description: Any, dataset: Dataset, dropped: set[str]) -> Any:
    """A ``dataset.json`` that counts and lists the cases that are left."""
    if "numTraining" in description:
        description = {**description, "numTraining": len(dataset.cases) - len(dropped)}
    if isinstance(description.get("dataset"), dict):
        left = {name: entry for name, entry in description["dataset"].items() if name not in dropped}
        description = {**description, "dataset": left}
    return description

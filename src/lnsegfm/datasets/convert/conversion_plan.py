"""The options of a conversion, and its plan: what it finds before it reads a voxel."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.imaging.dicom.pairing_evidence import PairingOptions
from lnsegfm.imaging.dicom.rois import match_rois
from lnsegfm.imaging.dicom.series_selector import parse_selector
from lnsegfm.imaging.grid import Grid
from lnsegfm.storage import content_hash

_SHOWN = 40  # names that a message lists
TRAIN = "train"
CHANNELS = ("contrast", "plain", "both")


@dataclass(frozen=True, kw_only=True)
class ConversionOptions:
    """Options of a converter; its card says which of them apply to it.

    Args:
        roi: Patterns ``NAME=label`` of structures; labels are numbered in the order in which they first appear.
        masks: Folder with masks that are published apart from the scans.
        channels: Which of two registered scans become channels: ``contrast``, ``plain`` or ``both``.
        part: Convert only this part of the set, as a dataset of its own.
        shell_mm: Background around annotated nodes where the rest is unknown, mm.
        unlabelled: Scans without structures go to ``imagesTs``.
        keep_names: Cases keep the PatientID.
        key: File with the secret that pseudonyms are made with.
        fill_between: Slices that were skipped between contoured ones are filled by interpolation.
        straighten: Sheared series (gantry tilt) are resampled onto an orthogonal grid instead of being refused.
        accept_automatic: What an algorithm drew may be a reference.
        pair_by_geometry: Structures that no UID pairs belong to the only series on whose slices they lie.
        resample_uneven: Series of uneven slice distances are interpolated onto a grid of one distance, likewise.
        series: Selectors of DICOM series (`lnsegfm.imaging.dicom.series_choice`); unless given, those with structures
            and one of each other scan.

    Raises:
        ConfigError: A value that cannot be.
    """

    roi: tuple[str, ...] = ()
    masks: Path | None = None
    channels: str = "contrast"
    part: str | None = None
    shell_mm: float = 3.0
    unlabelled: bool = False
    keep_names: bool = False
    key: Path | None = None
    fill_between: bool = False
    straighten: bool = False
    accept_automatic: bool = False
    pair_by_geometry: bool = False
    resample_uneven: bool = False
    series: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "series", (self.series,) if isinstance(self.series, str) else tuple(self.series))
        for text in self.series:
            parse_selector(text)
        for pattern in self.roi:
            name, _, label = (text.strip() for text in pattern.rpartition("="))
            if not name or not label:
                raise ConfigError(f"ROI pattern {pattern!r}: not NAME=LABEL. Write --roi 'LN*=lymph_node'.")
        if self.channels not in CHANNELS:
            raise ConfigError(f"Channels {self.channels!r}: there is no such choice. Use one of {', '.join(CHANNELS)}.")
        if not (math.isfinite(self.shell_mm) and self.shell_mm > 0):
            raise ConfigError(f"Shell {self.shell_mm} mm: it must be a positive number. Use 3.")
        if self.masks is not None and not self.masks.is_dir():
            raise ConfigError(f"--masks {self.masks}: no such folder. Give the folder that holds the masks.")
        if self.keep_names and self.key is not None:
            raise ConfigError(f"--key {self.key}: names that are kept need no key. Drop --key or --keep-names.")

    @property
    def pairing(self) -> PairingOptions:
        """What of it decides which structures belong to which series."""
        return PairingOptions(by_geometry=self.pair_by_geometry, accept_automatic=self.accept_automatic)

    def changed(self) -> frozenset[str]:
        """Names of the fields that are not at their default."""
        return frozenset(f.name for f in fields(self) if getattr(self, f.name) != f.default)

    def identity(self) -> dict[str, Any]:
        """What decides the bytes of a case. Paths are hashed: they can hold names."""
        return {
            "roi": list(self.roi),
            "masks": hash_path(self.masks) if self.masks else None,
            "channels": self.channels,
            "part": self.part,
            "shell_mm": self.shell_mm,
            "keep_names": self.keep_names,
            "fill_between": self.fill_between,
            "straighten": self.straighten,
            "accept_automatic": self.accept_automatic,
            "pair_by_geometry": self.pair_by_geometry,
            "resample_uneven": self.resample_uneven,
            **({"series": list(self.series)} if self.series else {}),
        }


def hash_path(path: Path) -> str:
    """A short hash of a path, which identifies it and does not disclose it."""
    return hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]


def fingerprint_of(facts: Any, files: Iterable[Path] = ()) -> str:
    """Short hash of what a case is made of: facts that JSON can hold, and names and sizes of files."""
    return content_hash([facts, [[path.name, path.stat().st_size] for path in files]])[:16]


def require_matched(patterns: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """A line for each pattern that matches no structure of a whole source.

    Raises:
        DataError: No structure gives a label any voxel: a network would learn that it does not exist.
    """
    matched = match_rois(names, patterns, strict=False)
    unmatched = [label for label in dict.fromkeys(matched.pattern_labels) if not matched.named(label)]
    if unmatched:
        remaining = ", ".join(sorted(set(matched.unmatched), key=str.casefold)[:_SHOWN]) or "none"
        raise DataError(
            *(
                f"Label {label}: --roi gives it no structure of any scan. Left over are: {remaining}."
                for label in unmatched
            )
        )
    return tuple(f"Pattern {pattern}: no structure of any scan has such a name." for pattern in matched.unused)


def labels_of(roi: Iterable[str], *, ignore: bool = False) -> LabelMap:
    """The labels that patterns ``NAME=label`` name, numbered in the order in which they first appear.

    Raises:
        DataError: A name that no label can have.
    """
    names = list(dict.fromkeys(pattern.rpartition("=")[2].strip() for pattern in roi))
    return LabelMap({name: k for k, name in enumerate(names, start=1)}, ignore=len(names) + 1 if ignore else None)


def as_stored_hu(hu: np.ndarray) -> np.ndarray:
    """HU as int16 where that is exact and else float32: what is written for an image."""
    if hu.dtype == np.int16:
        return hu
    if np.issubdtype(hu.dtype, np.integer) or (np.isfinite(hu).all() and np.array_equal(hu, np.rint(hu))):
        low, high = int(hu.min()), int(hu.max())
        if np.iinfo(np.int16).min <= low and high <= np.iinfo(np.int16).max:
            return hu.astype(np.int16)
    return hu.astype(np.float32)


def count_voxels(mask: np.ndarray, highest: int) -> np.ndarray:
    """Number of voxels of each value from 0 to ``highest``."""
    counts = np.zeros(highest + 1, np.int64)
    for plane in mask:  # of a whole CT's mask numpy would make a copy of eight times its size
        counts += np.bincount(plane.ravel(), minlength=highest + 1)
    return counts


@dataclass(frozen=True)
class LoadedScan:
    """One case in memory.

    Args:
        images: A volume (z, y, x) per channel, HU.
        grid: Of all of them.
        mask: Label values (z, y, x) on the same grid; None where the case has no reference.
        notes: Remarks about the case, one line each.
        without_voxels: Why structures of the reference have no voxel, one line each.

    Raises:
        DataError: Shapes that differ.
    """

    images: tuple[np.ndarray, ...]
    grid: Grid
    mask: np.ndarray | None
    notes: tuple[str, ...] = ()
    without_voxels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for array in (*self.images, *([self.mask] if self.mask is not None else [])):
            if array.shape != self.grid.shape:
                raise DataError(f"Volume of {array.shape} voxels on a grid of {self.grid.shape}: export it again.")


@dataclass(frozen=True)
class PlannedScan:
    """A case that can be converted, before it is read.

    Args:
        name: Name of the case.
        subject: Its patient.
        sources: What it is made of, in words that may stand in the dataset (no path of a private tree).
        load: Reads it.
        part: ``train``, or the held-out part that it belongs to.
        labelled: It has a reference.
        may_be_empty: An empty reference means that there is no node, and is not a mistake.
        fingerprint: Changes with the source: a case whose source has changed is made again.
        private_words: Gives the words of a private source that no message in the dataset may hold.
    """

    name: str
    subject: str
    sources: tuple[str, ...]
    load: Callable[[], LoadedScan]
    part: str = TRAIN
    labelled: bool = True
    may_be_empty: bool = False
    fingerprint: str = ""
    private_words: Callable[[], Iterable[str]] = tuple


@dataclass(frozen=True)
class ConversionPlan:
    """The cases of a source, and what is wrong with it.

    Args:
        labels: What the masks will hold.
        scans: The cases, in the order in which they are converted.
        channels: nnU-Net's names of the channels.
        counts: What was counted, by the names that the card's ``expected`` uses.
        missing: What a published set has and the source does not, one line each.
        left_out: What is in the source and is not converted, with the reason, one line each.
        failed: What is in the source and cannot be read, one line each.
        notes: Remarks about the whole source, one line each.
        passed_over: Of series that are not taken, what the dataset may say: kind and reason, plane, thickness, kernel.

    Raises:
        DataError: Two cases have the same name.
    """

    labels: LabelMap
    scans: tuple[PlannedScan, ...]
    channels: tuple[str, ...] = ("CT",)
    counts: Mapping[str, int] | None = None
    missing: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    passed_over: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        repeated = [name for name, n in Counter(scan.name for scan in self.scans).items() if n > 1]
        if repeated:
            names = ", ".join(sorted(repeated)[:5])
            raise DataError(f"Cases {names}: they are there more than once. Give one copy of the set.")

"""The training domain of a model, as ranges over its training cases: no scan, no name, no voxel of a patient."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lnsegfm.errors import DataError
from lnsegfm.evaluation.mask_statistics import MaskStatistics
from lnsegfm.imaging.axis_code import require_axes
from lnsegfm.storage import read_json, write_json

TRAINING_DOMAIN = "training_domain.json"
FORMAT = "lnsegfm.training-domain/1"
STATED = "its plans"
"""What says the axes of a model that states them itself."""


@dataclass(frozen=True)
class Range:
    """The smallest and the largest value.

    Raises:
        DataError: Not two finite numbers in ascending order.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise DataError(f"Range {self.low!r} to {self.high!r}: not two numbers. Write the smaller one first.")
        if self.low > self.high:
            raise DataError(f"Range {self.low:g} to {self.high:g}: it runs backwards. Write the smaller one first.")

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Range | None:
        """The range of those values that are known; None where none is."""
        known = [value for value in values if value is not None]
        return cls(min(known), max(known)) if known else None

    def widened(self, factor: float) -> Range:
        """Down to ``low / factor`` and up to ``high * factor``, for quantities that are never negative."""
        return Range(self.low / factor, self.high * factor)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        low, high = f"{self.low:.4g}", f"{self.high:.4g}"
        return low if low == high else f"{low} to {high}"


AxisRanges = tuple[Range, Range, Range]


@dataclass(frozen=True)
class TrainedAxes:
    """What is known of the axes of the arrays that a model was trained on.

    Args:
        codes: The axis code, as of `lnsegfm.imaging.orientation`; None where nobody knows it: scans then go to the
            model as they are stored.
        source: What says it, in words.
        mirrored: It was mirrored along every axis in training, so that flips matter little to it.
    """

    codes: str | None = None
    source: str = ""
    mirrored: bool = True

    @property
    def assumed(self) -> str:
        """What is taken for granted where the model does not state its axes itself, as a line; "" where it does."""
        if self.codes is None:
            return (
                "Orientation: nothing says on which axes the model was trained; scans go to it as they are stored. "
                "State it with --model-axes"
            )
        return "" if self.source == STATED else f"Orientation {self.codes}, by {self.source}: scans are turned to it"


@dataclass(frozen=True)
class LabelDomain:
    """One label over the training cases.

    Args:
        volume_ml: Over the cases that have the label.
        components: Connected components, over the cases that have the label.
        hu: Its median HU, over the cases that have it; None where the scans are no CT.
        absent: Cases without the label.
        faces: In how many of the cases that have the label it touches a face of the scan, by the face's name (`head`,
            `foot`, ...); a face that it touches in none is not there. None where nobody counted.
    """

    volume_ml: Range
    components: Range
    hu: Range | None = None
    absent: int = 0
    faces: Mapping[str, int] | None = None


@dataclass(frozen=True)
class TrainingDomain:
    """The ranges over the cases of one training.

    Args:
        source: Which training: ``training``, ``base``.
        cases: Number of its scans; 0 where ``plans.json`` alone is known, whose ranges are medians.
        spacing_mm: Along (z, y, x).
        extent_mm: Field of view along (z, y, x).
        scan_low_hu: 0.5th percentile of a whole scan; None where unknown or no CT.
        scan_high_hu: 99.5th percentile of a whole scan.
        foreground_hu: Where the median HU under a mask lay, or may lie; None where unknown or no CT.
        labels: Each label met, by name; empty with plans alone.
        axes: The axis code of the arrays whose (z, y, x) these are; None where unknown.
    """

    source: str
    cases: int
    spacing_mm: AxisRanges
    extent_mm: AxisRanges
    scan_low_hu: Range | None = None
    scan_high_hu: Range | None = None
    foreground_hu: Range | None = None
    labels: Mapping[str, LabelDomain] = field(default_factory=dict)
    axes: str | None = None

    @classmethod
    def over(cls, cases: Sequence[MaskStatistics], source: str = "training", axes: str | None = None) -> TrainingDomain:
        """The ranges over the cases of a training.

        Args:
            cases: Measured on these axes.
            source: Which training.
            axes: Their axis code.

        Raises:
            DataError: No case.
        """
        if not cases:
            raise DataError("No case: ranges need at least one. Give the cases of the training.")
        return cls(
            source=source,
            cases=len(cases),
            spacing_mm=_each_axis([case.spacing_mm for case in cases]),
            extent_mm=_each_axis([case.extent_mm for case in cases]),
            scan_low_hu=Range.of(case.scan_hu and case.scan_hu[0] for case in cases),
            scan_high_hu=Range.of(case.scan_hu and case.scan_hu[1] for case in cases),
            foreground_hu=Range.of(case.foreground_hu for case in cases),
            labels={name: label for name in cases[0].labels if (label := _label_over(cases, name)) is not None},
            axes=axes,
        )

    def renamed(self, names: Mapping[str, str]) -> TrainingDomain:
        """The same with some labels under other names."""
        return replace(self, labels={names.get(name, name): label for name, label in self.labels.items()})

    def to_json(self) -> dict[str, Any]:
        """Plain tables and numbers."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> TrainingDomain:
        """Read what `to_json` gave.

        Raises:
            DataError: It is something else.
        """
        try:
            optional = {
                name: None if content[name] is None else Range(**content[name])
                for name in ("scan_low_hu", "scan_high_hu", "foreground_hu")
            }
            labels = {
                str(name): LabelDomain(
                    Range(**ranges["volume_ml"]),
                    Range(**ranges["components"]),
                    None if ranges["hu"] is None else Range(**ranges["hu"]),
                    int(ranges["absent"]),
                    _faces_of(ranges.get("faces")),
                )
                for name, ranges in content["labels"].items()
            }
            spacing, extent = (tuple(Range(**axis) for axis in content[name]) for name in ("spacing_mm", "extent_mm"))
            if not len(spacing) == len(extent) == 3:
                raise TypeError("three axes")
            axes = content.get("axes")
            return cls(
                source=str(content["source"]),
                cases=int(content["cases"]),
                spacing_mm=spacing,
                extent_mm=extent,
                **optional,
                labels=labels,
                axes=None if axes is None else require_axes(axes, "axes"),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"Ranges of a training: not what lnsegfm writes ({error!r}). Train again.") from None


def write_domains(folder: Path, domains: Sequence[TrainingDomain]) -> None:
    """Write ``training_domain.json`` into a model folder: its own training first, then its base's."""
    write_json(folder / TRAINING_DOMAIN, {"format": FORMAT, "domains": [domain.to_json() for domain in domains]})


def read_domains(folder: Path) -> tuple[TrainingDomain, ...]:
    """The training domains that a model folder records; none where it holds no ``training_domain.json``.

    Raises:
        DataError: The file is damaged or of another format.
    """
    file = folder / TRAINING_DOMAIN
    if not file.is_file():
        return ()
    content = read_json(file)
    if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("domains"), list):
        raise DataError(f"{file}: not of the format {FORMAT}. Remove it: flags then go by plans.json alone.")
    try:
        return tuple(map(TrainingDomain.from_json, content["domains"]))
    except DataError as error:
        raise DataError(f"{file}: {error}") from None


def _label_over(cases: Sequence[MaskStatistics], name: str) -> LabelDomain | None:
    with_label = [case.labels[name] for case in cases if case.labels[name].components]
    volume = Range.of(label.volume_ml for label in with_label)
    number = Range.of(label.components for label in with_label)
    if volume is None or number is None:
        return None
    faces = Counter(face for label in with_label for face, voxels in label.faces.items() if voxels)
    hu, absent = Range.of(label.hu for label in with_label), len(cases) - len(with_label)
    return LabelDomain(volume, number, hu, absent, dict(sorted(faces.items())))


def _faces_of(content: Any) -> dict[str, int] | None:
    return None if content is None else {str(face): int(cases) for face, cases in content.items()}


def _each_axis(rows: Sequence[tuple[float, float, float]]) -> AxisRanges:
    z, y, x = (Range(min(values), max(values)) for values in zip(*rows, strict=True))
    return z, y, x

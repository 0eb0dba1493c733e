"""Flags: reasons to review a prediction, found without a reference.

A flag is no verdict: a flagged mask may be right, and one without a flag may be wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lnsegfm.errors import DataError
from lnsegfm.evaluation.domain_ranges import LabelDomain, Range, TrainedAxes, TrainingDomain
from lnsegfm.evaluation.mask_statistics import AXIAL, FOREGROUND, MaskStatistics
from lnsegfm.messages import counted, listed
from lnsegfm.storage import read_json, write_json

FLAGS = "flags.json"
FORMAT = "lnsegfm.flags/1"
TRAINED_ON = "trained-on"
"""The kind of flag that a scan raises which trained the model."""


@dataclass(frozen=True)
class Limit:
    """A limit, and the reason for its value."""

    value: float
    why: str


LIMITS: Mapping[str, Limit] = {
    "mirroring": Limit(
        0.2, "1 - Dice of plain and averaged prediction; beyond it a base was outside its training domain"
    ),
    "mirroring_voxels": Limit(100, "voxels of both at least; below it a handful of voxels makes any figure"),
    "hu_no_fat": Limit(-50, "HU; fat is -120 to -70: a patient's darkest 0.5 % are darker than this"),
    "hu_no_air": Limit(-200, "HU; darker than fat means air or lung, which nearly every CT holds"),
    "hu_dense": Limit(1000, "HU; bone above it fills less than 0.5 % of a scan; with an offset of 1024 a body does"),
    "hu": Limit(50, "HU beyond the medians in training; contrast, phase and scanner shift soft tissue so far"),
    "hu_share": Limit(0.25, "or this part of a median, if that is more; tube voltage shifts bone and iodine so far"),
    "hu_sd": Limit(2, "standard deviations of the training's foreground in which a median has to lie"),
    "spacing": Limit(1.25, "factor beyond the spacings in training; resampling tolerates a little"),
    "spacing_median": Limit(2, "factor from the median in plans.json, where the range is not known"),
    "extent": Limit(1.25, "factor beyond the fields of view in training"),
    "extent_median": Limit(3, "factor from the median in plans.json; scans of one data set differ by 2"),
    "volume": Limit(4, "factor beyond the volumes in training; nodes grow eightfold when their axes double"),
    "components": Limit(10, "factor beyond the number in training; nodes differ, fragments come by the dozen"),
    "share": Limit(0.5, "of the scan; no structure fills half of it"),
    "border": Limit(0, "voxels on a face of the scan: what is cut off there was not measured"),
    "border_share": Limit(0.5, "of the training masks; a face that so many touch is where the structure usually ends"),
    "border_masks": Limit(2, "training masks at least; a single one does not say what is usual"),
}


@dataclass(frozen=True)
class Flag:
    """A reason to review a prediction.

    Args:
        case: The case.
        kind: What was checked: ``trained-on``, ``orientation``, ``mirroring``, ``hu-scale``, ``hu``, ``spacing``,
            ``field-of-view``, ``border``, ``empty-mask``, ``volume`` or ``components``.
        reason: One sentence for the reviewer, with the numbers.
        value: What was measured.
        limit: The bound that it lies beyond.
    """

    case: str
    kind: str
    reason: str
    value: float
    limit: float

    def to_json(self) -> dict[str, Any]:
        """A plain table."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> Flag:
        """Read what `to_json` gave.

        Raises:
            DataError: It is something else.
        """
        try:
            case, kind, reason = (content[name] for name in ("case", "kind", "reason"))
            if not all(isinstance(text, str) for text in (case, kind, reason)):
                raise TypeError("a text is missing")
            return cls(case, kind, reason, float(content["value"]), float(content["limit"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"Flag {content!r}: not one ({error!r}). Predict the case again.") from None


@dataclass(frozen=True)
class Overlap:
    """How far two predictions of one scan agree, summed over its tiles.

    Args:
        both: Foreground voxels of both.
        plain: Foreground voxels of the prediction that was not mirrored.
        averaged: Foreground voxels of the average over all mirrored ones.
    """

    both: int
    plain: int
    averaged: int

    @property
    def disagreement(self) -> float:
        """1 - Dice; 0 where both are empty."""
        total = self.plain + self.averaged
        return 1 - 2 * self.both / total if total else 0.0


def flags_of(
    case: str,
    measured: MaskStatistics,
    domains: Sequence[TrainingDomain] = (),
    mirrored: Mapping[str, Overlap] | None = None,
    trained: TrainedAxes | None = None,
    *,
    trained_on: bool = False,
) -> tuple[Flag, ...]:
    """Every reason to review a case.

    The cases of a training raise none against its domain for spacing, field of view, HU, volume and components.

    Args:
        case: Its name.
        measured: The statistics of scan and mask.
        domains: The training domain of the model, then that of its base. Geometry and HU may be as in any of them;
            volumes and components are compared with the first alone, for they belong to its labels. A face of the
            scan that the masks of any of them usually touch raises no flag.
        mirrored: Plain against averaged prediction, by label and ``FOREGROUND``; None without mirroring.
        trained: The axes that the model was trained on; None where they are not to be judged.
        trained_on: This very scan is one of those that trained the model, or its base.
    """
    own = domains[0] if domains and domains[0].cases else None
    raised = [
        *_trained_on(trained_on),
        *_orientation(measured, trained),
        *_mirroring(mirrored or {}),
        *_hu_scale(measured, domains),
        *_hu(measured, domains),
        *_geometry(
            "spacing", "spacing", "The spacing", measured.axes, measured.spacing_mm, domains, lambda s: s.spacing_mm
        ),
        *_geometry(
            "field-of-view",
            "extent",
            "The field of view",
            measured.axes,
            measured.extent_mm,
            domains,
            lambda s: s.extent_mm,
        ),
        *_border(measured, domains),
        *_amount(measured, own),
    ]
    return tuple(Flag(case, kind, reason, float(value), float(limit)) for kind, reason, value, limit in raised)


Raised = Iterator[tuple[str, str, float, float]]


def _trained_on(known: bool) -> Raised:
    if known:
        reason = "The model, or its base, was trained on this scan: its mask says nothing about new ones."
        yield TRAINED_ON, reason, 1.0, 0.0


def _orientation(measured: MaskStatistics, trained: TrainedAxes | None) -> Raised:
    """A scan that went to the model as it is stored, for want of the axes that the model was trained on."""
    if trained is None or trained.codes is not None:
        return
    turned = sum(axis != usual for axis, usual in zip(measured.axes, AXIAL, strict=True))
    if not turned and trained.mirrored:
        return
    stored = f"this scan's run to {measured.stored} (x, y, z)"
    danger = "it may look turned" if turned else "left and right, or front and back, may be swapped"
    reason = (
        f"Nothing says on which axes the model was trained, and {stored}: {danger} to the model. State the model's "
        "axes: --model-axes RAS or LPS."
    )
    yield "orientation", reason, float(turned), 0.0


def _mirroring(mirrored: Mapping[str, Overlap]) -> Raised:
    limit = LIMITS["mirroring"].value
    labels = {name: overlap for name, overlap in mirrored.items() if name != FOREGROUND}
    shown = mirrored if len(labels) > 1 else {name: mirrored[name] for name in mirrored if name in labels}
    for name, overlap in shown.items():
        if overlap.plain + overlap.averaged >= LIMITS["mirroring_voxels"].value and overlap.disagreement > limit:
            what = "All labels together" if name == FOREGROUND else f"Label {name}"
            reason = (
                f"{what}: the prediction and the average over mirrored copies disagree by "
                f"{overlap.disagreement:.0%} (1 - Dice; limit {limit:.0%}), so the model is unsure."
            )
            yield "mirroring", reason, overlap.disagreement, limit


def _hu_scale(measured: MaskStatistics, domains: Sequence[TrainingDomain]) -> Raised:
    if measured.scan_hu is None:
        return
    low, high = measured.scan_hu
    for domain in domains:
        if (
            domain.scan_low_hu
            and domain.scan_high_hu
            and low <= domain.scan_low_hu.high
            and high <= domain.scan_high_hu.high
        ):
            return  # the training's own scans look so
    no_fat, no_air, dense = (LIMITS[name].value for name in ("hu_no_fat", "hu_no_air", "hu_dense"))
    numbers = f"99 % of the voxels lie between {low:.0f} and {high:.0f}"
    if low >= no_air and high > dense:
        reason = f"These are hardly HU: {numbers}, as when 1024 was added for storing them without a sign."
        yield "hu-scale", reason, low, no_air
    elif low >= no_fat:
        reason = f"These are hardly HU: {numbers}, so there is neither air nor fat: a window or a scale was applied."
        yield "hu-scale", reason, low, no_fat


def _hu(measured: MaskStatistics, domains: Sequence[TrainingDomain]) -> Raised:
    """The median under each label whose range is known, and under the foreground where no label's is."""
    general = [(domain, domain.foreground_hu) for domain in domains if domain.foreground_hu is not None]
    medians: dict[str, tuple[float, list[tuple[TrainingDomain, Range]]]] = {}
    for name, label in measured.labels.items():
        own = [(d, hu) for d in domains if name in d.labels and (hu := d.labels[name].hu) is not None]
        if label.hu is not None and own:
            medians[f"under {name}"] = (label.hu, [*own, *((d, hu) for d, hu in general if name not in d.labels)])
    if (
        not any(name in domain.labels for domain in domains for name in measured.labels)
        and measured.foreground_hu is not None
    ):
        medians["under the mask"] = (measured.foreground_hu, general)
    for where, (median, known) in medians.items():
        allowed = [hu_allowed(hu) if domain.cases else hu for domain, hu in known]
        if allowed and not any(median in hu for hu in allowed):
            ranges = " or ".join(f"{hu} HU ({domain.source})" for domain, hu in known)
            reason = f"The median {where} is {median:.0f} HU; the training domain has {ranges}."
            yield "hu", reason, median, _nearest(median, allowed)


def hu_allowed(hu: Range) -> Range:
    """The medians that raise no flag beside those of a training."""
    margin, share = LIMITS["hu"].value, LIMITS["hu_share"].value
    return Range(hu.low - max(margin, share * abs(hu.low)), hu.high + max(margin, share * abs(hu.high)))


def _geometry(
    kind: str,
    limit: str,
    quantity: str,
    axes: tuple[str, str, str],
    values: tuple[float, float, float],
    domains: Sequence[TrainingDomain],
    ranges_of: Callable[[TrainingDomain], tuple[Range, Range, Range]],
) -> Raised:
    """The axis along which a scan is farthest from every training domain."""
    worst: tuple[float, str, float, float] | None = None
    for axis, name in enumerate(axes):
        known = [(domain, ranges_of(domain)[axis]) for domain in domains]
        allowed = [r.widened(LIMITS[limit if domain.cases else f"{limit}_median"].value) for domain, r in known]
        if not allowed or any(values[axis] in r for r in allowed):
            continue
        bound = _nearest(values[axis], allowed)
        ranges = " or ".join(f"{r} mm ({domain.source})" for domain, r in known)
        reason = f"{quantity} along {name} is {values[axis]:.3g} mm; the model was trained on {ranges}."
        excess = abs(math.log(values[axis] / bound))
        if worst is None or excess > worst[0]:
            worst = (excess, reason, values[axis], bound)
    if worst is not None:
        yield kind, *worst[1:]


def _border(measured: MaskStatistics, domains: Sequence[TrainingDomain]) -> Raised:
    """Labels on a face of the scan that the masks of no training usually reach."""
    for name, label in measured.labels.items():
        trained = [(domain, domain.labels[name]) for domain in domains if name in domain.labels]
        counts = [(known.faces, domain.cases - known.absent) for domain, known in trained if known.faces is not None]
        touched = {face: n for face, n in label.faces.items() if not any(_is_usual(face, *count) for count in counts)}
        if not touched:
            continue
        faces = listed([f"{face} ({counted(n, 'voxel')})" for face, n in touched.items()])
        reason = f"Label {name} touches the scan's border at the {faces}; what lies beyond is not in its volume."
        if counts:
            masks, having = counts[0]
            numbers = [masks.get(face, 0) for face in touched]
            reason += f" Of {having} training masks {listed(list(map(str, numbers))) if any(numbers) else 'none'} did."
        yield "border", reason, max(touched.values()), LIMITS["border"].value


def _is_usual(face: str, touching: Mapping[str, int], masks: int) -> bool:
    """Whether so many training masks touch a face that another one is no news; one mask alone does not say."""
    return masks >= LIMITS["border_masks"].value and touching.get(face, 0) / masks >= LIMITS["border_share"].value


def _amount(measured: MaskStatistics, trained: TrainingDomain | None) -> Raised:
    if not any(label.components for label in measured.labels.values()):
        yield "empty-mask", "The mask is empty.", 0.0, 0.0
        return
    if trained is None and measured.share > LIMITS["share"].value:
        share = LIMITS["share"].value
        yield "volume", f"The mask fills {measured.share:.0%} of the scan (limit {share:.0%}).", measured.share, share
    for name, label in measured.labels.items():
        known = trained.labels.get(name) if trained else None
        if trained is not None and known is not None:
            yield from _amount_of(name, label.volume_ml, label.components, known, trained.cases)


def _amount_of(name: str, volume_ml: float, components: int, known: LabelDomain, cases: int) -> Raised:
    allowed = known.volume_ml.widened(LIMITS["volume"].value)
    if not components:
        if not known.absent:
            reason = f"Label {name} is empty; each of the {cases} training cases has it."
            yield "volume", reason, 0.0, allowed.low
        return
    if volume_ml not in allowed:
        reason = f"Label {name} has {volume_ml:.3g} ml; in training a case had {known.volume_ml} ml."
        yield "volume", reason, volume_ml, _nearest(volume_ml, [allowed])
    most = known.components.high * LIMITS["components"].value
    if components > most:
        reason = f"Label {name} has {components} connected components; in training a case had {known.components}."
        yield "components", reason, components, most


def _nearest(value: float, ranges: Sequence[Range]) -> float:
    return min((bound for r in ranges for bound in (r.low, r.high)), key=lambda bound: abs(bound - value))


def write_flags(folder: Path, flags: Mapping[str, Sequence[Flag]]) -> None:
    """Write the flags of all cases of a folder of masks; a case without a flag is written too: it was checked."""
    cases = {case: [flag.to_json() for flag in raised] for case, raised in sorted(flags.items())}
    write_json(folder / FLAGS, {"format": FORMAT, "cases": cases})


def read_flags(folder: Path) -> dict[str, tuple[Flag, ...]]:
    """The flags of a folder of masks, by case; a case that raised none has an empty tuple.

    A folder without ``flags.json`` gives nothing.

    Raises:
        DataError: The file is damaged or of another format.
    """
    file = folder / FLAGS
    if not file.is_file():
        return {}
    content = read_json(file)
    if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("cases"), dict):
        raise DataError(f"{file}: not of the format {FORMAT}. Remove it, and predict again with --overwrite.")
    try:
        return {str(case): tuple(map(Flag.from_json, raised)) for case, raised in content["cases"].items()}
    except (DataError, TypeError) as error:
        raise DataError(f"{file}: {error}") from None

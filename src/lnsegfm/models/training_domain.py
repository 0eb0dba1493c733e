"""The training domain of a model: measured on its training cases, or derived from its plans."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lnsegfm.datasets.dataset import Case
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.evaluation.domain_ranges import TRAINING_DOMAIN, Range, TrainingDomain, read_domains, write_domains
from lnsegfm.evaluation.flags import LIMITS
from lnsegfm.evaluation.mask_statistics import MaskStatistics, measure_mask
from lnsegfm.imaging.files import read_mask, read_volume
from lnsegfm.imaging.orientation import turned_onto
from lnsegfm.messages import counted
from lnsegfm.models.model import Model
from lnsegfm.models.plans import in_image_order
from lnsegfm.nnunet.plan_axes import axes_of_plans
from lnsegfm.nnunet.plan_configuration import resolve_configuration
from lnsegfm.progress import Progress
from lnsegfm.weights.checkpoint import Checkpoint

CT = "CTNormalization"


def ct_channel(plans: Mapping[str, Any], configuration: str) -> int | None:
    """The first channel that is normalised as CT; None where there is none; HU are then not checked."""
    schemes = resolve_configuration(plans, configuration).get("normalization_schemes", [])
    return schemes.index(CT) if CT in schemes else None


def training_domains(model: Model) -> tuple[TrainingDomain, ...]:
    """The training domains of a model: those in its ``training_domain.json``, else what its plans contain.

    Raises:
        DataError: A ``training_domain.json`` that is damaged.
    """
    derived = domain_from_plans(model.plans, model.configuration)
    return read_domains(model.folder) or tuple(replace(one, axes=model.axes) for one in derived)


def domain_from_plans(plans: Mapping[str, Any], configuration: str) -> tuple[TrainingDomain, ...]:
    """The medians and intensities that nnU-Net keeps in its plans; nothing where plans lack them.

    The median HU under a mask may lie between the 0.5th and the 99.5th percentile of the training's foreground voxels,
    and within two standard deviations of their mean.
    """
    try:
        spacing = in_image_order(plans, plans["original_median_spacing_after_transp"])
        shape = in_image_order(plans, plans["original_median_shape_after_transp"])
        z, y, x = (Range(float(s), float(s)) for s in spacing)
        depth, height, width = (Range(float(n * s), float(n * s)) for n, s in zip(shape, spacing, strict=True))
        allowed = _allowed_hu(plans, ct_channel(plans, configuration))
    except (KeyError, TypeError, ValueError, IndexError):
        return ()
    return (TrainingDomain("plans", 0, (z, y, x), (depth, height, width), foreground_hu=allowed),)


def write_training_domain(
    start: Checkpoint,
    cases: Sequence[Case],
    labels: LabelMap,
    folder: Path,
    progress: Progress,
    *,
    base: Model | None = None,
    renamed: Mapping[str, str] | None = None,
    looks: Sequence[MaskStatistics] | None = None,
) -> None:
    """Measure the training cases and write ``training_domain.json`` into a model folder; an existing one stays.

    Args:
        start: Plans and configuration of the training.
        cases: What was trained on; none where a method trains nothing.
        labels: What the cases' masks mean.
        folder: The model folder.
        progress: Where progress is reported.
        base: What the training started from; its ranges are kept behind the cases'.
        renamed: Labels of the base that have another name here.
        looks: What was measured of the cases already; None reads them.
    """
    if (folder / TRAINING_DOMAIN).is_file():
        return
    channel, (axes, _) = ct_channel(start.plans, start.configuration), axes_of_plans(start.plans)
    if looks is None:
        looks = _measured(cases, labels, channel, axes, progress)
    ranges = [TrainingDomain.over(looks, axes=axes)] if looks else []
    before = list(training_domains(base)) if base is not None else []
    named = ("base", *(f"base {number} before it" for number in range(1, len(before))))
    theirs = [replace(one, source=name).renamed(renamed or {}) for one, name in zip(before, named, strict=False)]
    write_domains(folder, [*ranges, *theirs])


def _measured(
    cases: Sequence[Case], labels: LabelMap, channel: int | None, axes: str | None, progress: Progress
) -> list[MaskStatistics]:
    looks = []
    if cases:
        progress.stage(f"Reading {counted(len(cases), 'case')} for flags")
    for done, case in enumerate(cases, 1):
        if case.label is not None:
            image, (mask, grid) = None, read_mask(case.label)
            if channel is not None:
                image, own = read_volume(case.images[channel])
                mask, grid = turned_onto(mask, grid, own)
            looks.append(measure_mask(image, mask, grid, labels.covered, axes=axes))
        progress.advance(done, len(cases))
    return looks


def _allowed_hu(plans: Mapping[str, Any], channel: int | None) -> Range | None:
    if channel is None:
        return None
    found = {key: float(v) for key, v in plans["foreground_intensity_properties_per_channel"][str(channel)].items()}
    reach = LIMITS["hu_sd"].value * found["std"]
    low = max(found["percentile_00_5"], found["mean"] - reach)
    high = min(found["percentile_99_5"], found["mean"] + reach)
    return Range(low, high) if math.isfinite(low) and low <= high else None

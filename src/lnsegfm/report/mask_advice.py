"""Advice that follows from scans and masks: sides, HU, patch, volumes of references, the largest component."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Mapping
from typing import Any

from lnsegfm.evaluation.domain_ranges import Range
from lnsegfm.evaluation.flags import hu_allowed
from lnsegfm.messages import counted
from lnsegfm.report.advice_facts import Advice, RunFacts
from lnsegfm.report.figure_text import dice_text
from lnsegfm.report.label_verdict import USABLE_DICE, mean_dice

OTHER_VOLUME = 2.0
"""Factor by which the median reference held out lies beyond those of the shots where they are called different."""


def sides(facts: RunFacts) -> list[Advice]:
    """Left and right exchanged: a label overlaps the reference of its other side better than its own."""
    for label, measure in facts.measured.items():
        dice = mean_dice(facts.comparison, label)
        if measure.swapped is None or not measure.swapped[1] > dice + facts.comparison.smallest_difference:
            continue
        other, swapped = measure.swapped
        found = f"{label} lies on the side of {other}: its Dice is {dice:.2f}, against the reference of {other} "
        if facts.record["recipe"].get("mirror") == "swap":  # tried already: what is left are the references
            return [Advice("sides", f"{found}{swapped:.2f}. Check the references.", facts.data_check())]
        sentence = (
            f"{found}{swapped:.2f}. Let left and right labels change places with the flip, and check the references."
        )
        return [Advice("sides", sentence, facts.again("sides", mirror="swap"))]
    return []


def hu_shift(facts: RunFacts) -> list[Advice]:
    """Scans in another range of HU than those that trained the base, by the limits of the flags, under its labels."""
    shots = [domain for domain in facts.domains if domain.source == "training"]
    bases = [domain for domain in facts.domains if domain.source.startswith("base")]
    known_to_base = [label for label in facts.weak if label not in facts.comparison.unknown]
    for label in known_to_base if shots and bases else ():
        own = shots[0].labels[label].hu if label in shots[0].labels else None
        theirs: list[tuple[Range, Range]] = []
        for domain in bases:
            known = domain.labels[label].hu if label in domain.labels else domain.foreground_hu
            if known is not None:
                theirs.append((known, hu_allowed(known) if domain.cases else known))
        if own is None or not theirs or any(own.low <= wide.high and own.high >= wide.low for _, wide in theirs):
            continue
        sentence = (
            f"The median under {label} is {own} HU in the shots, and the base was trained on "
            f"{' or '.join(str(known) for known, _ in theirs)} HU. Look whether phase, kernel or offset of the scans "
            "differ."
        )
        return [Advice("hu", sentence, facts.data_check(with_model=True))]
    return []


def patch(facts: RunFacts) -> list[Advice]:
    """A patch that does not hold a structure."""
    spacing, size = facts.record["spacing_mm"], facts.record["patch_size"]
    needed, largest = list(size), None
    for label in facts.weak:
        if label not in facts.measured:
            continue
        voxels = [extent / step for extent, step in zip(facts.measured[label].extent_mm, spacing, strict=True)]
        if any(need > have for need, have in zip(voxels, size, strict=True)):
            largest = largest or label
            needed = [max(n, 16 * math.ceil(v / 16)) for n, v in zip(needed, voxels, strict=True)]
    if largest is None:
        return []
    patch_mm, extent = (
        " x ".join(f"{v:.0f}" for v in values)
        for values in ([p * s for p, s in zip(size, spacing, strict=True)], facts.measured[largest].extent_mm)
    )
    sentence = f"The patch ({patch_mm} mm) does not hold {largest} ({extent} mm): a larger one sees it whole."
    return [Advice("patch", sentence, facts.again("patch", patch_size=needed))]


def label_volume(facts: RunFacts) -> list[Advice]:
    """References held out that are clearly larger or smaller than those trained on; not of nodes, which vary."""
    shots = next((domain.labels for domain in facts.domains if domain.source == "training"), {})
    for label in facts.weak:
        if label in facts.comparison.adapted.node_labels or label not in shots:
            continue
        scores = [facts.comparison.adapted_score(case, label) for case in facts.comparison.cases]
        volumes, known = [score.reference_ml for score in scores if score.reference_ml > 0], shots[label].volume_ml
        middle = statistics.median(volumes) if volumes else known.low
        if middle in known.widened(OTHER_VOLUME):
            continue
        sentence = (
            f"{label}: the references held out have typically {middle:.3g} ml, those of the shots {known} ml. "
            "Look whether they are contoured alike."
        )
        return [Advice("label volume", sentence, facts.data_check())]
    return []


def largest_component(facts: RunFacts) -> list[Advice]:
    """The largest component: where it was measured to give more and is no rule of the model.

    Not of a label for which the base is better or ahead, unless it is not with the rule; nor beside other rules, which
    those that are set by hand replace.
    """
    found = facts.record.get("postprocessing") or {}
    if found.get("rules"):
        return []
    gains: Mapping[str, Mapping[str, float]] = found.get("largest", {})
    helped = {
        label: gains[label]
        for label in facts.weak
        if label in gains and gains[label]["after"] - gains[label]["before"] >= facts.comparison.smallest_difference
    }
    kept = {
        label: gain
        for label, gain in helped.items()
        if not facts.base_ahead(label) or gain["after"] > facts.comparison.difference(label).base_mean
    }
    if not kept:
        return []
    ranked = sorted(kept, key=lambda label: kept[label]["before"] - kept[label]["after"])
    first = kept[ranked[0]]
    before, after = dice_text(first["before"]), dice_text(first["after"])
    poor = ", which is still not usable as it is" if first["after"] < USABLE_DICE else ""
    sentence = (
        f"{_why_none(found)}: keeping the largest component of {ranked[0]} alone takes its Dice from {before} to "
        f"{after} on {counted(int(first['cases']), 'held-out scan')}{poor}. Look at the masks, and set it."
    )
    words = ["lnsegfm", "models", "postprocess", facts.folder]
    words += [word for label in ranked for word in ("--largest", label)]
    return [Advice("postprocessing", sentence, shlex.join(words))]


def _why_none(found: Mapping[str, Any]) -> str:
    """Why the model has no rule, in words."""
    if found.get("chosen_on") == "none":
        return "No postprocessing was tried"
    return f"No postprocessing was chosen ({found.get('reason') or 'its gain is within the standard error'})"

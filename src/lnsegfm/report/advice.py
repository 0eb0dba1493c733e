"""What to try next, from what a run has measured: each a sentence with its command, the weightiest first."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lnsegfm.report.comparison import Comparison
from lnsegfm.report.label_verdict import CLEAR_RATIO, mean_dice, volume_ratios
from lnsegfm.report.run_command import finetune_command, next_folder

MOST = 5
GOOD_DICE = 0.9
"""From this Dice on a label needs no advice."""
FALLING_SE = 3.0
"""Standard errors by which the last eighth of the losses lies below the eighth before it while a loss still falls."""
FEWEST_LOSSES = 80


@dataclass(frozen=True)
class Advice:
    """One thing to try.

    Args:
        kind: What it follows from: ``sides``, ``patch``, ``steps``, ``volume``, ``postprocessing``, ``hold out``.
        sentence: What was measured, and what may help.
        command: The command to try.
    """

    kind: str
    sentence: str
    command: str

    def to_json(self) -> dict[str, str]:
        """As JSON-able values."""
        return dict(vars(self))


@dataclass(frozen=True)
class LabelMeasure:
    """What masks say of a label beyond its scores.

    Args:
        extent_mm: Median extent of the reference along (z, y, x).
        swapped: The label of the other side, and the mean Dice against its reference; None without another side.
    """

    extent_mm: tuple[float, float, float]
    swapped: tuple[str, float] | None = None


def advice(
    record: Mapping[str, Any],
    comparison: Comparison | None,
    folder: str,
    measured: Mapping[str, LabelMeasure] | None = None,
) -> tuple[Advice, ...]:
    """At most `MOST` things to try, none where every label is good.

    Args:
        record: What the run's ``run.json`` holds.
        comparison: Base against adapted on the held-out cases; None where none was held out.
        folder: The run's; further runs are named beside it.
        measured: What the masks say of labels, by name.
    """
    if comparison is None:
        return _nothing_held_out(record, folder)
    weak = [label for label in comparison.labels if mean_dice(comparison, label) < GOOD_DICE]
    if not weak:
        return ()
    found = [
        *_sides(record, comparison, folder, measured or {}),
        *_patch(record, weak, folder, measured or {}),
        *_steps(record, folder),
        *_postprocessing(record, folder),
        *_volume(record, comparison, weak, folder),
    ]
    return tuple({one.command: one for one in reversed(found)}.values())[::-1][:MOST]


def still_falling(losses: Sequence[float]) -> bool:
    """Whether the last eighth of the losses lies clearly below the eighth before it."""
    part = len(losses) // 8
    if len(losses) < FEWEST_LOSSES or not all(map(math.isfinite, losses)):
        return False
    last, before = losses[-part:], losses[-2 * part : -part]
    error = math.sqrt((statistics.variance(last) + statistics.variance(before)) / part)
    return statistics.fmean(before) - statistics.fmean(last) > FALLING_SE * error


def _nothing_held_out(record: Mapping[str, Any], folder: str) -> tuple[Advice, ...]:
    shots = len(record["shots"])
    if shots < 4:
        return ()
    sentence = "No scan was held out, so nothing shows whether this helped: hold out a few."
    command = finetune_command(record, next_folder(folder, "judged"), shots=shots - max(1, shots // 4))
    return (Advice("hold out", sentence, command),)


def _sides(
    record: Mapping[str, Any], comparison: Comparison, folder: str, measured: Mapping[str, LabelMeasure]
) -> list[Advice]:
    for label, measure in measured.items():
        dice = mean_dice(comparison, label)
        if measure.swapped is None or not measure.swapped[1] > dice + comparison.smallest_difference:
            continue
        other, swapped = measure.swapped
        found = f"{label} lies on the side of {other}: its Dice is {dice:.2f}, against the reference of {other} "
        if record["recipe"].get("mirror") == "swap":  # tried already: what is left are the references
            data = shlex.quote(str(record["data"]["folder"]))
            return [Advice("sides", f"{found}{swapped:.2f}. Check the references.", f"lnsegfm data check {data}")]
        sentence = (
            f"{found}{swapped:.2f}. Let left and right labels change places with the flip, and check the references."
        )
        return [Advice("sides", sentence, finetune_command(record, next_folder(folder, "sides"), mirror="swap"))]
    return []


def _patch(
    record: Mapping[str, Any], weak: Sequence[str], folder: str, measured: Mapping[str, LabelMeasure]
) -> list[Advice]:
    spacing, patch = record["spacing_mm"], record["patch_size"]
    needed, largest = list(patch), None
    for label in weak:
        if label not in measured:
            continue
        voxels = [extent / step for extent, step in zip(measured[label].extent_mm, spacing, strict=True)]
        if any(need > have for need, have in zip(voxels, patch, strict=True)):
            largest = largest or label
            needed = [max(n, 16 * math.ceil(v / 16)) for n, v in zip(needed, voxels, strict=True)]
    if largest is None:
        return []
    size, extent = (
        " x ".join(f"{v:.0f}" for v in values)
        for values in ([p * s for p, s in zip(patch, spacing, strict=True)], measured[largest].extent_mm)
    )
    sentence = f"The patch ({size} mm) does not hold {largest} ({extent} mm): a larger one sees it whole."
    command = finetune_command(record, next_folder(folder, "patch"), patch_size=needed)
    return [Advice("patch", sentence, command)]


def _steps(record: Mapping[str, Any], folder: str) -> list[Advice]:
    training = record["training"]
    cut = training["stopped_by"] == "time limit"
    if training.get("divergence") is not None or not (cut or still_falling(record["losses"])):
        return []
    done, more = training["iterations"], 2 * max(record["recipe"]["iterations"], training["iterations"])
    sentence = f"The loss was still falling after {done} iterations: train longer."
    if cut:
        more, sentence = more // 2, f"The time limit stopped training after {done} of {more // 2} iterations: lift it."
    changes = {"iterations": more, "time_limit_s": None}
    return [Advice("steps", sentence, finetune_command(record, next_folder(folder, "longer"), **changes))]


def _postprocessing(record: Mapping[str, Any], folder: str) -> list[Advice]:
    chosen = record.get("postprocessing") or {}
    if chosen.get("chosen_on") != "none":
        return []
    sentence = (
        "No postprocessing was tried: keeping the largest component is, and is kept only where it helps, by default."
    )
    command = finetune_command(record, next_folder(folder, "cleaned"), postprocessing=None)
    return [Advice("postprocessing", sentence, command)]


def _volume(record: Mapping[str, Any], comparison: Comparison, weak: Sequence[str], folder: str) -> list[Advice]:
    found = []
    for label in weak:
        ratios = volume_ratios(comparison, label)
        middle = statistics.median(ratios) if ratios else 1.0
        if record["recipe"]["method"] == "full" or 1 / CLEAR_RATIO < middle < CLEAR_RATIO:
            continue
        size = f"typically {middle:.1f} times the reference's volume"
        sentence = f"{label}: masks have {size}. Try the method that moves every weight."
        command = finetune_command(
            record, next_folder(folder, "full"), method="full", settings={}, lr=None, iterations=None, warm_up=0
        )
        found.append((abs(math.log(max(middle, 1e-3))), Advice("volume", sentence, command)))
    return [one for _, one in sorted(found, key=lambda pair: -pair[0])[:1]]

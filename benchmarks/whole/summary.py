"""Scores and ratios of the arms."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

DEFAULTS, BEST, OURS = "stock, defaults", "stock, best flags", "lnsegfm"
REQUIRED = {DEFAULTS: 6.0, BEST: 3.0}
"""Times faster that ours has to be."""


def dice_of(masks: Path, references: Path, cases: Sequence[str]) -> dict[str, float]:
    """Dice of the foreground by case, read and counted here and by neither side.

    Raises:
        RuntimeError: A mask that lies on another grid than its reference.
    """
    found = {}
    for case in cases:
        mask, reference = (sitk.ReadImage(str(folder / f"{case}.nii.gz")) for folder in (masks, references))
        same = (mask.GetSize(), np.allclose(mask.GetOrigin(), reference.GetOrigin(), atol=1e-3))
        if same != (reference.GetSize(), True) or not np.allclose(mask.GetSpacing(), reference.GetSpacing(), atol=1e-4):
            raise RuntimeError(f"Mask of {case} in {masks}: its grid is not the reference's. Both have to lie on one.")
        ours, theirs = (sitk.GetArrayFromImage(each) > 0 for each in (mask, reference))
        total = int(ours.sum()) + int(theirs.sum())
        found[case] = 2 * int((ours & theirs).sum()) / total if total else float("nan")
    return found


def summarise(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Medians and ranges of each arm, and how many times ours is faster.

    Args:
        runs: Figures of each arm, in the order of the seeds.
    """
    arms = {arm: _arm(of_arm) for arm, of_arm in runs.items() if of_arm}
    summary: dict[str, Any] = {"arms": arms}
    if OURS in arms:
        summary["times_faster"] = {
            arm: {
                "whole command": _ratio(runs[arm], runs[OURS], "seconds"),
                "what both do": _ratio(runs[arm], runs[OURS], "seconds_alike"),
                "required": required,
            }
            for arm, required in REQUIRED.items()
            if arm in arms
        }
        summary["dice_difference"] = {
            arm: round(arms[OURS]["dice_mean"] - arms[arm]["dice_mean"], 4) for arm in REQUIRED if arm in arms
        }
    return summary


def _arm(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    seconds = [run["seconds"] for run in runs]
    dice = [float(np.nanmean(list(run["dice"].values()))) for run in runs]
    stages = {name: _median([run["stages"][name] for run in runs]) for name in runs[0]["stages"]}
    return {
        "seconds_median": _median(seconds),
        "seconds_range": [round(min(seconds), 2), round(max(seconds), 2)],
        "stages_median_s": stages,
        "peak_mib": round(max(run["peak_mib"] for run in runs)),
        "processes": max(run["processes"] for run in runs),
        "dice_by_seed": [round(each, 4) for each in dice],
        "dice_mean": round(statistics.mean(dice), 4),
        "dice_sd": round(statistics.stdev(dice), 4) if len(dice) > 1 else None,
    }


def _median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 2)


def _ratio(theirs: Sequence[Mapping[str, Any]], ours: Sequence[Mapping[str, Any]], which: str) -> float:
    """Median over the seeds of their seconds by ours."""
    pairs = zip(theirs, ours, strict=False)
    return _median([stock["seconds"] / own[which] for stock, own in pairs])


def table(summary: Mapping[str, Any], floor: Mapping[str, Any]) -> str:
    """The summary in Markdown."""
    lines = ["| | seconds | range | peak MiB | processes | Dice, mean of seeds (SD) |", "|---|---|---|---|---|---|"]
    for arm, found in summary["arms"].items():
        low, high = found["seconds_range"]
        spread = f" ({found['dice_sd']:.3f})" if found["dice_sd"] is not None else ""
        lines.append(
            f"| {arm} | {found['seconds_median']:.1f} | {low:.1f} to {high:.1f} | {found['peak_mib']} "
            f"| {found['processes']} | {found['dice_mean']:.3f}{spread} |"
        )
    lines.append(
        f"| the network alone, in torch's own layers | {floor['training_s'] + floor['prediction_s']:.1f} | | | | |"
    )
    for arm, faster in summary.get("times_faster", {}).items():
        lines.append(
            f"\n{faster['whole command']:.1f} times faster than {arm} ({faster['required']:g} required); "
            f"{faster['what both do']:.1f} times by what both do."
        )
    return "\n".join(lines)

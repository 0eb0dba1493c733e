"""Whether a scan holds Hounsfield units: air is near -1000 HU and soft tissue near 40 HU, whatever the scanner."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lnsegfm.datasets.doctor.finding import Finding

TISSUE_HU = 150.0  # of 60 head-and-neck scans the commonest values of tissue lie between -97 (fat) and 65 HU
FEWEST_VOXELS = 4096  # fewer say nothing about where the modes lie
_SAMPLE = 2_000_000
_BIN_HU = 10.0
_OFFSET = 1024.0
_MOST = 1e6  # beyond any HU: what lies further is counted there
CLIP_HU = (-1024, 3071)  # what 12 bits with an intercept of -1024 can hold


@dataclass(frozen=True)
class HuFacts:
    """Statistics of a scan's values.

    Args:
        lowest: The lowest value.
        highest: The highest value.
        air: Commonest value of the darkest region (the values up to 500 above the lowest 0.1 %; padding below
            -1200 HU is passed over where there is air, too).
        tissue: Commonest value more than 500 above ``air`` (to 30 HU).
        at_lowest: Share of voxels that have the lowest value.
        at_highest: Share of voxels that have the highest value.
        padding: Share of voxels below -1200 HU beside air.
    """

    lowest: float
    highest: float
    air: float
    tissue: float
    at_lowest: float
    at_highest: float
    padding: float


def measure_hu(volume: np.ndarray) -> HuFacts | None:
    """Measure a scan's values; None where it has fewer than 4096 finite voxels, or one value only.

    Modes are taken of about two million voxels that are spread evenly.
    """
    step = max(1, volume.size // _SAMPLE)
    sample = volume.reshape(-1)[:: step + (step % 2 == 0)].astype(np.float64)  # an odd step meets every column
    sample = np.clip(sample[np.isfinite(sample)], -_MOST, _MOST)
    if sample.size < FEWEST_VOXELS:
        return None
    lowest, highest = _ends(volume)
    if lowest == highest:
        return None
    airy = np.count_nonzero((sample > -1100) & (sample < -850)) >= 0.005 * sample.size
    padded = sample < -1200 if airy else np.zeros(sample.shape, bool)
    values = sample[~padded]
    start = float(np.quantile(values, 0.001))
    air = _mode(values[values <= start + 500], start)
    bright = values[values > air + 500]
    return HuFacts(
        lowest,
        highest,
        air,
        _mode(bright, air) if bright.size else air,
        float(np.mean(sample == lowest)),
        float(np.mean(sample == highest)),
        float(np.mean(padded)),
    )


def judge_hu(facts: HuFacts, case: str, file: Path | None) -> list[Finding]:
    """What is suspicious about a scan's values; see docs/doctor.md for the kinds."""
    if (finding := _no_hounsfield_units(facts, case, file)) is not None:
        return [finding]
    return [*_modes(facts, case, file), *_outliers(facts, case, file)]


def hu_warnings(volume: np.ndarray) -> tuple[str, ...]:
    """What makes it doubtful that a CT's values (z, y, x) are HU, one line each; empty where nothing does."""
    facts = measure_hu(volume)
    found = judge_hu(facts, "", None) if facts is not None else []
    return tuple(f"{finding.what}. {finding.remedy}" for finding in found if finding.severity == "warning")


def _no_hounsfield_units(facts: HuFacts, case: str, file: Path | None) -> Finding | None:
    low, high = f"{facts.lowest:g}", f"{facts.highest:g}"
    export = "Export the scan again in HU (RescaleSlope and RescaleIntercept applied, no window)"
    if facts.lowest >= 0 and facts.highest >= 60000:
        what = f"values run from {low} to {high}: negative HU were stored without a sign"
        return Finding("hu-wrapped", "warning", case, file, what, export)
    ends = f"{facts.at_lowest:.1%} of the voxels are at {low} and {facts.at_highest:.1%} at {high}"
    if facts.lowest > -900 and facts.at_lowest > 0.02 and facts.at_highest > 0.002 and facts.highest < 1500:
        what = f"a window seems to have been applied: {ends}, and nothing lies beyond"
        return Finding("hu-window", "warning", case, file, what, export)
    if facts.highest - facts.lowest < 300:
        what = f"values run from {low} to {high} only: a CT in HU runs from about -1000 to over 1000"
        return Finding("hu-scale", "warning", case, file, what, export)
    offset = facts.air + 1000
    if abs(offset - _OFFSET) <= 60 and abs(facts.tissue - facts.air - 1040) <= 250:
        what = (
            f"air is at {facts.air:.0f} and soft tissue at {facts.tissue:.0f}: these are stored values, 1024 above HU "
            "(air is near -1000 HU, soft tissue near 40 HU)"
        )
        remedy = "Subtract 1024, or export the scan again with its RescaleIntercept applied"
        return Finding("hu-offset", "warning", case, file, what, remedy, fix="offset-1024")
    return None


def _modes(facts: HuFacts, case: str, file: Path | None) -> list[Finding]:
    found = []
    if facts.lowest > -300:
        what = f"no air: the lowest value is {facts.lowest:g} HU, and air is near -1000 HU"
        found.append(Finding("hu-air", "warning", case, file, what, "Look whether the scan is in HU and whole"))
    elif -940 < facts.air < -650:
        what = f"the darkest region is at {facts.air:.0f} HU: lung without air around it, or values that are no HU"
        found.append(Finding("hu-air", "note", case, file, what, "Look whether the scan was cropped to the body"))
    elif not -1060 <= facts.air <= -940:
        what = f"the darkest region is at {facts.air:.0f} HU, and air is near -1000 HU"
        found.append(Finding("hu-air", "warning", case, file, what, "Look whether the scan is in HU"))
    if not abs(facts.tissue) <= TISSUE_HU:
        what = f"the commonest value of what is no air is {facts.tissue:.0f} HU, and soft tissue is near 40 HU"
        found.append(Finding("hu-tissue", "warning", case, file, what, "Look whether the scan is in HU"))
    if facts.lowest <= -900 and facts.highest <= 1000 and facts.at_highest > 0.001:
        what = f"values end at {facts.highest:g} HU, which {facts.at_highest:.1%} of the voxels have: bone was cut off"
        found.append(Finding("hu-window", "note", case, file, what, "Export the scan without a window if you can"))
    return found


def _outliers(facts: HuFacts, case: str, file: Path | None) -> list[Finding]:
    found = []
    harmless = "Harmless: training clips values; nothing needs doing"
    if facts.highest > 4095:
        what = f"values up to {facts.highest:g} HU (metal, or an extended scale)"
        found.append(Finding("hu-outliers", "note", case, file, what, harmless, fix="clip-hu"))
    if facts.padding >= 0.001 or (facts.lowest < -2000 and facts.air >= -1200):
        what = f"padding: {facts.padding:.1%} of the voxels lie below -1200 HU, down to {facts.lowest:g}"
        found.append(Finding("hu-padding", "note", case, file, what, harmless, fix="clip-hu"))
    return found


def _ends(volume: np.ndarray) -> tuple[float, float]:
    if np.issubdtype(volume.dtype, np.integer):
        return float(volume.min()), float(volume.max())
    return float(np.nanmin(volume, where=np.isfinite(volume), initial=np.inf)), float(
        np.nanmax(volume, where=np.isfinite(volume), initial=-np.inf)
    )


def _mode(values: np.ndarray, start: float) -> float:
    """The commonest value, to a bin of 10: the median of what lies in the three fullest neighbouring bins."""
    bins = np.floor((values - start) / _BIN_HU).astype(np.int64)
    bins -= bins.min()
    counts = np.convolve(np.bincount(bins), np.ones(3), "same")
    best = int(counts.argmax())
    return float(np.median(values[np.abs(bins - best) <= 1]))

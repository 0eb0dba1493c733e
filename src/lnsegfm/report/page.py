"""The report of a fine-tuning run: one HTML file that needs no server, no network and no other file.

What a reader wants first comes first: is the adapted model better than the base, by how much, on how many cases. Then
each held-out case with its pictures, the worst one first, then what the run was.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.evaluation.evaluate import MEAN
from lnsegfm.imaging.files import read_mask, read_volume
from lnsegfm.report.comparison import Comparison, Difference, dice_text, interval_text
from lnsegfm.report.pictures import (
    ADAPTED_COLOUR,
    BASE_COLOUR,
    REFERENCE_COLOUR,
    Focus,
    axial_view,
    focus_slice,
    overlay_png,
)
from lnsegfm.storage import write_text

MOST_PICTURES = 24
CURVE_POINTS = 200
CURVE_WIDTH, CURVE_HEIGHT = 1000, 200
_DISAGREEMENT = "where adapted and reference disagree most"

_OUTCOMES = {
    "adapted better": ("good", "The adapted model is better"),
    "no difference": ("open", "No difference shown"),
    "base ahead": ("bad", "Keep the base"),
    "base better": ("bad", "Keep the base"),
    "no evidence": ("open", "No evidence"),
}


@dataclass(frozen=True)
class CasePicture:
    """A held-out case and the files its pictures are drawn from, all on one grid.

    Args:
        case: Its name, as in the comparison.
        image: CT in HU.
        reference: The human mask.
        base: The base's mask; None when there is none.
        adapted: The adapted model's mask.
        labels: Values in the reference and in the adapted model's mask.
        base_labels: Values in the base's mask where they are others; a label it lacks is drawn as not known.
    """

    case: str
    image: Path
    reference: Path
    base: Path | None
    adapted: Path
    labels: LabelMap
    base_labels: LabelMap | None = None


def write_page(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    comparison: Comparison | None,
    cases: Sequence[CasePicture],
    losses: Sequence[float] | None,
    provenance: Mapping[str, Any],
) -> None:
    """Write the report, whole or not at all.

    Args:
        path: The HTML file.
        title: Its heading.
        facts: What the run was, in the order to show it: model, method, shots, iterations, what moved, adapter size.
        comparison: Base against adapted; None when no scan was held out: the page then says that there is no evidence.
        cases: What to draw, worst adapted Dice first whatever their order here. Pictures stop after 24 of them; the
            numbers of every case are in the table.
        losses: Training loss, one value an iteration; None leaves the curve out.
        provenance: Versions, hashes, seed: nested tables and lists are laid out flat.

    Raises:
        DataError: A file of ``cases`` cannot be read, or its masks are not on the image's grid.
    """
    ranked = comparison.worst_first() if comparison is not None else ()
    order = {case: rank for rank, case in enumerate(ranked)}
    kind, headline = _OUTCOMES[comparison.outcome if comparison is not None else "no evidence"]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["minus_signs"] = lambda text: re.sub(r"(?<!\w)-(?=\d)", "\N{MINUS SIGN}", str(text))
    template = environment.from_string(files("lnsegfm.report").joinpath("page.html.j2").read_text(encoding="utf-8"))
    page = template.render(
        title=title,
        facts={name: str(value) for name, value in facts.items()},
        colours={"reference": REFERENCE_COLOUR, "base": BASE_COLOUR, "adapted": ADAPTED_COLOUR},
        kind=kind,
        headline=headline,
        verdict=comparison.verdict() if comparison is not None else None,
        notes=comparison.notes() if comparison is not None else (),
        means=_means(comparison) if comparison is not None else [],
        dots=[_dots(comparison, label, ranked) for label in comparison.labels] if comparison is not None else [],
        cases=list(_draw_cases(sorted(cases, key=lambda c: order.get(c.case, len(order))), comparison)),
        curve=_curve(losses) if losses is not None else None,
        provenance=list(_flat(provenance)),
    )
    write_text(path, page)


def _means(comparison: Comparison) -> list[dict[str, Any]]:
    rows = [(label, comparison.difference(label)) for label in comparison.labels]
    if len(rows) > 1:
        rows.append((MEAN, comparison.difference()))
    return [
        {
            "label": label,
            "unknown": label in comparison.unknown,
            "n": found.n,
            "base": dice_text(found.base_mean),
            "base_median": dice_text(_median(found.base)),
            "adapted": dice_text(found.adapted_mean),
            "adapted_median": dice_text(_median(found.adapted)),
            "mean": dice_text(found.mean, signed=True),
            "interval": _interval(found),
        }
        for label, found in rows
    ]


def _interval(found: Difference) -> str:
    if found.low is None:
        return "too few cases"
    return interval_text(found.low, found.high)


def _dots(comparison: Comparison, label: str, ranked: Sequence[str]) -> dict[str, Any]:
    """One row a case: Dice of base and adapted, as text and as a place on a line from 0 to 100 %."""
    rows = []
    for case in ranked:
        base, adapted = comparison.base_dice(case, label), comparison.adapted_dice(case, label)
        change = None if base is None or adapted is None else adapted - base
        rows.append(
            {
                "case": case,
                "base": dice_text(base),
                "adapted": dice_text(adapted),
                "change": dice_text(change, signed=True),
                "base_at": None if base is None else round(100 * base, 2),
                "adapted_at": None if adapted is None else round(100 * adapted, 2),
                "both": change is not None,
            }
        )
    return {"label": label, "rows": rows}


def _draw_cases(cases: Sequence[CasePicture], comparison: Comparison | None) -> Iterator[dict[str, Any]]:
    drawn = 0
    for rank, case in enumerate(cases):
        if drawn + len(case.labels.names) > MOST_PICTURES and drawn:
            return
        focuses: tuple[Focus, ...] = ("largest", "disagreement") if rank == 0 else ("largest",)
        masks = _Masks.read(case)
        pictures = [picture for label in case.labels.names for picture in _draw_label(masks, label, focuses)]
        drawn += len(pictures)
        yield {"case": case.case, "scores": _scores(comparison, case), "pictures": pictures}


def _scores(comparison: Comparison | None, case: CasePicture) -> list[dict[str, Any]]:
    if comparison is None or case.case not in comparison.cases:
        return []
    rows = []
    for label in comparison.labels:
        base, adapted = comparison.base_dice(case.case, label), comparison.adapted_dice(case.case, label)
        score = comparison.adapted_score(case.case, label)
        rows.append(
            {
                "label": label,
                "base": dice_text(base),
                "adapted": dice_text(adapted),
                "reference_ml": f"{score.reference_ml:.2f}",
                "base_ml": _volume(comparison.base_ml(case.case, label), score.reference_ml),
                "adapted_ml": _volume(score.prediction_ml, score.reference_ml),
            }
        )
    return rows


def _volume(found_ml: float, reference_ml: float) -> str:
    relative = f" ({100 * (found_ml / reference_ml - 1):+.0f} %)" if reference_ml > 0 else ""
    return f"{found_ml:.2f}{relative}"


@dataclass(frozen=True)
class _Masks:
    """The arrays of one case, read once for all its labels."""

    case: CasePicture
    image: np.ndarray
    spacing_mm: tuple[float, float, float]
    direction: tuple[float, ...]
    reference: np.ndarray
    base: np.ndarray | None
    adapted: np.ndarray

    @classmethod
    def read(cls, case: CasePicture) -> _Masks:
        image, grid = read_volume(case.image)

        def mask(path: Path) -> np.ndarray:
            values, other = read_mask(path)
            if difference := grid.difference(other):
                raise DataError(f"{path}: not on the grid of {case.image} ({difference}). Resample it to the image.")
            return values

        base = None if case.base is None else mask(case.base)
        return cls(case, image, grid.spacing_mm, grid.direction, mask(case.reference), base, mask(case.adapted))


def _draw_label(masks: _Masks, label: str, focuses: tuple[Focus, ...]) -> Iterator[dict[str, Any]]:
    """Pictures of one label; none where there was nothing to find and nothing was found."""
    labels, base_labels = masks.case.labels, masks.case.base_labels or masks.case.labels
    reference, adapted = (m == labels.names[label] for m in (masks.reference, masks.adapted))
    known = masks.base is not None and label in base_labels.names
    base = masks.base == base_labels.names[label] if masks.base is not None and known else None
    ignored = masks.reference == labels.ignore if labels.ignore is not None else None
    found = adapted if base is None else adapted | base
    if not reference.any() and not found.any():
        return
    view = axial_view(masks.direction)
    slices: dict[int, str] = {}
    for focus in focuses:
        where = "through the largest reference component" if focus == "largest" else _DISAGREEMENT
        slices.setdefault(focus_slice(view, reference, adapted if reference.any() else found, focus, ignored), where)
    for index, where in slices.items():
        png = overlay_png(
            masks.image,
            reference,
            base,
            adapted,
            spacing_mm=masks.spacing_mm,
            direction=masks.direction,
            slice_index=index,
            ignored=ignored,
        )
        total = masks.image.shape[view.order[0]]
        shown = where if reference.any() or where == _DISAGREEMENT else "with most of what was found"
        yield {
            "png": base64.b64encode(png).decode("ascii"),
            "caption": f"{label}: axial slice {index + 1} of {total}, {shown}.",
            "alt": (
                f"Case {masks.case.case}, {label}, axial slice {index + 1}: CT, then contours of base and reference, "
                "then contours of adapted model and reference."
            ),
        }


def _curve(losses: Sequence[float]) -> dict[str, Any] | None:
    """The training loss as the points of an SVG line, averaged over neighbouring iterations where there are many."""
    finite = [(i, float(v)) for i, v in enumerate(losses) if math.isfinite(v)]
    if len(finite) < 2:
        return None
    parts = np.array_split(np.array(finite), min(CURVE_POINTS, len(finite)))
    points = np.array([part.mean(axis=0) for part in parts])
    x, y = points.T
    low, high = float(y.min()), float(y.max())
    span = (high - low) or 1.0
    across = (x - x[0]) / (x[-1] - x[0]) * CURVE_WIDTH
    down = (high - y) / span * CURVE_HEIGHT
    return {
        "points": " ".join(f"{a:.1f},{d:.1f}" for a, d in zip(across, down, strict=True)),
        "width": CURVE_WIDTH,
        "height": CURVE_HEIGHT,
        "high": f"{high:.3g}",
        "low": f"{low:.3g}",
        "first": f"{y[0]:.3g}",
        "last": f"{y[-1]:.3g}",
        "n": len(losses),
        "per_point": math.ceil(len(finite) / len(parts)),
        "not_finite": len(losses) - len(finite),
    }


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name} / {key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        yield name, ", ".join(str(v) for v in value)
    else:
        yield name, str(value)


def _median(values: Mapping[str, float]) -> float:
    return float(np.median(list(values.values()))) if values else math.nan

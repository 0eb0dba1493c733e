"""The report as one HTML file that needs no server, no network and no other file.

What a reader wants first comes first: the verdict and what limits it, the figures over all cases, a table of the
cases, then each case with its pictures, the worst one first, then what the run was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from lnsegfm.evaluation.flags import Flag
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.progress import Progress
from lnsegfm.report.comparison import BASE, Comparison
from lnsegfm.report.label_verdict import label_sentence, labels_apart, title, unusable
from lnsegfm.report.page_rows import case_columns, case_line, case_row, node_rows, score_rows
from lnsegfm.report.page_summary import headline, limits, metric_rows, paired_rows, plots_of, size_rows
from lnsegfm.report.page_summary import node_rows as nodes_over_cases
from lnsegfm.report.picture_selection import ScoredModel, pictures_of
from lnsegfm.report.templates import render_page
from lnsegfm.report.verdict import forgetting, notes, verdict
from lnsegfm.storage import write_text

MOST_PICTURES, MOST_OF_A_CASE = 300, 6
CURVE_POINTS = 200
CURVE_WIDTH, CURVE_HEIGHT = 1000, 200


def write_evaluation_page(
    path: Path,
    evaluation: Evaluation,
    *,
    title: str,
    flags: Mapping[str, Sequence[Flag]] | None = None,
    facts: Mapping[str, str] | None = None,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the page of one model's evaluation, whole or not at all.

    Args:
        path: The HTML file.
        evaluation: Its scores. Pictures are drawn of the cases that name their files.
        title: The page's heading.
        flags: Reasons to review a case's prediction, by case; None where it was not checked.
        facts: What was evaluated, in the order to show it.
        provenance: Versions, hashes, settings: nested tables and lists are laid out flat.
        progress: Reported to after each case.

    Raises:
        DataError: A file of a case cannot be read, or lies on another grid than the reference.
    """
    models = [ScoredModel("prediction", evaluation)]
    content = {
        "kind": "open",
        "headline": headline(models[0]),
        "verdict": "What these figures can and cannot show:",
        "notes": limits(evaluation),
        "metrics": list(metric_rows(evaluation)),
        "paired": [],
        "source_data": None,
        "label_lines": [],
        "advice": (),
        "methods": None,
        "command": None,
    }
    about = {"title": title, "facts": facts or {}, "losses": None, "provenance": provenance or {}}
    _write(path, about, content, _body(models, flags, progress))


def write_page(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    comparison: Comparison | None,
    losses: Sequence[float] | None = None,
    provenance: Mapping[str, Any] | None = None,
    flags: Mapping[str, Sequence[Flag]] | None = None,
    source_data: Comparison | None = None,
    advice: Sequence[Mapping[str, str]] = (),
    methods: str | None = None,
    command: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the page of a comparison, whole or not at all.

    Args:
        path: The HTML file.
        title: Its heading.
        facts: What the run was, in the order to show it: model, method, shots, iterations, what moved, adapter size.
        comparison: Base against adapted; None when no scan was held out: the page then says that there is no evidence.
            Pictures are drawn from the files that its two evaluations name.
        losses: Training loss, one value an iteration; None leaves the curve out.
        provenance: Versions, hashes, seed: nested tables and lists are laid out flat.
        flags: Reasons to review a case's adapted prediction, by case; None where it was not checked.
        source_data: Base against adapted on the source data; None where none are given.
        advice: What to try next: ``sentence`` and ``command`` of each.
        methods: A paragraph for a paper.
        command: The command line of the run.
        progress: Reported to after each case.

    Raises:
        DataError: A file of a case cannot be read, or lies on another grid than the reference.
    """
    kind, headline = _outcome(comparison)
    content = {
        "kind": kind,
        "headline": headline,
        "verdict": verdict(comparison) if comparison is not None else None,
        "notes": notes(comparison) if comparison is not None else (),
        "metrics": [],
        "paired": list(paired_rows(comparison)) if comparison is not None else [],
        "source_data": _source_data(source_data),
        "label_lines": [label_sentence(comparison, n) for n in comparison.labels] if comparison is not None else [],
        "advice": advice,
        "methods": methods,
        "command": command,
    }
    about = {"title": title, "facts": facts, "losses": losses, "provenance": provenance or {}}
    _write(path, about, content, _body(_models(comparison), flags, progress))


def _outcome(comparison: Comparison | None) -> tuple[str, str]:
    """The verdict in a few words, and its colour: neither good nor bad where labels stand against the mean."""
    if comparison is None:
        return "open", "No evidence"
    worse, _ = labels_apart(comparison)
    poor = any(unusable(comparison, label) for label in comparison.labels)
    kind = {"adapted better": "good", "base better": "bad", "learnt from nothing": "bad" if poor else "open"}
    if comparison.names[0] == BASE:
        kind["base ahead"] = "bad"
    colour = kind.get(comparison.outcome, "open")
    return "open" if colour == "good" and (worse or poor) else colour, title(comparison)


def _models(comparison: Comparison | None) -> list[ScoredModel]:
    if comparison is None:
        return []
    return [
        ScoredModel(comparison.names[0], comparison.base, "base"),
        ScoredModel(comparison.names[1], comparison.adapted),
    ]


def _source_data(comparison: Comparison | None) -> dict[str, Any] | None:
    if comparison is None:
        return None
    rows, models = list(paired_rows(comparison)), _models(comparison)
    return {"sentence": forgetting(comparison), "paired": rows, "models": models, "notes": notes(comparison)}


def _write(path: Path, about: Mapping[str, Any], summary: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    page = render_page(
        "page.html.j2",
        title=about["title"],
        facts=[(name, str(value)) for name, value in about["facts"].items()],
        curve=_curve(about["losses"]) if about["losses"] is not None else None,
        provenance=list(_flat(about["provenance"])),
        **summary,
        **body,
    )
    write_text(path, page)


def _body(
    models: Sequence[ScoredModel], flags: Mapping[str, Sequence[Flag]] | None, progress: Progress | None
) -> dict[str, Any]:
    """What the page says of all cases and of each."""
    if not models:
        empty: dict[str, Any] = {
            name: [] for name in ("node_summary", "sizes", "plots", "columns", "rows", "cases", "metric_titles")
        }
        return {**empty, "models": [], "anchors": {}, "several_labels": False, "tolerance": "1", "drawn": ""}
    judged, flagged = models[-1].evaluation, flags or {}
    ranked = judged.worst_first()
    anchors = {case: f"case-{rank}" for rank, case in enumerate(ranked, start=1)}
    cases = []
    for item in _cases(models, ranked, anchors, flagged):
        cases.append(item)
        if progress is not None:
            progress.advance(len(cases), len(ranked), item["case"])
    return {
        "models": models,
        "several_labels": len(judged.labels.names) > 1,
        "tolerance": f"{judged.tolerance_mm:g}",
        "node_summary": list(nodes_over_cases(models)),
        "sizes": list(size_rows(models)),
        "plots": list(plots_of(models)),
        "metric_titles": [metric.title for metric in judged.metrics.values()],
        "columns": case_columns(models, flags=flags is not None),
        "rows": [case_row(case, models, flagged.get(case, ()), flagged=flags is not None) for case in ranked],
        "anchors": anchors,
        "cases": cases,
        "drawn": _drawn(models, sum(len(item["pictures"]) for item in cases)),
    }


def _cases(
    models: Sequence[ScoredModel],
    ranked: Sequence[str],
    anchors: Mapping[str, str],
    flagged: Mapping[str, Sequence[Flag]],
) -> Iterator[dict[str, Any]]:
    left = MOST_PICTURES
    for rank, case in enumerate(ranked):
        score = models[-1].evaluation.case(case)
        pictures = pictures_of(case, models, most=min(left, MOST_OF_A_CASE))
        without = "Nothing to find, and nothing found: no picture."
        if score.files is None:
            without = "No picture: the files of this case are not known."
        elif left < 1:
            without = f"No picture: the page stops after {MOST_PICTURES}, and cases with a lower Dice come first."
        left -= len(pictures)
        yield {
            "case": case,
            "anchor": anchors[case],
            "open": rank == 0,
            "line": case_line(score),
            "flags": flagged.get(case, ()),
            "pictures": [{"svg": Markup(p.svg), "caption": p.caption, "status": p.status} for p in pictures],
            "without": without,
            "scores": score_rows(case, models),
            "nodes": node_rows(case, models),
        }


def _drawn(models: Sequence[ScoredModel], pictures: int) -> str:
    """What is drawn, and what is left out."""
    judged = models[-1].evaluation
    sentences = []
    if judged.node_labels:
        sentences.append(
            "Of a case's nodes at most three false negatives or merged ones, two false positives (the largest of each) "
            "and one true positive (the worst overlap) are drawn; the table below them has all."
        )
    if set(judged.labels.names) - set(judged.node_labels):
        sentences.append(
            "Of other labels the slice on which prediction and reference differ most is drawn, the lowest Dice first."
        )
    sentences.append(f"A case has at most {MOST_OF_A_CASE} pictures.")
    if pictures >= MOST_PICTURES:
        sentences.append(f"The page stops after {MOST_PICTURES} pictures: the best cases have none.")
    if any(case.files is None or case.files.image is None for case in judged.cases):
        sentences.append("Where the scan is not known, masks are drawn filled on black.")
    return " ".join(sentences)


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

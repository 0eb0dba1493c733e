"""Masks in memory scored against references in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.evaluation.case_scores import CaseScore
from lnsegfm.evaluation.doubtful_references import with_doubtful_apart
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.evaluation.scoring import Scoring, score_volumes
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.image_objects import as_mask
from lnsegfm.progress import Progress


def are_folders(predictions: Any, references: Any) -> bool:
    """Whether two arguments name folders rather than masks."""
    named = [Path(place) for place in (predictions, references) if isinstance(place, str | Path)]
    return len(named) == 2 and not all(place.is_file() for place in named)


def as_cases(masks: Any) -> dict[str, Any]:
    """Masks by case: a table's own names; ``case_000``, ``case_001``, ... of a list; ``case`` of a single one."""
    if isinstance(masks, Mapping) and type(masks).__module__.partition(".")[0] != "torchio":  # its images are mappings
        return dict(masks)
    pair = isinstance(masks, tuple) and len(masks) == 2 and isinstance(masks[1], Grid)
    if isinstance(masks, Sequence) and not isinstance(masks, str) and not pair:
        return {f"case_{number:03d}": mask for number, mask in enumerate(masks)}
    return {"case": masks}


def labels_given(masks: Mapping[str, Any]) -> LabelMap | None:
    """The labels that predictions know; None where they are plain images."""
    for mask in masks.values():
        names = getattr(mask, "labels", None)
        if isinstance(names, Mapping) and isinstance(getattr(mask, "grid", None), Grid):
            return LabelMap(dict(names), regions=getattr(mask, "regions", ()))
    return None


def evaluate_masks(
    predictions: Mapping[str, Any],
    references: Mapping[str, Any],
    labels: LabelMap,
    *,
    grid: Grid | None = None,
    prediction_labels: LabelMap | None = None,
    scoring: Scoring | None = None,
    subjects: Mapping[str, str] | None = None,
    partial: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Score every reference's prediction.

    Args:
        predictions: Masks by case: a `Prediction`, a path, an image, or an array with its grid.
        references: Masks by case, in the same forms.
        labels: Labels of the references.
        grid: Of arrays that come without one.
        prediction_labels: Labels of the predictions, if they are others.
        scoring: What is measured.
        subjects: The patient of each case, where known.
        partial: A case that cannot be scored becomes a line of ``failures``.
        progress: Reported to after each case.

    Raises:
        DataError: Cases without a prediction, or that cannot be scored, a line for each.
    """
    scoring, progress = scoring or Scoring(), progress or Progress()
    failures = [f"Case {name}: it has no prediction. Give one." for name in references if name not in predictions]
    scores: list[CaseScore] = []
    names = sorted(name for name in references if name in predictions)
    for done, name in enumerate(names, start=1):
        try:
            given = predictions[name]
            scores.append(
                score_volumes(
                    name,
                    as_mask(given, grid, "the prediction"),
                    as_mask(references[name], grid, "the reference"),
                    labels,
                    prediction_labels,
                    scoring=scoring,
                    probabilities=lambda given=given: _probabilities(given),  # type: ignore[misc]
                )
            )
        except DataError as error:
            failures += [p if p.startswith(f"Case {name}") else f"Case {name}: {p}" for p in error.problems]
        progress.advance(done, len(names), name)
    if failures and not (partial and scores):
        raise DataError(*failures)
    of = subjects or {}
    evaluation = Evaluation(
        labels,
        tuple(CaseScore(score.case, score.labels, of.get(score.case)) for score in scores),
        tuple(failures),
        scoring.tolerance_mm,
        tuple(label for label in labels.names if label in scoring.node_labels),
        prediction_labels,
        scoring.plugin_metrics,
    )
    return with_doubtful_apart(evaluation, scoring.absence)


def _probabilities(prediction: Any) -> dict[str, np.ndarray]:
    """Each label's probability as a file of them would hold it, in half precision; none where there is none."""
    kept = getattr(prediction, "probabilities", None)
    if kept is None or not isinstance(getattr(prediction, "grid", None), Grid):
        return {}
    labels = LabelMap(dict(prediction.labels), regions=getattr(prediction, "regions", ()))
    shares = kept[-len(labels.names) :]
    return {name: share.astype(np.float16) for name, share in zip(labels.names, shares, strict=True)}

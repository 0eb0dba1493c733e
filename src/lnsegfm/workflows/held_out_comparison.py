"""Base against adapted on the cases that were held out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lnsegfm.datasets.check import DatasetCheck, require_usable
from lnsegfm.datasets.dataset import Case, Dataset, open_dataset
from lnsegfm.datasets.labels import LabelMap, node_labels, require_same_spelling
from lnsegfm.errors import DataError
from lnsegfm.evaluation.case_scores import CaseFiles, CaseScore, LabelScore
from lnsegfm.evaluation.doubtful_references import KnownAbsence, require_labels, with_doubtful_apart
from lnsegfm.evaluation.flags import Flag, read_flags
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.evaluation.scoring import Known, Scoring, evaluate_case
from lnsegfm.messages import counted
from lnsegfm.models.model_folder import Model
from lnsegfm.prediction.predict_cases import predict_cases
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.progress import Progress
from lnsegfm.report.comparison import Comparison
from lnsegfm.report.verdict import verdict

WITH_EMPTY_CASES = KnownAbsence(empty_cases=False)
"""References that hold nothing at all are not in doubt: `--allow-empty` said that the scans hold nothing."""


@dataclass(frozen=True)
class HeldOutComparison:
    """Base against adapted on cases that were not trained on.

    Args:
        comparison: Base against adapted on the held-out cases; None where none was held out.
        flags: Why to review a prediction of the adapted model, by case.
        source_data: Base against adapted on the source data; None where none are given.
    """

    comparison: Comparison | None = None
    flags: Mapping[str, tuple[Flag, ...]] = field(default_factory=dict)
    source_data: Comparison | None = None

    def with_smallest_difference(self, smallest: float) -> HeldOutComparison:
        """The same, judged by another smallest difference of the mean Dice that matters."""
        both = (self.comparison, self.source_data)
        held_out, source = (one and replace(one, smallest_difference=smallest) for one in both)
        return replace(self, comparison=held_out, source_data=source)

    @property
    def verdict(self) -> str:
        """Whether it helped, in plain words."""
        if self.comparison is None:
            return "No scan was held out: there is no evidence of whether this helped."
        return verdict(self.comparison)


def known_absence(data: Dataset, checked: DatasetCheck, absent: Iterable[str]) -> KnownAbsence:
    """What is known of labels that references lack: what the user says, and what all cases of the data hold.

    Args:
        data: The labelled scans.
        checked: Their check.
        absent: Labels that are said to be absent where references lack them.

    Raises:
        ConfigError: A label that the data do not have.
    """
    unlabelled = {case.name: case.unlabelled for case in data.cases if case.unlabelled}
    named = require_labels(absent, data.labels)
    return KnownAbsence(named, empty_cases=False, others=checked.holding(data.labels), unlabelled=unlabelled)


def compare_held_out(
    held_out: Sequence[Case],
    data: Dataset,
    base: Model,
    adapted: Model,
    out: Path,
    *,
    source_data: Dataset | None,
    options: PredictOptions,
    progress: Progress,
    absence: KnownAbsence = WITH_EMPTY_CASES,
) -> HeldOutComparison:
    """Predict and compare the held-out cases and the source data; existing masks are kept.

    Args:
        held_out: Cases of ``data`` that were not trained on.
        data: The labelled scans.
        base: The model one started from.
        adapted: The model that was made from it.
        out: The run's folder; masks go to ``predictions`` and ``source_data``.
        source_data: Scans of the base's own task.
        options: How to predict.
        progress: Where progress is reported.
        absence: What is known of labels that references of ``data`` lack.

    Raises:
        DataError: A case that one of the models cannot predict.
    """
    how: Any = {"options": options, "progress": progress}
    comparison = on_source_data = None
    if held_out:
        comparison = compare_models(held_out, data, base, adapted, out / "predictions", absence=absence, **how)
    if source_data is not None:
        progress.stage(f"Source data: {counted(len(source_data.labelled), 'case')} of {source_data.root}")
        on_source_data = compare_models(source_data.labelled, source_data, base, adapted, out / "source_data", **how)
    raised = read_flags(out / "predictions" / "adapted")
    flags = {case.name: raised[case.name] for case in held_out if raised.get(case.name)}
    return HeldOutComparison(comparison, flags, on_source_data)


def open_source_data(
    root: Path, base: Model, progress: Progress, *, allow_empty: bool = False
) -> tuple[Dataset, Mapping[str, str]]:
    """The cases on which forgetting is measured, checked, and the hash of each one's scan.

    Raises:
        DataError: Cases that cannot be used, or labels that the base does not know.
    """
    data = open_dataset(root, default_labels=None if base.covers else base.mask_labels, allow_empty=allow_empty)
    progress.stage(f"Checking {counted(len(data.cases), 'source case')}")
    hashes = require_usable(data, progress=progress).scan_hashes
    require_same_spelling(base.label_names, data.labels.names, "the base calls it", option=False)
    if len(data.channels) != base.channels or not set(data.labels.names) & set(base.label_names):
        raise DataError(
            f"--source-data {root}: the base cannot predict it (it knows {base.mask_labels} on "
            f"{', '.join(base.channel_names)}). Name scans of what the base was trained for."
        )
    return data, hashes


def compare_models(
    cases: Sequence[Case],
    data: Dataset,
    base: Model,
    adapted: Model,
    folder: Path,
    *,
    options: PredictOptions,
    progress: Progress,
    absence: KnownAbsence = WITH_EMPTY_CASES,
) -> Comparison:
    """Predict cases with both models and compare; existing masks are kept.

    A base that knows none of the labels, or takes other channels, does not predict: its masks count as empty.

    Args:
        cases: Cases of ``data`` with a reference.
        data: What their labels are called, and whose they are.
        base: The model one started from.
        adapted: The model that was made from it.
        folder: The masks go to its ``base`` and ``adapted``.
        options: How to predict.
        progress: Where progress is reported.
        absence: What is known of labels that references lack.

    Raises:
        DataError: A case that one of the models cannot predict.
    """
    how: Any = {"options": options, "progress": progress}
    known: Any = {"subjects": data.subjects, "absence": absence}
    masks = predict_masks(adapted, "adapted model", cases, folder / "adapted", **how)
    after = score_masks(cases, masks, data.labels, adapted, **known)
    fits = base.channels == adapted.channels
    if base_predicts(base, adapted.channels, data.labels):
        masks = predict_masks(base, "base", cases, folder / "base", **how)
        before = score_masks(cases, masks, data.labels, base, **known)
    else:
        reason = (
            f"knows none of the labels ({data.labels})"
            if fits
            else f"is for other channels ({', '.join(base.channel_names)})"
        )
        progress.stage(f"The base {reason}: it does not predict")
        before = _without_predictions(after)
    for line in map(str, after.doubtful().values()):
        progress.stage(line)
    return Comparison(before, after)


def base_predicts(base: Model, channels: int, labels: LabelMap) -> bool:
    """Whether a base can predict scans of so many channels and knows one of their labels at least."""
    return base.channels == channels and any(label in base.label_names for label in labels.names)


def predict_masks(
    model: Model,
    name: str,
    cases: Sequence[Case],
    folder: Path,
    *,
    options: PredictOptions,
    progress: Progress,
) -> dict[str, Path]:
    """Predict cases; existing masks are kept. Gives the mask's file by case.

    Raises:
        DataError: A case that the model cannot predict; all of them are listed.
    """
    progress.stage(f"Predicting {counted(len(cases), 'case')} with the {name}")
    predictions = predict_cases(model, cases, folder, options, progress=progress)
    if predictions.failed:
        raise DataError(*map(str, predictions.failed))
    return model.mask_files(folder, (case.name for case in cases))


def score_masks(
    cases: Sequence[Case],
    masks: Mapping[str, Path],
    labels: LabelMap,
    model: Model,
    *,
    subjects: Mapping[str, str] | None = None,
    scoring: Scoring | None = None,
    absence: KnownAbsence = WITH_EMPTY_CASES,
) -> Evaluation:
    """Score a model's masks against the references, labels matched by name."""
    scoring = scoring or Scoring(node_labels=node_labels(labels.names))
    known = Known(
        images={case.name: case.images[0] for case in cases if case.images},
        subjects=subjects or {},
        unlabelled={case.name: case.unlabelled for case in cases},
    )
    scores = (
        evaluate_case(case.name, masks[case.name], case.label, labels, model.mask_labels, scoring=scoring, known=known)
        for case in cases
        if case.label is not None
    )
    evaluation = Evaluation(
        labels,
        tuple(scores),
        tolerance_mm=scoring.tolerance_mm,
        node_labels=scoring.node_labels,
        prediction_labels=model.mask_labels,
    )
    return with_doubtful_apart(evaluation, absence)


def _without_predictions(evaluation: Evaluation) -> Evaluation:
    """The scores of a model that knows none of the labels: its masks count as empty."""

    def nothing(found: LabelScore) -> LabelScore:
        if not found.annotated:
            return LabelScore.unlabelled(known=False)
        overlap = 0.0 if found.reference_ml else math.nan
        nodes = replace(found.nodes, prediction=(), pairs=(), unjudged=()) if found.nodes is not None else None
        volume = found.reference_ml
        return LabelScore(overlap, volume, 0.0, -volume, nsd=overlap, known=False, nodes=nodes)

    def files(found: CaseFiles | None) -> CaseFiles | None:
        return replace(found, prediction=None) if found is not None else None

    cases = (
        CaseScore(
            case.case,
            {label: nothing(found) for label, found in case.labels.items()},
            case.subject,
            files(case.files),
        )
        for case in evaluation.cases
    )
    return replace(evaluation, cases=tuple(cases), prediction_labels=None)

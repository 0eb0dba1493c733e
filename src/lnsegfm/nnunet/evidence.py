"""Base against adapted on the cases that were held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lnsegfm.datasets.dataset import Case
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.evaluation.evaluate import CaseScore, Evaluation, LabelScore, evaluate_case
from lnsegfm.nnunet.model import Model
from lnsegfm.nnunet.predict import predict_cases
from lnsegfm.progress import Progress
from lnsegfm.report.comparison import Comparison
from lnsegfm.report.page import CasePicture


@dataclass(frozen=True)
class Evidence:
    """What the held-out cases show.

    Args:
        comparison: Base against adapted.
        pictures: The files to look at.
    """

    comparison: Comparison
    pictures: tuple[CasePicture, ...]


def gather(
    cases: Sequence[Case],
    labels: LabelMap,
    base: Model,
    adapted: Model,
    folder: Path,
    *,
    device: str,
    mirroring: bool,
    progress: Progress,
) -> Evidence:
    """Predict the held-out cases with both models and compare; masks that are there already are kept.

    A base that knows none of the labels, or takes other channels, is not asked.

    Raises:
        DataError: A held-out case that one of the models cannot predict.
    """
    how: Any = {"device": device, "mirroring": mirroring, "progress": progress}
    adapted_masks = masks_of(adapted, "adapted model", cases, folder / "adapted", **how)
    after = score(cases, adapted_masks, labels, adapted)
    fits = base.channels == adapted.channels
    unknown = tuple(label for label in labels.names if not fits or label not in base.label_names)
    base_masks: dict[str, Path] = {}
    if len(unknown) < len(labels.names):
        base_masks = masks_of(base, "base", cases, folder / "base", **how)
        before = score(cases, base_masks, labels, base)
    else:
        reason = (
            f"knows none of the labels ({labels})"
            if fits
            else f"is for other channels ({', '.join(base.channel_names)})"
        )
        progress.stage(f"The base {reason}: it is not asked")
        before = _ignorant(after)
    pictures = tuple(
        CasePicture(
            case.name,
            case.images[0],
            case.label,
            base_masks.get(case.name),
            adapted_masks[case.name],
            labels,
            base.labels if base_masks else labels,
        )
        for case in cases
        if case.label is not None
    )
    return Evidence(Comparison(before, after, unknown), pictures)


def masks_of(
    model: Model,
    name: str,
    cases: Sequence[Case],
    folder: Path,
    *,
    device: str,
    mirroring: bool,
    progress: Progress,
) -> dict[str, Path]:
    """Predict held-out cases; masks that are there already are kept. Gives the mask's file by case.

    Raises:
        DataError: A case that the model cannot predict; all of them are listed.
    """
    progress.stage(f"Predicting {len(cases)} held-out cases with the {name}")
    found = predict_cases(model, cases, folder, device=device, mirroring=mirroring, progress=progress)
    if found.failed:
        raise DataError(*map(str, found.failed))
    ending = str(model.dataset_json.get("file_ending", ".nii.gz"))
    return {case.name: folder / f"{case.name}{ending}" for case in cases}


def score(cases: Sequence[Case], masks: Mapping[str, Path], labels: LabelMap, model: Model) -> Evaluation:
    """Score a model's masks against the references, labels matched by name."""
    scores = (
        evaluate_case(case.name, masks[case.name], case.label, labels, model.labels)
        for case in cases
        if case.label is not None
    )
    return Evaluation(labels, tuple(scores))


def _ignorant(of_another: Evaluation) -> Evaluation:
    """The scores of a model that knows none of the labels: its masks count as empty."""

    def nothing(found: LabelScore) -> LabelScore:
        dice = 0.0 if found.reference_ml else float("nan")
        return LabelScore(dice, found.reference_ml, 0.0, -found.reference_ml, known=False)

    cases = (
        CaseScore(case.case, {label: nothing(found) for label, found in case.labels.items()})
        for case in of_another.cases
    )
    return Evaluation(of_another.labels, tuple(cases))

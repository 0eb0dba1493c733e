"""Base against adapted on the cases that were held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lnsegfm.datasets.dataset import Case
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.evaluation.evaluate import Evaluation, evaluate_case
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

    Raises:
        DataError: A held-out case that one of the models cannot predict.
    """
    evaluations, masks = {}, {}
    for name, model in (("base", base), ("adapted", adapted)):
        progress.stage(f"Predicting {len(cases)} held-out cases with the {name} model")
        found = predict_cases(model, cases, folder / name, device=device, mirroring=mirroring, progress=progress)
        if found.failed:
            raise DataError(*map(str, found.failed))
        ending = str(model.dataset_json.get("file_ending", ".nii.gz"))
        masks[name] = {case.name: folder / name / f"{case.name}{ending}" for case in cases}
        evaluations[name] = Evaluation(
            labels,
            tuple(
                evaluate_case(case.name, masks[name][case.name], case.label, labels, model.labels)
                for case in cases
                if case.label is not None
            ),
        )
    unknown = tuple(label for label in labels.names if label not in base.labels.names)
    pictures = tuple(
        CasePicture(
            case.name,
            case.images[0],
            case.label,
            masks["base"][case.name],
            masks["adapted"][case.name],
            labels,
            base.labels,
        )
        for case in cases
        if case.label is not None
    )
    return Evidence(Comparison(evaluations["base"], evaluations["adapted"], unknown), pictures)

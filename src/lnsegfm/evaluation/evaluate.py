"""Score masks against references: overlap and volume, per case and label."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lnsegfm.datasets.labels import LabelMap, values_in
from lnsegfm.errors import DataError
from lnsegfm.evaluation.overlap import dice, volume_ml
from lnsegfm.evaluation.references import masks_in, missing_predictions, references_in
from lnsegfm.imaging.files import read_mask

FORMAT = "lnsegfm.evaluation/1"
MEAN = "mean over labels"


@dataclass(frozen=True)
class LabelScore:
    """One label of one case.

    Args:
        dice: Dice coefficient; NaN where neither mask has the label.
        reference_ml: Volume of the reference.
        prediction_ml: Volume of the prediction.
        volume_difference_ml: Prediction minus reference: positive where too much was drawn.
        known: Whether the model that predicted knows the label; if not, its prediction counts as empty.
    """

    dice: float
    reference_ml: float
    prediction_ml: float
    volume_difference_ml: float
    known: bool = True


@dataclass(frozen=True)
class CaseScore:
    """One case: its labels' scores by label name."""

    case: str
    labels: dict[str, LabelScore]

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the labels for which it is defined; NaN if there is none."""
        defined = [score.dice for score in self.labels.values() if not math.isnan(score.dice)]
        return statistics.fmean(defined) if defined else math.nan


@dataclass(frozen=True)
class Summary:
    """Dice over cases.

    Args:
        n: Cases for which Dice is defined; the numbers below are over these.
        mean: Arithmetic mean; NaN where n is 0.
        median: Median; NaN where n is 0.
        sd: Sample standard deviation (n - 1); NaN where n is below 2.
        undefined: Cases left out because neither reference nor prediction has the label.
    """

    n: int
    mean: float
    median: float
    sd: float
    undefined: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Summary:
        """Summarise the Dice of some cases, NaN where it is undefined."""
        every = list(values)
        defined = [value for value in every if not math.isnan(value)]
        return cls(
            n=len(defined),
            mean=statistics.fmean(defined) if defined else math.nan,
            median=statistics.median(defined) if defined else math.nan,
            sd=statistics.stdev(defined) if len(defined) > 1 else math.nan,
            undefined=len(every) - len(defined),
        )


@dataclass(frozen=True)
class Evaluation:
    """Scores of many cases.

    Args:
        labels: The labels that were scored.
        cases: One score a case, by name.
        failures: One line for each case that could not be scored.
    """

    labels: LabelMap
    cases: tuple[CaseScore, ...]
    failures: tuple[str, ...] = ()

    def summary(self) -> dict[str, Summary]:
        """Dice over cases for each label, and last, under ``MEAN``, of each case's mean over its labels."""
        by_label = {name: Summary.of(case.labels[name].dice for case in self.cases) for name in self.labels.names}
        return {**by_label, MEAN: Summary.of(case.mean_dice for case in self.cases)}

    def to_json(self) -> dict[str, Any]:
        """The evaluation as JSON holds it; what is undefined is null."""
        return {
            "format": FORMAT,
            "labels": self.labels.to_dataset_json(),
            "cases": [
                {"case": case.case, "labels": {name: _to_null(asdict(score)) for name, score in case.labels.items()}}
                for case in self.cases
            ],
            "summary": {name: _to_null(asdict(summary)) for name, summary in self.summary().items()},
            "failures": list(self.failures),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Evaluation:
        """Read what :meth:`to_json` gives.

        Raises:
            DataError: Not an evaluation, or one of another format.
        """
        stated = content.get("format") if isinstance(content, Mapping) else None
        if stated != FORMAT:
            raise DataError(f"Evaluation format {stated!r}: not {FORMAT}. Evaluate the masks again.")
        try:
            cases = tuple(
                CaseScore(
                    case["case"], {name: LabelScore(**_from_null(score)) for name, score in case["labels"].items()}
                )
                for case in content["cases"]
            )
            return cls(LabelMap.from_dataset_json(content["labels"]), cases, tuple(content.get("failures", ())))
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"Evaluation: {error!r} while it was read. Evaluate the masks again.") from None


def evaluate_case(
    name: str, prediction: Path, reference: Path, labels: LabelMap, prediction_labels: LabelMap | None = None
) -> CaseScore:
    """Score one mask against its reference.

    Voxels that the reference marks ``ignore`` count in neither mask.

    Args:
        name: The case.
        prediction: File of the predicted mask.
        reference: File of the reference mask.
        labels: Labels of the reference; these are scored.
        prediction_labels: Labels of the prediction, if they are others: then labels are matched by name, and one that
            the prediction does not have scores as an empty prediction and is marked as not known.

    Raises:
        DataError: A mask that cannot be read, grids that differ, or values that no label has.
    """
    predicted, predicted_grid = read_mask(prediction)
    referred, grid = read_mask(reference)
    if difference := predicted_grid.difference(grid):
        raise DataError(
            f"Case {name}: {prediction}: its geometry is not its reference's: {difference}. "
            "Predict on the image that the reference was drawn on."
        )
    predicted_labels = prediction_labels if prediction_labels is not None else labels
    _require_named(name, prediction, predicted, predicted_labels)
    _require_named(name, reference, referred, labels)
    valid = referred != labels.ignore if labels.ignore is not None else None
    scores = {}
    for label, value in labels.names.items():
        known = label in predicted_labels.names
        ours = predicted == predicted_labels.names[label] if known else np.zeros(predicted.shape, dtype=bool)
        theirs = referred == value
        reference_ml, prediction_ml = volume_ml(theirs, grid, valid), volume_ml(ours, grid, valid)
        scores[label] = LabelScore(
            dice=dice(ours, theirs, valid),
            reference_ml=reference_ml,
            prediction_ml=prediction_ml,
            volume_difference_ml=prediction_ml - reference_ml,
            known=known,
        )
    return CaseScore(name, scores)


def evaluate_folders(
    predictions: Path,
    references: Path,
    labels: LabelMap,
    *,
    prediction_labels: LabelMap | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Evaluation:
    """Score every reference's prediction; all or nothing.

    Args:
        predictions: Folder of predicted masks, named as their references.
        references: Folder of reference masks, or a dataset folder.
        labels: Labels of the references.
        prediction_labels: Labels of the predictions, if they are others.
        progress: Called after each case with how many are done, how many there are, and the case's name.

    Raises:
        DataError: Predictions that are missing, cannot be read or have another grid; one line for each.
    """
    evaluation = evaluate_what_can_be(
        predictions, references, labels, prediction_labels=prediction_labels, progress=progress
    )
    if evaluation.failures:
        raise DataError(*evaluation.failures)
    return evaluation


def evaluate_what_can_be(
    predictions: Path,
    references: Path,
    labels: LabelMap,
    *,
    prediction_labels: LabelMap | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Evaluation:
    """As :func:`evaluate_folders`, but a case that cannot be scored becomes a line of ``failures``.

    Raises:
        DataError: A folder is wrong, or no case could be scored.
    """
    ours, theirs = masks_in(Path(predictions)), references_in(Path(references), labels)
    failures = missing_predictions(ours, theirs, Path(predictions))
    pairs = [(name, ours[name], path) for name, path in sorted(theirs.items()) if name in ours]
    scores = []
    for done, (name, prediction, reference) in enumerate(pairs, start=1):
        try:
            scores.append(evaluate_case(name, prediction, reference, labels, prediction_labels))
        except DataError as error:
            failures += error.problems
        if progress is not None:
            progress(done, len(pairs), name)
    if not scores:
        raise DataError(*failures)
    return Evaluation(labels, tuple(scores), tuple(failures))


def _require_named(name: str, path: Path, mask: np.ndarray, labels: LabelMap) -> None:
    if strangers := [value for value in values_in(mask) if value not in labels.allowed]:
        raise DataError(
            f"Case {name}: {path}: label values {strangers} are not among {labels}. "
            "Name them with --label NAME=VALUE, or put the dataset.json they belong to beside the masks."
        )


def _to_null(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in fields.items()}


def _from_null(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in fields.items()}

"""Score masks against references: overlap, surfaces and nodes, per case and label."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial as later
from pathlib import Path
from typing import Any

import numpy as np

from lnsegfm.datasets.case_choice import CaseChoice
from lnsegfm.datasets.labels import LabelMap, values_in
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.evaluation.case_scores import CaseFiles, CaseScore, LabelScore
from lnsegfm.evaluation.components import CONNECTIVITIES
from lnsegfm.evaluation.doubtful_references import KnownAbsence, with_doubtful_apart
from lnsegfm.evaluation.froc import froc_counts
from lnsegfm.evaluation.held_out_masks import held_out_line, not_held_out
from lnsegfm.evaluation.matching import compare_nodes
from lnsegfm.evaluation.metric_table import Metric, plugin_value
from lnsegfm.evaluation.overlap import dice, volume_ml
from lnsegfm.evaluation.paired_masks import by_reference
from lnsegfm.evaluation.probabilities import read_probabilities
from lnsegfm.evaluation.references import masks_in, missing_predictions, references_in
from lnsegfm.evaluation.scored_case import scoring_work
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.evaluation.surface import surface_distances
from lnsegfm.imaging.files import read_mask
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.image_objects import Volume
from lnsegfm.imaging.orientation import turned_onto
from lnsegfm.jobs.pieces import WorkSharer, do_here
from lnsegfm.progress import Progress


@dataclass(frozen=True)
class Scoring:
    """What is measured.

    Args:
        tolerance_mm: Of the normalised surface Dice.
        node_labels: Labels whose components are lymph nodes, to be counted, measured and matched.
        connectivity: Neighbours (6, 18 or 26) that belong to one node.
        surfaces: Whether distances between surfaces are measured.
        plugin_metrics: Metrics of plugins to measure besides.
        absence: What is known of labels that references lack.

    Raises:
        ConfigError: A value that cannot be.
    """

    tolerance_mm: float = 1.0
    node_labels: tuple[str, ...] = ()
    connectivity: int = 26
    surfaces: bool = True
    plugin_metrics: tuple[Metric, ...] = ()
    absence: KnownAbsence = KnownAbsence()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance_mm < float("inf"):
            raise ConfigError(f"tolerance {self.tolerance_mm} mm: not a distance. Use 1 or another number from 0 up.")
        if self.connectivity not in CONNECTIVITIES:
            raise ConfigError(
                f"connectivity {self.connectivity}: a voxel has 6, 18 or 26 neighbours. Use one of these."
            )


@dataclass(frozen=True)
class Known:
    """What is known of the cases in addition to their masks, each by case name.

    Args:
        images: The scans, to draw pictures of.
        subjects: The patients.
        probabilities: Files of the labels' probabilities.
        unlabelled: Labels that nobody annotated in the case.
    """

    images: Mapping[str, Path] = field(default_factory=dict)
    subjects: Mapping[str, str] = field(default_factory=dict)
    probabilities: Mapping[str, Path] = field(default_factory=dict)
    unlabelled: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def named_as(self, references: Collection[str]) -> Known:
        """The same by the names of the references (`paired_names`)."""
        return Known(*(by_reference(getattr(self, each.name), references) for each in fields(self)))


def evaluate_case(
    name: str,
    prediction: Path,
    reference: Path,
    labels: LabelMap,
    prediction_labels: LabelMap | None = None,
    *,
    scoring: Scoring | None = None,
    known: Known | None = None,
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
        scoring: What is measured.
        known: What is known of the case besides.

    Raises:
        DataError: A mask that cannot be read, grids that differ, or values that no label has.
    """
    scoring, known = scoring or Scoring(), known or Known()
    theirs = prediction_labels if prediction_labels is not None else labels
    predicted, referred = (Volume(*read_mask(path), name=str(path)) for path in (prediction, reference))
    probabilities = None
    if name in known.probabilities and scoring.node_labels:
        probabilities = later(_probabilities, known.probabilities[name], theirs, predicted.grid, referred.grid)
    files = CaseFiles(known.images.get(name), prediction, reference)
    unlabelled = known.unlabelled.get(name, frozenset())
    how: Any = {"scoring": scoring, "probabilities": probabilities, "unlabelled": unlabelled}
    score = score_volumes(name, predicted, referred, labels, theirs, **how)
    return replace(score, subject=known.subjects.get(name), files=files)


def score_volumes(
    name: str,
    prediction: Volume,
    reference: Volume,
    labels: LabelMap,
    prediction_labels: LabelMap | None = None,
    *,
    scoring: Scoring | None = None,
    probabilities: Callable[[], Mapping[str, np.ndarray]] | None = None,
    unlabelled: frozenset[str] = frozenset(),
) -> CaseScore:
    """Score one mask in memory against its reference; as `evaluate_case`.

    A prediction that is stored on other axes than its reference is turned to them, exactly.

    Args:
        name: The case.
        prediction: The predicted mask, whole numbers.
        reference: The reference mask, whole numbers.
        labels: Labels of the reference; these are scored.
        prediction_labels: Labels of the prediction, if they are others.
        scoring: What is measured.
        probabilities: Gives each label's probability (z, y, x), once the masks are found to fit.
        unlabelled: Labels that nobody annotated in the reference: nothing is measured of them.

    Raises:
        DataError: Grids that differ, or values that no label has.
    """
    scoring, grid = scoring or Scoring(), reference.grid
    prediction = on_grid_of_reference(name, prediction, grid)
    of_prediction = prediction_labels if prediction_labels is not None else labels
    _require_named(name, prediction, of_prediction)
    _require_named(name, reference, labels)
    valid = reference.array != labels.ignore if labels.ignore is not None else None
    likely = probabilities() if probabilities is not None and scoring.node_labels else {}
    scores = {
        label: score_label(
            of_prediction.voxels(prediction.array, label) if label in of_prediction.names else None,
            labels.voxels(reference.array, label),
            grid,
            valid,
            nodes=label in scoring.node_labels,
            probability=likely.get(label),
            scoring=scoring,
        )
        if label not in unlabelled
        else LabelScore.unlabelled(known=label in of_prediction.names)
        for label in labels.names
    }
    return CaseScore(name, scores)


def on_grid_of_reference(name: str, prediction: Volume, grid: Grid) -> Volume:
    """A prediction on the axes of its reference, turned exactly where it is stored on others.

    Raises:
        DataError: Its voxels are not the reference's.
    """
    turned = Volume(*turned_onto(prediction.array, prediction.grid, grid), name=prediction.name)
    if not grid.same_voxels(turned.grid):
        difference = prediction.grid.difference(grid)
        raise DataError(
            f"Case {name}: {prediction}: its geometry is not its reference's: {difference}. "
            "Predict on the image that the reference was contoured on."
        )
    return turned


def _probabilities(path: Path, labels: LabelMap, own: Grid, grid: Grid) -> dict[str, np.ndarray]:
    """The probabilities beside a prediction, on the axes of its reference."""
    found = read_probabilities(path, labels, own)
    return {label: turned_onto(share, own, grid)[0] for label, share in found.items()}


def score_label(
    prediction: np.ndarray | None,
    reference: np.ndarray,
    grid: Grid,
    valid: np.ndarray | None = None,
    *,
    nodes: bool = False,
    probability: np.ndarray | None = None,
    scoring: Scoring | None = None,
) -> LabelScore:
    """Score one label's mask.

    Args:
        prediction: Boolean mask (z, y, x); None where the model does not know the label: it counts as empty.
        reference: Boolean mask of the same shape.
        grid: Where the voxels lie.
        valid: Boolean mask of the voxels that count; None counts all of them.
        nodes: Whether its components are nodes.
        probability: The model's probability of the label (z, y, x), for the FROC of nodes.
        scoring: What is measured.
    """
    scoring = scoring or Scoring()
    mask = prediction if prediction is not None else np.zeros(reference.shape, dtype=bool)
    reference_ml, prediction_ml = volume_ml(reference, grid, valid), volume_ml(mask, grid, valid)
    distances = surface_distances(mask, reference, grid, valid) if scoring.surfaces else None
    ignored = ~valid if valid is not None else None
    return LabelScore(
        dice=dice(mask, reference, valid),
        reference_ml=reference_ml,
        prediction_ml=prediction_ml,
        volume_difference_ml=prediction_ml - reference_ml,
        nsd=distances.nsd(scoring.tolerance_mm) if distances is not None else np.nan,
        hd95_mm=distances.hd95_mm if distances is not None else np.nan,
        assd_mm=distances.assd_mm if distances is not None else np.nan,
        known=prediction is not None,
        nodes=compare_nodes(mask, reference, grid, ignored, scoring.connectivity) if nodes else None,
        froc=froc_counts(probability, reference, grid, ignored, connectivity=scoring.connectivity)
        if nodes and probability is not None
        else None,
        plugin_values=_plugin_values(scoring.plugin_metrics, mask, reference, grid, valid),
    )


def _plugin_values(
    metrics: tuple[Metric, ...], mask: np.ndarray, reference: np.ndarray, grid: Grid, valid: np.ndarray | None
) -> dict[str, float]:
    """Figures of plugins' metrics; voxels that do not count are in neither mask."""
    if not metrics:
        return {}
    if valid is not None:
        mask, reference = mask & valid, reference & valid
    return {metric.key: plugin_value(metric, mask, reference, grid.spacing_mm) for metric in metrics}


def evaluate_folders(
    predictions: Path,
    references: Path,
    labels: LabelMap,
    *,
    prediction_labels: LabelMap | None = None,
    scoring: Scoring | None = None,
    known: Known | None = None,
    cases: CaseChoice | None = None,
    partial: bool = False,
    sharer: WorkSharer = do_here,
    progress: Progress | None = None,
) -> Evaluation:
    """Score every reference's prediction; all or nothing, unless ``partial``.

    Args:
        predictions: Folder of predicted masks, named as their references but for words such as seg (`paired_names`).
        references: Folder of reference masks, or a dataset folder. Of predictions in a run's folder only the cases that
            the run held out are expected.
        labels: Labels of the references.
        prediction_labels: Labels of the predictions, if they are others.
        scoring: What is measured.
        known: What is known of the cases besides.
        cases: The references that are judged; all unless given.
        partial: A case that cannot be scored becomes a line of ``failures``.
        sharer: Has the cases scored; here, one after the other, unless given.
        progress: Reported to after each case.

    Raises:
        DataError: Predictions that are missing, cannot be read or have another grid, one line for each; where
            ``partial``, only if a folder is wrong or no case could be scored.
        ConfigError: A choice of cases that are not there, or of none.
    """
    scoring = scoring or Scoring()
    predicted, reference_masks = masks_in(Path(predictions)), references_in(Path(references), labels)
    masks, known = by_reference(predicted, reference_masks), (known or Known()).named_as(reference_masks)
    left = [name for name, path in predicted.items() if path not in masks.values()]
    usable = (cases or CaseChoice()).usable(sorted(reference_masks), "reference")
    reference_masks = {name: reference_masks[name] for name in usable}
    masks = {name: path for name, path in masks.items() if name in reference_masks}
    if others := not_held_out(Path(predictions), reference_masks, masks):
        reference_masks = {name: mask for name, mask in reference_masks.items() if name not in others}
        if progress is not None:
            progress.stage(held_out_line(Path(predictions), len(reference_masks), others))
    failures = missing_predictions(masks, reference_masks, Path(predictions), left)
    pairs = [(name, masks[name], path) for name, path in sorted(reference_masks.items()) if name in masks]
    how: Any = {"scoring": scoring, "known": known}
    work = scoring_work(
        pairs,
        _settings(labels, prediction_labels, scoring, known),
        lambda name, mask, reference: evaluate_case(name, mask, reference, labels, prediction_labels, **how),
    )
    scored = sharer(work, progress)
    failures += [problem for case in scored for problem in case.problems]
    scores = [case.score for case in scored if case.score is not None]
    if failures and not (partial and scores):
        raise DataError(*failures)
    evaluation = Evaluation(
        labels,
        tuple(scores),
        tuple(failures),
        scoring.tolerance_mm,
        tuple(label for label in labels.names if label in scoring.node_labels),
        prediction_labels,
        scoring.plugin_metrics,
    )
    return with_doubtful_apart(evaluation, scoring.absence)


def _settings(labels: LabelMap, prediction_labels: LabelMap | None, scoring: Scoring, known: Known) -> dict[str, Any]:
    """What the scores of cases depend on besides the masks, as JSON holds it."""
    return {
        "labels": labels.to_record(),
        "prediction_labels": prediction_labels.to_record() if prediction_labels is not None else None,
        "tolerance_mm": scoring.tolerance_mm,
        "node_labels": list(scoring.node_labels),
        "connectivity": scoring.connectivity,
        "surfaces": scoring.surfaces,
        "plugin_metrics": [metric.to_json() for metric in scoring.plugin_metrics],
        "images": {name: str(file) for name, file in known.images.items()},
        "subjects": dict(known.subjects),
        "probabilities": {name: str(file) for name, file in known.probabilities.items()},
        "unlabelled": {name: sorted(labels) for name, labels in known.unlabelled.items()},
    }


def _require_named(name: str, mask: Volume, labels: LabelMap) -> None:
    if strangers := [value for value in values_in(mask.array) if value not in labels.allowed]:
        raise DataError(
            f"Case {name}: {mask}: label values {strangers} are not among {labels}. "
            "Name them with --label NAME=VALUE, or put the dataset.json they belong to into the folder of the masks."
        )

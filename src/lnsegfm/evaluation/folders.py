"""The whole evaluation of a folder of masks: what ``lnsegfm evaluate`` does, as a function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lnsegfm.datasets.labels import LabelMap, node_labels
from lnsegfm.errors import ConfigError
from lnsegfm.evaluation.references import (
    labels_of_predictions,
    labels_to_score,
    probabilities_in,
    scans_of,
    subjects_in,
)
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.evaluation.scoring import Known, Scoring, evaluate_folders
from lnsegfm.progress import Progress


def evaluate(
    predictions: str | Path,
    references: str | Path,
    *,
    labels: LabelMap | dict[str, int] | None = None,
    images: str | Path | None = None,
    nodes: Sequence[str] = (),
    tolerance_mm: float = 1.0,
    connectivity: int = 26,
    subjects: str | Path | None = None,
    partial: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a folder of masks against references: overlap, surface distances and nodes.

    Args:
        predictions: Folder of predicted masks, named as their references; probabilities beside them are used.
        references: Folder of reference masks, or a dataset folder.
        labels: Name to value in the references, where no ``dataset.json`` or ``labels.json`` says it.
        images: Folder of the scans, for pictures; a dataset's own unless given.
        nodes: Labels whose components are counted as nodes; those that are named so unless given.
        tolerance_mm: Of the normalised surface Dice.
        connectivity: Neighbours (6, 18 or 26) of a voxel that belong to the same node.
        subjects: CSV with the columns case and subject; the dataset's ``subjects.csv`` unless given.
        partial: A case that cannot be scored becomes a line of ``failures``.
        progress: Reported to after each case.

    Raises:
        DataError: Folders, files or cases that cannot be used.
        ConfigError: A setting that cannot be.
    """
    predictions, references = Path(predictions), Path(references)
    given = LabelMap.from_dataset_json(labels) if isinstance(labels, dict) else labels
    named = labels_to_score(predictions, references, given)
    if strangers := [name for name in nodes if name not in named.names]:
        raise ConfigError(f"Node label {strangers[0]}: there is no such label. Use one of: {named}.")
    scoring = Scoring(tolerance_mm, tuple(nodes) or node_labels(named.names), connectivity)
    known = Known(
        scans_of(references, named, Path(images) if images is not None else None),
        subjects_in(references, Path(subjects) if subjects is not None else None),
        probabilities_in(predictions),
    )
    return evaluate_folders(
        predictions,
        references,
        named,
        prediction_labels=labels_of_predictions(predictions),
        scoring=scoring,
        known=known,
        partial=partial,
        progress=progress,
    )

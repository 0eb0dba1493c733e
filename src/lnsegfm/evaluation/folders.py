"""The whole evaluation of masks, in folders or in memory: what ``lnsegfm evaluate`` does, as a function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lnsegfm.datasets.case_choice import named_cases
from lnsegfm.datasets.label_choice import LabelChoice
from lnsegfm.datasets.labels import LabelMap, node_labels, require_same_spelling
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.evaluation.doubtful_references import KnownAbsence, require_labels
from lnsegfm.evaluation.masks_in_memory import are_folders, as_cases, evaluate_masks, labels_given
from lnsegfm.evaluation.metric_table import Metric, plugin_metrics
from lnsegfm.evaluation.references import (
    labels_of_predictions,
    labels_to_score,
    probabilities_in,
    scans_of,
    subjects_in,
    unlabelled_in,
)
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.evaluation.scoring import Known, Scoring, evaluate_folders
from lnsegfm.imaging.grid import Grid
from lnsegfm.jobs.pieces import WorkSharer, do_here
from lnsegfm.notebook_progress import default_progress
from lnsegfm.progress import Progress


def evaluate(
    predictions: Any,
    references: Any,
    *,
    grid: Grid | None = None,
    labels: LabelMap | dict[str, int] | None = None,
    label_names: Mapping[str, str] | None = None,
    choice: LabelChoice | None = None,
    images: str | Path | None = None,
    nodes: Sequence[str] = (),
    tolerance_mm: float = 1.0,
    connectivity: int = 26,
    metrics: Sequence[str] = (),
    absent: Sequence[str] = (),
    subjects: str | Path | Mapping[str, str] | None = None,
    cases: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    partial: bool = False,
    sharer: WorkSharer = do_here,
    progress: Progress | None = None,
) -> Evaluation:
    """Score predicted masks against references: overlap, surface distances and nodes.

    Args:
        predictions: Folder of predicted masks, named as their references; probabilities beside them are used. Or masks:
            one (a `Prediction`, a file, a SimpleITK, nibabel or torchio image, an array with its grid), a list of
            them, or a table by case.
        references: Folder of reference masks, or a dataset folder. Or masks, as many as predictions.
        grid: Where the voxels of arrays lie that come without a grid.
        labels: Name to value in the references, where no ``dataset.json`` or ``labels.json``, and no prediction, says
            it.
        label_names: Labels of the predictions that the references know by another name: theirs to the references'.
        choice: Labels that are kept or merged, in the references and in predictions that have them. Not for masks in
            memory.
        images: Folder of the scans, for pictures; a dataset's own unless given. Not for masks in memory.
        nodes: Labels whose components are counted as nodes; those that are named so unless given.
        tolerance_mm: Of the normalised surface Dice.
        connectivity: Neighbours (6, 18 or 26) of a voxel that belong to the same node.
        metrics: Metrics of other installed packages to measure besides (entry points ``lnsegfm.metrics``).
        absent: Labels that are truly absent where a reference lacks them, though most hold them: what is predicted
            there counts as Dice 0. Else such cases are scored apart (`Evaluation.doubtful`).
        subjects: CSV with the columns case and subject; the dataset's ``subjects.csv`` unless given. For masks in
            memory a table of the patient of each case.
        cases: References that are judged, by their names (or as ``--cases`` reads them); all unless given. Not for
            masks in memory.
        exclude: References that are not judged. Not for masks in memory.
        partial: A case that cannot be scored becomes a line of ``failures``.
        sharer: Has the cases of folders scored (`lnsegfm.jobs.pieces`); here, one after the other, unless given.
        progress: Reported to after each case.

    Raises:
        DataError: Folders, files, masks or cases that cannot be used.
        ConfigError: A setting that cannot be, or a label of the predictions that differs from one of the references in
            its spelling alone.
        UnknownName: A metric that no package brings.
        PluginError: A metric that cannot be used.
    """
    progress = progress or default_progress()
    given = LabelMap.from_dataset_json(labels) if isinstance(labels, dict) else labels
    measured: dict[str, Any] = {"nodes": nodes, "tolerance_mm": tolerance_mm, "connectivity": connectivity}
    measured |= {"plugin_metrics": plugin_metrics(metrics), "absent": absent}
    if not are_folders(predictions, references):
        ours, theirs = as_cases(predictions), as_cases(references)
        known = labels_given(ours)
        named = given if given is not None else known
        if named is None:
            raise DataError('Labels: nothing says what the masks hold. Give labels={"lymph_node": 1}.')
        return evaluate_masks(
            ours,
            theirs,
            named,
            grid=grid,
            prediction_labels=_matched(known, named, label_names or {}),
            scoring=_scoring(named, **measured),
            subjects=subjects if isinstance(subjects, Mapping) else None,
            partial=partial,
            progress=progress,
        )
    predictions, references = Path(predictions), Path(references)
    original, chosen = labels_to_score(predictions, references, given), choice or LabelChoice()
    named = chosen.of(original)
    place = subjects if isinstance(subjects, str | Path) else None
    return evaluate_folders(
        predictions,
        references,
        named,
        prediction_labels=_matched(chosen.fitting(labels_of_predictions(predictions)), named, label_names or {}),
        scoring=_scoring(named, **measured),
        known=Known(
            scans_of(references, original, Path(images) if images is not None else None),
            subjects_in(references, Path(place) if place is not None else None),
            probabilities_in(predictions),
            {case: chosen.unlabelled(names) for case, names in unlabelled_in(references, original).items()},
        ),
        cases=named_cases(cases, exclude),
        partial=partial,
        sharer=sharer,
        progress=progress,
    )


def _matched(predicted: LabelMap | None, labels: LabelMap, names: Mapping[str, str]) -> LabelMap | None:
    """The labels of the predictions under the names of the references.

    Raises:
        ConfigError: A name that is not there, or spellings that differ.
    """
    for theirs, ours in names.items():
        if predicted is None:
            raise ConfigError(
                f"--map {theirs}={ours}: no dataset.json beside the predictions names their labels, so they are the "
                "references'. Leave it out, or put the model's dataset.json there."
            )
        if ours not in labels.names:
            raise ConfigError(f"--map {theirs}={ours}: the references have no label {ours}. They have: {labels}.")
    if predicted is None:
        return None
    renamed = predicted.renamed(names)
    require_same_spelling(renamed.names, labels.names, "the predictions call it")
    return renamed


def _scoring(
    labels: LabelMap,
    *,
    nodes: Sequence[str],
    tolerance_mm: float,
    connectivity: int,
    plugin_metrics: tuple[Metric, ...],
    absent: Sequence[str],
) -> Scoring:
    absence = KnownAbsence(require_labels(absent, labels))
    if strangers := [name for name in nodes if name not in labels.names]:
        raise ConfigError(f"Node label {strangers[0]}: there is no such label. Use one of: {labels}.")
    counted_nodes = tuple(nodes) or node_labels(labels.names)
    return Scoring(tolerance_mm, counted_nodes, connectivity, plugin_metrics=plugin_metrics, absence=absence)

"""Predictions and references for the choice of a postprocessing: numbered as network outputs, cut to what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lnsegfm.datasets.labels import LabelMap, values_in
from lnsegfm.errors import DataError
from lnsegfm.evaluation.doubtful_references import KnownAbsence
from lnsegfm.evaluation.postprocessing_choice import JudgedCase
from lnsegfm.evaluation.scoring import on_grid_of_reference
from lnsegfm.imaging.files import read_mask
from lnsegfm.imaging.image_objects import Volume


class JudgedLabels:
    """What is judged of predictions whose references have labels of their own.

    Args:
        masks: Labels and values of the predictions.
        references: Labels and values of the references; those of one name are judged.

    Raises:
        DataError: No label in common, or regions that are not the same.
    """

    def __init__(self, masks: LabelMap, references: LabelMap) -> None:
        self.masks, self.references = masks, references
        own = masks.consecutive
        self._same = references.consecutive == own
        if not self._same and (own.regions or references.regions):
            raise DataError(
                f"References {references}: their regions are not the model's, {masks}. Give references of its labels."
            )
        self.unknown = frozenset(name for name in own.names if name not in references.names)
        if len(self.unknown) == len(own.names):
            raise DataError(f"References {references}: no label of the model is among them, {masks}. Rename them.")
        highest = max(own.allowed)
        ignore = own.ignore if own.ignore is not None or references.ignore is None else highest + 1
        self.labels = replace(own, ignore=ignore)

    def case(
        self,
        name: str,
        prediction: Path,
        reference: Path,
        *,
        subject: str = "",
        unlabelled: frozenset[str] = frozenset(),
    ) -> JudgedCase:
        """A case, its masks read and kept in memory, cut to the box that holds both.

        Raises:
            DataError: A mask that cannot be read, grids that differ, or values that no label has.
        """
        predicted, referred = (Volume(*read_mask(path), name=str(path)) for path in (prediction, reference))
        predicted = on_grid_of_reference(name, predicted, referred.grid)
        masks = _cut(self.masks.to_consecutive(predicted.array), self._numbered(referred.array))
        return JudgedCase(
            name,
            lambda: masks,
            1000 * referred.grid.voxel_volume_ml,
            subject,
            unlabelled | self.unknown,
        )

    def _numbered(self, reference: np.ndarray) -> np.ndarray:
        if self._same:
            return self.references.to_consecutive(reference)
        covered = self.references.covered
        table = {old: new for name, new in self.labels.names.items() if name in self._known for old in covered[name]}
        if self.references.ignore is not None and self.labels.ignore is not None:
            table[self.references.ignore] = self.labels.ignore
        return _renumbered(reference, table)

    @property
    def _known(self) -> frozenset[str]:
        return frozenset(self.references.names) - self.unknown


def doubtful_apart(
    cases: Sequence[JudgedCase],
    labels: LabelMap,
    known: KnownAbsence = KnownAbsence(),  # noqa: B008 - frozen
) -> tuple[JudgedCase, ...]:
    """Cases whose doubtful labels are not judged: those that the reference lacks and that are likely not annotated.

    The same rule as in the scores (`lnsegfm.evaluation.doubtful_references`).

    Args:
        cases: Predictions and references.
        labels: Their labels.
        known: What is known of the labels that references lack.
    """
    held = {case.name: _held(case.masks(), labels) for case in cases}
    predicted, holding = ({name: found[side] for name, found in held.items()} for side in (0, 1))
    unlabelled = {case.name: case.unlabelled for case in cases}
    doubtful = known.doubtful(labels.names, holding, predicted, unlabelled)
    apart = {case.name: {label for label in labels.names if case.name in doubtful.get(label, ())} for case in cases}
    return tuple(replace(case, unlabelled=case.unlabelled | apart[case.name]) for case in cases)


def _held(masks: tuple[np.ndarray, np.ndarray], labels: LabelMap) -> tuple[frozenset[str], frozenset[str]]:
    prediction, reference = (set(values_in(mask)) for mask in masks)
    named = [(name, set(values)) for name, values in labels.covered.items()]
    return (
        frozenset(name for name, values in named if values & prediction),
        frozenset(name for name, values in named if values & reference),
    )


def _renumbered(mask: np.ndarray, table: Mapping[int, int]) -> np.ndarray:
    """A mask with other values; those that the table does not have become 0."""
    new = np.zeros(max(int(mask.max(initial=0)), *table) + 1, np.uint16)
    for old, value in table.items():
        new[old] = value
    numbered: np.ndarray = new[mask]
    return numbered


def _cut(prediction: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both masks in the smallest box that holds their voxels; outside it both are background."""
    held = (prediction != 0) | (reference != 0)
    box = []
    for axis in range(held.ndim):
        others = tuple(other for other in range(held.ndim) if other != axis)
        places = np.flatnonzero(held.any(axis=others))
        box.append(slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 1))
    kept = []
    for mask in (prediction, reference):
        kind = np.uint8 if int(mask.max(initial=0)) <= 255 else np.uint16
        kept.append(np.ascontiguousarray(mask[tuple(box)].astype(kind)))
    return kept[0], kept[1]

"""What is shown of a case: false negatives, false positives and the worst overlap, or where the masks differ most."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lnsegfm.errors import DataError
from lnsegfm.evaluation.case_scores import CaseFiles, CaseScore
from lnsegfm.evaluation.matching import NodeScore, status_words
from lnsegfm.evaluation.node_summary import NodeSummary
from lnsegfm.evaluation.nodes import Node
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.imaging.files import read_mask, read_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.orientation import turned_onto
from lnsegfm.report.pictures import Kind, Scene, draw_place
from lnsegfm.report.views import view_of

FALSE_NEGATIVES, FALSE_POSITIVES, TRUE_POSITIVES = 3, 2, 1
"""The most nodes of a label in a case that are shown: the largest, of true positives those of the worst overlap."""


@dataclass(frozen=True)
class ScoredModel:
    """One of the models of a report.

    Args:
        name: What it is called.
        evaluation: Its scores.
        kind: How its masks are drawn.
    """

    name: str
    evaluation: Evaluation
    kind: Kind = "prediction"
    _summaries: dict[tuple[str, float], NodeSummary | None] = field(default_factory=dict, repr=False, compare=False)

    def nodes(self, label: str, iou: float) -> NodeSummary | None:
        """``evaluation.nodes``, whose intervals take a second of resampling and are used more than once."""
        if (label, iou) not in self._summaries:
            self._summaries[label, iou] = self.evaluation.nodes(label, iou)
        return self._summaries[label, iou]


@dataclass(frozen=True)
class Picture:
    """A place in a case.

    Args:
        svg: Three views of it.
        caption: What is there, in words.
        status: ``false-negative``, ``merged``, ``false-positive`` or ``true-positive``; ``label`` where it is no node.
    """

    svg: str
    caption: str
    status: str


@dataclass(frozen=True)
class _SelectedView:
    label: str
    index: tuple[int, int, int]
    of: Kind | None
    status: str
    words: str


def pictures_of(case: str, models: Sequence[ScoredModel], *, most: int) -> list[Picture]:
    """Draw a case.

    Args:
        case: Its name.
        models: One, or the base and the model that is judged; the last one says what is shown.
        most: Pictures at the most.

    Raises:
        DataError: A file cannot be read, or lies on another grid.
    """
    judged = models[-1]
    files = judged.evaluation.case(case).files
    if files is None or most < 1:
        return []
    arrays = _Arrays.read(files, [(m.kind, _prediction(m, case)) for m in models])
    pictures: list[Picture] = []
    for label in _worst_first(judged.evaluation.case(case)):
        if len(pictures) >= most:
            break
        scene = arrays.scene(label, models)
        for view in _selected_views(case, label, models, scene):
            if len(pictures) < most:
                title = f"Case {case}, {view.words}"
                svg = draw_place(scene, view.index, of=view.of, title=title)
                pictures.append(Picture(svg, view.words, view.status))
    return pictures


def _worst_first(score: CaseScore) -> list[str]:
    """The labels by their Dice, those without one last."""
    return sorted(score.labels, key=lambda label: (math.isnan(score.labels[label].dice), score.labels[label].dice))


def _prediction(model: ScoredModel, case: str) -> Path | None:
    files = model.evaluation.case(case).files
    return files.prediction if files is not None else None


@dataclass(frozen=True)
class _Arrays:
    """The arrays of one case, read once for all its labels."""

    grid: Grid
    image_hu: np.ndarray | None
    reference: np.ndarray
    predictions: dict[Kind, np.ndarray]

    @classmethod
    def read(cls, files: CaseFiles, predictions: Sequence[tuple[Kind, Path | None]]) -> _Arrays:
        reference, grid = read_mask(files.reference)

        def turned(path: Path, array: np.ndarray, own: Grid) -> np.ndarray:
            array, own = turned_onto(array, own, grid)
            if not grid.same_voxels(own):
                difference = own.difference(grid)
                raise DataError(f"{path}: not on the grid of {files.reference} ({difference}). Resample it to that.")
            return array

        image = None if files.image is None else turned(files.image, *read_volume(files.image))
        masks = {kind: turned(path, *read_mask(path)) for kind, path in predictions if path is not None}
        return cls(grid, image, reference, masks)

    def scene(self, label: str, models: Sequence[ScoredModel]) -> Scene:
        labels = models[-1].evaluation.labels
        masks: dict[Kind, np.ndarray] = {"reference": labels.voxels(self.reference, label)}
        for model in models:
            predicted = model.evaluation.prediction_labels or model.evaluation.labels
            if model.kind in self.predictions and label in predicted.names:
                masks[model.kind] = predicted.voxels(self.predictions[model.kind], label)
        if labels.ignore is not None:
            masks["ignored"] = self.reference == labels.ignore
        return Scene(self.grid, self.image_hu, masks)


def _selected_views(case: str, label: str, models: Sequence[ScoredModel], scene: Scene) -> Iterator[_SelectedView]:
    scores = [m.evaluation.case(case).labels.get(label) for m in models]
    nodes = [score.nodes if score is not None else None for score in scores]
    named = len(models[-1].evaluation.labels.names) > 1
    before = f"{label}: " if named else ""
    if (judged := nodes[-1]) is not None:
        base = (models[0].name, nodes[0]) if len(models) > 1 and nodes[0] is not None else None
        yield from _nodes(label, before, judged, models[-1].kind, base, scene)
    else:
        yield from _largest_disagreement(label, scene)


def _nodes(
    label: str, before: str, judged: NodeScore, kind: Kind, base: tuple[str, NodeScore] | None, scene: Scene
) -> Iterator[_SelectedView]:
    def with_base(node: Node) -> str:
        if base is None:
            return ""
        return f"; {base[0]}: {status_words(base[1].reference_status().get(node.id, 'false-negative'))}"

    state, predicted_state = judged.reference_status(), judged.prediction_status()
    iou = {pair.reference: pair.iou for pair in judged.matched()}
    unmatched = [n for n in judged.reference if state[n.id] != "true-positive"]
    unmatched.sort(key=lambda n: (state[n.id] == "merged", -n.short_axis_mm))
    false = sorted(
        (n for n in judged.prediction if predicted_state[n.id] == "false-positive"), key=lambda n: -n.short_axis_mm
    )
    matched = sorted((n for n in judged.reference if n.id in iou), key=lambda n: iou[n.id])
    for node in unmatched[:FALSE_NEGATIVES]:
        words = f"{before}{status_words(state[node.id])}: {_described(node, scene)}{with_base(node)}"
        yield _SelectedView(label, node.inside_index, "reference", state[node.id], words)
    for node in false[:FALSE_POSITIVES]:
        words = f"{before}false positive: {_described(node, scene)}"
        yield _SelectedView(label, node.inside_index, kind, "false-positive", words)
    for node in matched[:TRUE_POSITIVES]:
        words = f"{before}true positive: {_described(node, scene)}, IoU {iou[node.id]:.2f}{with_base(node)}"
        yield _SelectedView(label, node.inside_index, "reference", "true-positive", words)


def _described(node: Node, scene: Scene) -> str:
    slices = scene.grid.shape[view_of(scene.grid.direction, "axial").order[0]]
    centre = ", ".join(f"{v + 0.0:.1f}".replace("-0.0", "0.0") for v in node.centre_mm)
    return (
        f"node {node.id}, short axis {node.short_axis_mm:.1f} mm, {node.volume_ml:.2f} ml, "
        f"slice {node.slice_number} of {slices}, centre ({centre}) mm"
    )


def _largest_disagreement(label: str, scene: Scene) -> Iterator[_SelectedView]:
    """The voxel at the centre of the largest difference on an axial slice, or of the mask where nothing differs."""
    view = view_of(scene.grid.direction, "axial")
    masks = {kind: view.turn(mask) for kind, mask in scene.masks.items()}
    reference = masks["reference"]
    prediction = masks.get("prediction", np.zeros_like(reference))
    differ = reference != prediction
    if "ignored" in masks:
        differ = differ & ~masks["ignored"]
    candidates = {"disagreement": differ, "reference": reference, "prediction": prediction, "base": masks.get("base")}
    for name, mask in candidates.items():
        if mask is None or not mask.any():
            continue
        number = int(np.argmax(mask.sum(axis=(1, 2))))
        voxels = np.argwhere(mask[number])
        row, column = voxels[np.argmin(((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1))]
        index = [0, 0, 0]
        sizes = reference.shape
        index[view.order[0]] = number
        index[view.order[1]] = int(sizes[1] - 1 - row if view.flip[0] else row)
        index[view.order[2]] = int(sizes[2] - 1 - column if view.flip[1] else column)
        area = math.prod(view.pixel_mm(scene.grid.spacing_mm)) * len(voxels) / 100
        words = f"{label}: axial slice {number + 1} of {sizes[0]}, with the largest {name} ({area:.1f} cm²)"
        yield _SelectedView(label, (index[0], index[1], index[2]), None, "label", words)
        return

"""Which predicted node is which reference node.

Nodes are matched one to one, so that the sum of the intersections over unions is the largest there can be (Kuhn's
assignment problem; Crouse, IEEE Trans. Aerosp. Electron. Syst. 52(4), 2016, as scipy solves it). One predicted piece
that covers two nodes is matched to one of them, and of two pieces in one node one is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from lnsegfm.errors import ConfigError, DataError
from lnsegfm.evaluation.components import Components, components
from lnsegfm.evaluation.nodes import Node, measure, on_grid
from lnsegfm.imaging.grid import Grid

ReferenceStatus = Literal["true-positive", "merged", "false-negative"]
PredictionStatus = Literal["true-positive", "part", "false-positive", "unjudged"]


def status_words(status: str) -> str:
    """A status for a person: ``true positive``."""
    return status.replace("-", " ")


@dataclass(frozen=True)
class NodePair:
    """A reference node and a predicted node that share voxels.

    Args:
        reference: Id of the reference node.
        prediction: Id of the predicted node.
        voxels: Voxels that they share.
        iou: Intersection over union, over the voxels that somebody annotated; more than 0.
    """

    reference: int
    prediction: int
    voxels: int
    iou: float


@dataclass(frozen=True)
class NodeScore:
    """The nodes of one label of one case, and which of them share voxels.

    Everything that is counted follows from this, at any IoU threshold; 0 asks for any overlap.

    Args:
        reference: The reference's nodes.
        prediction: The predicted nodes.
        pairs: Those that share at least one voxel, by reference id and then prediction id.
        unjudged: Ids of the predicted nodes of which nobody annotated half of the voxels or more. They are true
            positives where they have a partner, and never false positives.

    Raises:
        DataError: Pairs or unjudged nodes that do not exist.
    """

    reference: tuple[Node, ...]
    prediction: tuple[Node, ...]
    pairs: tuple[NodePair, ...]
    unjudged: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("reference", "prediction", "pairs", "unjudged"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        references, predictions = {n.id for n in self.reference}, {n.id for n in self.prediction}
        for pair in self.pairs:
            if pair.reference not in references or pair.prediction not in predictions or not 0 < pair.iou <= 1:
                raise DataError(f"{pair}: no two nodes of this case overlap so. Compare the masks again.")
        if strangers := set(self.unjudged) - predictions:
            raise DataError(f"Unjudged nodes {sorted(strangers)}: there are none with these ids. Compare again.")

    def matched(self, iou: float = 0.0) -> tuple[NodePair, ...]:
        """The pairs that are one node: one to one, of the largest total IoU, by reference id.

        Args:
            iou: Pairs of less do not count.

        Raises:
            ConfigError: A threshold outside 0 to 1.
        """
        return matched(self.pairs, iou)

    def reference_status(self, iou: float = 0.0) -> dict[int, ReferenceStatus]:
        """What became of each reference node.

        ``true-positive``: matched. ``merged``: touched by a predicted node that is matched with another one.
        ``false-negative``: neither; at threshold 0 that means that nothing touches it.
        """
        pairs = self.matched(iou)
        matched, taken = {p.reference for p in pairs}, {p.prediction for p in pairs}
        merged = {p.reference for p in self.pairs if p.prediction in taken}
        status: dict[int, ReferenceStatus] = {}
        for number in (n.id for n in self.reference):
            if number in matched:
                status[number] = "true-positive"
            else:
                status[number] = "merged" if number in merged else "false-negative"
        return status

    def prediction_status(self, iou: float = 0.0) -> dict[int, PredictionStatus]:
        """What each predicted node is.

        ``true-positive``: matched. ``unjudged``: not matched, and for half or more in voxels that nobody annotated.
        ``part``: touches a reference node that is matched with another one. ``false-positive``: none of these; at
        threshold 0 that means that it touches nothing.
        """
        pairs = self.matched(iou)
        matched, taken = {p.prediction for p in pairs}, {p.reference for p in pairs}
        parts = {p.prediction for p in self.pairs if p.reference in taken}
        status: dict[int, PredictionStatus] = {}
        for number in (n.id for n in self.prediction):
            if number in matched:
                status[number] = "true-positive"
            elif number in self.unjudged:
                status[number] = "unjudged"
            else:
                status[number] = "part" if number in parts else "false-positive"
        return status

    def false_negatives(self, iou: float = 0.0) -> tuple[int, ...]:
        """Ids of the reference nodes with status ``false-negative``."""
        return tuple(number for number, status in self.reference_status(iou).items() if status == "false-negative")

    def false_positives(self, iou: float = 0.0) -> tuple[int, ...]:
        """Ids of the predicted nodes with status ``false-positive``."""
        return tuple(number for number, status in self.prediction_status(iou).items() if status == "false-positive")

    @cached_property
    def touched(self) -> tuple[int, ...]:
        """Ids of the reference nodes that any predicted node touches."""
        return tuple(sorted({p.reference for p in self.pairs}))

    @cached_property
    def merged_groups(self) -> dict[int, tuple[int, ...]]:
        """By predicted id, the reference nodes that it covers, where these are two or more."""
        return _groups((p.prediction, p.reference) for p in self.pairs)

    @cached_property
    def split_groups(self) -> dict[int, tuple[int, ...]]:
        """By reference id, the predicted nodes in it, where these are two or more."""
        return _groups((p.reference, p.prediction) for p in self.pairs)

    @property
    def merged(self) -> tuple[int, ...]:
        """Ids of the reference nodes that share a predicted node with another one, the matched ones among them."""
        return tuple(sorted({number for group in self.merged_groups.values() for number in group}))

    @property
    def split(self) -> tuple[int, ...]:
        """Ids of the reference nodes that two or more predicted nodes touch."""
        return tuple(sorted(self.split_groups))

    def to_json(self) -> dict[str, Any]:
        """As a JSON-able dict; ``NodeScore.from_json`` gives the score back."""
        return {
            "reference": [node.to_json() for node in self.reference],
            "prediction": [node.to_json() for node in self.prediction],
            "pairs": [asdict(pair) for pair in self.pairs],
            "unjudged": list(self.unjudged),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> NodeScore:
        """The score that ``to_json`` has written.

        Raises:
            DataError: Something is missing, or is not what it should be.
        """
        try:
            return cls(
                reference=tuple(Node.from_json(node) for node in content["reference"]),
                prediction=tuple(Node.from_json(node) for node in content["prediction"]),
                pairs=tuple(NodePair(**pair) for pair in content["pairs"]),
                unjudged=tuple(content["unjudged"]),
            )
        except (KeyError, TypeError) as error:
            raise DataError(f"Nodes {content!r:.80}: not what was written ({error}). Evaluate again.") from None


def matched(pairs: Iterable[NodePair], iou: float = 0.0) -> tuple[NodePair, ...]:
    """One-to-one pairs of the largest total IoU among those of at least ``iou``, by reference id.

    Raises:
        ConfigError: A threshold outside 0 to 1.
    """
    if not 0 <= iou <= 1:
        raise ConfigError(f"IoU threshold {iou}: an overlap is from 0 to 1. Choose one in that range.")
    eligible = [pair for pair in pairs if pair.iou >= iou]
    if not eligible:
        return ()
    rows, row = np.unique([pair.reference for pair in eligible], return_inverse=True)
    columns, column = np.unique([pair.prediction for pair in eligible], return_inverse=True)
    table = np.zeros((len(rows), len(columns)))
    table[row, column] = [pair.iou for pair in eligible]
    chosen = set(zip(*(axis.tolist() for axis in linear_sum_assignment(table, maximize=True)), strict=True))
    kept = [pair for pair, place in zip(eligible, zip(row, column, strict=True), strict=True) if place in chosen]
    return tuple(sorted(kept, key=lambda pair: pair.reference))


def compare_nodes(
    prediction: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    grid: Grid,
    ignored: NDArray[np.bool_] | None = None,
    connectivity: int = 26,
) -> NodeScore:
    """Measure the nodes of both masks and say which of them overlap, and how much.

    Args:
        prediction: Boolean mask (z, y, x) on ``grid``. Its nodes are pieces of the whole mask.
        reference: Boolean mask on ``grid``. What of it is ignored is no reference.
        grid: Where the voxels lie.
        ignored: Boolean mask of the voxels that nobody annotated; overlaps are counted without them.
        connectivity: Which voxels are neighbours: 26, 18 or 6.

    Raises:
        ConfigError: Another connectivity.
        DataError: Not boolean masks on the grid.
    """
    known = reference if ignored is None else reference & ~on_grid(ignored, grid, "Ignored voxels")
    predicted = components(on_grid(prediction, grid, "Prediction"), connectivity)
    known_nodes = components(on_grid(known, grid, "Reference"), connectivity)
    judged = judged_voxels(predicted, ignored)
    return NodeScore(
        reference=measure(known_nodes, grid),
        prediction=measure(predicted, grid),
        pairs=overlaps(predicted, known_nodes, judged),
        unjudged=mostly_ignored(predicted, judged),
    )


def judged_voxels(pieces: Components, ignored: NDArray[np.bool_] | None) -> tuple[int, ...]:
    """How many voxels of each piece somebody annotated; ``[id - 1]``."""
    if ignored is None:
        return pieces.sizes
    ids = pieces.ids[~ignored.ravel()[pieces.voxels]]
    return tuple(np.bincount(ids, minlength=len(pieces) + 1)[1:].tolist())


def mostly_ignored(pieces: Components, judged: tuple[int, ...]) -> tuple[int, ...]:
    """Ids of the pieces of which nobody annotated half of the voxels or more."""
    return tuple(n for n, (all_, known) in enumerate(zip(pieces.sizes, judged, strict=True), 1) if 2 * known <= all_)


def overlaps(prediction: Components, reference: Components, judged: tuple[int, ...]) -> tuple[NodePair, ...]:
    """Pieces that share voxels, by reference id and then prediction id.

    Args:
        prediction: Pieces of the predicted mask.
        reference: Pieces of the reference; none of their voxels is ignored.
        judged: Voxels that count of each predicted piece.
    """
    at_reference = prediction.ids_at(reference.voxels)
    shared = at_reference > 0
    width = len(prediction) + 1
    keys, counts = np.unique(reference.ids[shared].astype(np.int64) * width + at_reference[shared], return_counts=True)
    pairs = []
    for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
        reference_id, prediction_id = divmod(key, width)
        union = reference.sizes[reference_id - 1] + judged[prediction_id - 1] - count
        pairs.append(NodePair(reference=reference_id, prediction=prediction_id, voxels=count, iou=count / union))
    return tuple(pairs)


def _groups(links: Iterable[tuple[int, int]]) -> dict[int, tuple[int, ...]]:
    members_of: dict[int, list[int]] = {}
    for key, member in links:
        members_of.setdefault(key, []).append(member)
    return {key: tuple(sorted(members)) for key, members in sorted(members_of.items()) if len(members) > 1}

"""Sidecars of a mask: the table of its nodes, and its probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lnsegfm.datasets.labels import LabelMap, nodes_among
from lnsegfm.evaluation.nodes import Node, measure_nodes, nodes_csv, nodes_json
from lnsegfm.evaluation.probabilities import ENDING, write_probabilities
from lnsegfm.imaging.grid import Grid
from lnsegfm.storage import write_json, write_text

NODE_ENDINGS = (".nodes.csv", ".nodes.json")
"""Of the table of nodes; the second is written last: with it both are there."""
NodesByLabel = Mapping[str, Sequence[Node]]


def measured_nodes(mask: np.ndarray, grid: Grid, labels: LabelMap) -> NodesByLabel:
    """The nodes of a mask, of the labels that are named as nodes, or of all where none is.

    Args:
        mask: Label values (z, y, x).
        grid: Its grid.
        labels: What its values mean.
    """
    return {name: measure_nodes(labels.voxels(mask, name), grid) for name in nodes_among(labels.names)}


def has_nodes(out: Path, case: str) -> bool:
    """Whether the table of nodes of a case is there."""
    return (out / f"{case}{NODE_ENDINGS[-1]}").is_file()


def has_probabilities(out: Path, case: str) -> bool:
    """Whether the probabilities of a case are there."""
    return (out / f"{case}{ENDING}").is_file()


def write_nodes(out: Path, case: str, nodes: NodesByLabel) -> None:
    """Write the table of nodes of a case, for people and for programs."""
    write_text(out / f"{case}{NODE_ENDINGS[0]}", nodes_csv(nodes))
    write_json(out / f"{case}{NODE_ENDINGS[1]}", nodes_json(nodes))


def write_case_probabilities(out: Path, case: str, probabilities: np.ndarray) -> None:
    """Write the probabilities of a case."""
    write_probabilities(out / f"{case}{ENDING}", probabilities)


def remove_nodes(out: Path, case: str) -> None:
    """Remove the table of nodes of a mask that somebody changed."""
    for ending in reversed(NODE_ENDINGS):
        (out / f"{case}{ending}").unlink(missing_ok=True)


def remove_sidecars(out: Path, case: str) -> None:
    """Remove the sidecars of a mask that is replaced."""
    remove_nodes(out, case)
    (out / f"{case}{ENDING}").unlink(missing_ok=True)


def sidecars_of(out: Path, case: str) -> tuple[str, ...]:
    """The names of the sidecars of a mask."""
    names = (f"{case}{ending}" for ending in (*NODE_ENDINGS, ENDING))
    return tuple(name for name in names if (out / name).is_file())

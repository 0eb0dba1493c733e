"""The nodes of a mask numbered through all labels, for files with a structure or segment a node."""

from __future__ import annotations

import numpy as np

from lnsegfm.datasets.labels import LabelMap, nodes_among
from lnsegfm.evaluation.components import components


def number_nodes(mask: np.ndarray, labels: LabelMap) -> tuple[np.ndarray, dict[int, str]]:
    """Number the nodes of all labels of nodes.

    Args:
        mask: Label values (z, y, x).
        labels: What they mean.

    Returns:
        The number of the node that each voxel belongs to, 0 for none, and what each number is called: the label and
        the node's number there, ``lymph_node 3``.
    """
    pieces = {label: components(labels.voxels(mask, label)) for label in nodes_among(labels.names)}
    few = sum(map(len, pieces.values())) <= np.iinfo(np.uint16).max
    instances = np.zeros(mask.shape, dtype=np.uint16 if few else np.int32)
    names: dict[int, str] = {}
    for label, found in pieces.items():
        instances.flat[found.voxels] = found.ids + len(names)
        names |= {len(names) + number: f"{label} {number}" for number in range(1, len(found) + 1)}
    return instances, names

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
        The number of the node that each voxel belongs to (z, y, x), 0 for none, and what each number is called: the
        label and the node's number there, ``lymph_node 3``. Regions may overlap: of them each has an array of its own,
        in the order of the labels (regions, z, y, x).
    """
    pieces = {label: components(labels.voxels(mask, label)) for label in nodes_among(labels.names)}
    few = sum(map(len, pieces.values())) <= np.iinfo(np.uint16).max
    kind = np.uint16 if few else np.int32
    instances = np.zeros((len(labels.names), *mask.shape) if labels.regions else mask.shape, dtype=kind)
    rows = dict(zip(labels.names, instances, strict=True)) if labels.regions else {}
    names: dict[int, str] = {}
    for label, found in pieces.items():
        rows.get(label, instances).flat[found.voxels] = found.ids + len(names)
        names |= {len(names) + number: f"{label} {number}" for number in range(1, len(found) + 1)}
    return instances, names

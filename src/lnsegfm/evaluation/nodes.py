"""Lymph nodes of a mask, measured.

A node is a connected piece of the mask. Its axes are those of RECIST 1.1 (Eisenhauer et al., Eur. J. Cancer 45, 228,
2009; for lymph nodes Schwartz et al., Eur. J. Cancer 45, 261, 2009): on the axial slice where the node is longest, the
long axis is its largest diameter and the short axis the largest extent perpendicular to it. Not for clinical use.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsegfm.errors import DataError
from lnsegfm.evaluation.calipers import TIE_MM, diameters, outline
from lnsegfm.evaluation.components import Components, components
from lnsegfm.imaging.grid import Grid

FORMAT = "lnsegfm.nodes/1"
NON_TARGET_MM, TARGET_MM = 10.0, 15.0  # RECIST 1.1, short axis


@dataclass(frozen=True)
class Node:
    """One node.

    Args:
        id: 1, 2, ...; the node of most voxels is 1.
        voxels: Number of voxels.
        volume_ml: Their volume.
        long_axis_mm: Largest diameter on the axial slice where it is largest.
        short_axis_mm: Largest extent perpendicular to that diameter on the same slice.
        slice_number: That slice, counted from 1 along the file's slice axis (see ``slice_axis``).
        diameters_3d_mm: Longest diameter; largest extent perpendicular to it; extent perpendicular to both.
        centre_mm: (x, y, z) of the centre of mass, LPS.
        centre_index: The same (z, y, x) in voxels; the first voxel's centre is 0.
        inside_index: (z, y, x) of the node's voxel nearest to the centre on the slice that was measured.
        touches_border: Whether it reaches the edge of the volume: it may be cut off there.

    Raises:
        DataError: Numbers that no node has.
    """

    id: int
    voxels: int
    volume_ml: float
    long_axis_mm: float
    short_axis_mm: float
    slice_number: int
    diameters_3d_mm: tuple[float, float, float]
    centre_mm: tuple[float, float, float]
    centre_index: tuple[float, float, float]
    inside_index: tuple[int, int, int]
    touches_border: bool

    def __post_init__(self) -> None:
        for name in ("diameters_3d_mm", "centre_mm", "centre_index", "inside_index"):
            value = tuple(getattr(self, name))
            if len(value) != 3:
                raise DataError(f"Node {self.id}: {name} {value}: it has three numbers. Give three.")
            object.__setattr__(self, name, value)
        for name in ("id", "voxels", "volume_ml", "long_axis_mm", "short_axis_mm", "slice_number"):
            if not getattr(self, name) > 0:  # NaN fails this, too
                raise DataError(f"Node {self.id}: {name} {getattr(self, name)}: it is more than 0. Measure it again.")

    @property
    def short_axis_3d_mm(self) -> float:
        """Largest extent perpendicular to the longest diameter in space."""
        return self.diameters_3d_mm[1]

    @property
    def category(self) -> str:
        """What RECIST 1.1 calls a node of this short axis: ``normal``, ``non-target`` (10 mm) or ``target`` (15 mm)."""
        if self.short_axis_mm >= TARGET_MM:
            return "target"
        return "non-target" if self.short_axis_mm >= NON_TARGET_MM else "normal"

    def to_json(self) -> dict[str, Any]:
        """The fields as a JSON-able dict; ``Node.from_json`` gives the node back."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Node:
        """The node that ``to_json`` has written; other keys are passed over.

        Raises:
            DataError: A field is missing or is no such thing.
        """
        try:
            return cls(**{field.name: content[field.name] for field in fields(cls)})
        except (KeyError, TypeError) as error:
            raise DataError(f"Node {content!r:.80}: not what was written ({error}). Evaluate again.") from None


def slice_axis(direction: Sequence[float]) -> int:
    """The array axis (0, 1, 2 for z, y, x) that is nearest to the patient's head-foot axis.

    Args:
        direction: Row-major 3 x 3; column c is the LPS direction of the image's c-th index (x, y, z).
    """
    towards_head = np.abs(np.asarray(direction, dtype=float).reshape(3, 3)[2, ::-1])
    return int(
        np.argmax(np.round(towards_head, 6))
    )  # at exactly 45 degrees the earlier axis, not the rounding, decides


def measure_nodes(mask: NDArray[np.bool_], grid: Grid, connectivity: int = 26) -> tuple[Node, ...]:
    """The nodes of a mask, largest volume first.

    Args:
        mask: Boolean mask (z, y, x) of one label on ``grid``; an empty one has no nodes.
        grid: Where its voxels lie.
        connectivity: Which voxels are neighbours: 26, 18 or 6.

    Raises:
        ConfigError: Another connectivity.
        DataError: Not a boolean mask on the grid.
    """
    return measure(components(on_grid(mask, grid), connectivity), grid)


def measure(pieces: Components, grid: Grid) -> tuple[Node, ...]:
    """A node for each connected piece; ids are the pieces' numbers."""
    return tuple(_measured(pieces, number, grid) for number in range(1, len(pieces) + 1))


def on_grid(mask: NDArray[Any], grid: Grid, what: str = "Mask") -> NDArray[Any]:
    """The mask itself.

    Raises:
        DataError: Its shape is not the grid's.
    """
    if mask.shape != grid.shape:
        raise DataError(f"{what} of {mask.shape} voxels: its grid has {grid.shape}. Give the grid it was read with.")
    return mask


def _measured(pieces: Components, number: int, grid: Grid) -> Node:
    box, piece = pieces.cut(number)
    first = np.array([part.start for part in box])
    spacing = np.array(grid.spacing_mm)
    voxels = pieces.sizes[number - 1]
    centre = first + np.array([_mean_index(piece, axis) for axis in range(3)])
    axis = slice_axis(grid.direction)
    plane = [a for a in range(3) if a != axis]
    long_mm, short_mm, cut = _on_slices(np.moveaxis(piece, axis, 0), spacing[plane], centre[axis] - first[axis])
    inside = np.argwhere(np.take(piece, [cut], axis=axis)) + first  # take keeps the axis, at index 0
    inside[:, axis] += cut
    nearest = inside[np.argmin((((inside - centre) * spacing) ** 2).sum(axis=1).round(9))]
    in_space = diameters(outline(piece) * spacing / 2)
    world = np.array(grid.origin_mm) + np.array(grid.direction).reshape(3, 3) @ (centre * spacing)[::-1]
    return Node(
        id=number,
        voxels=voxels,
        volume_ml=voxels * grid.voxel_volume_ml,
        long_axis_mm=long_mm,
        short_axis_mm=short_mm,
        slice_number=int(first[axis]) + cut + 1,
        diameters_3d_mm=(in_space[0], in_space[1], in_space[2]),
        centre_mm=tuple(world.tolist()),
        centre_index=tuple(centre.tolist()),
        inside_index=tuple(nearest.tolist()),
        touches_border=any(part.start == 0 or part.stop == n for part, n in zip(box, grid.shape, strict=True)),
    )


def _mean_index(piece: NDArray[np.bool_], axis: int) -> float:
    counts = np.count_nonzero(piece, axis=tuple(a for a in range(3) if a != axis))
    return float(counts @ np.arange(len(counts)) / counts.sum())


def _on_slices(slices: NDArray[np.bool_], spacing_mm: NDArray[np.float64], centre: float) -> tuple[float, float, int]:
    """Long axis, short axis (mm) and the slice that has them.

    Of slices with the same long axis the one with the larger short axis is taken, then the one nearest to the centre.
    """
    axes = [(*diameters(outline(piece) * spacing_mm / 2), number) for number, piece in enumerate(slices) if piece.any()]
    for place in range(2):
        most = max(entry[place] for entry in axes)
        axes = [entry for entry in axes if entry[place] >= most - TIE_MM]
    long_mm, short_mm, number = min(axes, key=lambda entry: (round(abs(entry[2] - centre), 6), entry[2]))
    return long_mm, short_mm, int(number)


def nodes_json(nodes_by_label: Mapping[str, Sequence[Node]]) -> dict[str, Any]:
    """The nodes of a mask as a JSON-able dict of format ``lnsegfm.nodes/1``.

    Args:
        nodes_by_label: Nodes by label name; a label without nodes is written, too.
    """
    return {
        "format": FORMAT,
        "note": "Research software. Not for clinical use.",
        "labels": {
            label: [
                {**node.to_json(), "short_axis_3d_mm": node.short_axis_3d_mm, "category": node.category}
                for node in nodes
            ]
            for label, nodes in nodes_by_label.items()
        },
    }


def nodes_csv(nodes_by_label: Mapping[str, Sequence[Node]]) -> str:
    """The nodes of a mask as CSV with a header, one line a node, lengths to 0.001 mm; centres are LPS.

    Args:
        nodes_by_label: Nodes by label name.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(_row("", None)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(label, node) for label, nodes in nodes_by_label.items() for node in nodes)
    return text.getvalue()


def _row(label: str, node: Node | None) -> dict[str, Any]:
    """One line of the CSV; without a node, its columns."""
    columns: dict[str, Any] = {"label": label, "node": node and node.id}
    columns |= {name: node and getattr(node, name) for name in ("short_axis_mm", "long_axis_mm", "volume_ml")}
    columns |= {name: node and getattr(node, name) for name in ("category", "slice_number", "short_axis_3d_mm")}
    for k in range(3):
        columns[f"diameter_3d_{k + 1}_mm"] = node and node.diameters_3d_mm[k]
    for k, axis in enumerate("xyz"):
        columns[f"centre_{axis}_mm"] = node and node.centre_mm[k]
    for k, axis in enumerate("zyx"):
        columns[f"inside_index_{axis}"] = node and node.inside_index[k]
    columns["voxels"] = node and node.voxels
    columns["touches_border"] = node and ("yes" if node.touches_border else "no")
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in columns.items()}

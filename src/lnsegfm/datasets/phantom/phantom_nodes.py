"""Lymph nodes: rotated ellipsoids with exact sizes, placed in fat along the chains they belong to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator
from scipy.ndimage import map_coordinates
from scipy.optimize import minimize_scalar
from scipy.spatial.transform import Rotation

from lnsegfm.datasets.phantom.anatomy import Anatomy
from lnsegfm.datasets.phantom.domain import Domain
from lnsegfm.datasets.phantom.sampling import Points, part_distances, solid_distance
from lnsegfm.datasets.phantom.shapes import Array, Ellipsoid
from lnsegfm.errors import DataError

CLEARANCE_MM = 0.8  # fat between a node and any other tissue
APART_MM = 2.0  # fat between two nodes that do not touch, along the line of their centres
_GRID_MM = 2.5
_ROOM_MM = 16.0  # more room than the largest node needs
_NECROSIS_FROM_MM = 12.0
_TRIES = 60


@dataclass(frozen=True, eq=False)
class PhantomNode:
    """One lymph node.

    Args:
        solid: The ellipsoid, in the scan's frame (origin in the middle of the field of view, axes as LPS).
        hu: HU of the node, calibration error excluded.
        core: Semi-axes of a dark core over the node's own; 0 for none.
        annotated: Whether the annotator marked it.
        touches: Positions in the case's list of the nodes it is tangent to.
    """

    solid: Ellipsoid
    hu: float
    core: float = 0.0
    annotated: bool = True
    touches: tuple[int, ...] = field(default=())

    @property
    def volume_ml(self) -> float:
        """Volume, ml."""
        return self.solid.volume_ml

    @property
    def axial_diameters_mm(self) -> tuple[float, float]:
        """Long and short axis (mm) as RECIST 1.1 measures them: see ``axial_diameters``."""
        return axial_diameters(self.solid)


def axial_diameters(solid: Ellipsoid) -> tuple[float, float]:
    """Largest diameter on the axial slice where it is largest, and the largest extent perpendicular to it there, mm.

    With ``M = R diag(a^-2) R^T``, the slice at height h above the centre is the ellipse
    ``d^T M_xy d + 2 h m^T d + h^2 M_zz = 1``, ``m = (M_xz, M_yz)``. All slices are similar, with axes along the
    eigenvectors of ``M_xy`` and lengths proportional to ``sqrt(1 - h^2 (M_zz - m^T M_xy^-1 m))``; the largest is the
    one through the centre, where the diameters are ``2 / sqrt(eigenvalue)``.
    """
    matrix = np.linalg.inv(solid.spread)[:2, :2]
    low, high = np.linalg.eigvalsh(matrix)
    return float(2 / np.sqrt(low)), float(2 / np.sqrt(high))


def contact(first: Ellipsoid, second: Ellipsoid) -> float:
    """Perram and Wertheim's contact function: less than 1 where ellipsoids overlap, 1 where they are tangent.

    It grows with the square of the distance between the centres (J. Comput. Phys. 58, 409, 1985), so that
    ``1 / sqrt(contact)`` is the factor that brings two ellipsoids into contact along the line of their centres.
    """
    chol = np.linalg.inv(np.linalg.cholesky(first.spread))
    values, vectors = np.linalg.eigh(chol @ second.spread @ chol.T)
    square = (vectors.T @ chol @ (second.centre - first.centre)) ** 2

    def negative(t: float) -> float:
        return -float(t * (1 - t) * np.sum(square / (1 - t + t * values)))

    best = minimize_scalar(negative, bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-9})
    return -float(best.fun)


def place_nodes(anatomy: Anatomy, domain: Domain, rng: Generator) -> tuple[PhantomNode, ...]:
    """Draw the nodes of one case: in fat, clear of every structure, within the field of view, largest first.

    Raises:
        DataError: The domain's fewest nodes do not fit.
    """
    field_of_view = np.array(domain.shape[::-1]) * np.array(domain.spacing_mm[::-1])
    room = _FreeSpace.of(anatomy, field_of_view)
    fewest, most = domain.node_count
    wanted = int(rng.integers(fewest, most, endpoint=True))
    low, high = domain.node_size_mm
    sizes = sorted(np.exp(rng.uniform(np.log(low), np.log(high), wanted)), reverse=True)
    nodes: list[PhantomNode] = []
    while sizes:
        placed = _place(room, nodes, float(sizes[0]), domain, rng)
        if placed is not None:
            nodes.append(placed)
            sizes.pop(0)
        elif sizes[0] > low * 1.05:  # no room for one as large: a smaller one takes its turn
            sizes = sorted([*sizes[1:], max(low, sizes[0] * 0.8)], reverse=True)
        else:
            break
    if len(nodes) < fewest:
        raise DataError(
            f"node_count {domain.node_count}: only {len(nodes)} nodes of at least {low:g} mm fit into this patient. "
            "Use fewer or smaller nodes, or a larger size_mm."
        )
    return _annotated(_touching(nodes), domain.annotated_share, rng)


def _place(
    room: _FreeSpace, nodes: list[PhantomNode], size_mm: float, domain: Domain, rng: Generator
) -> PhantomNode | None:
    low, _ = domain.node_size_mm
    touch = bool(nodes) and rng.random() < domain.touching_share
    for attempt in range(_TRIES):
        diameters = np.maximum(size_mm * np.array([1.0, *rng.uniform(0.55, 0.95, 2)]), low)
        shape = Ellipsoid(np.zeros(3), diameters / 2, Rotation.from_quat(rng.normal(size=4)).as_matrix())
        if touch and attempt < _TRIES // 2:
            neighbour = nodes[int(rng.integers(len(nodes)))].solid
            solid = _tangent(shape, neighbour, rng)
        else:
            neighbour = None
            centre = room.sample(float(diameters.min()) / 2 + CLEARANCE_MM, rng)
            if centre is None:
                return None
            solid = replace(shape, centre=centre)
        others = [n.solid for n in nodes if n.solid is not neighbour]
        if all(_gap_mm(solid, other) >= APART_MM for other in others) and room.holds(solid):
            dark = size_mm >= _NECROSIS_FROM_MM and rng.random() < domain.necrotic_share
            hu = domain.node_hu + domain.phase.node_hu + rng.normal(0, domain.node_spread_hu)
            return PhantomNode(solid, hu=float(hu), core=float(rng.uniform(0.5, 0.7)) if dark else 0.0)
    return None


def _tangent(shape: Ellipsoid, neighbour: Ellipsoid, rng: Generator) -> Ellipsoid:
    """The shape, moved so that it touches its neighbour in one point, in a random direction from it."""
    direction = rng.normal(size=3)
    trial = replace(shape, centre=neighbour.centre + direction)
    return replace(shape, centre=neighbour.centre + direction / np.sqrt(contact(neighbour, trial)))


def _gap_mm(first: Ellipsoid, second: Ellipsoid) -> float:
    """How far one would have to move towards the other until they touch, mm."""
    between = float(np.linalg.norm(first.centre - second.centre))
    if between > first.semi_axes.max() + second.semi_axes.max() + APART_MM:
        return between - float(first.semi_axes.max() + second.semi_axes.max())
    return between * (1 - 1 / np.sqrt(max(contact(first, second), 1e-9)))


def _touching(nodes: list[PhantomNode]) -> list[PhantomNode]:
    def near(i: int, j: int) -> bool:  # a gap is either nothing, to rounding, or APART_MM and more
        return i != j and _gap_mm(nodes[i].solid, nodes[j].solid) < APART_MM / 2

    return [replace(n, touches=tuple(j for j in range(len(nodes)) if near(i, j))) for i, n in enumerate(nodes)]


def _annotated(nodes: list[PhantomNode], share: float, rng: Generator) -> tuple[PhantomNode, ...]:
    marked = set(rng.permutation(len(nodes))[: max(1, round(share * len(nodes)))].tolist())
    return tuple(replace(n, annotated=i in marked) for i, n in enumerate(nodes))


@dataclass(frozen=True, eq=False)
class _FreeSpace:
    """Where there is room for nodes: distances to the nearest structure on a coarse grid, refined where it matters."""

    anatomy: Anatomy
    half: Array
    low: Array
    free_mm: Array
    chance: Array

    @classmethod
    def of(cls, anatomy: Anatomy, field_of_view: Array) -> _FreeSpace:
        reach = anatomy.chain_reach_mm * 2.0 + 15
        boxes = [anatomy.box(chain, reach) for chain in anatomy.chains]
        half = field_of_view / 2
        low = np.maximum(np.min([b[0] for b in boxes], axis=0), -half)
        high = np.minimum(np.max([b[1] for b in boxes], axis=0), half)
        x, y, z = (np.arange(a, b, _GRID_MM) for a, b in zip(low, high, strict=True))
        points = Points(z, y, x)
        everywhere = points.at((slice(None), slice(None), slice(None)))
        free = np.minimum(_ROOM_MM, _inside(half, *everywhere))
        np.minimum(free, -anatomy.body.distance(*anatomy.to_patient(*everywhere)) - anatomy.deep_mm, out=free)
        for structure in anatomy.structures:
            outer = structure.layers[0][0]
            distances = solid_distance(anatomy, structure.solid, points, _ROOM_MM - outer)
            if distances is not None:
                box, d = distances
                np.minimum(free[box], structure.clear(d), out=free[box])
        chain = np.full(points.shape, 1e3, np.float32)
        for solid in anatomy.chains:
            for box, d in part_distances(anatomy, solid, points, reach):
                np.minimum(chain[box], d, out=chain[box])
        chance = np.exp(-np.maximum(chain, 0) / anatomy.chain_reach_mm) * (chain < reach)
        return cls(anatomy, half, low, free, chance.astype(np.float64))

    def sample(self, radius_mm: float, rng: Generator) -> Array | None:
        """A random place with that much room around it, more often near a chain; None where there is none."""
        spots = np.flatnonzero(self.free_mm >= radius_mm)
        chances = self.chance.ravel()[spots]
        if not chances.sum() > 0:
            return None
        chosen = int(np.searchsorted(np.cumsum(chances), rng.random() * chances.sum()))
        spot = spots[min(chosen, len(spots) - 1)]
        index = np.array(np.unravel_index(spot, self.free_mm.shape))[::-1]
        return self.low + index * _GRID_MM + rng.uniform(-0.5, 0.5, 3) * _GRID_MM

    def holds(self, solid: Ellipsoid) -> bool:
        """Whether the ellipsoid lies in fat and in the field of view altogether, with ``CLEARANCE_MM`` to spare."""
        points = solid.centre + (_sphere(float(solid.semi_axes.max())) * solid.semi_axes) @ solid.rotation.T
        rough = map_coordinates(self.free_mm, ((points - self.low) / _GRID_MM).T[::-1], order=1, cval=-1.0)
        if rough.min() < CLEARANCE_MM - 1.0:
            return False
        x, y, z = points.T
        return bool(np.minimum(_clearance(self.anatomy, x, y, z), _inside(self.half, x, y, z)).min() >= CLEARANCE_MM)


def _sphere(radius_mm: float) -> Array:
    """Centre and surface points of the unit sphere, at most about 2 mm apart on a sphere of that radius."""
    count = max(40, int(np.ceil(4 * np.pi * radius_mm**2 / 3.0)))
    i = np.arange(count) + 0.5
    height, turn = 1 - 2 * i / count, np.pi * (1 + 5**0.5) * i
    ring = np.sqrt(1 - height**2)
    return np.concatenate([np.zeros((1, 3)), np.stack([ring * np.cos(turn), ring * np.sin(turn), height], axis=1)])


def _inside(half: Array, x: Array, y: Array, z: Array) -> Array:
    return np.minimum(np.minimum(half[0] - np.abs(x), half[1] - np.abs(y)), half[2] - np.abs(z))


def _clearance(anatomy: Anatomy, x: Array, y: Array, z: Array) -> Array:
    """Distance (mm) of points of the scan's frame from the nearest tissue that is not deep fat, at most a few mm."""
    point = anatomy.to_patient(x, y, z)
    least = np.minimum(2 * CLEARANCE_MM, -anatomy.body.distance(*point) - anatomy.deep_mm)
    low = np.array([p.min() for p in point]) - 2 * CLEARANCE_MM
    high = np.array([p.max() for p in point]) + 2 * CLEARANCE_MM
    for structure in anatomy.structures:
        outer = structure.layers[0][0]
        for part in structure.solid.parts:
            a, b = part.bounds
            if np.all(a + outer <= high) and np.all(b - outer >= low):
                np.minimum(least, structure.clear(part.distance(*point)), out=least)
    return least

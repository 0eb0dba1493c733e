"""A patient without nodes: solids of tissue, painted over each other, and the chains along which nodes may lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.random import Generator
from scipy.spatial.transform import Rotation

from lnsegfm.datasets.phantom.shapes import Array, Ellipsoid, Pillar, Solid, Tube


class Tissue(IntEnum):
    """What a voxel of the patient is made of."""

    OUTSIDE = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    CORTICAL_BONE = 4
    SPONGY_BONE = 5
    AIRWAY = 6
    LUNG = 7
    ARTERY = 8
    VEIN = 9
    SALIVARY_GLAND = 10
    THYROID = 11
    CARTILAGE = 12
    NERVE = 13
    HEART_WALL = 14
    WALL = 15


@dataclass(frozen=True, eq=False)
class Structure:
    """One solid and the tissues it is layered of.

    Args:
        solid: The surface that the layers are measured from.
        layers: From outside in: depth below the surface where the tissue begins (mm; negative outside), and the tissue.
        thickness_mm: How thick a hollow structure is that other structures and nodes may lie inside of.
    """

    solid: Solid
    layers: tuple[tuple[float, Tissue], ...]
    thickness_mm: float = np.inf

    def clear(self, distance: Array) -> Array:
        """From the distance to the solid's surface to that from the tissue of the structure, mm; negative within it."""
        outer = distance + self.layers[0][0]
        if np.isfinite(self.thickness_mm):
            return np.maximum(outer, -(outer + self.thickness_mm))
        return outer


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A patient, in a frame of their own: origin in the middle of the site, x left, y back, z head; mm.

    Args:
        body: Skin surface; everything in it that no structure covers is fat.
        skin_mm: Thickness of the skin.
        structures: In the order they are painted; a later one covers an earlier one.
        chains: Solids along which nodes lie (vessels, windpipe, armpits).
        chain_reach_mm: Nodes become rare this far from a chain.
        deep_mm: Nodes lie at least this deep below the skin.
        rotation: (3, 3), from the patient's frame to the scanner's.
        shift: (3,) x, y, z of the patient's origin in the scan's frame, whose origin is the middle of the scan.
    """

    body: Solid
    skin_mm: float
    structures: Sequence[Structure]
    chains: Sequence[Solid]
    chain_reach_mm: float
    deep_mm: float
    rotation: Array
    shift: Array

    def to_patient(self, x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
        """Points of the scan's frame in the patient's; the coordinates broadcast."""
        x, y, z = x - self.shift[0], y - self.shift[1], z - self.shift[2]
        r = self.rotation.T.astype(np.result_type(x))
        return (
            r[0, 0] * x + r[0, 1] * y + r[0, 2] * z,
            r[1, 0] * x + r[1, 1] * y + r[1, 2] * z,
            r[2, 0] * x + r[2, 1] * y + r[2, 2] * z,
        )

    def box(self, solid: Solid, margin_mm: float) -> tuple[Array, Array]:
        """Lowest and highest corner, in the scan's frame, of a box around a solid given in the patient's frame."""
        low, high = solid.bounds
        middle, reach = (low + high) / 2, (high - low) / 2 + margin_mm
        centre, extent = self.rotation @ middle + self.shift, np.abs(self.rotation) @ reach
        return centre - extent, centre + extent


@dataclass(eq=False)
class AnatomyBuilder:
    """Collects the structures of a patient, each varied at random as structures vary between patients.

    Args:
        rng: Source of the variation.
        scale: Size of this patient relative to the template.
        length_mm: Half the height to which tubes with open ends are prolonged.
    """

    rng: Generator
    scale: float
    length_mm: float
    structures: list[Structure] = field(default_factory=list)

    def _vary(self, shift_mm: float, calibre: float) -> tuple[Array, float]:
        return self.rng.normal(0, shift_mm, 3), float(np.exp(self.rng.normal(0, calibre)))

    def add(self, solid: Solid, *layers: tuple[float, Tissue], thickness_mm: float = np.inf) -> Solid:
        """Paint a solid in layers over what is there."""
        self.structures.append(Structure(solid, layers, thickness_mm))
        return solid

    def pillar(
        self,
        knots: Sequence[Sequence[float]],
        *layers: tuple[float, Tissue],
        mirror: bool = False,
        shift_mm: float = 0.8,
        exponent: float = 2.0,
        low: float = -np.inf,
        high: float = np.inf,
        thickness_mm: float = np.inf,
    ) -> Solid:
        """Paint a pillar: rows of z, x, y, semi-axes a and b, turn in degrees (0 where left out)."""
        rows = np.array([[*row, 0.0][:6] for row in knots], dtype=float)
        move, calibre = self._vary(shift_mm, 0.05)
        rows[:, :5] *= self.scale
        rows[:, 3:5] *= calibre
        rows[:, 1:3] += move[:2]
        if mirror:
            rows[:, 1] *= -1
            rows[:, 5] *= -1
        solid = Pillar(rows, exponent, low * self.scale, high * self.scale)
        return self.add(solid, *layers, thickness_mm=thickness_mm)

    def tube(
        self,
        points: Sequence[Sequence[float] | Array],
        radii: Sequence[float] | Array | float,
        *layers: tuple[float, Tissue],
        mirror: bool = False,
        shift_mm: float = 1.0,
        wiggle_mm: float = 0.6,
        calibre: float = 0.1,
        stretch: float = 1.0,
        open_ends: bool = False,
    ) -> Solid:
        """Paint a curved tube; one with open ends is prolonged straight up and down."""
        p: Array = np.array(points, dtype=float) * self.scale
        r: Array = np.broadcast_to(np.array(radii, dtype=float), len(p)) * self.scale
        move, size = self._vary(shift_mm, calibre)
        p = p + move + self.rng.normal(0, wiggle_mm, p.shape)
        if mirror:
            p[:, 0] *= -1
        if open_ends:
            p, r = _prolonged(p, r, self.length_mm)
        return self.add(Tube(p, r * size, stretch), *layers)

    def ellipsoid(
        self,
        centre: Sequence[float],
        semi_axes: Sequence[float],
        *layers: tuple[float, Tissue],
        mirror: bool = False,
        shift_mm: float = 1.5,
        turn_deg: float = 10.0,
    ) -> Solid:
        """Paint an ellipsoid."""
        move, size = self._vary(shift_mm, 0.07)
        c = np.array(centre, dtype=float) * self.scale + move
        angles = self.rng.normal(0, turn_deg, 3)
        if mirror:
            c[0] *= -1
        rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
        return self.add(Ellipsoid(c, np.array(semi_axes, dtype=float) * self.scale * size, rotation), *layers)


def _prolonged(points: Array, radii: Array, length_mm: float) -> tuple[Array, Array]:
    """The curve with both ends led straight up or down to +-length_mm, where they do not reach it yet."""
    for end, inner in ((0, 1), (-1, -2)):
        sign = np.sign(points[end, 2] - points[inner, 2]) or 1.0
        if sign * points[end, 2] < length_mm:
            tip = np.array([points[end, 0], points[end, 1], sign * length_mm])
            at = 0 if end == 0 else len(points)
            points, radii = np.insert(points, at, tip, axis=0), np.insert(radii, at, radii[end])
    return points, radii


def random_pose(rng: Generator) -> tuple[Array, Array]:
    """A random small rotation (3, 3) and shift (3,) in mm, as patients are never positioned exactly."""
    angles = rng.normal(0, (3.0, 2.0, 3.0)).clip(-7, 7)
    return Rotation.from_euler("xyz", angles, degrees=True).as_matrix(), rng.normal(0, (2.0, 2.0, 3.0)).clip(-6, 6)


def skin_surface(outline: Array, scale: float, fat_mm: float, exponent: float) -> Pillar:
    """The surface of a body: a template outline (rows as in ``Pillar``), scaled, with thicker or thinner fat."""
    rows = outline.astype(float)
    rows[:, :5] *= scale
    rows[:, 3:5] += fat_mm
    return Pillar(rows, exponent)


BONE = ((0.0, Tissue.CORTICAL_BONE), (1.8, Tissue.SPONGY_BONE))


def paint_spine(builder: AnatomyBuilder, y: float, body: tuple[float, float], pitch_mm: float) -> None:
    """Vertebrae with discs between them, canal and cord, arches and spinous processes.

    Args:
        builder: Where to paint.
        y: Centre of the vertebral bodies, mm behind the origin.
        body: Semi-axes of a vertebral body along x and y, mm.
        pitch_mm: Distance from vertebra to vertebra.
    """
    a, b = body
    reach = builder.length_mm / builder.scale
    canal = y + b + 6.5
    first = -reach + builder.rng.uniform(0, pitch_mm)
    builder.pillar([(-1, 0, y, a * 0.95, b * 0.95), (1, 0, y, a * 0.95, b * 0.95)], (0, Tissue.CARTILAGE), shift_mm=0)
    for z in np.arange(first, reach, pitch_mm):
        half = pitch_mm * 0.39
        builder.pillar(
            [(z - half, 0, y, a * 1.05, b * 1.05), (z, 0, y, a * 0.95, b * 0.95), (z + half, 0, y, a * 1.05, b * 1.05)],
            *BONE,
            shift_mm=0,
            low=z - half,
            high=z + half,
        )
        for mirror in (False, True):
            builder.tube([(a * 0.7, y + b * 0.5, z + 2), (a * 1.7, y + b + 3, z + 1)], (3.5, 3.0), *BONE, mirror=mirror)
            builder.tube(
                [(a * 0.9, canal - 4, z), (a * 0.85, canal + 5, z - 2), (0, canal + 11, z - 5)],
                3.2, *BONE, mirror=mirror, stretch=1.8,
            )  # fmt: skip
        builder.tube([(0, canal + 10, z - 4), (0, canal + 22, z - 9)], (3.0, 3.6), *BONE, stretch=1.6)
    ring = [(-1, 0, canal, 10, 7.5), (1, 0, canal, 10, 7.5)]
    builder.pillar(ring, (0, Tissue.WALL), (2.2, Tissue.NERVE), shift_mm=0)

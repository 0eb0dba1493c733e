"""Solids with analytic signed distances in mm: negative inside, zero on the surface, positive outside.

Coordinates are (x, y, z) in the patient's own frame (x to the left, y to the back, z to the head). The distances of
curved solids are first-order exact: right on the surface, near it to the curvature's order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

Array = NDArray[np.floating]
_TINY = 1e-6


class Solid(ABC):
    """Something with a surface."""

    @property
    def parts(self) -> Sequence[Solid]:
        """Solids whose union this is: itself, where it is not put together."""
        return (self,)

    @property
    @abstractmethod
    def bounds(self) -> tuple[Array, Array]:
        """Lowest and highest corner (x, y, z) of a box around the solid, mm."""

    @abstractmethod
    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """Signed distance of the points, mm; the coordinates broadcast."""


@dataclass(frozen=True, eq=False)
class Ellipsoid(Solid):
    """An ellipsoid.

    Args:
        centre: (x, y, z), mm.
        semi_axes: Three lengths, mm.
        rotation: (3, 3); its columns are the directions of the axes.
    """

    centre: Array
    semi_axes: Array
    rotation: Array

    @cached_property
    def spread(self) -> Array:
        """(3, 3) matrix ``R diag(a^2) R^T``: the surface is where ``d^T spread^-1 d = 1``."""
        return (self.rotation * self.semi_axes**2) @ self.rotation.T

    @property
    def bounds(self) -> tuple[Array, Array]:
        """The box that the ellipsoid just fits into."""
        reach = np.sqrt(np.diag(self.spread))
        return self.centre - reach, self.centre + reach

    @property
    def volume_ml(self) -> float:
        """4/3 pi a b c in millilitres."""
        return float(4 / 3 * np.pi * np.prod(self.semi_axes) / 1000)

    def level(self, x: Array, y: Array, z: Array) -> Array:
        """The quadratic form of the ellipsoid: less than 1 inside, 1 on the surface."""
        m = np.linalg.inv(self.spread)
        dx, dy, dz = x - self.centre[0], y - self.centre[1], z - self.centre[2]
        return (
            dx * (m[0, 0] * dx + 2 * m[0, 1] * dy + 2 * m[0, 2] * dz)
            + dy * (m[1, 1] * dy + 2 * m[1, 2] * dz)
            + m[2, 2] * dz * dz
        )

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """Level over its gradient's length: exact on the surface, and in the sign everywhere."""
        offset = (x - self.centre[0], y - self.centre[1], z - self.centre[2])
        value, slope = 0.0, 0.0
        for axis, direction in zip(self.semi_axes, self.rotation.T, strict=True):
            along = (direction[0] * offset[0] + direction[1] * offset[1] + direction[2] * offset[2]) / axis
            value = value + along**2
            slope = slope + (along / axis) ** 2
        value = np.sqrt(value)
        return (value - 1) * np.maximum(value, _TINY) / np.maximum(np.sqrt(slope), _TINY)


@dataclass(frozen=True, eq=False)
class Cone(Solid):
    """A straight piece of tube with round ends, whose radius goes linearly from one end to the other.

    Args:
        start: (x, y, z) of one end, mm.
        end: (x, y, z) of the other, mm.
        radii: Radius at each end, mm.
        stretch: How many times higher (along z) than wide the cross-section is.
    """

    start: Array
    end: Array
    radii: tuple[float, float]
    stretch: float = 1.0

    @property
    def bounds(self) -> tuple[Array, Array]:
        """The box of both ends."""
        reach = max(self.radii) * np.array([1, 1, self.stretch])
        return np.minimum(self.start, self.end) - reach, np.maximum(self.start, self.end) + reach

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """Distance from the axis less the radius there; with a stretch, in heights divided by it."""
        sx, sy, sz = self.start
        ax, ay, az = self.end - self.start
        az = az / self.stretch
        px, py, pz = x - sx, y - sy, (z - sz) / self.stretch
        t = (px * ax + py * ay + pz * az) / max(ax * ax + ay * ay + az * az, _TINY)
        t = np.clip(t, 0, 1)
        radius = self.radii[0] + t * (self.radii[1] - self.radii[0])
        return np.sqrt((px - t * ax) ** 2 + (py - t * ay) ** 2 + (pz - t * az) ** 2) - radius


@dataclass(frozen=True, eq=False)
class Tube(Solid):
    """A smooth curve through control points with a radius at each: a vessel, a rib, a jaw.

    Args:
        points: (n, 3) control points, mm.
        radii: n radii, mm.
        stretch: How many times higher (along z) than wide the cross-section is.
        step_mm: Length of the straight pieces that the curve is made of.
    """

    points: Array
    radii: Array
    stretch: float = 1.0
    step_mm: float = 7.0

    @cached_property
    def parts(self) -> Sequence[Solid]:
        """The straight pieces."""
        lengths = np.linalg.norm(np.diff(self.points, axis=0), axis=1)
        along = np.concatenate([[0.0], np.cumsum(lengths)])
        fine = np.linspace(0, along[-1], max(len(self.points), int(np.ceil(along[-1] / self.step_mm)) + 1))
        p = PchipInterpolator(along, self.points)(fine)
        r = PchipInterpolator(along, self.radii)(fine)
        return tuple(Cone(p[i], p[i + 1], (float(r[i]), float(r[i + 1])), self.stretch) for i in range(len(fine) - 1))

    @property
    def bounds(self) -> tuple[Array, Array]:
        """The box of all pieces."""
        lows, highs = zip(*(part.bounds for part in self.parts), strict=True)
        return np.stack(lows).min(axis=0), np.stack(highs).max(axis=0)

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """Distance from the nearest piece."""
        return np.minimum.reduce([part.distance(x, y, z) for part in self.parts])


@dataclass(frozen=True, eq=False)
class Pillar(Solid):
    """A pillar along z whose superelliptic cross-section moves, grows and turns: a body, a muscle, a windpipe.

    Args:
        knots: (n, 6) rows of z, centre x, centre y, semi-axis along x, semi-axis along y (mm), turn about z (degrees).
            Below the first and above the last knot the cross-section stays as it is.
        exponent: 2 for ellipses; more for boxier outlines.
        low, high: Where the pillar ends, z in mm.
    """

    knots: Array
    exponent: float = 2.0
    low: float = -np.inf
    high: float = np.inf

    _STEP_MM = 0.5

    @cached_property
    def _table(self) -> Array:
        z = np.arange(self.knots[0, 0], self.knots[-1, 0] + self._STEP_MM, self._STEP_MM)
        rows = PchipInterpolator(self.knots[:, 0], self.knots[:, 1:])(np.clip(z, *self.knots[[0, -1], 0])).T
        turn = np.deg2rad(rows[4])
        return np.stack([rows[0], rows[1], np.cos(turn), np.sin(turn), 1 / rows[2], 1 / rows[3]]).astype(np.float32)

    @cached_property
    def bounds(self) -> tuple[Array, Array]:
        """The box of all cross-sections."""
        _, cx, cy, a, b, _ = self.knots.T
        turned = np.any(self.knots[:, 5])
        rx, ry = (np.hypot(a, b), np.hypot(a, b)) if turned else (a, b)
        low = np.array([(cx - rx).min(), (cy - ry).min(), max(self.low, -1e4)])
        return low, np.array([(cx + rx).max(), (cy + ry).max(), min(self.high, 1e4)])

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """Level over its gradient's length in the cross-section, or the distance from an end."""
        place = np.clip((z - self.knots[0, 0]) / self._STEP_MM + 0.5, 0, self._table.shape[1] - 1).astype(np.intp)
        cx, cy, cos, sin, ka, kb = (row.take(place, mode="clip") for row in self._table)
        dx, dy = x - cx, y - cy
        u = np.abs(cos * dx + sin * dy) * ka
        v = np.abs(cos * dy - sin * dx) * kb
        n = self.exponent
        if n == 2:
            value = np.sqrt(u * u + v * v)
            slope = np.sqrt((u * ka) ** 2 + (v * kb) ** 2) / np.maximum(value, _TINY)
        else:
            value = (u**n + v**n) ** (1 / n)
            slope = np.sqrt((u ** (n - 1) * ka) ** 2 + (v ** (n - 1) * kb) ** 2) / np.maximum(value, _TINY) ** (n - 1)
        d = (value - 1) / np.maximum(slope, np.minimum(ka, kb))
        if np.isfinite(self.low):
            d = np.maximum(d, self.low - z)
        if np.isfinite(self.high):
            d = np.maximum(d, z - self.high)
        return d

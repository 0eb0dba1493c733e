"""Distances between the surfaces of two masks, in millimetres.

Surfaces are triangles (:mod:`lnsegfm.evaluation.surface_mesh`). Every triangle of one surface, taken at its centroid
and weighted by its area, has the distance to the nearest point of the other surface: of its triangles, not of their
centres or corners. Triangles are a quarter of a voxel's face or smaller, so the centroid stands for them well.

Definitions: normalised surface distance (NSD; surface Dice at a tolerance) from Nikolov et al., J Med Internet Res
23(7), 2021, https://arxiv.org/abs/1809.04430; HD95 and ASSD from Maier-Hein, Reinke et al., Metrics reloaded, Nature
Methods 21, 2024, https://arxiv.org/abs/2206.01653.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lnsegfm.errors import ConfigError, DataError
from lnsegfm.evaluation.surface_distance import distances_mm
from lnsegfm.evaluation.surface_mesh import Surface, surface_of
from lnsegfm.imaging.grid import Grid

EPSILON_MM = 1e-6
"""Added to every tolerance, so that a shift by exactly the tolerance is within it whatever rounding did to it."""


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Distances between two surfaces, element by element.

    Where neither mask has a voxel that counts, or no element may be scored, there are no distances and all figures are
    NaN. Where exactly one mask has none, the other's distances are infinite: NSD is 0, the figures in mm are NaN.

    Args:
        prediction_mm: Distance of each element of the prediction's surface to the reference's surface.
        prediction_mm2: Area of each of these elements.
        reference_mm: Distance of each element of the reference's surface to the prediction's surface.
        reference_mm2: Area of each of these elements.
    """

    prediction_mm: np.ndarray
    prediction_mm2: np.ndarray
    reference_mm: np.ndarray
    reference_mm2: np.ndarray

    def nsd(self, tolerance_mm: float) -> float:
        """Normalised surface distance: the share of both surfaces' area that is within a tolerance of the other.

        From 0 to 1. 0 where exactly one mask is empty; NaN where both are.

        Args:
            tolerance_mm: What counts as equal, in mm; :data:`EPSILON_MM` is added.

        Raises:
            ConfigError: A tolerance that is negative or not finite.
        """
        if not (math.isfinite(tolerance_mm) and tolerance_mm >= 0):
            raise ConfigError(f"Tolerance {tolerance_mm} mm: not a distance. Give a number of millimetres, as 1.0.")
        distances, areas = self._both
        whole = float(areas.sum())
        return float(areas[distances <= tolerance_mm + EPSILON_MM].sum()) / whole if whole > 0 else math.nan

    @property
    def hd95_mm(self) -> float:
        """The larger of the two directed 95th percentiles, weighted by area.

        A directed percentile is the smallest distance within which at least 95 % of that surface's area lies. NaN where
        a mask is empty.
        """
        return max(
            (
                _percentile(distances, areas, 0.95)
                for distances, areas in self._sides
                if self._is_defined and len(distances)
            ),
            default=math.nan,
        )

    @property
    def hd_mm(self) -> float:
        """Hausdorff distance: the largest distance of any element, both ways. NaN where a mask is empty."""
        return float(self._both[0].max()) if self._is_defined else math.nan

    @property
    def assd_mm(self) -> float:
        """Average symmetric surface distance: area-weighted distances both ways over the area of both surfaces.

        NaN where a mask is empty.
        """
        distances, areas = self._both
        return float((distances * areas).sum() / areas.sum()) if self._is_defined else math.nan

    @property
    def _sides(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        return (self.prediction_mm, self.prediction_mm2), (self.reference_mm, self.reference_mm2)

    @property
    def _both(self) -> tuple[np.ndarray, np.ndarray]:
        (one, one_area), (other, other_area) = self._sides
        return np.concatenate([one, other]), np.concatenate([one_area, other_area])

    @property
    def _is_defined(self) -> bool:
        distances, _ = self._both
        return len(distances) > 0 and bool(np.isfinite(distances).all())


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, grid: Grid, valid: np.ndarray | None = None
) -> SurfaceDistances:
    """Measure the distances between the surfaces of two masks, in patient space.

    A grid's axes are at right angles, so patient space is the spacing-scaled index space turned and moved as a whole,
    which changes no distance: its direction and origin do not enter.

    Voxels that do not count (nobody annotated them) are neither cut out of a mask nor filled: cutting would make a
    boundary that neither reader nor model drew. Both masks are meshed as they are; an element whose cell of 2 x 2 x 2
    voxels touches one that does not count is not scored, but remains a place that the other surface can be near to.
    A mask all of whose voxels do not count is empty.

    Args:
        prediction: Boolean mask (z, y, x).
        reference: Boolean mask on the same grid.
        grid: Where their voxels lie.
        valid: Boolean mask of the voxels that count; None counts all of them.

    Returns:
        The distances, from which the figures are taken.

    Raises:
        DataError: Masks that are not boolean, or of another shape than the grid.
    """
    for name, mask in (("Prediction", prediction), ("Reference", reference), ("Valid voxels", valid)):
        if mask is not None:
            _require_on(grid, name, mask)
    surfaces = [surface_of(mask, grid.spacing_mm, valid) for mask in (prediction, reference)]
    is_there = [_counts(mask, valid) for mask in (prediction, reference)]
    predicted, referred = (
        _directed(surfaces[one], surfaces[other], is_there[one], is_there[other]) for one, other in ((0, 1), (1, 0))
    )
    return SurfaceDistances(*predicted, *referred)


def _directed(source: Surface, target: Surface, source_is: bool, target_is: bool) -> tuple[np.ndarray, np.ndarray]:
    """Distances and areas of the elements of one surface; infinitely far where the other mask is empty."""
    scored = source.scored & source_is
    areas = source.areas_mm2[scored]
    return (distances_mm(source.centres_mm[scored], target) if target_is else np.full(len(areas), np.inf)), areas


def _counts(mask: np.ndarray, valid: np.ndarray | None) -> bool:
    return bool(mask.any()) if valid is None else any((m & v).any() for m, v in zip(mask, valid, strict=True))


def _percentile(distances: np.ndarray, weights: np.ndarray, share: float) -> float:
    order = np.argsort(distances)
    below = np.cumsum(weights[order])
    # the sum's rounding must not push a share that is met exactly to the next element
    place = int(np.searchsorted(below, share * below[-1] * (1 - 1e-12)))
    return float(distances[order[place]])


def _require_on(grid: Grid, name: str, mask: np.ndarray) -> None:
    if mask.dtype != np.bool_:
        raise DataError(f"{name} of {mask.dtype}: surfaces are defined for boolean masks. Pass mask == label.")
    if mask.shape != grid.shape:
        raise DataError(f"{name} of {mask.shape}: the grid has {grid.shape} voxels. Resample it to the grid.")

"""From solids to a CT in HU: partial volumes, point spread, slices of some thickness, noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from lnsegfm.datasets.phantom.anatomy import Anatomy, Structure, Tissue
from lnsegfm.datasets.phantom.domain import Domain
from lnsegfm.datasets.phantom.phantom_nodes import PhantomNode
from lnsegfm.datasets.phantom.sampling import Points, solid_distance
from lnsegfm.datasets.phantom.shapes import Array, Ellipsoid
from lnsegfm.imaging.box import Box

_FWHM = 2.3548
_CHUNK_VOXELS = 1_500_000
_NECROTIC_HU = 22.0
_AIR_HU = -1000.0


@dataclass(frozen=True, eq=False)
class Palette:
    """HU of every tissue of one patient, with slow variation in space.

    Args:
        hu: HU per tissue.
        waves: Per tissue with variation, (n, 5): wave vector (x, y, z; 1/mm), phase, amplitude (HU). They are longer
            than nodes are wide, so that nothing in them looks like a node.
    """

    hu: dict[Tissue, float]
    waves: dict[Tissue, Array]

    @classmethod
    def sample(cls, domain: Domain, rng: Generator) -> Palette:
        """HU values of a patient examined in a domain's contrast phase."""
        phase = domain.phase
        iodine = float(np.exp(rng.normal(0, 0.07)))  # injected volume over the patient's own
        blood = float(rng.normal(0, 3))
        hu = {
            Tissue.OUTSIDE: _AIR_HU,
            Tissue.SKIN: 15 + rng.normal(0, 4),
            Tissue.FAT: -105 + rng.normal(0, 4),
            Tissue.MUSCLE: 52 + phase.muscle_hu + rng.normal(0, 3),
            Tissue.CORTICAL_BONE: 950 + rng.normal(0, 60),
            Tissue.SPONGY_BONE: 260 + rng.normal(0, 40),
            Tissue.AIRWAY: -995.0,
            Tissue.LUNG: -850 + rng.normal(0, 15),
            Tissue.ARTERY: 42 + blood + (phase.artery_hu - 42) * iodine,
            Tissue.VEIN: 42 + blood + (phase.vein_hu - 42) * iodine,
            Tissue.SALIVARY_GLAND: 15 + rng.normal(0, 15) + phase.gland_hu,
            Tissue.THYROID: 105 + rng.normal(0, 10) + phase.gland_hu,
            Tissue.CARTILAGE: 110 + rng.normal(0, 20),
            Tissue.NERVE: 32.0,
            Tissue.HEART_WALL: 45 + phase.muscle_hu * 5,
            Tissue.WALL: 35.0,
        }
        waves = {
            Tissue.FAT: _waves(rng, 30, 90, 4.0),
            Tissue.MUSCLE: _waves(rng, 40, 120, 3.0),
            Tissue.LUNG: _waves(rng, 40, 150, 15.0),
        }
        return cls({k: float(v) for k, v in hu.items()}, waves)

    def at(self, tissue: Tissue, points: Points) -> Array | float:
        """HU of a tissue at the points of a grid (z, y, x), or the one HU that it has everywhere.

        A wave along a grid's axes is a product, ``cos(a + b) = cos a cos b - sin a sin b``: one cosine a line of
        voxels instead of one a voxel.
        """
        if tissue not in self.waves:
            return self.hu[tissue]
        kx, ky, kz, phase, height = (column[:, None] for column in self.waves[tissue].T)
        along = (kz * points.z + phase).astype(np.float32)
        across = ((ky * points.y)[:, :, None] + (kx * points.x)[:, None, :]).astype(np.float32)
        value = np.full(points.shape, self.hu[tissue], np.float32)
        for k in range(len(height)):
            size = np.float32(height[k, 0])
            value += (size * np.cos(along[k]))[:, None, None] * np.cos(across[k])
            value -= (size * np.sin(along[k]))[:, None, None] * np.sin(across[k])
        return value


def _waves(rng: Generator, shortest_mm: float, longest_mm: float, sd_hu: float, count: int = 4) -> Array:
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    length = rng.uniform(shortest_mm, longest_mm, (count, 1))
    phase = rng.uniform(0, 2 * np.pi, (count, 1))
    return np.hstack([direction * 2 * np.pi / length, phase, np.full((count, 1), sd_hu * np.sqrt(2 / count))])


def centres(domain: Domain) -> tuple[Array, Array, Array]:
    """Voxel centres along z, y and x in the scan's frame, mm."""
    z, y, x = (
        (np.arange(n) - (n - 1) / 2) * s for n, s in zip(domain.shape, domain.spacing_mm, strict=True)
    )  # fmt: skip
    return z, y, x


def render(
    anatomy: Anatomy, nodes: Sequence[PhantomNode], palette: Palette, domain: Domain, rng: Generator
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Scan the patient.

    Every slice is the mean of thinner ones, in which solids are mixed by the share of the voxel they fill. Then come
    the in-plane blur, the noise, and rounding to whole HU.

    Returns:
        The image (z, y, x) in HU, and the tissue (``Tissue``) that most of each voxel is made of, nodes left out.
    """
    z, y, x = centres(domain)
    thick, in_plane = domain.spacing_mm[0], domain.spacing_mm[1:]
    thin = max(1, round(thick / min(in_plane)))
    offsets = ((np.arange(thin) + 0.5) / thin - 0.5) * thick
    width = float(np.mean([thick / thin, *in_plane]))
    sigma = [0.0, *(domain.blur_mm / _FWHM / s for s in in_plane)]
    image = np.empty(domain.shape, np.float32)
    tissue = np.empty(domain.shape, np.uint8)
    step = max(1, _CHUNK_VOXELS // (thin * len(y) * len(x)))
    for first in range(0, len(z), step):
        slices = slice(first, min(first + step, len(z)))
        fine = (z[slices, None] + offsets).ravel()
        hu, labels = _paint(anatomy, nodes, palette, Points(fine, y, x), width)
        mean = hu.reshape(-1, thin, len(y), len(x)).mean(axis=1)
        image[slices] = gaussian_filter(mean, sigma, mode="nearest")
        tissue[slices] = labels[thin // 2 :: thin]
    image += domain.hu_offset * np.clip((image + 1000) / 500, 0, 1)
    if domain.noise_hu:
        image += _noise(domain, rng)
    return np.rint(image).clip(-1024, 3071).astype(np.int16), tissue


def _noise(domain: Domain, rng: Generator) -> NDArray[np.float32]:
    """Noise of the domain's standard deviation, a little correlated in plane as reconstruction leaves it."""
    noise = rng.standard_normal(domain.shape, dtype=np.float32)
    for axis in (1, 2):
        noise = gaussian_filter1d(noise, 0.5, axis=axis, mode="wrap")
    return noise * np.float32(domain.noise_hu / noise.std())


def _paint(
    anatomy: Anatomy, nodes: Sequence[PhantomNode], palette: Palette, points: Points, width: float
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    hu = np.full(points.shape, _AIR_HU, np.float32)
    tissue = np.zeros(points.shape, np.uint8)
    colour = {kind: palette.at(kind, points) for kind in Tissue}
    everywhere = points.at((slice(None), slice(None), slice(None)))
    depth_mm = anatomy.body.distance(*anatomy.to_patient(*everywhere))
    skin = Structure(anatomy.body, ((0.0, Tissue.SKIN), (anatomy.skin_mm, Tissue.FAT)))
    _paint_layers(hu, tissue, skin, (slice(None), slice(None), slice(None)), depth_mm, colour, width)
    for structure in anatomy.structures:
        distances = solid_distance(anatomy, structure.solid, points, width - structure.layers[0][0])
        if distances is not None:
            box, d = distances
            np.maximum(d, depth_mm[box] + 2 * anatomy.skin_mm, out=d)  # nothing grows through the skin
            _paint_layers(hu, tissue, structure, box, d, colour, width)
    for node in nodes:
        _paint_ellipsoid(hu, node.solid, node.hu, points, width)
        if node.core:
            core = replace(node.solid, semi_axes=node.solid.semi_axes * node.core)
            _paint_ellipsoid(hu, core, _NECROTIC_HU, points, width)
    return hu, tissue


def _paint_layers(
    hu: NDArray[np.float32],
    tissue: NDArray[np.uint8],
    structure: Structure,
    box: Box,
    distance_mm: Array,
    colour: dict[Tissue, Array | float],
    width: float,
) -> None:
    for depth, kind in structure.layers:
        share = np.clip(0.5 - (distance_mm + depth) / width, 0, 1)
        value = colour[kind]
        hu[box] += share * ((value[box] if isinstance(value, np.ndarray) else value) - hu[box])
        tissue[box][share > 0.5] = kind


def _paint_ellipsoid(hu: NDArray[np.float32], solid: Ellipsoid, value: float, points: Points, width: float) -> None:
    box = points.box(*solid.bounds, width)
    if box is not None:
        share = np.clip(0.5 - solid.distance(*points.at(box)) / width, 0, 1)
        hu[box] += share * (value - hu[box])

"""Our surface distances beside others': every triangle tried, scikit-image's mesh, MONAI, SimpleITK.

MONAI and SimpleITK take a surface to be voxels, or the middles of cells, and measure from centre to centre, so figures
may differ by about a voxel; what they may differ by is stated in shares of the longest voxel edge.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage
from scipy.optimize import minimize
from skimage.measure import marching_cubes, mesh_surface_area

from lnsegfm.evaluation import surface_distance
from lnsegfm.evaluation.surface import surface_distances
from lnsegfm.evaluation.surface_distance import distances_mm
from lnsegfm.evaluation.surface_mesh import Surface, surface_of
from lnsegfm.imaging.grid import Grid

pytestmark = pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
SPACINGS = [(1.0, 1.0, 1.0), (3.0, 0.98, 0.98), (0.7, 1.2, 0.9)]


def blob(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], seed: int) -> np.ndarray:
    """One smooth lump of random form in the middle of a volume."""
    noise = np.random.default_rng(seed).normal(size=shape)
    lump = ndimage.gaussian_filter(noise, [4.0 / s for s in spacing_mm])
    index = np.stack(np.indices(shape), axis=-1)
    radius = np.linalg.norm((index - (np.array(shape) - 1) / 2) * spacing_mm, axis=-1)
    labels, _ = ndimage.label(radius + 4.0 * lump / lump.std() < 12)
    return ndimage.binary_fill_holes(labels == np.bincount(labels[labels > 0]).argmax())


def pair(spacing_mm: tuple[float, float, float], seed: int) -> tuple[np.ndarray, np.ndarray, Grid]:
    """A lump and what a model might have made of it, clear of the border."""
    shape = tuple(int(60 / s) for s in spacing_mm)
    reference = blob(shape, spacing_mm, seed)
    inside = ndimage.distance_transform_edt(reference, spacing_mm) - ndimage.distance_transform_edt(
        ~reference, spacing_mm
    )
    noise = ndimage.gaussian_filter(np.random.default_rng(seed + 100).normal(size=shape), [2.5 / s for s in spacing_mm])
    prediction = inside + 1.5 * noise / noise.std() > 0
    return np.roll(prediction, 1, axis=2), reference, Grid(shape, spacing_mm)


def every_triangle(point: np.ndarray, corners: np.ndarray) -> float:
    """Distance to the nearest of all triangles (n, 3, 3), another way: planes, lines, corners where they apply."""
    best = np.linalg.norm(corners - point, axis=2).min()
    for i, j in ((0, 1), (1, 2), (2, 0)):
        along = corners[:, j] - corners[:, i]
        t = np.einsum("ij,ij->i", point - corners[:, i], along) / np.einsum("ij,ij->i", along, along)
        on = (t > 0) & (t < 1)
        if on.any():
            best = min(best, np.linalg.norm(corners[on, i] + t[on, None] * along[on] - point, axis=1).min())
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    height = np.einsum("ij,ij->i", point - corners[:, 0], normal)
    foot = point - height[:, None] * normal
    turns = np.stack(
        [
            np.einsum("ij,ij->i", np.cross(corners[:, j] - corners[:, i], foot - corners[:, i]), normal)
            for i, j in ((0, 1), (1, 2), (2, 0))
        ]
    )
    above = (turns > 0).all(axis=0)
    return float(min(best, np.abs(height[above]).min())) if above.any() else float(best)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("first", [1, 8])
def test_no_triangle_is_nearer_than_the_one_that_was_found(spacing, first, monkeypatch):
    monkeypatch.setattr(surface_distance, "_FIRST", first)  # 1: ties are cut through as often as can be
    rng = np.random.default_rng(3)
    surface = surface_of(rng.random((6, 6, 6)) < 0.2, spacing)
    lattice = (rng.integers(-8, 20, (150, 3)) / 2) * spacing  # many vertices equally far
    points = np.concatenate([lattice, rng.normal(5, 9, (150, 3)), rng.normal(5, 300, (20, 3)), surface.centres_mm[:50]])

    found = distances_mm(points, surface)

    corners = surface.corners_mm
    assert found == pytest.approx([every_triangle(point, corners) for point in points], abs=1e-9)


def test_distance_to_slivers_is_exact():
    rng = np.random.default_rng(8)
    vertices = rng.normal(size=(39, 3)) * (10, 1, 0.1)
    surface = Surface(vertices, rng.permutation(39).reshape(13, 3), np.ones(13, dtype=bool))
    points = rng.normal(size=(60, 3)) * 6

    found = distances_mm(points, surface)

    assert found == pytest.approx([every_triangle(point, surface.corners_mm) for point in points], abs=1e-9)


def test_distance_to_a_triangle_is_the_least_over_its_points():
    rng = np.random.default_rng(4)
    for _ in range(12):
        corners, point = rng.normal(size=(3, 3)), rng.normal(size=3) * 2
        surface = Surface(corners, np.array([[0, 1, 2]]), np.ones(1, dtype=bool))
        least = minimize(
            lambda w, c=corners, p=point: np.sum((w @ c - p) ** 2),
            np.full(3, 1 / 3),
            bounds=[(0, 1)] * 3,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-14},
        )
        assert distances_mm(point[None], surface)[0] == pytest.approx(np.sqrt(least.fun), abs=1e-6)


def test_centroids_stand_for_their_triangles():
    prediction, reference, grid = pair(SPACINGS[1], 1)
    d = surface_distances(prediction, reference, grid)
    sides = [surface_of(mask, grid.spacing_mm) for mask in (prediction, reference)]
    # the centroids of the nine triangles that a cut of every side into three makes
    weights = sorted({w for parts in ((1, 1, 7), (1, 4, 4), (2, 2, 5)) for w in itertools.permutations(parts)})
    fine, areas = [], []
    for source, target in (sides, sides[::-1]):
        corners = source.corners_mm
        fine += [distances_mm(np.einsum("c,tcx->tx", np.array(w) / 9, corners), target) for w in weights]
        areas += [source.areas_mm2 / len(weights)] * len(weights)
    distances, areas = np.concatenate(fine), np.concatenate(areas)

    assert len(weights) == 9
    assert d.assd_mm == pytest.approx((distances * areas).sum() / areas.sum(), abs=0.01)
    assert d.nsd(1.0) == pytest.approx(areas[distances <= 1.0].sum() / areas.sum(), abs=0.01)
    assert d.hd_mm == pytest.approx(distances.max(), abs=0.1 * max(grid.spacing_mm))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("noisy", [False, True])
def test_the_mesh_has_the_corners_of_scikit_image(spacing, noisy):
    mask = np.random.default_rng(2).random((7, 8, 9)) < 0.4 if noisy else pair(spacing, 2)[0]
    surface = surface_of(mask, spacing)
    vertices, faces, *_ = marching_cubes(np.pad(mask, 1).astype(np.float32), 0.5)
    middles = {tuple(v) for v in np.rint(2 * (vertices - 1)).astype(int) if np.sum(v % 1 == 0.5) == 1}

    ours = surface.vertices_mm / spacing
    halves = ours[np.isclose(ours * 2, np.rint(ours * 2)).all(axis=1) & (np.isclose(ours % 1, 0.5).sum(axis=1) == 1)]

    assert middles <= {tuple(v) for v in np.rint(2 * halves).astype(int)}
    theirs_mm2 = mesh_surface_area((vertices - 1) * spacing, faces)
    # theirs folds where voxels meet at edges only, up to 1.3 times ours on noise; never the other way round
    assert (0.8 if noisy else 0.97) * theirs_mm2 < surface.areas_mm2.sum() <= theirs_mm2 * (1 + 1e-6)


def test_components_meshed_one_by_one_are_the_mesh_of_all():
    mask = np.random.default_rng(6).random((9, 9, 9)) < 0.15
    labels, number = ndimage.label(mask, np.ones((3, 3, 3)))
    assert number > 5

    whole = surface_of(mask, (3.0, 1.0, 1.0))
    parts = [surface_of(labels == label, (3.0, 1.0, 1.0)) for label in range(1, number + 1)]

    def rows(corners: np.ndarray) -> np.ndarray:
        flat = np.round(corners.reshape(len(corners), 9), 9)
        return flat[np.lexsort(flat.T)]

    np.testing.assert_array_equal(rows(whole.corners_mm), rows(np.concatenate([part.corners_mm for part in parts])))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_monai_agrees_within_a_voxel(spacing, seed):
    prediction, reference, grid = pair(spacing, seed)
    voxel = max(spacing)
    ours = surface_distances(prediction, reference, grid)
    masks = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, reference)]
    given = {"include_background": True, "spacing": list(spacing)}

    hd95 = float(compute_hausdorff_distance(*masks, percentile=95, **given))
    assd = float(compute_average_surface_distance(*masks, symmetric=True, **given))
    nsd = float(compute_surface_dice(*masks, [3.0 * voxel], use_subvoxels=True, **given))

    assert ours.hd95_mm == pytest.approx(hd95, abs=voxel)
    assert ours.assd_mm == pytest.approx(assd, abs=0.5 * voxel)
    assert ours.nsd(3.0 * voxel) == pytest.approx(nsd, abs=0.02)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_simpleitk_agrees_within_a_voxel(spacing, seed):
    prediction, reference, grid = pair(spacing, seed)
    voxel = max(spacing)
    images = []
    for mask in (prediction, reference):
        image = sitk.GetImageFromArray(mask.astype(np.uint8))
        image.SetSpacing(spacing[::-1])
        images.append(image)
    far = [abs(sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)) for image in images]
    rim = [sitk.GetArrayFromImage(sitk.LabelContour(image)).astype(bool) for image in images]
    one, other = (sitk.GetArrayFromImage(far[1 - side])[rim[side]] for side in (0, 1))

    ours = surface_distances(prediction, reference, grid)

    assert ours.hd95_mm == pytest.approx(max(np.percentile(one, 95), np.percentile(other, 95)), abs=voxel)
    assert ours.hd_mm == pytest.approx(max(one.max(), other.max()), abs=voxel)
    assert ours.assd_mm == pytest.approx((one.sum() + other.sum()) / (len(one) + len(other)), abs=0.5 * voxel)


@pytest.mark.parametrize("shift", [None, 1.5])
@pytest.mark.parametrize(("spacing", "shape"), [((1.0, 1.0, 1.0), (21, 21, 21)), ((3.0, 1.0, 1.0), (9, 21, 21))])
def test_the_table_of_the_page_is_what_comes_out(spacing, shape, shift):
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    small = z**2 + y**2 + x**2 <= 4**2
    other = z**2 + y**2 + x**2 <= 5**2 if shift is None else z**2 + y**2 + (x - shift) ** 2 <= 4**2
    ours = surface_distances(small, other, Grid(shape, spacing))
    masks = [torch.from_numpy(mask)[None, None].float() for mask in (small, other)]
    given = {"include_background": True, "spacing": list(spacing)}
    monai = [
        float(figure)
        for figure in (
            compute_surface_dice(*masks, [0.5], **given),
            compute_hausdorff_distance(*masks, percentile=95, **given),
            compute_average_surface_distance(*masks, symmetric=True, **given),
        )
    ]

    own = " / ".join(f"{figure:.2f}" for figure in (ours.nsd(0.5), ours.hd95_mm, ours.assd_mm))
    theirs = " / ".join(f"{figure:.2f}" for figure in monai)
    assert f"| **{own}** | {theirs} |" in PAGE.read_text(encoding="utf-8")

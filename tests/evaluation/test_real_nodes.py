"""The three mediastinal nodes of a real CT (TCIA 4D-Lung, patient 113; CC BY 3.0), measured by two methods.

``label_full.nii.gz`` was rasterised from the contours ``LN_c40`` of the RTSTRUCT, 99 slices of 512 x 512 voxels of
0.9766 x 0.9766 x 3 mm. The golden numbers are this package's own, checked here by brute force and by SimpleITK, and
once by hand: the smallest node on its slice 85, printed (y downwards from 247, x from 236):

    .......###..   The longest line goes from the left end of the last row (x 235.5, y 255) to the right end of the
    .....######.   third (x 247.5, y 249): 12 by 6 pixels, sqrt(180) * 0.9766 mm = 13.102 mm. Across it counts
    ...#########   x + 2 y: 247 + 2 * 255.5 = 758 at the bottom of the last row, 243 + 2 * 246.5 = 736 at the top of
    ..##########   the first. (758 - 736) / sqrt(5) * 0.9766 mm = 9.608 mm. The rows hold 3, 6, 9, 10, 10, 11, 11,
    ..##########   12 and 12 pixels: 84.
    .###########
    .###########
    ############
    ############
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.distance import pdist, squareform

from lnsegfm.evaluation.matching import compare_nodes
from lnsegfm.evaluation.nodes import Node, measure_nodes
from lnsegfm.imaging.grid import Grid

pytestmark = pytest.mark.realdata

# voxels, volume (ml), long and short axis (mm), slice counted from 1, the diameters in space (mm), centre LPS (mm)
GOLDEN = [
    (905, 2.5894, 21.837, 12.054, 74, (32.342, 19.806, 14.959), (-9.964, 104.679, -909.271)),
    (780, 2.2318, 20.877, 10.279, 78, (25.925, 21.523, 13.383), (14.144, 103.848, -905.350)),
    (554, 1.5851, 13.102, 9.608, 85, (31.690, 16.489, 12.704), (-10.234, 86.890, -883.726)),
]


@pytest.fixture(scope="module")
def image(request) -> sitk.Image:
    folder: Path = request.getfixturevalue("real_data")
    return sitk.ReadImage(str(folder / "lung4d_113" / "label_full.nii.gz")) == 1


@pytest.fixture(scope="module")
def mask(image) -> np.ndarray:
    return sitk.GetArrayFromImage(image) > 0


@pytest.fixture(scope="module")
def nodes(image, mask) -> tuple[Node, ...]:
    return measure_nodes(mask, Grid.from_image(image))


@pytest.fixture(scope="module")
def itk_labels(image) -> sitk.Image:
    """The same pieces by ITK, largest first."""
    return sitk.RelabelComponent(sitk.ConnectedComponent(image, True), sortByObjectSize=True)


def test_the_nodes_are_these(nodes):
    assert [node.voxels for node in nodes] == [golden[0] for golden in GOLDEN]
    for node, (_, volume_ml, long_mm, short_mm, number, in_space, centre) in zip(nodes, GOLDEN, strict=True):
        assert node.volume_ml == pytest.approx(volume_ml, abs=1e-4)
        assert node.long_axis_mm == pytest.approx(long_mm, abs=1e-3)
        assert node.short_axis_mm == pytest.approx(short_mm, abs=1e-3)
        assert node.slice_number == number
        assert node.diameters_3d_mm == pytest.approx(in_space, abs=1e-3)
        assert node.centre_mm == pytest.approx(centre, abs=1e-3)
        assert not node.touches_border
    assert [node.category for node in nodes] == ["non-target", "non-target", "normal"]


def test_itk_counts_and_places_them_alike(nodes, itk_labels):
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.ComputeFeretDiameterOn()
    statistics.Execute(itk_labels)

    assert sorted(statistics.GetLabels()) == [node.id for node in nodes]
    for node in nodes:
        assert statistics.GetNumberOfPixels(node.id) == node.voxels
        assert statistics.GetPhysicalSize(node.id) / 1000 == pytest.approx(node.volume_ml)
        assert statistics.GetCentroid(node.id) == pytest.approx(node.centre_mm, abs=1e-6)
        between_centres = statistics.GetFeretDiameter(node.id)  # half a voxel shorter at either end
        assert 0 < node.diameters_3d_mm[0] - between_centres <= max(itk_labels.GetSpacing())


def outline_points(voxels: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Every midpoint of a voxel's faces (or of a pixel's edges), mm."""
    steps = np.concatenate([np.eye(voxels.shape[1]), -np.eye(voxels.shape[1])]) / 2
    return (voxels[:, None] + steps).reshape(-1, voxels.shape[1]) * spacing


@pytest.mark.parametrize("number", [1, 2, 3])
def test_all_pairs_of_outline_points_give_the_same_axes(nodes, itk_labels, number):
    node, labels = nodes[number - 1], sitk.GetArrayFromImage(itk_labels)
    spacing = np.array(itk_labels.GetSpacing())[::-1]
    longest: dict[int, float] = {}
    for z in np.flatnonzero((labels == number).any(axis=(1, 2))):
        longest[int(z)] = pdist(outline_points(np.argwhere(labels[z] == number), spacing[1:])).max()

    assert max(longest.values()) == pytest.approx(node.long_axis_mm, abs=1e-9)
    assert max(longest, key=lambda z: longest[z]) == node.slice_number - 1

    points = outline_points(np.argwhere(labels[node.slice_number - 1] == number), spacing[1:])
    gaps = squareform(pdist(points))
    across = []
    for i, j in np.argwhere(gaps >= gaps.max() - 1e-6):
        along = (points[j] - points[i]) / gaps[i, j]
        across.append(np.ptp(points @ np.array([-along[1], along[0]])))
    assert max(across) == pytest.approx(node.short_axis_mm, abs=1e-9)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_turning_the_outline_gives_the_same_axes(nodes, itk_labels, number):
    """Widths of the shadow in steps of 0.1 degrees; a step changes a length of 22 mm by 0.04 mm across at most."""
    node, labels = nodes[number - 1], sitk.GetArrayFromImage(itk_labels)
    spacing = np.array(itk_labels.GetSpacing())[::-1]
    points = outline_points(np.argwhere(labels[node.slice_number - 1] == number), spacing[1:])
    angles = np.radians(np.arange(0, 180, 0.1))
    widths = np.ptp(points @ np.array([np.cos(angles), np.sin(angles)]), axis=0)
    best = int(np.argmax(widths))

    assert widths[best] == pytest.approx(node.long_axis_mm, abs=1e-3)
    assert widths[(best + 900) % 1800] == pytest.approx(node.short_axis_mm, abs=0.04)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_diameters_in_space_by_all_pairs(nodes, itk_labels, number):
    node, labels = nodes[number - 1], sitk.GetArrayFromImage(itk_labels)
    points = np.unique(outline_points(np.argwhere(labels == number), np.array(itk_labels.GetSpacing())[::-1]), axis=0)
    lengths = squareform(pdist(points))
    i, j = np.unravel_index(np.argmax(lengths), lengths.shape)
    along = (points[j] - points[i]) / lengths[i, j]
    shadow = points - np.outer(points @ along, along)
    second = squareform(pdist(shadow))
    k, m = np.unravel_index(np.argmax(second), second.shape)
    third = np.cross(along, (shadow[m] - shadow[k]) / second[k, m])

    assert node.diameters_3d_mm == pytest.approx((lengths[i, j], second[k, m], np.ptp(points @ third)), abs=1e-6)


def test_each_node_finds_itself(mask, image, nodes):
    score = compare_nodes(mask, mask, Grid.from_image(image))

    assert [(pair.reference, pair.prediction, pair.iou) for pair in score.matched(1.0)] == [
        (k, k, 1) for k in (1, 2, 3)
    ]
    assert score.reference == nodes
    assert score.false_negatives() == score.false_positives() == ()
    assert all(mask[node.inside_index] for node in nodes)

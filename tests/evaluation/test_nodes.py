from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from lnsegfm.datasets.phantom import Domain, axial_diameters, make_case
from lnsegfm.datasets.phantom.shapes import Ellipsoid
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.evaluation.calipers import corners, diameters, outline
from lnsegfm.evaluation.nodes import Node, measure_nodes, nodes_csv, nodes_json, slice_axis
from lnsegfm.imaging.grid import Grid

# which image index (x, y, z) runs along which world axis, and how many degrees the scan is tilted besides
ORIENTATIONS = [((0, 1, 2), 0), ((0, 1, 2), 20), ((2, 0, 1), 0), ((1, 2, 0), 25), ((0, 2, 1), 10)]
UNIT = Grid((1, 1, 1), (3.0, 1.0, 2.0))


def grid_of(shape, spacing, order=(0, 1, 2), tilt=0.0, signs=(1, -1, 1)) -> Grid:
    """A grid whose middle is the world's origin."""
    turned = Rotation.from_rotvec(np.radians(tilt) * np.array([0.6, 0.48, 0.64])).as_matrix()
    direction = turned @ np.eye(3)[:, order] * np.array(signs)
    middle = (np.array(shape[::-1]) - 1) / 2 * np.array(spacing[::-1])
    return Grid(shape, spacing, tuple(-(direction @ middle)), tuple(direction.ravel()))


def world_of(grid: Grid) -> np.ndarray:
    """(z, y, x, 3): where each voxel's centre lies, LPS mm."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1)
    direction = np.array(grid.direction).reshape(3, 3)
    return np.array(grid.origin_mm) + (index * np.array(grid.spacing_mm))[..., ::-1] @ direction.T


def drawn(solid: Ellipsoid, grid: Grid) -> np.ndarray:
    return solid.level(*np.moveaxis(world_of(grid), -1, 0)) <= 1


def on_slices_of(solid: Ellipsoid, grid: Grid) -> tuple[Ellipsoid, int]:
    """The ellipsoid in a frame whose third axis runs across the file's slices, and the slices' array axis."""
    axis = slice_axis(grid.direction)
    columns = np.array(grid.direction).reshape(3, 3)[:, [k for k in range(3) if k != 2 - axis] + [2 - axis]]
    return Ellipsoid(columns.T @ solid.centre, solid.semi_axes, columns.T @ solid.rotation), axis


def surface_mm2(solid: Ellipsoid) -> float:
    """Knud Thomsen's formula, good to 1.1 %."""
    a, b, c = solid.semi_axes**1.6075
    return float(4 * np.pi * ((a * b + a * c + b * c) / 3) ** (1 / 1.6075))


def random_cases(seed: int, count: int, order=(0, 1, 2), tilt=0.0):
    """Random ellipsoids of at least two and a half voxels and at most 20 mm, drawn on random anisotropic grids."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        spacing = rng.uniform(0.6, 1.5, 3)
        spacing[rng.integers(3)] = rng.uniform(0.6, 3.0)
        shape = tuple((2 * np.ceil(12 / spacing) + 1).astype(int).tolist())
        grid = grid_of(shape, tuple(spacing), order, tilt, tuple(rng.choice([-1, 1], 3)))
        turn = Rotation.from_quat(rng.normal(size=4)).as_matrix()
        solid = Ellipsoid(rng.uniform(-1, 1, 3), rng.uniform(1.25 * spacing.max(), 10, 3), turn)
        (node,) = measure_nodes(drawn(solid, grid), grid)
        yield solid, grid, node


@pytest.mark.parametrize(("order", "tilt"), ORIENTATIONS)
def test_axes_of_ellipsoids_are_exact_within_a_voxel(order, tilt):
    """A voxel is its diagonal; on the slice that was measured, a pixel: its longer side.

    The outline's points are at most half a pixel's longer side outside of the true outline, so no diameter is longer
    than the true one by more than one of these. The other bounds are what calipers on voxels keep to.
    """
    for solid, grid, node in random_cases(len(order) + tilt, 40, order, tilt):
        sliced, axis = on_slices_of(solid, grid)
        plane = np.delete(grid.spacing_mm, axis)
        long_mm, short_mm = axial_diameters(sliced)
        low = sliced.centre[2] / grid.spacing_mm[axis] + (grid.shape[axis] - 1) / 2
        off = abs(node.slice_number - 1 - low) * grid.spacing_mm[axis]
        share = math.sqrt(1 - off**2 / sliced.spread[2, 2])  # all slices are similar ellipses: see axial_diameters
        voxel = np.linalg.norm(grid.spacing_mm)

        assert -np.hypot(*plane) <= node.long_axis_mm - share * long_mm <= plane.max() + 1e-9
        assert -np.hypot(*plane) <= node.short_axis_mm - share * short_mm <= np.hypot(*plane)
        assert abs(node.long_axis_mm - long_mm) <= voxel
        assert abs(node.short_axis_mm - short_mm) <= voxel


@pytest.mark.parametrize(("order", "tilt"), ORIENTATIONS)
def test_diameters_in_space_volume_and_centre_of_ellipsoids(order, tilt):
    """The second and third diameter lean with the first one, by up to a voxel over its length."""
    off = []
    for solid, grid, node in random_cases(100 + tilt, 40, order, tilt):
        true = np.sort(2 * solid.semi_axes)[::-1]
        voxel = np.linalg.norm(grid.spacing_mm)
        off.append((np.array(node.diameters_3d_mm) - true) / voxel)

        assert off[-1][0] <= max(grid.spacing_mm) / voxel + 1e-9
        assert abs(node.volume_ml - solid.volume_ml) <= surface_mm2(solid) * max(grid.spacing_mm) / 2 / 1000
        assert np.linalg.norm(node.centre_mm - solid.centre) <= voxel / 2
        assert node.volume_ml == pytest.approx(node.voxels * grid.voxel_volume_ml)

    assert np.abs(off)[:, 0].max() <= 1
    assert np.abs(off)[:, 1:].max() <= 2
    assert np.mean(np.abs(off)[:, 1:] <= 1) >= 0.95


@pytest.mark.parametrize(("order", "tilt"), ORIENTATIONS)
def test_the_short_axis_lies_between_the_diameters_in_space(order, tilt):
    for _, grid, node in random_cases(200 + tilt, 25, order, tilt):
        voxel = max(grid.spacing_mm)
        longest, second, least = node.diameters_3d_mm

        assert longest >= second >= least
        assert least <= node.short_axis_mm + voxel
        assert node.short_axis_mm <= second + voxel
        assert node.long_axis_mm <= longest + 1e-9
        assert node.short_axis_mm <= node.long_axis_mm


@pytest.mark.parametrize("index", range(2))
def test_phantoms_measure_as_their_sidecar_says(index):
    case = make_case(Domain(spacing_mm=(2.0, 1.2, 1.2), size_mm=(110.0, 150.0, 150.0)), 5, index)
    (*_, cells) = case.grid.spacing_mm
    alone = [node for node in case.truth()["nodes"] if not node["touches"]]
    assert len(alone) >= 5

    for true in alone:
        mask = case.instances == true["id"]
        (node,) = measure_nodes(mask, case.grid)
        solid = case.nodes[true["id"] - 1].solid
        voxel = np.linalg.norm(case.grid.spacing_mm)

        assert abs(node.long_axis_mm - true["recist_long_axis_mm"]) <= voxel
        assert abs(node.short_axis_mm - true["recist_short_axis_mm"]) <= voxel
        assert node.long_axis_mm <= true["recist_long_axis_mm"] + cells + 1e-9
        assert abs(node.volume_ml - true["volume_ml"]) <= surface_mm2(solid) * max(case.grid.spacing_mm) / 2 / 1000
        assert np.all(np.abs(np.subtract(node.centre_mm, true["centre_mm"])) <= case.grid.spacing_mm[::-1])
        assert np.all(np.abs(np.subtract(node.centre_index, true["centre_index"])) <= 1)
        assert node.voxels == true["voxels"]
        assert mask[node.inside_index]
        assert node.inside_index[0] == node.slice_number - 1


def test_all_nodes_of_a_phantom_are_found_by_size():
    case = make_case(Domain(touching_share=0.0, node_count=(3, 5), spacing_mm=(1.5, 1.5, 1.5)), 6, 0)

    nodes = measure_nodes(case.mask == 1, case.grid)

    sizes = sorted((t["voxels"] for t in case.truth()["nodes"]), reverse=True)
    assert [node.voxels for node in nodes] == sizes
    assert [node.id for node in nodes] == list(range(1, len(nodes) + 1))


def blob(seed=3) -> tuple[np.ndarray, Grid]:
    rng = np.random.default_rng(seed)
    grid = grid_of((11, 13, 12), (2.5, 0.8, 1.1))
    mask = np.zeros(grid.shape, bool)
    mask[3:8, 3:9, 3:10] = rng.random((5, 6, 7)) < 0.6
    mask[5, 3:9, 4] = True
    return mask, grid


def same(one: Node, other: Node, *, but=()) -> bool:
    fields = {f.name for f in dataclasses.fields(Node)} - set(but)
    return all(np.allclose(getattr(one, name), getattr(other, name), atol=1e-9) for name in fields)


def test_nothing_changes_with_empty_space_around():
    mask, grid = blob()
    padded = np.pad(mask, ((2, 0), (1, 3), (4, 4)))
    start = np.array(grid.direction).reshape(3, 3) @ (np.array([4, 1, 2]) * grid.spacing_mm[::-1])
    larger = Grid(padded.shape, grid.spacing_mm, tuple(grid.origin_mm - start), grid.direction)

    for one, other in zip(measure_nodes(mask, grid), measure_nodes(padded, larger), strict=True):
        assert same(one, other, but=("slice_number", "centre_index", "inside_index", "touches_border"))
        assert other.slice_number == one.slice_number + 2
        assert np.subtract(other.inside_index, one.inside_index).tolist() == [2, 1, 4]


def test_nothing_but_the_centre_moves_with_the_origin():
    mask, grid = blob()
    moved = dataclasses.replace(grid, origin_mm=tuple(np.add(grid.origin_mm, (5, -7, 11))))

    for one, other in zip(measure_nodes(mask, grid), measure_nodes(mask, moved), strict=True):
        assert same(one, other, but=("centre_mm",))
        assert np.allclose(np.subtract(other.centre_mm, one.centre_mm), (5, -7, 11))


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", [(0,), (1, 2), (0, 1, 2), ()])
def test_how_the_file_orders_its_axes_does_not_matter(axes, flips):
    mask, grid = blob()
    (largest, *_) = measure_nodes(mask, grid)
    direction = np.array(grid.direction).reshape(3, 3)[:, ::-1]  # columns: array axes z, y, x
    spacing, signs = np.array(grid.spacing_mm), np.array([-1 if a in flips else 1 for a in range(3)])
    ends = np.where(signs < 0, (np.array(grid.shape) - 1) * spacing, 0)
    origin = np.array(grid.origin_mm) + direction @ ends
    turned = (direction * signs)[:, axes][:, ::-1]
    other = np.flip(mask, flips).transpose(axes)
    elsewhere = Grid(other.shape, tuple(spacing[list(axes)]), tuple(origin), tuple(turned.ravel()))

    (found, *_) = measure_nodes(other, elsewhere)

    assert same(largest, found, but=("slice_number", "centre_index", "inside_index"))
    axis = slice_axis(elsewhere.direction)
    assert axes[axis] == 0
    number = grid.shape[0] + 1 - found.slice_number if 0 in flips else found.slice_number
    assert number == largest.slice_number
    assert other[found.inside_index]
    assert found.inside_index[axis] == found.slice_number - 1


@given(scale=st.floats(0.1, 10))
def test_lengths_scale_with_the_spacing(scale):
    mask, grid = blob()
    larger = dataclasses.replace(grid, spacing_mm=tuple(scale * s for s in grid.spacing_mm))

    (one, *_), (other, *_) = measure_nodes(mask, grid), measure_nodes(mask, larger)

    assert other.long_axis_mm == pytest.approx(scale * one.long_axis_mm)
    assert other.short_axis_mm == pytest.approx(scale * one.short_axis_mm)
    assert other.diameters_3d_mm == pytest.approx([scale * d for d in one.diameters_3d_mm])
    assert other.volume_ml == pytest.approx(scale**3 * one.volume_ml)


@pytest.mark.parametrize(
    ("shape", "axes", "in_space"),
    [
        ((1, 1, 1), (2, 1), (3, 2, 1)),
        ((1, 1, 4), (8, 1), (8, None, None)),
        ((1, 4, 1), (4, 2), (math.sqrt(18), None, None)),  # from half a slice below to half above
        ((4, 1, 1), (2, 1), (12, 2, 1)),
    ],
)
def test_a_voxel_and_lines_of_voxels(shape, axes, in_space):
    """At 3 x 1 x 2 mm (z, y, x)."""
    (node,) = measure_nodes(np.ones(shape, bool), dataclasses.replace(UNIT, shape=shape))

    assert (node.long_axis_mm, node.short_axis_mm) == pytest.approx(axes)
    for found, known in zip(node.diameters_3d_mm, in_space, strict=True):
        assert known is None or found == pytest.approx(known)
    assert node.touches_border


@pytest.mark.parametrize("shape", [(1, 5, 6), (5, 1, 6), (5, 6, 1), (2, 1, 1), (7, 7, 7)])
def test_planes_and_cuboids_measure(shape):
    (node,) = measure_nodes(np.ones(shape, bool), dataclasses.replace(UNIT, shape=shape))

    assert node.voxels == math.prod(shape)
    assert all(d > 0 for d in node.diameters_3d_mm)


@given(mask=arrays(bool, st.tuples(*[st.integers(1, 6)] * 3)))
def test_any_mask_measures_as_all_pairs_of_its_outline_do(mask):
    """The longest distances against every pair of outline points, without a hull or rows."""
    grid = Grid(mask.shape, (2.0, 0.7, 1.3))
    steps = np.concatenate([np.eye(3), -np.eye(3)]) / 2

    nodes = measure_nodes(mask, grid)

    assert [node.id for node in nodes] == list(range(1, len(nodes) + 1))
    if len(nodes) == 1:
        voxels = np.argwhere(mask)
        points = (voxels[:, None] + steps).reshape(-1, 3) * grid.spacing_mm
        slices = [voxels[voxels[:, 0] == z, None, 1:] + steps[[1, 2, 4, 5], 1:] for z in {*voxels[:, 0].tolist()}]
        flat = [pdist(found.reshape(-1, 2) * grid.spacing_mm[1:]).max() for found in slices]
        assert nodes[0].diameters_3d_mm[0] == pytest.approx(pdist(points).max())
        assert nodes[0].long_axis_mm == pytest.approx(max(flat))


def test_a_rectangle_has_known_calipers():
    points = np.array([(0, 0), (6, 0), (6, 2), (0, 2)], float)

    long_mm, short_mm = diameters(points)

    assert long_mm == pytest.approx(math.hypot(6, 2))
    assert short_mm == pytest.approx(2 * 6 * 2 / math.hypot(6, 2))  # both far corners, one on either side


def test_of_two_longest_distances_the_one_with_more_across_counts():
    points = np.array([(0, 0), (5, 0), (3, 4), (2.5, -0.5)])  # 5 long to the second (4.5 across), to the third (4)

    assert diameters(points) == pytest.approx((5, 4.5))
    assert diameters(points[::-1]) == pytest.approx((5, 4.5))


def test_the_outline_of_a_pixel_reaches_half_a_pixel():
    assert {*map(tuple, outline(np.ones((1, 1), bool)).tolist())} == {(1, 0), (-1, 0), (0, 1), (0, -1)}
    assert len(corners(outline(np.ones((30, 30), bool)))) == 8


def test_the_middle_one_of_equal_slices_is_measured():
    mask = np.zeros((9, 6, 6), bool)
    mask[2:7, 2:4, 2:5] = True

    (node,) = measure_nodes(mask, dataclasses.replace(UNIT, shape=mask.shape))

    assert node.slice_number == 5
    assert node.inside_index == (4, 2, 3)
    assert not node.touches_border


def test_the_slice_with_the_longest_axis_is_measured_not_the_largest():
    mask = np.zeros((5, 12, 12), bool)
    mask[1, 3:9, 3:9] = True
    mask[2, 5, 1:11] = True

    (node,) = measure_nodes(mask, Grid(mask.shape, (1, 1, 1)))

    assert (node.slice_number, node.long_axis_mm, node.short_axis_mm) == (3, 10, 1)


def test_the_inside_voxel_of_a_ring_is_on_the_ring():
    y, x = np.mgrid[-6:7, -6:7]
    mask = ((np.hypot(y, x) < 6) & (np.hypot(y, x) > 3))[None]

    (node,) = measure_nodes(mask, Grid(mask.shape, (1, 1, 1)))

    assert mask[node.inside_index]
    assert node.centre_index == pytest.approx((0, 6, 6))


@pytest.mark.parametrize(
    ("short_mm", "category"), [(9.999, "normal"), (10, "non-target"), (14.999, "non-target"), (15, "target")]
)
def test_recist_categories(short_mm, category):
    (node,) = measure_nodes(np.ones((1, 1, 1), bool), UNIT)

    assert dataclasses.replace(node, short_axis_mm=short_mm, long_axis_mm=30).category == category


@pytest.mark.parametrize(("order", "tilt"), ORIENTATIONS)
def test_slices_are_those_nearest_to_axial(order, tilt):
    grid = grid_of((2, 2, 2), (1, 1, 1), order, tilt)

    assert slice_axis(grid.direction) == 2 - order.index(2)


def test_an_empty_mask_has_no_nodes():
    assert measure_nodes(np.zeros((1, 1, 1), bool), UNIT) == ()


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match=r"^Mask of \(2, 1, 1\) voxels: its grid has \(1, 1, 1\)"):
        measure_nodes(np.ones((2, 1, 1), bool), UNIT)
    with pytest.raises(ConfigError, match=r"^Connectivity 4"):
        measure_nodes(np.ones((1, 1, 1), bool), UNIT, connectivity=4)
    (node,) = measure_nodes(np.ones((1, 1, 1), bool), UNIT)
    with pytest.raises(DataError, match=r"^Node 1: volume_ml nan"):
        dataclasses.replace(node, volume_ml=math.nan)
    with pytest.raises(DataError, match=r"^Node 1: centre_mm"):
        dataclasses.replace(node, centre_mm=(1, 2))
    with pytest.raises(DataError, match="not what was written"):
        Node.from_json({"id": 1})


def test_nodes_go_through_json():
    mask, grid = blob()

    for node in measure_nodes(mask, grid):
        assert Node.from_json(json.loads(json.dumps(node.to_json()))) == node


def test_tables_hold_every_node():
    mask, grid = blob()
    nodes = measure_nodes(mask, grid)

    table = list(csv.DictReader(io.StringIO(nodes_csv({'a, "b"': nodes, "none": ()}))))
    content = json.loads(json.dumps(nodes_json({'a, "b"': nodes, "none": ()})))

    assert len(table) == len(nodes) == len(content["labels"]['a, "b"'])
    assert table[0]["label"] == 'a, "b"'
    assert float(table[0]["short_axis_mm"]) == pytest.approx(nodes[0].short_axis_mm, abs=6e-4)
    assert float(table[0]["centre_z_mm"]) == pytest.approx(nodes[0].centre_mm[2], abs=6e-4)
    assert int(table[0]["inside_index_z"]) == nodes[0].slice_number - 1
    assert table[0]["touches_border"] == "no"
    assert content["format"] == "lnsegfm.nodes/1"
    assert content["labels"]["none"] == []
    assert content["labels"]['a, "b"'][0]["category"] == nodes[0].category
    assert Node.from_json(content["labels"]['a, "b"'][0]) == nodes[0]


def test_an_empty_table_still_has_its_columns():
    (header,) = nodes_csv({}).splitlines()

    assert header.startswith("label,node,short_axis_mm,long_axis_mm,volume_ml,category,slice_number,")

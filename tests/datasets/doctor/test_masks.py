"""Labels in the wrong place, of the wrong side or size, and their fragments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.datasets.doctor import diagnose
from lnsegfm.datasets.labels import LabelMap

from .scenes import GRID, ball, doctored, image, kinds, label, make, mask, only, patient


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "data")


def test_swapped_sides(folder):
    voxels = mask()
    voxels[mask() == 2], voxels[mask() == 3] = 3, 2
    label(folder, "b", voxels)

    assert "gland_left lies 60 mm to the right" in only(folder, "sides-swapped", "warning", "b").what


@pytest.mark.parametrize(("cases", "wrong", "found"), [(4, 1, True), (8, 2, True), (3, 1, False), (5, 2, False)])
def test_one_side_alone_that_lies_where_it_does_not_in_most_cases(tmp_path, cases, wrong, found):
    folder = make(tmp_path / "data", cases)
    for number, case in enumerate("abcdefghij"[:cases]):
        voxels = mask()
        voxels[voxels == 3] = 0
        if number < wrong:
            voxels[mask() == 2], voxels[mask() == 3] = 0, 2
        label(folder, case, voxels)
    findings = [f for f in doctored(folder).findings if f.kind == "side-differs"]
    assert [f.case for f in findings] == list("abcdefghij"[:wrong] if found else "")
    if found:
        said = f"to the right of the middle, and to the left in {cases - wrong} cases"
        assert all(said in f.what and "gland_left" in f.what for f in findings)


def test_no_side_of_an_organ_that_is_named_so_and_lies_elsewhere(tmp_path):
    """In most cases is what counts: the left lobe of a liver lies on the right."""
    folder = make(tmp_path / "data", 4)
    for case in "abcd":
        voxels = mask()
        voxels[mask() == 2], voxels[mask() == 3] = 0, 2
        label(folder, case, voxels)
    assert {f.kind for f in doctored(folder).findings} <= {"label-missing"}


@pytest.mark.parametrize(
    ("names", "cases", "found"),
    [
        (("1", "2", "3"), 3, True),
        (("1", "2", "3"), 2, False),
        (("node", "gland_left", "gland_right"), 3, False),
        (("node", "a", "b"), 4, True),
    ],
)
def test_labels_that_mirror_each_other_without_saying_so(tmp_path, names, cases, found):
    folder = make(tmp_path / "data", cases)
    labels = LabelMap({name: value for value, name in enumerate(names, 1)})
    findings = [f for f in diagnose(open_dataset(folder, labels)).findings if f.kind == "sides-unnamed"]
    assert len(findings) == found
    if found:
        assert f"labels {names[1]} and {names[2]} mirror each other in {cases} cases" in findings[0].what
    voxels = mask()
    voxels[mask() == 2], voxels[mask() == 3] = 3, 2
    label(folder, "a", voxels)
    changed = diagnose(open_dataset(folder, labels)).findings
    assert not [f for f in changed if f.kind == "sides-unnamed"]  # of two nodes neither is always on one side


def test_a_label_outside_the_body(folder):
    voxels = mask()
    voxels[voxels == 1] = 0
    voxels[ball((16, 5, 5), 3)] = 1
    label(folder, "b", voxels)

    found = {f.kind: f for f in doctored(folder).findings}

    assert set(found) == {"label-outside", "label-in-air"}
    assert "100% of label node (123 voxels) lie outside the body" in found["label-outside"].what


def test_a_label_in_the_lung_is_inside_the_body(folder):
    hollow = patient(1)
    hollow[ball((16, 30, 32), 6)] = -850
    image(folder, "b", hollow)

    only(folder, "label-in-air", "warning", "b")


@pytest.mark.parametrize(("pieces", "severity"), [(3, "note"), (9, "note"), (10, "warning")])
def test_tiny_fragments(folder, pieces, severity):
    voxels = mask()
    voxels[2 : 2 + 2 * pieces : 2, 30, 52] = 2
    label(folder, "b", voxels)

    finding = only(folder, "fragments", severity, "b")

    ml = 0.027 * pieces
    said = f"label gland_left has {pieces} fragments ({pieces} voxels, {ml:.3f} ml) next to a component of 123 voxels"
    assert finding.what == said
    assert finding.fix == "drop-fragments"


@pytest.mark.parametrize(("pieces", "severity"), [(2, "note"), (3, "warning")])
def test_of_nodes_three_fragments_are_a_warning(tmp_path, pieces, severity):
    fine = {"spacing_mm": (1.0, 1.0, 1.0), "origin_mm": (-32.0, -32.0, 0.0)}
    for k, case in enumerate("abc"):
        voxels = mask()
        if case == "b":
            voxels[2 : 2 + 2 * pieces : 2, 30, 36] = 1  # 0.001 ml each: no node
        image(tmp_path / "data", case, patient(k), **fine)
        label(tmp_path / "data", case, voxels, **fine)

    only(tmp_path / "data", "fragments", severity, "b")


def test_a_small_piece_beside_one_that_is_not_much_larger_is_no_fragment(folder):
    voxels = mask()
    voxels[voxels == 2] = 0
    voxels[16, 30, 40:49], voxels[10, 30, 42] = 2, 2  # nine voxels and one
    label(folder, "b", voxels)

    assert [k for k in kinds(doctored(folder)) if k[0] == "fragments"] == []


def test_a_small_node_is_no_fragment(folder):
    voxels = mask()
    voxels[5, 30, 44] = 1  # 0.027 ml: a node of 3.7 mm
    label(folder, "b", voxels)

    assert kinds(doctored(folder)) == []


@pytest.mark.parametrize("kind", ["label-in-air", "label-outside"])
@pytest.mark.parametrize(("name", "told"), [("node", True), ("LungLeft", False), ("Trachea", False)])
def test_hollow_organs_may_hold_air_and_lie_in_the_body_all_the_same(folder, kind, name, told):
    hollow, voxels = patient(1), mask()
    voxels[voxels == 1] = 0
    if kind == "label-in-air":
        hollow[ball((16, 30, 32), 6)] = -850
        voxels[ball((16, 30, 32), 3)] = 1
    else:
        voxels[ball((16, 5, 5), 3)] = 1
    image(folder, "b", hollow)
    label(folder, "b", voxels)

    labels = LabelMap({name: 1, "gland_left": 2, "gland_right": 3})
    found = {f.kind for f in diagnose(open_dataset(folder, labels)).findings}

    assert (kind in found) == (told or kind == "label-outside")


def test_a_label_just_at_the_skin_is_inside_the_body(folder):
    hu = np.full(GRID.shape, -1000, np.int16)
    inside = ball((16, 32, 32), 15)
    hu[inside] = 40
    voxels = mask()
    voxels[ball((16, 32, 32), 16) & ~ball((16, 32, 32), 15) & (voxels == 0)] = 1  # the skin, one voxel too wide
    image(folder, "b", np.rint(hu + np.random.default_rng(1).normal(0, 10, hu.shape)).astype(np.int16))
    label(folder, "b", voxels)

    assert "label-outside" not in {f.kind for f in doctored(folder).findings}


def test_sides_that_are_nearly_level_prove_nothing(folder):
    voxels = np.zeros_like(mask())
    voxels[ball((16, 30, 32), 3)] = 2
    voxels[ball((24, 30, 33), 3)] = 3  # 3 mm to the left of the left one
    voxels[ball((8, 30, 32), 3)] = 1
    label(folder, "b", voxels)

    assert kinds(doctored(folder)) == []


def test_volumes_within_five_times_the_median_are_not_told(tmp_path):
    folder = make(tmp_path / "data", 6)
    voxels = mask()
    voxels[voxels == 1] = 0
    voxels[ball((16, 30, 32), 2)] = 1  # 33 of 123 voxels
    label(folder, "b", voxels)

    assert kinds(doctored(folder)) == []


def test_a_label_that_not_every_case_has(folder):
    voxels = mask()
    voxels[voxels == 3] = 0
    label(folder, "b", voxels)

    assert "label gland_right occurs in 2 of 3" in only(folder, "label-missing", "note", "").what
    assert "perhaps not annotated in b" in only(folder, "label-missing", "note", "").what
    (folder / "unlabelled.csv").write_text("case,label\nb,gland_right\n")
    assert kinds(doctored(folder)) == []


def test_a_label_of_another_size(tmp_path):
    folder = make(tmp_path / "data", 6)
    voxels = mask()
    voxels[ball((16, 30, 32), 3)] = 0
    voxels[ball((16, 30, 32), 1)] = 1
    label(folder, "b", voxels)

    assert (
        "label node has 0.189 ml, and the median of 6 cases is 3.32"
        in only(folder, "label-volume", "warning", "b").what
    )


def test_a_table_in_front(folder):
    for case, rows in (("b", slice(2, 6)), ("c", slice(58, 62))):
        voxels = patient("abc".index(case))
        voxels = np.pad(voxels, ((0, 0), (0, 0), (20, 20)), constant_values=-1000)
        voxels[:, rows, 2:-2] = -400
        labels = np.pad(mask(), ((0, 0), (0, 0), (20, 20)))
        grid = {"shape": voxels.shape}
        image(folder, case, voxels, **grid)
        label(folder, case, labels, **grid)

    only(folder, "table-in-front", "note", "b")

"""What the doctor finds in a whole dataset; the clean ones show nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from lnsegfm.datasets.check import check, require_usable
from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.datasets.doctor import diagnose
from lnsegfm.datasets.phantom import preset, write_dataset
from lnsegfm.imaging.files import read_mask, read_volume, write_mask, write_volume
from lnsegfm.imaging.grid import Grid

from .scenes import GRID, LABELS, doctored, image, kinds, label, make, mask, only, patient

OPENKBP = ("Brainstem", "SpinalCord", "RightParotid", "LeftParotid", "Mandible", "Larynx", "Esophagus")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "data")


def test_clean_cases_show_nothing(folder):
    assert kinds(doctored(folder)) == []


@pytest.mark.parametrize("site", ["neck", "chest"])
def test_phantoms_show_nothing(tmp_path, site):
    write_dataset(tmp_path, cases=1, domain=preset("far", site), seed=1)

    assert kinds(diagnose(open_dataset(tmp_path))) == []


def test_one_image_twice_is_an_error_and_told_once(folder):
    image(folder, "b", patient(0))

    assert only(folder, "duplicate-image", "error", "b").fix == "drop-duplicates"


@pytest.mark.parametrize(
    "change",
    [
        lambda v: (v + np.random.default_rng(9).integers(-9, 9, v.shape)).astype(np.int16),
        lambda v: v[..., ::-1],
        lambda v: v[::-1, ::-1],
        lambda v: np.repeat(v, 2, axis=2),
        lambda v: v + 1024,
    ],
    ids=["noise", "mirrored", "turned", "resampled", "offset"],
)
def test_one_scan_twice_though_not_voxel_by_voxel(folder, change):
    voxels = change(patient(0))
    write_volume(folder / "images" / "b.nii.gz", voxels, type(GRID)(voxels.shape, (3.0, 3.0, 2.9)))

    found = [f for f in doctored(folder).findings if f.kind == "duplicate-scan"]

    assert [(f.case, f.severity) for f in found] == [("b", "warning")]
    assert "nearly the same image as case a" in found[0].what


def test_what_the_check_refuses_is_an_error_and_the_rest_is_told_all_the_same(folder):
    (folder / "images" / "a.nii.gz").write_text("no image")
    label(folder, "b", np.zeros(GRID.shape, np.uint8))
    image(folder, "c", patient(2) + 1024)

    found = {(f.kind, f.severity, f.case) for f in doctored(folder).findings}

    assert {("file", "error", "a"), ("label-empty", "error", "b"), ("hu-offset", "warning", "c")} <= found


def test_a_label_of_other_geometry_and_a_case_without_label(folder):
    label(folder, "b", mask(), origin_mm=(0.0, 0.0, 0.0))
    (folder / "labels" / "c.nii.gz").unlink()

    found = {f.kind: f for f in doctored(folder).findings if f.severity == "error"}

    assert set(found) == {"label-geometry", "no-label"}
    assert found["label-geometry"].fix == "copy-header"


def test_warnings_do_not_keep_a_training_from_starting(folder):
    image(folder, "b", patient(1) + 1024)

    require_usable(open_dataset(folder, LABELS))
    assert check(open_dataset(folder, LABELS)) == []


def test_values_beyond_the_labels_are_told_and_looked_at_no_further(folder):
    voxels = mask()
    voxels[0, 0, 0] = 200
    label(folder, "b", voxels)

    only(folder, "label-values", "error", "b")


def _mirrored(grid: Grid) -> Grid:
    direction = np.array(grid.direction).reshape(3, 3)
    origin = np.array(grid.origin_mm) + (grid.shape[2] - 1) * grid.spacing_mm[2] * direction[:, 0]
    direction[:, 0] *= -1
    return dataclasses.replace(grid, direction=tuple(direction.ravel()), origin_mm=tuple(origin))


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("flip", "turn", "expected"),
    [
        (False, False, set()),
        (True, False, {"sides-swapped"}),
        (False, True, {"mirrored-axes", "sides-swapped"}),
        (True, True, {"mirrored-axes"}),  # another convention: the patient is where he was
    ],
)
def test_a_real_scan_that_is_mirrored(real_data, tmp_path, flip, turn, expected):
    root = real_data / "openkbp"
    cases = sorted(path.name for path in (root / "images").iterdir())[:4]
    for name in cases:
        (voxels, grid), (drawn, _) = read_volume(root / "images" / name), read_mask(root / "labels_oar" / name)
        if name == cases[2]:
            voxels, drawn = (v[..., ::-1] if flip else v for v in (voxels, drawn))
            grid = _mirrored(grid) if turn else grid
        write_volume(tmp_path / "images" / name, voxels, grid)
        write_mask(tmp_path / "labels" / name, drawn, grid)
    (tmp_path / "labels.json").write_text(json.dumps({name: k for k, name in enumerate(OPENKBP, start=1)}))

    found = [f for f in diagnose(open_dataset(tmp_path)).findings if f.severity == "warning"]

    assert {f.kind for f in found} - {"label-missing"} == expected
    assert {f.case for f in found if f.case} <= {cases[2].removesuffix(".nii.gz")}


@pytest.mark.realdata
def test_real_scans_have_no_errors_and_no_warnings(real_data, tmp_path):
    (tmp_path / "images").symlink_to(real_data / "openkbp" / "images")
    (tmp_path / "labels").symlink_to(real_data / "openkbp" / "labels_oar")
    (tmp_path / "labels.json").write_text(json.dumps({name: k for k, name in enumerate(OPENKBP, start=1)}))

    diagnosis = diagnose(open_dataset(tmp_path))

    assert len(diagnosis.cases) == 60
    assert {f.kind for f in diagnosis.findings if f.severity != "note"} == set()
    assert {f.kind for f in diagnosis.findings} == {"fragments", "hu-outliers", "label-missing"}

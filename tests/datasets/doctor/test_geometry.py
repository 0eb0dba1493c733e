"""Spacings and axes off the rest, and headers that contradict themselves."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from .scenes import doctored, image, kinds, label, make, mask, only, patient


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "data")


@pytest.mark.parametrize(
    ("spacing", "said"),
    [
        ((5.0, 3.0, 3.0), "differs from the median 3 x 3 x 3"),
        ((3.0, 0.1, 0.1), "not a CT's"),
        ((12.0, 3.0, 3.0), "not a CT's"),
    ],
)
def test_spacings_unlike_the_others(folder, spacing, said):
    image(folder, "b", patient(1), spacing_mm=spacing)
    label(folder, "b", mask(), spacing_mm=spacing)

    found = [f for f in doctored(folder).findings if f.kind == "spacing"]

    assert [f.case for f in found] == ["b"]
    assert said in found[0].what


def test_axes_that_run_another_way(folder):
    turned = (-1, 0, 0, 0, -1, 0, 0, 0, 1)
    origin = (93.0, 93.0, 0.0)
    image(folder, "b", patient(1)[:, ::-1, ::-1], direction=turned, origin_mm=origin)
    label(folder, "b", mask()[:, ::-1, ::-1], direction=turned, origin_mm=origin)

    assert "run to RAS, those of 2 of 3 cases to LPS" in only(folder, "axes-differ", "note", "b").what


def test_a_mirrored_affine(folder):
    image(folder, "b", patient(1), direction=(-1, 0, 0, 0, 1, 0, 0, 0, 1))
    label(folder, "b", mask(), direction=(-1, 0, 0, 0, 1, 0, 0, 0, 1))

    found = {f.kind: f for f in doctored(folder).findings}

    assert set(found) == {"axes-differ", "mirrored-axes", "sides-swapped"}
    assert "left-handed" in found["mirrored-axes"].what
    assert "label gland_left lies 60 mm to the right of gland_right" in found["sides-swapped"].what


def test_a_set_that_is_stored_left_handed_is_told_once(folder):
    for k, case in enumerate("abc"):
        direction, origin = (-1, 0, 0, 0, 1, 0, 0, 0, 1), (93.0, -96.0, 0.0)
        image(folder, case, patient(k)[..., ::-1], direction=direction, origin_mm=origin)
        label(folder, case, mask()[..., ::-1], direction=direction, origin_mm=origin)

    only(folder, "mirrored-axes", "note", "")


def test_two_transforms_that_disagree(folder):
    path = folder / "images" / "b.nii"
    shutil.move(folder / "images" / "b.nii.gz", path.with_suffix(".nii.gz"))
    voxels = sitk.ReadImage(str(path.with_suffix(".nii.gz")))
    path.with_suffix(".nii.gz").unlink()
    sitk.WriteImage(voxels, str(path))
    content = bytearray(path.read_bytes())
    assert content[252:256] == b"\x01\x00\x01\x00"  # both transforms are stated
    assert kinds(doctored(folder)) == []
    shift = np.frombuffer(content[268:272], "<f4")[0] + 20
    content[268:272] = np.float32(shift).tobytes()
    path.write_bytes(bytes(content))

    found = [f for f in doctored(folder).findings if f.kind == "transforms-differ"]

    assert len(found) == 1
    assert "differ by 20.0 mm" in found[0].what


@pytest.mark.parametrize("places", [slice(80, 84), slice(80, 92)])
def test_a_header_without_a_spacing(folder, places):
    path = folder / "images" / "b.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[places] = np.full((places.stop - places.start) // 4, np.nan, "<f4").tobytes()
    path.write_bytes(gzip.compress(content))

    found = [f for f in doctored(folder).findings if f.kind == "spacing"]

    assert {f.case for f in found} == {"b"}
    assert sum("states a spacing of nan x" in f.what for f in found) == 1


def test_a_transform_that_is_none(folder):
    path = folder / "images" / "b.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[268:272] = np.float32(np.nan).tobytes()
    path.write_bytes(gzip.compress(content))

    only(folder, "transforms-differ", "warning", "b")


@pytest.mark.parametrize("factor", [1.4, 1 / 1.4])
def test_spacings_within_the_usual_are_not_told(folder, factor):
    spacing = tuple(3.0 * factor for _ in range(3))
    image(folder, "b", patient(1), spacing_mm=spacing)
    label(folder, "b", mask(), spacing_mm=spacing)

    assert [k for k in kinds(doctored(folder)) if k[0] == "spacing"] == []


def test_of_two_scans_neither_is_the_odd_one(tmp_path):
    folder = make(tmp_path / "data", 2)
    image(folder, "b", patient(1), spacing_mm=(9.9, 3.0, 3.0))
    label(folder, "b", mask(), spacing_mm=(9.9, 3.0, 3.0))

    assert kinds(doctored(folder)) == []

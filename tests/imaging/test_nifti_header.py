from __future__ import annotations

import numpy as np
import pytest
from nibabel.loadsave import load, save
from nibabel.nifti1 import Nifti1Image
from nibabel.nifti2 import Nifti2Image

from lnsegfm.imaging.nifti_header import read_nifti_header


@pytest.mark.parametrize("form", [Nifti1Image, Nifti2Image])
@pytest.mark.parametrize("seed", range(6))
def test_transforms_are_those_that_nibabel_reads(tmp_path, form, seed):
    rng = np.random.default_rng(seed)
    matrix = np.eye(4)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    matrix[:3, :3] = turn * [1.0, 2.0, 3.0]
    matrix[:3, 3] = rng.normal(0, 50, 3)
    image = form(np.zeros((4, 5, 6, 1, 1), np.int16), matrix)
    image.set_qform(matrix, 1)
    image.set_sform(matrix, 2)
    image.header.set_xyzt_units("mm")
    save(image, tmp_path / "a.nii.gz")

    header = read_nifti_header(tmp_path / "a.nii.gz")

    assert header is not None
    stored = load(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(header.qform, stored.get_qform(), atol=1e-4)
    np.testing.assert_allclose(header.sform, stored.get_sform(), atol=1e-4)
    assert header.version == (1 if form is Nifti1Image else 2)
    assert header.dimensions == (4, 5, 6, 1, 1)
    assert header.size == (4, 5, 6)
    assert (header.datatype, header.bits) == (4, 16)
    assert header.transform_gap_mm() < 1e-3
    assert header.stretch() < 1e-5


@pytest.mark.parametrize(("unit", "scale"), [("mm", 1.0), ("meter", 1e3), ("micron", 1e-3), ("unknown", 1.0)])
def test_units_become_millimetres(tmp_path, unit, scale):
    image = Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([1, 2, 3, 1.0]))
    image.header.set_xyzt_units(unit)
    save(image, tmp_path / "a.nii")

    header = read_nifti_header(tmp_path / "a.nii")

    np.testing.assert_allclose(header.spacing_mm, np.array([1, 2, 3]) * scale)
    np.testing.assert_allclose(header.sform[:3, :3], np.diag([1, 2, 3]) * scale)


@pytest.mark.parametrize("content", [b"", b"Dear", b"NRRD0004\n", bytes(400), b"\x5c\x01\0\0" + bytes(100)])
def test_other_files_have_no_header(tmp_path, content):
    (tmp_path / "a.nii").write_bytes(content)

    assert read_nifti_header(tmp_path / "a.nii") is None

"""Scans whose values are no HU, or odd ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.datasets.doctor import diagnose

from .scenes import GRID, LABELS, doctored, image, kinds, make, patient


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "data")


@pytest.mark.parametrize(
    ("change", "kind", "severity", "said"),
    [
        (lambda v: v + 1024, "hu-offset", "warning", "air is at 24"),
        (lambda v: v.clip(-1000) + 1000, "hu-offset", "warning", "air is at 0"),
        (lambda v: v.clip(-160, 240), "hu-window", "warning", "are at -160 and"),
        (lambda v: ((v.clip(-160, 240) + 160) * 0.6375).astype(np.uint8), "hu-window", "warning", "are at 0 and"),
        (lambda v: ((v - v.mean()) / v.std()).astype(np.float32), "hu-scale", "warning", "a CT in HU runs from"),
        (lambda v: v.clip(-1024, 300), "hu-window", "note", "values end at 300 HU"),
        (lambda v: v.view(np.uint16), "hu-wrapped", "warning", "without a sign"),
        (lambda v: v.clip(-200), "hu-air", "warning", "no air: the lowest value is -200 HU"),
        (lambda v: np.where(v < -500, v + 200, v), "hu-air", "note", "lung without air around it"),
        (lambda v: v - 300, "hu-air", "warning", "air is near -1000 HU"),
        (lambda v: v + 250, "hu-tissue", "warning", "soft tissue is near 40 HU"),
        (lambda v: np.where(v > 650, 16438, v).astype(np.int16), "hu-outliers", "note", "up to 16438 HU"),
        (lambda v: np.where(np.arange(64) < 4, -3024, v).astype(np.int16), "hu-padding", "note", "down to -3024"),
    ],
)
def test_values_that_are_no_hu(folder, change, kind, severity, said):
    image(folder, "b", change(patient(1)))

    found = [f for f in doctored(folder).findings if f.case == "b"]

    assert (kind, severity) in [(f.kind, f.severity) for f in found], found
    assert any(said in f.what for f in found)
    assert {f.case for f in doctored(folder).findings} == {"b"}


def test_a_scan_that_is_no_ct_has_no_hu(folder):
    (folder / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "MR"}, "labels": {"background": 0, **LABELS.names}})
    )
    image(folder, "b", ((patient(1) + 1100) / 3).astype(np.int16))

    assert kinds(diagnose(open_dataset(folder))) == []


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_one_value_only(folder, dtype):
    image(folder, "b", np.full(GRID.shape, -7, dtype))

    found = {f.kind: f for f in doctored(folder).findings}

    assert set(found) == {"uniform"}
    assert found["uniform"].what == "every voxel is -7: there is no image in it"


@pytest.mark.parametrize("scale", [1e30, 1e300])
def test_values_beyond_all_measure(folder, scale, recwarn):
    image(folder, "b", patient(1).astype(np.float64) * scale)

    found = [f for f in doctored(folder).findings if f.case == "b"]

    assert "hu-air" in {f.kind for f in found}
    assert max(len(f.what) for f in found) < 120
    assert [str(w.message) for w in recwarn] == []

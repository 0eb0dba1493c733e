"""The demo: its way in CI with a handful of steps, its promise in a long test."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import lnsegfm.cli.demo_command as demo
from lnsegfm.datasets import phantom
from lnsegfm.models.model_folder import read_model
from lnsegfm.prediction.predict_cases import predict_cases
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.scans import find_scans
from tests.nnunet.stock import stock_predict


def test_the_demo_leaves_everything_to_look_at(lnsegfm_here, monkeypatch, tmp_path, with_plots):
    for name, few in (("SHOTS", 1), ("HELD_OUT", 1), ("BASE_CASES", 2), ("BASE_HELD_OUT", 1)):
        monkeypatch.setattr(demo, name, few)
    monkeypatch.setattr(
        phantom, "preset", lambda name, preset=phantom.preset: replace(preset(name), size_mm=(80.0, 112.0, 112.0))
    )

    done = lnsegfm_here("demo", "--out", tmp_path, "--base-iterations", 2, "--iterations", 2, "--device", "cpu")

    assert done.returncode == 0, done.stderr
    for left in ("phantoms-base/dataset.json", "phantoms-clinic/dataset.json", "base/model/plans.json"):
        assert (tmp_path / left).is_file()
    assert (tmp_path / "run" / "model" / "fold_0" / "checkpoint_final.pth").is_file()
    assert (tmp_path / "run" / "report.html").is_file()
    assert len(list((tmp_path / "run" / "predictions" / "adapted").glob("phantom_*.nii.gz"))) == 1
    assert "Not for clinical use." in done.stdout
    assert "Dice" in done.stdout


@pytest.mark.long
def test_the_demo_keeps_its_promise(lnsegfm, tmp_path):
    """Base at least 0.8 on its own domain; the shift costs at least 0.3; five shots bring adapted above base."""
    done = lnsegfm("demo", "--out", tmp_path, timeout=3600)
    assert done.returncode == 0, done.stderr

    own = json.loads((tmp_path / "base" / "run.json").read_text())["result"]["summary"]["lymph_node"]["mean"]
    rows = json.loads((tmp_path / "run" / "run.json").read_text())["result"]
    label = rows["labels"]["lymph_node"]
    assert own >= 0.8
    assert own - label["base_mean"] >= 0.3
    assert label["mean"] > 0
    assert label["low"] > 0

    scans = tmp_path / "scans"
    scans.mkdir()
    image = sorted((tmp_path / "phantoms-clinic" / "imagesTr").iterdir())[0]
    (scans / image.name).write_bytes(image.read_bytes())
    predict_cases(
        read_model(tmp_path / "run"), find_scans(scans, 1).cases, tmp_path / "ours", PredictOptions(mirroring=False)
    )
    theirs = stock_predict(tmp_path / "run" / "model", scans, tmp_path / "theirs", "--disable_tta")
    assert theirs.returncode == 0, theirs.stderr
    name = image.name.replace("_0000", "")
    assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()

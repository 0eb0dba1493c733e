"""A whole fine-tuning on a simulated GPU: training, sanity check, masks of both models."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import lnsegfm
from lnsegfm.imaging.files import read_mask
from lnsegfm.workflows.preset_benchmark import benchmark_presets
from tests.simulated_gpu import simulated_gpu
from tests.world import World


@pytest.fixture
def cuda_is_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the driver would answer."""
    for module in [module for module in sys.modules.values() if hasattr(module, "choose_device")]:
        monkeypatch.setattr(module, "choose_device", str)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "simulated")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=8e9))


@pytest.mark.usefixtures("cuda_is_a_device")
def test_a_run_on_a_gpu_has_the_masks_of_one_on_the_cpu(world: World, tmp_path: Path) -> None:
    """The rate is chosen, the network trained and looked at, masks are predicted by the run, a session and presets."""
    recipe = {"shots": 2, "iterations": 2, "lr": "auto", "lr_grid": (0.01,), "mirroring": False}
    here = lnsegfm.finetune(world.clinic, world.base, tmp_path / "cpu", device="cpu", workers=0, **recipe)
    with simulated_gpu() as gpu:
        there = lnsegfm.finetune(world.clinic, world.base, tmp_path / "gpu", device="cuda", workers=0, **recipe)
        assert gpu.to_gpu["to"] > 0
        case = there.record["held_out"][0]
        session = lnsegfm.load(there.folder, device="cuda", mirroring=False)
        prediction = session.predict(world.clinic / "imagesTr" / f"{case}_0000.nii.gz")
        presets = benchmark_presets(there.folder, device="cuda")

    assert there.record["device"] == "cuda"
    assert presets["machine"]["gpu"] == "simulated"
    mask = there.folder / "predictions" / "adapted" / f"{case}.nii.gz"
    np.testing.assert_array_equal(prediction.array, read_mask(mask)[0])
    masks = sorted((here.folder / "predictions").rglob("*.nii.gz"))
    assert masks
    for mask in masks:
        other = there.folder / mask.relative_to(here.folder)
        differing = (read_mask(mask)[0] != read_mask(other)[0]).mean()
        assert differing < 1e-3, mask.name  # sums in another order: two tiles at once

"""A whole fine-tuning on a simulated GPU: training, sanity check, masks of both models."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lnsegfm.imaging.files import read_mask
from lnsegfm.workflows import finetune as workflow
from lnsegfm.workflows.finetune_plan import plan
from tests.simulated_gpu import simulated_gpu
from tests.world import World


def test_a_run_on_a_gpu_has_the_masks_of_one_on_the_cpu(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan(world.clinic, world.base, world.recipe(iterations=3))
    here = workflow.finetune(planned, tmp_path / "cpu", device="cpu", workers=0)
    for module in [module for module in sys.modules.values() if hasattr(module, "choose_device")]:
        monkeypatch.setattr(module, "choose_device", str)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=8e9))
    with simulated_gpu() as gpu:
        there = workflow.finetune(planned, tmp_path / "gpu", device="cuda", workers=0)

    assert there.record["device"] == "cuda"
    assert gpu.to_gpu["to"] > 0
    masks = sorted((here.folder / "predictions").rglob("*.nii.gz"))
    assert masks
    for mask in masks:
        other = there.folder / mask.relative_to(here.folder)
        differing = (read_mask(mask)[0] != read_mask(other)[0]).mean()
        assert differing < 1e-3, mask.name  # sums in another order: two tiles at once

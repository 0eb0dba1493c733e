"""A training step beside nnU-Net's own, and the numbers that it computes in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lnsegfm.errors import ConfigError
from lnsegfm.methods.table import METHODS
from lnsegfm.nnunet.environment import nnunet_environment, seed_everything
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.recipe import PRECISIONS, Recipe
from lnsegfm.training.in_memory_trainer import InMemoryTrainer
from lnsegfm.training.precision import autocast_to, needs_scaling, require_precision
from lnsegfm.training.schedule import Schedule
from lnsegfm.weights.checkpoint import Checkpoint
from tests.scenes import small_plans

pytestmark = pytest.mark.usefixtures("one_thread")
LABELS = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "node": 1}, "numTraining": 2}
STEPS = 3


def trainer_for(folder: Path, method: str, **changes: Any) -> InMemoryTrainer:
    start = Checkpoint(
        {}, "3d_fullres", small_plans(), {**LABELS, "file_ending": ".nii.gz"}, "nnUNetTrainer", (0, 1, 2)
    )
    seed_everything(0)
    network = build_network(start, deep_supervision=True)
    start = replace(start, weights={key: tensor.detach().clone() for key, tensor in network.state_dict().items()})
    with nnunet_environment(folder):
        trainer = InMemoryTrainer.ready(
            start, METHODS[method](), Schedule(lr=0.01, iterations=10, seed=0, **changes), "cpu"
        )
    trainer.set_deep_supervision_enabled(True)
    trainer.network.train()
    return trainer


def batch(trainer: InMemoryTrainer, number: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(number)
    images = torch.randn(2, 1, 16, 16, 16, generator=generator)
    labels = (torch.rand(2, 1, 16, 16, 16, generator=generator) > 0.9).to(torch.int16)
    steps = [round(1 / scale[0]) for scale in trainer._get_deep_supervision_scales()]
    return {"data": images, "target": [labels[:, :, ::n, ::n, ::n] for n in steps]}


@pytest.mark.parametrize("method", ["full", "decoder", "spatial-adapter", "dgst"])
def test_a_step_is_nnunets_but_for_rounding(tmp_path: Path, method: str) -> None:
    """What is left out of it is needed by nobody: losses and weights stay together step after step."""
    ours, theirs = (trainer_for(tmp_path, method) for _ in range(2))
    before = {key: tensor.clone() for key, tensor in ours.network.state_dict().items()}
    for number in range(STEPS):
        loss = ours.take(number, batch(ours, number), 0)
        theirs.lr_scheduler.step(number)
        seed_everything(0, number, 0, 1)
        wanted = float(theirs.train_step(batch(theirs, number))["loss"])
        assert loss == pytest.approx(wanted, abs=1e-5)
    frozen = {name for name, parameter in ours.network.named_parameters() if not parameter.requires_grad}
    for key, tensor in theirs.network.state_dict().items():
        torch.testing.assert_close(ours.network.state_dict()[key], tensor, rtol=1e-4, atol=1e-5)
        assert key not in frozen or torch.equal(tensor, before[key])
    assert any(not torch.equal(tensor, before[key]) for key, tensor in ours.network.state_dict().items())


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    states = []
    for _ in range(2):
        trainer = trainer_for(tmp_path, "decoder")
        for number in range(STEPS):
            trainer.take(number, batch(trainer, number), 0)
        states.append(trainer.network.state_dict())
    assert all(torch.equal(tensor, states[1][key]) for key, tensor in states[0].items())


def test_a_step_in_fp32_is_what_a_cpu_does_anyway(tmp_path: Path) -> None:
    plain, told = trainer_for(tmp_path, "full"), trainer_for(tmp_path, "full", precision="fp32")
    assert plain.take(0, batch(plain, 0), 0) == told.take(0, batch(told, 0), 0)


@pytest.mark.parametrize("device", ["cpu", "mps"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_is_for_cuda(precision: str, device: str) -> None:
    with pytest.raises(ConfigError, match=f"^Precision {precision}: on {device} training is in fp32. Leave it out.$"):
        require_precision(precision, device)


def test_bf16_is_refused_where_the_gpu_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    with pytest.raises(ConfigError, match=r"^Precision bf16: this GPU"):
        require_precision("bf16", "cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    for precision in (None, *PRECISIONS):
        require_precision(precision, "cuda")
    for given in (None, "fp32"):
        require_precision(given, "cpu")


def test_only_fp16_needs_a_scaler() -> None:
    assert [needs_scaling(precision) for precision in (None, "fp32", "fp16", "bf16")] == [True, False, True, False]


def test_autocast_is_told_for_the_step_alone() -> None:
    before = torch.get_autocast_dtype("cuda")
    with autocast_to("bf16"):
        assert torch.get_autocast_dtype("cuda") is torch.bfloat16
    assert torch.get_autocast_dtype("cuda") is before
    with autocast_to(None):
        assert torch.get_autocast_dtype("cuda") is before


def test_precision_is_part_of_what_a_run_is_only_where_it_is_given() -> None:
    assert "precision" not in Recipe().identity()
    assert Recipe(precision="bf16").identity()["precision"] == "bf16"
    with pytest.raises(ConfigError, match=r"^precision int8: not known"):
        Recipe(precision="int8")

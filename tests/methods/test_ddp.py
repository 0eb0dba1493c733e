"""Under DistributedDataParallel: the mean gradient decides, and every rank makes the same choice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from lnsegfm.methods.dgst import DGST
from lnsegfm.networks.parameter_roles import parameters_of
from lnsegfm.networks.role import Role
from lnsegfm.testing.step_witness import LR
from lnsegfm.testing.tensor_bits import bits, same_state
from lnsegfm.testing.tiny_networks import TINY, loss_of
from lnsegfm.testing.training_regimes import Regime
from tests.methods.laws import ALL_METHODS, train
from tests.methods.witness import Witness, selection

STEPS = 3


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone", "one_thread")
@pytest.mark.parametrize("method", [name for name in ALL_METHODS if not name.endswith(("-10000", "-sgd", "-1"))])
def test_one_process_alone_is_as_without_ddp(method: str) -> None:
    tiny = TINY["plain-unet"]
    network, _ = tiny.make()
    optimizer = ALL_METHODS[method].optimizer(network, lr=LR)
    wrapped = DistributedDataParallel(network)
    assert [parameter.tensor for parameter in parameters_of(wrapped)] == [
        parameter.tensor for parameter in parameters_of(network)
    ]
    witness = Witness(wrapped, ALL_METHODS[method], optimizer, Regime().options)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss_of(wrapped(tiny.batch(step)), step).backward()
        optimizer.step()
    assert witness.steps == STEPS
    assert same_state(network, train(tiny, ALL_METHODS[method], STEPS).network)


def worker(rank: int, folder: str, mode: str) -> None:
    """One of two ranks: trains on its own batches and writes down what it saw at every step."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    tiny = TINY["plain-unet"]
    network, _ = tiny.make()
    optimizer = DGST(gamma=2, mode=mode).optimizer(network, lr=LR)
    wrapped = DistributedDataParallel(network)
    lone, _ = tiny.make()
    seen = []
    for step in range(STEPS):
        lone.load_state_dict(network.state_dict())
        lone.zero_grad()
        loss_of(lone(tiny.batch(10 * step + rank)), step).backward()
        optimizer.zero_grad()
        loss_of(wrapped(tiny.batch(10 * step + rank)), step).backward()
        before = {name: p.detach().clone() for name, p in network.named_parameters()}
        optimizer.step()
        seen.append(
            {
                "before": before,
                "after": {name: p.detach().clone() for name, p in network.named_parameters()},
                "own": {name: p.grad for name, p in lone.named_parameters()},
                "mean": {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None},
            }
        )
    torch.save(seen, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.long
@pytest.mark.parametrize("mode", ["paper", "momentum"])
def test_two_processes_move_the_selected_entries_of_the_mean_gradient(tmp_path: Path, mode: str) -> None:
    spawn(worker, args=(str(tmp_path), mode), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    network, _ = TINY["plain-unet"].make()
    weights = [parameter for parameter in parameters_of(network) if parameter.role is Role.WEIGHT]
    for a, b in zip(first, second, strict=True):
        for name in a["after"]:
            np.testing.assert_array_equal(bits(a["after"][name]), bits(b["after"][name]))
            torch.testing.assert_close(a["mean"][name], (a["own"][name] + b["own"][name]) / 2)
        assert any(not torch.equal(a["own"][name], b["own"][name]) for name in a["own"])
        for parameter in weights:
            changed = bits(a["after"][parameter.name]) != bits(a["before"][parameter.name])
            certain, possible = selection(parameter, a["mean"][parameter.name], gamma=2)
            assert not (changed & ~possible).any()
            assert changed[certain].mean() > 0.9  # a step may lie below a weight's resolution

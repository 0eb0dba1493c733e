"""What must hold for every method on every network."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from torch import nn

from lnsegfm.methods.dgst import DGST
from lnsegfm.networks.role import Role
from tests.methods.laws import ALL_METHODS, LR, REGIMES, bits, same_state, state_of, train
from tests.networks.tiny import TINY, Tiny, loss_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("method", ALL_METHODS)
@pytest.mark.parametrize("network", TINY)
def test_twenty_steps_keep_the_promise(network: str, method: str) -> None:
    """Momentum 0.99, Nesterov, decay 3e-5. What is checked at each step is written in `laws.Witness`."""
    witness = train(TINY[network], ALL_METHODS[method], steps=20)
    assert witness.moved == {part.name for part in witness.trained}


@pytest.mark.parametrize("method", ALL_METHODS)
@pytest.mark.parametrize("regime", REGIMES)
def test_the_promise_holds_under(regime: str, method: str) -> None:
    witness = train(TINY["grouped"], ALL_METHODS[method], steps=6, regime=REGIMES[regime])
    assert witness.moved == {part.name for part in witness.trained}


@pytest.mark.parametrize("regime", REGIMES)
def test_dgst_on_a_unet_under(regime: str) -> None:
    train(TINY["plain-unet"], ALL_METHODS["dgst-paper-2"], steps=6, regime=REGIMES[regime])


@pytest.mark.parametrize("method", ALL_METHODS)
def test_two_runs_with_one_seed_are_identical(method: str) -> None:
    first, second = (train(TINY["plain-unet"], ALL_METHODS[method], steps=3).network for _ in range(2))
    assert same_state(first, second)


@pytest.mark.parametrize("method", [m for m in ALL_METHODS if m not in ("dgst-paper-2", "dgst-momentum-2")])
def test_double_precision(method: str) -> None:
    train(TINY["grouped"], ALL_METHODS[method], steps=4, prepare=lambda n: n.double())


@pytest.mark.parametrize("method", ALL_METHODS)
@pytest.mark.parametrize("network", ["grouped", "plain-unet"])
def test_channels_last(network: str, method: str) -> None:
    train(TINY[network], ALL_METHODS[method], 4, prepare=lambda n: n.to(memory_format=torch.channels_last_3d))


@pytest.mark.parametrize("gamma", [1, 3])
@pytest.mark.parametrize("mode", ["paper", "momentum"])
def test_bfloat16_weights(mode: str, gamma: int) -> None:
    network, head = TINY["grouped"].make()
    network.bfloat16()
    optimizer = DGST(gamma=gamma, mode=mode).optimizer(network, lr=0.01, head=head)
    weight = network[6].weight
    for step in range(5):
        optimizer.zero_grad()
        loss_of(network(TINY["grouped"].batch(step).bfloat16()).float(), step).backward()
        before = bits(weight)
        optimizer.step()
        assert weight.dtype is torch.bfloat16
        changed = (bits(weight) != before).reshape(weight.shape)
        per_kernel = [changed[3 * g : 3 * g + 3, o].sum() for g in range(2) for o in range(weight.shape[1])]
        assert 0 < max(per_kernel) <= gamma


def continue_from(tiny: Tiny, method: str, network: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        loss_of(network(tiny.batch(step)), step).backward()
        optimizer.step()


@pytest.mark.parametrize("through_file", [False, True])
@pytest.mark.parametrize("method", ALL_METHODS)
def test_a_saved_run_continues_as_if_undisturbed(method: str, through_file: bool) -> None:
    tiny = TINY["grouped"]
    network, head = tiny.make()
    optimizer = ALL_METHODS[method].optimizer(network, lr=LR, head=head)
    continue_from(tiny, method, network, optimizer, range(3))
    saved = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
    stream = io.BytesIO()
    torch.save(saved, stream)
    stream.seek(0)
    saved = torch.load(stream, weights_only=True)
    continue_from(tiny, method, network, optimizer, range(3, 6))

    fresh, head = tiny.make(seed=1)
    fresh_optimizer = ALL_METHODS[method].optimizer(fresh, lr=LR, head=head)
    fresh.load_state_dict(saved["network"])
    fresh_optimizer.load_state_dict(saved["optimizer"])
    continue_from(tiny, method, fresh, fresh_optimizer, range(3, 6))
    assert same_state(network, fresh)


@pytest.mark.parametrize("method", ALL_METHODS)
def test_a_step_with_infinite_gradients_is_skipped_whole(method: str) -> None:
    tiny = TINY["grouped"]
    network, head = tiny.make()
    optimizer = ALL_METHODS[method].optimizer(network, lr=LR, head=head)
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    scaler.scale(loss_of(network(tiny.batch(0)))).backward()
    network[-1].weight.grad[0, 0] = float("inf")
    before = state_of(network)
    scaler.step(optimizer)
    scaler.update()
    after = state_of(network)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert not optimizer.state
    assert scaler.get_scale() == 8.0


@pytest.mark.parametrize("method", ALL_METHODS)
def test_running_statistics_move_only_with_the_norms(method: str) -> None:
    tiny = TINY["batch-norm"]
    network, head = tiny.make()
    ALL_METHODS[method].optimizer(network, lr=LR, head=head)
    before = {name: bits(buffer) for name, buffer in network.named_buffers()}
    del before["7.num_batches_tracked"]  # InstanceNorm has this counter and never counts
    for _ in range(2):
        network.train()
        network(tiny.batch(0))
    moved = {name for name in before if not np.array_equal(bits(network.get_buffer(name)), before[name])}
    assert moved == (set(before) if Role.NORM_WEIGHT in ALL_METHODS[method].trains else set())


@pytest.mark.parametrize("method", ALL_METHODS)
def test_counts_are_those_of_the_network(method: str) -> None:
    for tiny in TINY.values():
        network, head = tiny.make()
        counted = ALL_METHODS[method].moved(network, head)
        ALL_METHODS[method].optimizer(network, lr=LR, head=head)
        trained = [p for p in network.parameters() if p.requires_grad]
        assert counted.tensors == len(trained)
        assert counted.parameters == sum(p.numel() for p in trained)
        assert counted.total == sum(p.numel() for p in network.parameters())
        assert 0 < counted.per_step <= counted.parameters

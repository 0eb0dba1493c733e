"""DGST alone: its entries, its step, its state, and the leak of the mode that does not keep the promise."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lnsegfm.methods.dgst import DGST
from lnsegfm.methods.sparse_sgd import SparseSGD
from lnsegfm.methods.table import METHODS
from lnsegfm.networks.parameter_roles import parameters_of
from lnsegfm.networks.role import Role
from lnsegfm.testing.tensor_bits import bits, same_state
from lnsegfm.testing.tiny_networks import TINY, loss_of
from tests.methods.laws import train
from tests.networks.kernels import kernel_indices

pytestmark = pytest.mark.usefixtures("one_thread")


def one_layer(layer: Any) -> Any:
    return nn.Sequential(layer, nn.Linear(1, 1))


def step_with(layer: Any, gradient: torch.Tensor, method: DGST, **options: Any) -> None:
    network = one_layer(layer)
    optimizer = method.optimizer(network, lr=0.01, head=[network[1]], **options)
    layer.weight.grad = gradient.clone()
    optimizer.step()


LAYERS: dict[str, Callable[[], Any]] = {
    "conv": lambda: nn.Conv3d(3, 4, 3, bias=False),
    "grouped-conv": lambda: nn.Conv3d(4, 6, 3, groups=2, bias=False),
    "transposed": lambda: nn.ConvTranspose3d(5, 4, 2, bias=False),
    "grouped-transposed": lambda: nn.ConvTranspose3d(6, 4, 2, groups=2, bias=False),
    "linear": lambda: nn.Linear(7, 5, bias=False),
}


@pytest.mark.parametrize("gamma", [1, 2, 5, 1000])
@pytest.mark.parametrize("mode", ["paper", "momentum"])
@pytest.mark.parametrize("name", LAYERS)
def test_odd_bit_patterns_stay_where_they_are(name: str, mode: str, gamma: int) -> None:
    """-0.0, NaN with a payload, infinities and subnormal numbers survive in every entry that is not selected."""
    torch.manual_seed(0)
    layer = LAYERS[name]()
    patterns = np.array([0x80000000, 0x7FC00123, 0xFFC00456, 0x7F800000, 0x00000001, 0x3F800000], np.uint32)
    with torch.no_grad():
        odd = torch.from_numpy(np.resize(patterns, layer.weight.numel()).view(np.float32).copy())
        layer.weight.copy_(odd.reshape(layer.weight.shape))
    before, gradient = bits(layer.weight), torch.randn_like(layer.weight)
    index = kernel_indices(layer, tuple(layer.weight.shape))
    step_with(layer, gradient, DGST(gamma=gamma, mode=mode))

    order = np.argsort(-np.abs(gradient.numpy().reshape(-1)[index]), axis=1)
    kept = np.take_along_axis(index, order[:, gamma:], axis=1)
    assert kept.size == max(0, index.shape[1] - gamma) * index.shape[0]
    np.testing.assert_array_equal(bits(layer.weight)[kept], before[kept])


@pytest.mark.parametrize("name", LAYERS)
def test_the_default_step_is_lr_over_one_minus_momentum(name: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]()
    gradient, before = torch.randn_like(layer.weight), layer.weight.detach().clone()
    step_with(layer, gradient, DGST(gamma=1))
    moved = (layer.weight.detach() - before).reshape(-1)
    index = kernel_indices(layer, tuple(gradient.shape))
    steepest = index[np.arange(len(index)), np.abs(gradient.numpy().reshape(-1)[index]).argmax(axis=1)]
    torch.testing.assert_close(moved[steepest], -1.0 * gradient.reshape(-1)[steepest], rtol=1e-5, atol=1e-7)
    assert (moved != 0).sum() == len(index)


def test_ties_and_zero_gradients_move_no_more_than_gamma() -> None:
    layer = nn.Conv3d(2, 4, 3, bias=False)
    gradient = torch.zeros_like(layer.weight)
    gradient[0] = 1.0
    gradient[1, 0, 0, 0, 0] = -1.0
    before = layer.weight.detach().clone()
    step_with(layer, gradient, DGST(gamma=3))
    changed = (layer.weight.detach() != before).flatten(1).sum(1)
    assert changed.tolist() == [3, 1, 0, 0]


def test_a_step_below_resolution_moves_nothing() -> None:
    layer = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    before = bits(layer.weight)
    step_with(layer, torch.full((2, 3), 1e-12), DGST(gamma=1))
    np.testing.assert_array_equal(bits(layer.weight), before)


def test_paper_mode_keeps_no_state_for_weights() -> None:
    network, head = TINY["plain-unet"].make()
    optimizer = DGST().optimizer(network, lr=0.01)
    for step in range(2):
        optimizer.zero_grad()
        loss_of(network(TINY["plain-unet"].batch(step))).backward()
        optimizer.step()
    weights = [parameter for parameter in parameters_of(network, head) if parameter.role is Role.WEIGHT]
    dense = [parameter for parameter in parameters_of(network, head) if parameter.role is not Role.WEIGHT]
    assert weights
    assert not any(parameter.tensor in optimizer.state for parameter in weights)
    assert all(optimizer.state[parameter.tensor].keys() == {"momentum_buffer"} for parameter in dense)


@pytest.mark.parametrize(("mode", "leaks"), [("paper", False), ("momentum", False), ("masked-gradient", True)])
@pytest.mark.parametrize("cause", ["decay", "momentum"])
def test_masking_the_gradient_leaks_and_masking_the_update_does_not(mode: str, leaks: bool, cause: str) -> None:
    layer = nn.Conv3d(2, 4, 3, bias=False)
    network = one_layer(layer)
    options: dict[str, Any] = (
        {"weight_decay": 3e-5, "momentum": 0.0} if cause == "decay" else {"weight_decay": 0.0, "momentum": 0.99}
    )
    optimizer = DGST(gamma=1, mode=mode).optimizer(network, lr=1.0, head=[network[1]], **options)
    for steepest in (0, 1):
        before = layer.weight.detach().clone()
        layer.weight.grad = torch.full_like(layer.weight, 1e-3)
        layer.weight.grad.flatten(1)[:, steepest] = 1.0
        optimizer.step()
    moved = (layer.weight.detach() != before).flatten(1).sum(1)
    assert (moved.max() > 1) == leaks


def test_a_schedule_keeps_the_ratio_of_the_rates() -> None:
    layer = nn.Linear(2, 2, bias=False)
    network = one_layer(layer)
    optimizer = DGST(weight_lr=0.5).optimizer(network, lr=0.125, head=[network[1]])
    for group in optimizer.param_groups:
        group["lr"] = 0.125 / 4
    with torch.no_grad():
        layer.weight.zero_()
    layer.weight.grad = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    optimizer.step()
    assert layer.weight.tolist() == [[-0.125, 0.0], [0.0, 0.125]]


@pytest.mark.parametrize("mode", ["paper", "momentum", "masked-gradient"])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
def test_copies_of_an_optimizer_step_alike(mode: str, duplicate: Callable[[Any], Any]) -> None:
    tiny = TINY["plain-unet"]
    network, _ = tiny.make()
    optimizer = DGST(mode=mode).optimizer(network, lr=0.01)
    twin, twin_optimizer = duplicate((network, optimizer))
    for net, opt in ((network, optimizer), (twin, twin_optimizer)):
        assert isinstance(opt, SparseSGD)
        for step in range(2):
            opt.zero_grad()
            loss_of(net(tiny.batch(step))).backward()
            opt.step()
    assert same_state(network, twin)


def test_a_closure_is_called_with_gradients_on() -> None:
    network, head = TINY["sequence"].make()
    optimizer = DGST().optimizer(network, lr=0.01, head=head)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = loss_of(network(TINY["sequence"].batch(0)))
        loss.backward()
        return loss

    first, second = optimizer.step(closure), optimizer.step(closure)
    assert second < first


def test_only_a_card_is_needed_for_a_compiled_network() -> None:
    tiny = TINY["plain-unet"]
    network, _ = tiny.make()
    compiled: Any = torch.compile(network)
    DGST().optimizer(compiled, lr=0.01)
    assert all(p.requires_grad for p in network.parameters())


def test_autocast_keeps_weights_and_promise() -> None:
    tiny = TINY["plain-unet"]

    class Autocast(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self._orig_mod = network

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            with torch.autocast("cpu", torch.bfloat16):
                return [output.float() for output in self._orig_mod(x)]

    witness = train(tiny, DGST(gamma=2, weight_lr=2.0**-4), steps=4, prepare=Autocast)
    assert witness.moved


def test_one_method_after_another_is_as_if_alone() -> None:
    """BatchNorm's held statistics, frozen gradients and `requires_grad` are put right by the later method."""
    tiny = TINY["batch-norm"]
    network, head = tiny.make()
    METHODS["full"]().optimizer(network, lr=0.01, head=head)
    loss_of(network(tiny.batch(0))).backward()
    METHODS["bias"]().optimizer(network, lr=0.01, head=head)
    assert network[0].weight.grad is None
    METHODS["head"]().optimizer(network, lr=0.01, head=head)
    METHODS["full"]().optimizer(network, lr=0.01, head=head)
    before = network[1].running_mean.clone()
    network.train()
    network(tiny.batch(1))
    assert not torch.equal(network[1].running_mean, before)
    assert all(p.requires_grad for p in network.parameters())
    assert not network[1]._forward_pre_hooks

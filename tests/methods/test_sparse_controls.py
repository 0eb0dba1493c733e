"""GPS, the random controls and the bounded step alone: what is chosen, when, and by what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lnsegfm.methods.bounded_dgst import BoundedDGST
from lnsegfm.methods.gps import GPS
from lnsegfm.methods.method import Method
from lnsegfm.methods.random_dynamic import RandomDynamic
from lnsegfm.methods.random_static import RandomStatic
from lnsegfm.methods.table import METHODS
from lnsegfm.testing.tensor_bits import bits, same_state
from lnsegfm.testing.tiny_networks import TINY
from tests.methods.laws import ALL_METHODS, train

pytestmark = pytest.mark.usefixtures("one_thread")


def moved_by(
    method: Method, gradients: list[torch.Tensor], *, lr: float = 1.0, place: int = 0
) -> list[set[tuple[int, ...]]]:
    """Entries of one layer's weight, all ones, that each step moved under these gradients."""
    layers: list[nn.Module] = [nn.Linear(gradients[0].shape[1], 3, bias=False) for _ in range(place)]
    network: Any = nn.Sequential(
        *layers, nn.Linear(gradients[0].shape[1], gradients[0].shape[0], bias=False), nn.Linear(1, 1)
    )
    optimizer = method.optimizer(network, lr=lr, momentum=0.0, head=[network[-1]])
    weight = network[place].weight
    with torch.no_grad():
        weight.fill_(1.0)
    found = []
    for gradient in gradients:
        before = weight.detach().clone()
        weight.grad = gradient.clone()
        for layer in layers:
            layer.weight.grad = torch.ones(3, gradient.shape[1])
        optimizer.step()
        found.append({tuple(at) for at in (weight.detach() != before).nonzero().tolist()})
    return found


def test_gps_takes_the_largest_sums_of_all_its_passes_and_keeps_them() -> None:
    """No single pass ranks the entries as their sum does; signs do not cancel; later gradients change no choice."""
    looks = [
        torch.tensor([[3.0, 2.0, 0.0, 0.0]]),
        torch.tensor([[0.0, 2.0, 3.5, 0.0]]),
        torch.tensor([[0.0, -2.0, 0.0, 3.9]]),
    ]
    later = [torch.tensor([[9.0, 1.0, 1.0, 9.0]])] * 3
    steps = moved_by(GPS(gamma=2, passes=3), looks + later)
    assert steps[:3] == [set()] * 3
    assert steps[3:] == [{(0, 1), (0, 3)}] * 3


def test_gps_moves_its_entries_as_sgd_without_decay() -> None:
    network: Any = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 1))
    optimizer = GPS(passes=1).optimizer(network, lr=0.5, momentum=0.5, nesterov=False, head=[network[1]])
    with torch.no_grad():
        network[0].weight.fill_(1.0)
        network[1].weight.fill_(2.0)
    seen = []
    for gradient in (8.0, 1.0, 1.0):
        network[0].weight.grad = torch.tensor([[0.25, gradient]])
        network[1].weight.grad = torch.tensor([[0.0]])
        optimizer.step()
        seen.append(network[0].weight.tolist()[0])
    assert seen == [[1.0, 1.0], [1.0, 0.5], [1.0, -0.25]]  # v = g, then 0.5 v + g; the pass left no momentum
    assert network[1].weight.item() == 2.0  # the head does not decay either


def test_random_static_keeps_its_choice_and_random_dynamic_does_not() -> None:
    ones = [torch.ones(6, 20)] * 12
    static, dynamic = moved_by(RandomStatic(gamma=2), ones), moved_by(RandomDynamic(gamma=2), ones)
    assert all(len(step) == 12 for step in static + dynamic)
    assert all(step == static[0] for step in static)
    assert len({frozenset(step) for step in dynamic}) == 12
    for step in (*static, *dynamic):
        assert sorted(row for row, _ in step) == sorted(2 * list(range(6)))


@pytest.mark.parametrize(
    "make",
    [RandomStatic, RandomDynamic, lambda **k: BoundedDGST(select="random", **k)],
    ids=["static", "dynamic", "bounded"],
)
def test_the_seed_the_step_and_the_tensor_decide_what_is_drawn(make: Any) -> None:
    ones = [torch.ones(6, 50)] * 3
    torch.manual_seed(0)
    first = moved_by(make(gamma=2, seed=5), ones)
    torch.manual_seed(1)
    assert moved_by(make(gamma=2, seed=5), ones) == first
    assert moved_by(make(gamma=2, seed=6), ones)[0] != first[0]
    assert moved_by(make(gamma=2, seed=5), ones, place=1)[0] != first[0]
    assert moved_by(make(gamma=2, seed=5), [g * 7 - 3 for g in ones]) == first  # gradients do not


def test_every_entry_is_drawn_as_often_as_every_other() -> None:
    steps = moved_by(RandomDynamic(gamma=3, weight_lr=2.0**-6), [torch.ones(4, 10)] * 1000)
    counts = np.zeros((4, 10))
    for step in steps:
        for at in step:
            counts[at] += 1
    assert counts.sum(axis=1).tolist() == [3000] * 4
    assert abs(counts - 300).max() < 5 * np.sqrt(1000 * 0.3 * 0.7)


def test_random_dynamic_steps_as_dgst_does_by_default() -> None:
    (step,) = [moved_by(RandomDynamic(gamma=4), [torch.ones(1, 4)], lr=0.25)]
    assert step == [{(0, k) for k in range(4)}]
    layer = nn.Linear(4, 1, bias=False)
    network = nn.Sequential(layer, nn.Linear(1, 1))
    optimizer = RandomDynamic(gamma=4).optimizer(network, lr=0.01, head=[network[1]])
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.full((1, 4), 0.5)
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), before - 0.5)  # lr / (1 - 0.99) * 0.5


def bounded_step(weight: list[float], gradient: list[float], **settings: Any) -> list[float]:
    layer = nn.Linear(len(weight), 1, bias=False)
    network = nn.Sequential(layer, nn.Linear(1, 1))
    optimizer = BoundedDGST(**settings).optimizer(network, lr=0.01, head=[network[1]])
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([weight]))
    layer.weight.grad = torch.tensor([gradient])
    optimizer.step()
    return [round(value, 5) for value in layer.weight.tolist()[0]]


def test_the_bounded_step_by_hand() -> None:
    """A kernel (3, -4, 0, 5) has a root mean square of 3.5355; a fifth of it bounds both directions."""
    kernel, gradient = [3.0, -4.0, 0.0, 5.0], [9.0, -8.0, 0.1, 7.0]
    assert bounded_step(kernel, gradient, gamma=2, bound=0.2, weight_lr=1.0) == [2.29289, -3.29289, 0.0, 5.0]
    assert bounded_step(kernel, gradient, gamma=0, bound=0.2, weight_lr=1.0) == [2.29289, -3.29289, -0.1, 4.29289]
    assert bounded_step(kernel, gradient, gamma=1, bound=0.2, weight_lr=0.01) == [2.91, -4.0, 0.0, 5.0]
    assert bounded_step([0.0] * 4, gradient, gamma=4, bound=0.2) == [0.0] * 4  # a kernel of zeros cannot move


def test_the_bound_falls_with_the_schedule() -> None:
    layer = nn.Linear(1, 1, bias=False)
    network = nn.Sequential(layer, nn.Linear(1, 1))
    optimizer = BoundedDGST(gamma=1, bound=0.5).optimizer(network, lr=0.125, head=[network[1]])
    for group in optimizer.param_groups:
        group["lr"] = 0.125 / 4
    with torch.no_grad():
        layer.weight.fill_(8.0)
    layer.weight.grad = torch.full((1, 1), -1e6)
    optimizer.step()
    assert layer.weight.item() == 9.0


def test_memory_ranks_by_the_mean_of_gradients() -> None:
    """Entry 0 is the steepest of the third step alone; over all three it is entry 1."""
    gradients = [torch.tensor([[0.0, 4.0, 0.0]]), torch.tensor([[0.0, 4.0, 0.0]]), torch.tensor([[5.0, 4.0, 0.0]])]
    assert moved_by(BoundedDGST(gamma=1, bound=0.1), gradients)[2] == {(0, 0)}
    assert moved_by(BoundedDGST(gamma=1, bound=0.1, memory=0.9), gradients)[2] == {(0, 1)}


@pytest.mark.parametrize("method", ["gps", "random-static", "random-dynamic", "dgst-bounded-random"])
def test_another_seed_trains_another_network(method: str) -> None:
    import dataclasses

    chosen = ALL_METHODS[method]
    other = dataclasses.replace(chosen, **({"gamma": 1} if method == "gps" else {"seed": 1}))
    networks = [train(TINY["sequence"], one, steps=4).network for one in (chosen, other)]
    assert not same_state(*networks)


def test_l2_sp_pulls_to_the_start_and_the_head_to_zero() -> None:
    network: Any = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        network[0].weight.fill_(3.0)
        network[1].weight.fill_(3.0)
    method = METHODS["l2-sp"].from_text({"alpha": "0.5", "beta": "0.25"})
    optimizer = method.optimizer(network, lr=1.0, momentum=0.0, head=[network[1]])
    with torch.no_grad():
        network[0].weight.fill_(5.0)
        network[1].weight.fill_(4.0)
    for layer in network:
        layer.weight.grad = torch.zeros(1, 1)
    optimizer.step()
    assert (network[0].weight.item(), network[1].weight.item()) == (4.0, 3.0)
    assert bits(optimizer.state[network[0].weight]["start"]) == bits(torch.tensor([[3.0]]))


def test_hooks_on_an_optimizer_run_once_a_step() -> None:
    """torch hangs hooks on each class's step, so a step that calls its parent's would run them twice."""
    parameter = nn.Parameter(torch.zeros(1))
    torch.optim.SGD([parameter], lr=1.0)
    for name, method in ALL_METHODS.items():
        network, head = TINY["plain-unet"].make()
        optimizer = method.optimizer(network, lr=0.1, head=head)
        calls: list[int] = []
        optimizer.register_step_post_hook(lambda *_, calls=calls: calls.append(1))
        optimizer.step()
        assert calls == [1], name

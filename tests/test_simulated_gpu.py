"""The simulated GPU against torch's own `FakeTensorMode`, which knows devices and no values."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.simulated_gpu import device_of, simulated_gpu

CPU, GPU = "cpu", "cuda"
PAIRS = {
    "add": lambda a, b: a + b,
    "matmul": lambda a, b: a @ b,
    "in place": lambda a, b: a.add_(b),
    "where": lambda a, b: torch.where(a > 0, a, b),
    "stack": lambda a, b: torch.stack([a, b]),
    "out": lambda a, b: torch.add(a, a, out=b),
    "lerp": lambda a, b: a.lerp(b, 0.5),
    "linear": lambda a, b: nn.functional.linear(a, b),
    "copy": lambda a, b: a.copy_(b),
    "slice": lambda a, b: a[:2].copy_(b[:2]),
    "scalar": lambda a, b: a * b[0, 0],
    "index": lambda a, b: a[(b > 0).long()[:, 0]],
    "select": lambda a, b: a.index_select(0, (b > 0).long()[:, 0]),
    "moved": lambda a, b: a + b.to(a.device),
    "like": lambda a, b: torch.zeros_like(a) + b.new_zeros(()),
}
REFUSED_BY_KERNELS = {("index", CPU, GPU)}
"""What a real device refuses and `FakeTensorMode` lets pass: indices on a GPU for a tensor on the CPU."""


def outcome(function: Callable[[Tensor, Tensor], Tensor], one: str, other: str) -> str:
    try:
        found = function(torch.ones(3, 3, device=one), torch.ones(3, 3, device=other))
    except RuntimeError:
        return "refused"
    return str(found.device.type)


@pytest.mark.parametrize("other", [CPU, GPU])
@pytest.mark.parametrize("one", [CPU, GPU])
@pytest.mark.parametrize("name", sorted(PAIRS))
def test_it_allows_and_refuses_what_torch_does(name: str, one: str, other: str) -> None:
    with FakeTensorMode():
        expected = outcome(PAIRS[name], one, other)
    expected = "refused" if (name, one, other) in REFUSED_BY_KERNELS else expected
    with simulated_gpu():
        found = outcome(PAIRS[name], one, other)

    assert found == expected


def test_values_and_gradients_are_those_of_the_cpu() -> None:
    torch.manual_seed(0)
    network, x = nn.Conv3d(1, 2, 3), torch.randn(1, 1, 5, 5, 5)
    expected = network(x)
    expected.sum().backward()
    gradient = network.weight.grad.clone()
    network.zero_grad()
    with simulated_gpu():
        found = network.to(GPU)(x.to(GPU))
        found.sum().backward()

        assert found.is_cuda
        assert network.weight.grad.is_cuda
        assert torch.equal(network.weight.grad.cpu(), gradient)
    assert torch.equal(found, expected)


def test_what_makes_the_host_wait_is_counted() -> None:
    with simulated_gpu() as gpu:
        x = torch.arange(4.0, device=GPU)
        bool(x.any()), float(x.sum()), x.cpu(), x[x > 1], x[1:].max()

    assert dict(gpu.reads) == {"__bool__": 1, "__float__": 1, "__getitem__": 1}
    assert dict(gpu.to_host) == {"cpu": 1}


def test_a_gpu_s_tensor_is_no_array() -> None:
    with simulated_gpu(), pytest.raises(TypeError, match=r"Use Tensor\.cpu"):
        torch.ones(2, device=GPU).numpy()


def test_nothing_is_left_when_it_ends() -> None:
    with simulated_gpu():
        module = nn.Linear(2, 2).to(GPU)

    assert {parameter.device.type for parameter in module.parameters()} == {CPU}
    assert {device_of(parameter).type for parameter in module.parameters()} == {GPU}
    assert isinstance(torch.Generator(CPU), torch.Generator)

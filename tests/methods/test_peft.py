"""LoRA and DoRA against the layers of huggingface/peft, and against layers in a row where peft has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn

from lnsegfm.methods.dora import DoRA
from lnsegfm.methods.lora import LoRA
from lnsegfm.networks.layout import KernelLayout

pytestmark = pytest.mark.usefixtures("one_thread")
RANK, ALPHA = 3, 7.0

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv3d": (lambda: nn.Conv3d(4, 6, 3, padding=1), (2, 4, 5, 6, 7)),
    "strided-conv3d": (lambda: nn.Conv3d(4, 6, (1, 3, 3), stride=(1, 2, 2), bias=False), (2, 4, 5, 6, 7)),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, padding=1), (2, 4, 6, 7)),
    "linear": (lambda: nn.Linear(8, 5), (2, 3, 8)),
    "linear-no-bias": (lambda: nn.Linear(8, 5, bias=False), (7, 8)),
}


class Bare(nn.Module):
    """One layer and a head that sees it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.out = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        given: Tensor = self.out(self.layer(x))
        return given


def both(name: str, *, decomposed: bool) -> tuple[Any, Any, Any, Tensor]:
    """peft's layer, our network and its module, with the same numbers in them, and an input."""
    build, shape = LAYERS[name]
    torch.manual_seed(0)
    ours = Bare(build())
    theirs_base = Bare(build())
    theirs_base.load_state_dict(ours.state_dict())
    config = peft.LoraConfig(r=RANK, lora_alpha=int(ALPHA), target_modules=["layer"], use_dora=decomposed)
    theirs: Any = peft.inject_adapter_in_model(config, theirs_base).layer
    (DoRA if decomposed else LoRA)(rank=RANK, alpha=ALPHA).attach(ours, head=[ours.out])
    module: Any = ours.layer.parametrizations.weight[0]  # type: ignore[union-attr, index]
    with torch.no_grad():
        module.b.normal_()
        theirs.lora_A["default"].weight.copy_(module.a.view_as(theirs.lora_A["default"].weight))
        theirs.lora_B["default"].weight.copy_(module.b.view_as(theirs.lora_B["default"].weight))
        if decomposed:
            started = theirs.lora_magnitude_vector["default"].weight
            torch.testing.assert_close(started.flatten(), module.magnitude.flatten(), rtol=1e-5, atol=1e-6)
            module.magnitude.add_(0.3 * torch.rand_like(module.magnitude))
            started.copy_(module.magnitude.view_as(started))
    return theirs, ours, module, torch.randn(shape)


@pytest.mark.parametrize("decomposed", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("name", LAYERS)
def test_outputs_and_gradients_are_those_of_peft(name: str, decomposed: bool) -> None:
    theirs, ours, module, x = both(name, decomposed=decomposed)
    expected, given = theirs(x), ours(x)
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5)
    seen = torch.randn(given.shape)
    (expected * seen).sum().backward()
    (given * seen).sum().backward()
    pairs = [(module.a, theirs.lora_A["default"].weight), (module.b, theirs.lora_B["default"].weight)]
    if decomposed:
        pairs.append((module.magnitude, theirs.lora_magnitude_vector["default"].weight))
    for own, other in pairs:
        torch.testing.assert_close(
            own.grad.flatten(), other.grad.flatten(), rtol=1e-4, atol=1e-5 * other.grad.abs().max()
        )


@pytest.mark.parametrize("name", LAYERS)
def test_the_merged_weight_is_that_of_peft(name: str) -> None:
    theirs, ours, _, x = both(name, decomposed=False)
    plain = theirs.get_base_layer().weight.detach().clone()
    expected = plain + theirs.get_delta_weight("default")
    LoRA.merge(ours)
    torch.testing.assert_close(ours.layer.weight, expected, rtol=1e-5, atol=1e-5, check_stride=False)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_the_merged_weight_of_a_decomposed_layer_is_that_of_peft(name: str) -> None:
    theirs, ours, _, _ = both(name, decomposed=True)
    theirs.merge()
    DoRA.merge(ours)
    torch.testing.assert_close(ours.layer.weight, theirs.get_base_layer().weight, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("merged", [False, True])
def test_a_transposed_convolution_is_two_layers_in_a_row(groups: int, merged: bool) -> None:
    """A narrow transposed convolution by A, then a 1x1x1 convolution by B, added to the frozen layer; peft has none.

    With groups the same A serves each of them: a row of A is as long as one kernel.
    """
    torch.manual_seed(0)
    network: Any = Bare(nn.ConvTranspose3d(4, 6, 2, stride=2, groups=groups))
    weight, bias = network.layer.weight.detach().clone(), network.layer.bias.detach().clone()
    LoRA(rank=RANK, alpha=ALPHA).attach(network, head=[network.out])
    module = network.layer.parametrizations.weight[0]
    with torch.no_grad():
        module.b.normal_()
    a, b = (tensor.detach().clone().requires_grad_() for tensor in (module.a, module.b))
    x = torch.randn(2, 4, 3, 4, 5)

    expected = nn.functional.conv_transpose3d(x, weight, bias, stride=2, groups=groups)
    narrow = a.view(RANK, 4 // groups, 2, 2, 2).transpose(0, 1)
    added = []
    for share, wide in zip(x.chunk(groups, dim=1), b.chunk(groups, dim=0), strict=True):
        between = nn.functional.conv_transpose3d(share, narrow, stride=2)
        added.append(nn.functional.conv3d(between, wide[:, :, None, None, None]))
    expected = expected + ALPHA / RANK * torch.cat(added, dim=1)

    if merged:
        LoRA.merge(network)
        torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-5)
        return
    given = network(x)
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5)
    seen = torch.randn(given.shape)
    (given * seen).sum().backward()
    (expected * seen).sum().backward()
    for own, other in ((module.a, a), (module.b, b)):
        assert other.grad is not None
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-5 * float(other.grad.abs().max()))


def test_a_product_follows_the_rows_of_a_transposed_weight() -> None:
    weight = torch.arange(4 * 3 * 2.0).reshape(4, 3, 2)
    layout = KernelLayout(transposed=True, groups=2)
    rows = layout.rows(weight)
    assert rows.shape == (6, 4)
    assert rows[0].tolist() == weight[:2, 0].flatten().tolist()
    assert rows[5].tolist() == weight[2:, 2].flatten().tolist()
    assert torch.equal(layout.unrows(rows, weight), weight)

"""Layers computed in another way: values and gradients are torch's own but for rounding, and nothing is left behind."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own documentation calls it so
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lnsegfm.methods.table import METHODS
from lnsegfm.networks import quick_layers as module
from lnsegfm.networks.quick_layers import quick_layers
from lnsegfm.testing.tiny_networks import SWINS, TINY, loss_of
from tests.methods.laws import REFUSED

pytestmark = pytest.mark.usefixtures("one_thread")
NETWORKS = {**TINY, **SWINS}
PAIRS = [
    (name, method)
    for method in ("full", "decoder", "head", "spatial-adapter", "lora", "bias")
    for name in NETWORKS
    if name not in REFUSED.get(method, ()) and (name not in SWINS or method == "decoder")
]


def gradients(network: nn.Module, name: str, quick: bool) -> tuple[list[Tensor], dict[str, Tensor]]:
    network.zero_grad(set_to_none=True)
    batch = NETWORKS[name].batch(0).float()
    torch.manual_seed(3)
    if quick:
        with quick_layers(network):
            given = network(batch)
    else:
        given = network(batch)
    loss_of(given).backward()
    outputs = [given] if isinstance(given, Tensor) else list(given)
    return outputs, {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_values_and_gradients_are_torchs(name: str, method: str) -> None:
    network, head = NETWORKS[name].make()
    network.float()
    METHODS[method]().optimizer(network, lr=0.01, head=head)
    network.train()
    twin = copy.deepcopy(network)
    outputs, found = gradients(network, name, quick=True)
    wanted_outputs, wanted = gradients(twin, name, quick=False)
    for one, other in zip(outputs, wanted_outputs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert found.keys() == wanted.keys()
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    for key, gradient in wanted.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-3, atol=1e-5 * max(largest, 1.0), msg=key)
    assert network.state_dict().keys() == twin.state_dict().keys()
    for key, tensor in twin.state_dict().items():
        torch.testing.assert_close(network.state_dict()[key], tensor, rtol=1e-5, atol=1e-6)  # running statistics


CONVOLUTIONS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "stride": (lambda: nn.Conv3d(3, 5, 3, stride=2, padding=1), 3),
    "uneven": (lambda: nn.Conv3d(3, 4, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)), 3),
    "dilated": (lambda: nn.Conv3d(3, 4, 3, padding=2, dilation=2, bias=False), 3),
    "blocks": (lambda: nn.Conv3d(16, 16, 3, padding=1), 16),
    "same": (lambda: nn.Conv3d(3, 4, 3, padding="same"), 3),
    "reflected": (lambda: nn.Conv3d(3, 4, 3, padding=1, padding_mode="reflect"), 3),
    "grouped": (lambda: nn.Conv3d(4, 4, 3, padding=1, groups=2), 4),
}


@pytest.mark.parametrize(("channels_without", "first"), [(0, True), (2, True), (2, False)])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_on_a_concatenation(name: str, channels_without: int, first: bool) -> None:
    """The last or the first channels come from where no gradient is needed."""
    torch.manual_seed(0)
    make, channels = CONVOLUTIONS[name]
    layer = make()
    whole = torch.randn(2, channels, 6, 8, 10)
    results = []
    for quick in (True, False):
        layer.zero_grad()
        asking = whole[:, : channels - channels_without].clone().requires_grad_()
        rest = whole[:, channels - channels_without :].clone()
        pieces = (asking, rest) if first else (rest, asking)
        if quick:
            with quick_layers(layer):
                given = layer(torch.cat(pieces, 1))
        else:
            given = layer(torch.cat(pieces, 1))
        (given * torch.linspace(-1, 1, given.numel()).reshape(given.shape)).sum().backward()
        results.append([given, asking.grad, *(p.grad for p in layer.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_concatenation_that_is_changed_in_place_keeps_its_history() -> None:
    layer, asking, rest = nn.Conv3d(4, 2, 3, padding=1), torch.randn(1, 2, 4, 4, 4), torch.randn(1, 2, 4, 4, 4)
    found = []
    for quick in (True, False):
        leaf = asking.clone().requires_grad_()
        if quick:
            with quick_layers(layer):
                given = layer(F.relu_(torch.cat((leaf, rest), 1)))
        else:
            given = layer(F.relu_(torch.cat((leaf, rest), 1)))
        given.square().sum().backward()
        found.append(leaf.grad)
    torch.testing.assert_close(found[0], found[1])


def test_the_gradient_of_what_is_frozen_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    network, _ = TINY["plain-unet"].make()
    METHODS["decoder"]().optimizer(network, lr=0.01)
    asked: list[int] = []
    real = module._backward

    def watched(gradient: Tensor, image: Tensor, weight: Tensor, how: object, which: int) -> Tensor:
        if which == 0:
            asked.append(image.shape[1])
        return real(gradient, image, weight, how, which)

    monkeypatch.setattr(module, "_backward", watched)
    gradients(network, "plain-unet", quick=True)
    # features 3, 5, 6: of each concatenation of 2 x 5 and 2 x 3 channels the upsampled half alone
    assert sorted(asked) == [3, 5]


@pytest.mark.parametrize("eps", [1e-5, 1e-2])
@pytest.mark.parametrize("affine", [True, False])
def test_an_instance_norm(affine: bool, eps: float) -> None:
    torch.manual_seed(0)
    layer = nn.InstanceNorm3d(5, affine=affine, eps=eps)
    if affine:
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    image = 3 * torch.randn(2, 5, 6, 7, 8) + 2
    wanted = F.instance_norm(
        image.double(),
        weight=layer.weight.double() if affine else None,
        bias=layer.bias.double() if affine else None,
        eps=eps,
    )
    with quick_layers(nn.Sequential(nn.Conv3d(1, 1, 1), layer)):
        found = layer(image)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


def test_running_statistics_move_as_ever() -> None:
    torch.manual_seed(0)
    layer = nn.InstanceNorm3d(2, affine=True, track_running_stats=True)
    twin, image = copy.deepcopy(layer), torch.randn(2, 2, 4, 4, 4)
    with quick_layers(layer):
        found = layer(image)
    torch.testing.assert_close(found, twin(image), rtol=0, atol=0)
    torch.testing.assert_close(layer.running_mean, twin.running_mean, rtol=0, atol=0)
    layer.eval()
    twin.eval()
    with quick_layers(layer):
        torch.testing.assert_close(layer(image), twin(image), rtol=0, atol=0)


def test_other_precisions_are_left_to_torch() -> None:
    layer, image = nn.Conv3d(2, 3, 3).double(), torch.randn(1, 2, 4, 4, 4, dtype=torch.float64)
    with quick_layers(layer):
        assert type(layer(image).grad_fn).__name__ == "ConvolutionBackward0"
    layer.float()
    with quick_layers(layer), torch.autocast("cpu", torch.bfloat16):
        assert layer(image.float()).dtype is torch.bfloat16


def both_ways(use: Callable[[nn.Module], list[Tensor | None]], layer: nn.Module) -> None:
    """What a use of a layer gives, quick and as ever."""
    found = []
    for quick in (True, False):
        torch.manual_seed(1)
        own = copy.deepcopy(layer)
        with quick_layers(own if quick else nn.Identity()):
            found.append([*use(own), *(p.grad for p in own.parameters())])
    for one, other in zip(*found, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def pull(given: Tensor) -> Tensor:
    (given.float() * torch.linspace(-1, 1, given.numel()).reshape(given.shape)).sum().backward()
    return given


def change_a_piece(asking: Tensor, rest: Tensor, whole: Tensor) -> None:
    asking.mul_(3.0)


def double_the_gradient(asking: Tensor, rest: Tensor, whole: Tensor) -> None:
    whole.register_hook(lambda gradient: 2 * gradient)


def keep_the_gradient(asking: Tensor, rest: Tensor, whole: Tensor) -> None:
    whole.retain_grad()


def ask_for_more(asking: Tensor, rest: Tensor, whole: Tensor) -> None:
    rest.requires_grad_()


def nothing(asking: Tensor, rest: Tensor, whole: Tensor) -> None:
    pass


@pytest.mark.parametrize("between", [change_a_piece, double_the_gradient, keep_the_gradient, ask_for_more, nothing])
def test_what_happens_to_a_concatenation_is_heeded(between: Callable[[Tensor, Tensor, Tensor], None]) -> None:
    def use(layer: nn.Module) -> list[Tensor | None]:
        leaf, rest = torch.randn(2, 2, 6, 6, 6, requires_grad=True), torch.randn(2, 1, 6, 6, 6)
        asking = 1.5 * leaf
        whole = torch.cat((asking, rest, asking), 1)
        between(asking, rest, whole)
        given = pull(layer(whole) + layer(whole.flip(2)) + whole[:, :3])
        return [given, leaf.grad, rest.grad, whole.grad if whole.retains_grad else None]

    both_ways(use, nn.Conv3d(5, 3, 3, padding=1))


def test_a_piece_from_inference() -> None:
    layer, leaf = nn.Conv3d(3, 2, 3, padding=1), torch.randn(1, 2, 4, 4, 4, requires_grad=True)
    with torch.inference_mode():
        rest = torch.randn(1, 1, 4, 4, 4)
    with quick_layers(layer):
        torch.cat((leaf, rest), 1)


def test_arguments_by_name() -> None:
    def use(layer: nn.Module) -> list[Tensor | None]:
        leaf, rest = torch.randn(2, 2, 6, 6, 6, requires_grad=True), torch.randn(2, 2, 6, 6, 6)
        whole = torch.cat((leaf, rest), axis=1)
        given = F.instance_norm(input=F.conv3d(input=whole, weight=layer.weight, bias=layer.bias, padding=1))
        return [pull(given), leaf.grad]

    both_ways(use, nn.Conv3d(4, 3, 3, padding=1))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_compute_the_same_once_more(reentrant: bool) -> None:
    """What is computed again is so in the backward pass, where nothing is watched."""
    layer = nn.Sequential(
        nn.Conv3d(4, 4, 3, padding=1), nn.InstanceNorm3d(4, affine=True), nn.Dropout3d(), nn.Conv3d(4, 3, 3, padding=1)
    )

    def use(layer: nn.Module) -> list[Tensor | None]:
        leaf = torch.randn(2, 4, 6, 6, 6, requires_grad=True)
        return [pull(checkpoint(layer, leaf, use_reentrant=reentrant)), leaf.grad]

    both_ways(use, layer)


def test_autocast_within() -> None:
    def use(layer: nn.Module) -> list[Tensor | None]:
        leaf = torch.randn(2, 4, 6, 6, 6, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            given = layer(leaf)
        return [pull(given), leaf.grad]

    both_ways(use, nn.Conv3d(4, 3, 3, padding=1))


def test_a_map_of_one_voxel_is_refused_as_ever() -> None:
    """Normalised it would be nothing but the bias."""
    with quick_layers(nn.Conv3d(1, 1, 1)), pytest.raises(ValueError, match="more than 1 spatial element"):
        F.instance_norm(torch.randn(2, 3, 1, 1, 1))

"""The network classes that plans of adapted models name."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures import unet
from torch import nn

from lnsegfm.errors import ConfigError
from lnsegfm.methods.table import METHODS, load_method
from lnsegfm.networks.role import Role
from lnsegfm.networks.spatial_adapter import SpatialAdapterModule
from lnsegfm.networks.swin_unetr import SwinUNETR
from lnsegfm.testing.tiny_networks import SWIN, UNET

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES: dict[str, tuple[type[nn.Module], dict[str, Any], tuple[int, ...]]] = {
    "PlainConvUNet": (unet.PlainConvUNet, {**UNET, "n_conv_per_stage": 1}, (2, 1, 8, 8, 8)),
    "ResidualEncoderUNet": (unet.ResidualEncoderUNet, {**UNET, "n_blocks_per_stage": 1}, (2, 1, 8, 8, 8)),
    "SwinUNETR": (SwinUNETR, {"input_channels": 1, "num_classes": 2, **SWIN}, (1, 1, 32, 32, 64)),
}


@pytest.mark.parametrize("width", [None, 4])
@pytest.mark.parametrize("name", CLASSES)
def test_the_named_class_holds_what_the_method_trained(name: str, width: int | None) -> None:
    cls, arguments, shape = CLASSES[name]
    method = load_method("spatial-adapter", {"width": str(width)})
    trained: Any = cls(**arguments)
    method.optimizer(trained, lr=0.1)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    method.merge(trained)

    path, settings = method.architecture(f"{cls.__module__}.{name}", arguments)
    module, _, named = path.rpartition(".")
    assert module in {"lnsegfm.networks.spatial_adapter", "lnsegfm.networks.spatial_adapter_swin"}
    assert named == {"SwinUNETR": "SpatialAdapterSwinUNETR"}.get(name, name)
    made: Any = getattr(import_module(module), named)(**settings)
    made.load_state_dict(trained.state_dict())
    x = torch.randn(shape)
    with torch.no_grad():
        ours, theirs = made.eval()(x), trained.eval()(x)
    assert torch.equal(ours[0], theirs[0]) if isinstance(ours, list) else torch.equal(ours, theirs)
    assert method.architecture(path, settings) == (path, settings)


def test_a_network_without_such_a_class_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Network VNet: it has no class with a spatial adapter") as caught:
        METHODS["spatial-adapter"]().architecture("somewhere.VNet", {})
    assert "\n" not in str(caught.value)
    for name, cls in METHODS.items():
        if name != "spatial-adapter" and cls.learns:
            assert cls().architecture("somewhere.VNet", {"a": 1}) == ("somewhere.VNet", {"a": 1})


def test_a_head_of_another_kind_is_refused_and_left_alone() -> None:
    for head in (nn.Linear(3, 2), nn.Conv2d(3, 2, 1)):
        network = nn.Sequential(nn.Conv3d(1, 3, 1), head)
        with pytest.raises(
            ConfigError, match=r"Head (Linear|Conv2d): a spatial adapter needs a 3D convolution after it"
        ):
            METHODS["spatial-adapter"]().optimizer(network, lr=0.1, head=[head])
        assert not list(head.children())


def test_the_seed_alone_decides_the_first_values() -> None:
    drawn = []
    for seed in ("2", "2", "3"):
        network: Any = nn.Sequential(nn.Conv3d(1, 5, 1), nn.Conv3d(5, 2, 1))
        load_method("spatial-adapter", {"seed": seed, "width": "4"}).attach(network, [network[1]])
        drawn.append(network[1].spatial_adapter.down.weight.detach())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert tuple(drawn[0].shape) == (4, 5, 3, 3, 3)


def test_the_adapter_is_the_residual_that_it_says() -> None:
    torch.manual_seed(0)
    adapter = SpatialAdapterModule(3, 4)
    x = torch.randn(2, 3, 5, 6, 7)
    assert torch.equal(adapter(x), x)
    nn.init.normal_(adapter.up.weight)
    inner = nn.functional.leaky_relu(nn.functional.conv3d(x, adapter.down.weight, padding=1), 0.01)
    expected = x + nn.functional.conv3d(inner, adapter.up.weight, padding=1)
    torch.testing.assert_close(adapter(x), expected)
    assert Role.ADAPTER in METHODS["spatial-adapter"].trains

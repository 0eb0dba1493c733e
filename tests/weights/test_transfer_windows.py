"""MONAI's SwinUNETR: tables of positions, buffers it computes itself, three layers that see the image's channels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.networks.nets import SwinUNETR
from torch import Tensor, nn

from lnsegfm.networks.parameter_roles import parameters_of
from lnsegfm.networks.role import Role
from lnsegfm.weights.state import raw
from lnsegfm.weights.transfer import transfer

LABELS = ["background", "node"]
TABLE = "relative_position_bias_table"


def swin(seed: int, window: Any = 7, channels: int = 1, labels: int = 2, **settings: Any) -> nn.Module:
    torch.manual_seed(seed)
    settings = {"spatial_dims": 3, "depths": (2, 1, 1, 1)} | settings
    network = SwinUNETR(channels, labels, feature_size=12, window_size=window, **settings)
    return network.eval()


@pytest.fixture(scope="module")
def base() -> nn.Module:
    return swin(0)


def tables(network: nn.Module) -> dict[str, nn.Module]:
    return {f"{name}.{TABLE}": module for name, module in network.named_modules() if hasattr(module, TABLE)}


def linear_bias(module: nn.Module, slopes: Tensor, scale: Tensor) -> Tensor:
    """Slope times offset for every pair of tokens of a window (tokens, tokens), from MONAI's own index alone."""
    window = module.window_size
    tokens = torch.stack(torch.meshgrid(*(torch.arange(n) for n in window), indexing="ij"), -1).flatten(0, -2)
    return ((tokens[:, None] - tokens[None]) * scale) @ slopes


@pytest.mark.parametrize("v2", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_the_same_network_takes_everything(v2, dims):
    start, network = swin(0, use_v2=v2, spatial_dims=dims).state_dict(), swin(1, use_v2=v2, spatial_dims=dims)
    report = transfer(start, network, base_labels=LABELS, labels=LABELS, minimum=1)
    assert all(torch.equal(raw(tensor), raw(start[name])) for name, tensor in network.state_dict().items())
    assert report.adapted == report.fresh == report.unused == ()
    assert len(report.matched) == len(list(network.parameters())), "indices that it computes count nowhere"


@pytest.mark.parametrize("window", [5, 8, (5, 7, 4)])
def test_a_table_that_is_linear_in_the_offset_is_so_between_all_tokens(window):
    """The axes of the table are those of MONAI's index; offsets are stretched so that the ends stay the ends."""
    teacher, slopes = swin(0), torch.tensor([0.5, -0.25, 2.0])
    for module in tables(teacher).values():
        bias = linear_bias(module, slopes, torch.ones(3))
        with torch.no_grad():
            getattr(module, TABLE)[module.relative_position_index.flatten()] = bias.flatten()[:, None]
    network = swin(1, window)
    own = {name: buffer.clone() for name, buffer in network.named_buffers()}
    report = transfer(teacher.state_dict(), network, base_labels=LABELS, labels=LABELS, minimum=1)

    assert set(report.adapted) == set(tables(network))
    for module in tables(network).values():
        scale = torch.tensor([(7 - 1) / (edge - 1) for edge in module.window_size])
        expected = linear_bias(module, slopes, scale).flatten()
        for head in getattr(module, TABLE).T:
            torch.testing.assert_close(head[module.relative_position_index.flatten()], expected, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(buffer, own[name]) for name, buffer in network.named_buffers())


def test_windows_of_two_axes():
    teacher = swin(0, spatial_dims=2)
    network = swin(1, 5, spatial_dims=2)
    report = transfer(teacher.state_dict(), network, base_labels=LABELS, labels=LABELS, minimum=1)
    assert set(report.adapted) == set(tables(network))
    for name, module in tables(network).items():
        old = teacher.get_parameter(name).detach().reshape(13, 13, -1)
        new = getattr(module, TABLE).detach().reshape(9, 9, -1)
        for place in ((0, 0), (4, 4), (8, 0), (8, 4)):  # ends, middle: no rounding of places
            torch.testing.assert_close(new[place], old[tuple(3 * p // 2 for p in place)])


def test_other_window_other_channels_other_labels_in_one(base):
    labels = ["background", "tumour", "node"]
    network = swin(1, 5, channels=2, labels=3)
    report = transfer(
        base.state_dict(), network, base_labels=LABELS, labels=labels, base_channels=1, channels=2, minimum=1
    )
    assert report.fresh == report.unused == ()
    groups = {group.name: group for group in report.groups}
    swin_groups = ["patch_embed", *(f"layers{n}" for n in range(1, 5))]
    blocks = [f"encoder{n}" for n in (1, 2, 3, 4, 10)] + [f"decoder{n}" for n in (5, 4, 3, 2, 1)]
    assert list(groups) == [f"swinViT.{name}" for name in swin_groups] + blocks + ["head"]
    doubled, window = "input channels 1 -> 2: repeated and halved", "positions of window 7 -> 5: interpolated"
    notes = {name: group.notes for name, group in groups.items() if group.notes}
    assert notes == {
        "swinViT.patch_embed": (doubled,),
        **{f"swinViT.layers{n}": (window,) for n in range(1, 5)},
        "encoder1": (doubled,),
        "head": ("labels kept: node; new: tumour",),
    }
    assert report.parameters.total == sum(p.numel() for p in network.parameters())
    assert torch.equal(network.out.conv.conv.weight[2], base.out.conv.conv.weight[1])
    assert torch.equal(network.out.conv.conv.weight[1], base.out.conv.conv.weight[0])
    assert len(report.lines()) == len(groups) + 2
    with torch.no_grad():
        assert torch.isfinite(network(torch.randn(1, 2, 64, 32, 32))).all()


def test_one_image_in_every_channel_has_the_output_it_had(base):
    network = swin(1, channels=3)
    transfer(base.state_dict(), network, base_labels=LABELS, labels=LABELS, base_channels=1, channels=3, minimum=1)
    image = torch.randn(1, 1, 64, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(image.expand(-1, 3, -1, -1, -1)), base(image), rtol=1e-3, atol=1e-4)


def test_an_encoder_alone(base):
    encoder = {name: tensor for name, tensor in base.state_dict().items() if name.startswith("swinViT.")}
    network = swin(1)
    report = transfer(encoder, network, base_labels=[], labels=LABELS, covers=["swinViT."])
    assert report.share == 1
    names = {parameter.name for parameter in parameters_of(network) if parameter.name.startswith("swinViT.")}
    assert set(report.matched) == names
    positions = {parameter.name for parameter in parameters_of(network) if parameter.role is Role.POSITION}
    assert positions == set(tables(network))
    assert positions < names

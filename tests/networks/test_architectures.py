"""Cards of architectures against networks built without this package."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.networks.nets.swin_unetr import SwinUNETR as MonaiSwinUNETR
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from lnsegfm.errors import ConfigError, ModelError, UnknownName
from lnsegfm.methods.table import METHODS
from lnsegfm.networks.architectures import (
    ARCHITECTURES,
    SWIN,
    find_architecture,
    require_patch,
)
from lnsegfm.networks.cards import has_deep_supervision
from lnsegfm.networks.parameter_roles import parameters_of
from lnsegfm.networks.role import Role
from lnsegfm.networks.spatial_adapter import adapted_class
from lnsegfm.networks.swin_unetr import SwinUNETR, arguments_of
from lnsegfm.nnunet.planners import topology
from lnsegfm.testing.tiny_networks import SWIN as SMALL_SWIN
from lnsegfm.testing.tiny_networks import SWINS, TINY

pytestmark = pytest.mark.usefixtures("one_thread")
LIBRARIES = [name for name in ARCHITECTURES if not name.startswith("stunet")]
"""Networks that another library builds; STU-Net stands against its paper in test_published_networks.py."""
SMALL = ((4, 6, 8), ((1, 1, 1), (1, 2, 2), (2, 2, 2)), ((1, 3, 3), (3, 3, 3), (3, 3, 3)))


def as_nnunet_builds(plan: dict[str, Any], *, deep_supervision: bool = False) -> nn.Module:
    names = (plan["network_class_name"], plan["arch_kwargs"], plan["_kw_requires_import"])
    return get_network_from_plans(*names, 1, 2, allow_init=False, deep_supervision=deep_supervision)


def independent(name: str, features: Any, strides: Any, kernels: Any, feature_size: int) -> nn.Module:
    """The network by its own library, from arguments written down here."""
    if name.startswith("swin"):
        return MonaiSwinUNETR(1, 2, feature_size=feature_size, use_v2=name.endswith("v2"))
    common: dict[str, Any] = {
        "input_channels": 1,
        "n_stages": len(features),
        "features_per_stage": features,
        "conv_op": nn.Conv3d,
        "kernel_sizes": kernels,
        "strides": strides,
        "num_classes": 2,
        "conv_bias": True,
        "norm_op": nn.InstanceNorm3d,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }
    if name == "nnunet":
        return PlainConvUNet(**common, n_conv_per_stage=2, n_conv_per_stage_decoder=2)
    blocks = (1, 3, 4, 6, 6, 6)[: len(features)]
    return ResidualEncoderUNet(**common, n_blocks_per_stage=blocks, n_conv_per_stage_decoder=1)


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_small_network_is_the_one_its_library_builds(name: str) -> None:
    features, strides, kernels = SMALL
    features = (12,) if name.startswith("swin") else features
    plan = ARCHITECTURES[name].build_plan(features, strides, kernels)
    ours, theirs = as_nnunet_builds(plan), independent(name, features, strides, kernels, 12)
    assert shapes(ours) == shapes(theirs)

    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 1, *((32, 32, 64) if name.startswith("swin") else (4, 8, 8)))
    with torch.no_grad():
        assert torch.equal(ours.eval()(image), theirs.eval()(image))


@pytest.mark.long
@pytest.mark.parametrize("name", LIBRARIES)
def test_the_full_network_has_the_stated_size_and_runs(name: str) -> None:
    card = ARCHITECTURES[name]
    features = [32, 64, 128, 256, 320, 320]
    swin = card.network == SWIN
    strides, kernels = ((), ()) if swin else topology((1.0, 1.0, 1.0), card.release_patch)
    ours = as_nnunet_builds(card.build_plan((48,) if swin else features, strides, kernels))
    theirs = independent(name, features, strides, kernels, 48)
    assert shapes(ours) == shapes(theirs)
    count = sum(parameter.numel() for parameter in theirs.parameters())
    assert count == sum(parameter.tensor.numel() for parameter in parameters_of(ours)) == card.parameters
    with torch.no_grad():
        patch = (32, 64, 64) if swin else (32, 32, 64)
        assert ours.eval()(torch.zeros(1, 1, *patch)).shape == (1, 2, *patch)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_parameter_has_a_role_and_the_head_is_the_output(name: str) -> None:
    features, strides, kernels = SMALL
    network = as_nnunet_builds(
        ARCHITECTURES[name].build_plan((12,) if name.startswith("swin") else features, strides, kernels),
        deep_supervision=True,
    )
    parameters = parameters_of(network)
    assert {id(parameter.tensor) for parameter in parameters} == {id(parameter) for parameter in network.parameters()}
    roles = {parameter.role for parameter in parameters}
    assert Role.OTHER not in roles
    assert {Role.HEAD, Role.WEIGHT, Role.BIAS, Role.NORM_WEIGHT, Role.NORM_BIAS} <= roles
    assert (Role.POSITION in roles) == name.startswith("swin")
    head = [parameter for parameter in parameters if parameter.role is Role.HEAD]
    assert all(parameter.tensor.shape[0] == 2 for parameter in head)
    wanted = {"swin": "out.", "stun": "seg_outputs."}.get(name[:4], "decoder.seg_layers.")
    assert all(parameter.name.startswith(wanted) for parameter in head)


@pytest.mark.parametrize("name", SWINS)
def test_the_deep_supervision_switch_is_accepted_and_off(name: str) -> None:
    network, _ = SWINS[name].make()
    image = SWINS[name].batch(0)[:1]
    with torch.no_grad():
        before = network.eval()(image)
        for state in (True, False):
            network.decoder.deep_supervision = state
            assert torch.equal(network(image), before)
    assert not has_deep_supervision(SWIN, {})
    assert not has_deep_supervision(adapted_class(SWIN), {})
    assert has_deep_supervision(adapted_class("somewhere.PlainConvUNet"), {})
    assert f"{SwinUNETR.__module__}.{SwinUNETR.__qualname__}" == SWIN


def test_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = SwinUNETR(1, 2, use_checkpoint=checkpointing, **SMALL_SWIN)
        image = torch.randn(1, 1, 32, 32, 64, generator=torch.Generator().manual_seed(1))
        network(image).square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"use_v2": True, "feature_size": 24},
        {"depths": (1, 2, 1, 1), "num_heads": (1, 2, 4, 4), "window_size": 3},
        {"qkv_bias": False, "mlp_ratio": 2.0, "patch_norm": True},
    ],
)
def test_arguments_are_read_off_the_weights(arguments: dict[str, Any]) -> None:
    arguments = {"feature_size": 12} | arguments
    theirs = MonaiSwinUNETR(in_channels=2, out_channels=3, **arguments)
    found = arguments_of(theirs.state_dict())
    ours = SwinUNETR(**found)
    ours.load_state_dict(theirs.state_dict())
    assert found["input_channels"] == 2
    assert found["num_classes"] == 3


def test_weights_that_are_no_swin_unetr_are_told() -> None:
    with pytest.raises(ModelError, match="not complete"):
        arguments_of({"conv.weight": torch.zeros(1)})
    with pytest.raises(ModelError, match="2D"):
        arguments_of(MonaiSwinUNETR(1, 2, feature_size=12, spatial_dims=2).state_dict())
    with pytest.raises(ConfigError, match="feature_size should be divisible by 12"):
        SwinUNETR(1, 2, feature_size=13)


@given(patch=st.tuples(*[st.integers(1, 24)] * 3))
@settings(max_examples=60, deadline=None)
def test_a_patch_is_taken_when_and_only_when_the_network_takes_it(patch: tuple[int, int, int]) -> None:
    network, _ = TINY["plain-unet"].make()

    def runs(patch: tuple[int, ...]) -> bool:
        try:
            with torch.no_grad():
                network.eval()(torch.zeros(1, 1, *patch))
        except (RuntimeError, ValueError):
            return False
        return True

    try:
        require_patch(patch, ((1, 1, 1), (2, 2, 2), (2, 2, 2)))
    except ConfigError as error:
        nearest = tuple(int(word) for word in str(error).rsplit("Use ", 1)[1].rstrip(".").split())
        assert runs(nearest)
        assert not runs(patch)
    else:
        assert runs(patch)


@pytest.mark.parametrize("patch", [(32, 32, 32), (48, 64, 64), (64, 64, 33)])
def test_a_patch_that_a_swin_cannot_take_is_refused_with_one_that_it_can(patch: tuple[int, int, int]) -> None:
    network, _ = SWINS["swinunetr"].make()
    strides = ARCHITECTURES["swinunetr"].build_plan((12,), ())["arch_kwargs"]["strides"]
    with pytest.raises(ConfigError, match="multiples of 32 32 32, and twice that") as refusal:
        require_patch(patch, strides)
    nearest = tuple(int(word) for word in str(refusal.value).rsplit("Use ", 1)[1].rstrip(".").split())
    require_patch(nearest, strides)
    with torch.no_grad():
        network.eval()(torch.zeros(1, 1, *nearest))
        with pytest.raises((ValueError, RuntimeError)):
            network(torch.zeros(1, 1, *patch))


def test_a_method_that_finds_nothing_names_what_would_work() -> None:
    network = PlainConvUNet(
        1, 2, (4, 4), nn.Conv3d, 3, (1, 2), 1, 2, 1, norm_op=nn.InstanceNorm3d, norm_op_kwargs={"affine": False}
    )
    with pytest.raises(ConfigError, match=r"affine: PlainConvUNet has no parameters .* Use .*head, full or dgst"):
        METHODS["affine"]().optimizer(network, lr=0.1)


def test_an_unknown_architecture_is_told_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r"resnet: not known\. The architectures: nnunet, resenc-m"):
        find_architecture("resnet")
    with pytest.raises(ConfigError, match="Checkpointing: resenc-l has none"):
        ARCHITECTURES["resenc-l"].build_plan((4,), ((1, 1, 1),), checkpointing=True)

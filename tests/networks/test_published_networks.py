"""Networks of published models against their definitions, written here once more from layers of torch alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pydoc import locate
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets.dynunet import DynUNet as MonaiDynUNet
from monai.networks.nets.segresnet import SegResNet as MonaiSegResNet
from monai.networks.nets.segresnet_ds import SegResNetDS as MonaiSegResNetDS
from torch import Tensor
from torch.nn import functional

from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.methods.table import METHODS
from lnsegfm.networks import dyn_unet, genesis_unet, seg_res_net, seg_res_net_ds, stu_net
from lnsegfm.networks.architectures import ARCHITECTURES
from lnsegfm.networks.cards import NETWORKS, find_card, has_deep_supervision
from lnsegfm.networks.dyn_unet import DynUNet
from lnsegfm.networks.genesis_unet import GenesisUNet
from lnsegfm.networks.parameter_roles import parameters_of
from lnsegfm.networks.role import Role
from lnsegfm.networks.seg_res_net import SegResNet
from lnsegfm.networks.seg_res_net_ds import SegResNetDS
from lnsegfm.networks.spatial_adapter import adapted_class
from lnsegfm.networks.stu_net import STUNet
from lnsegfm.testing import check_network
from lnsegfm.testing.tiny_networks import DYN, PUBLISHED, RES_DS, STU

pytestmark = pytest.mark.usefixtures("one_thread")
Weights = Mapping[str, Tensor]


def convolved(x: Tensor, w: Weights, name: str, stride: Any = 1) -> Tensor:
    kernel = w[f"{name}.weight"]
    return functional.conv3d(x, kernel, w[f"{name}.bias"], stride, [n // 2 for n in kernel.shape[2:]])


def normed(x: Tensor, w: Weights, name: str) -> Tensor:
    """By the formula: each channel of each sample by its own mean and variance."""
    mean, variance = x.mean((2, 3, 4), keepdim=True), x.var((2, 3, 4), correction=0, keepdim=True)
    scale, shift = (w[f"{name}.{part}"][None, :, None, None, None] for part in ("weight", "bias"))
    return (x - mean) / (variance + 1e-5).sqrt() * scale + shift


def stu_reference(x: Tensor, w: Weights, strides: Any, blocks: Any) -> list[Tensor]:
    """Huang et al., section 3: outputs from the highest resolution down."""

    def stage(x: Tensor, name: str, number: int, stride: Any = 1) -> Tensor:
        for block in range(number):
            at, step = f"{name}.{block}", stride if block == 0 else 1
            y = functional.leaky_relu(normed(convolved(x, w, f"{at}.conv1", step), w, f"{at}.norm1"), 0.01)
            y = normed(convolved(y, w, f"{at}.conv2"), w, f"{at}.norm2")
            x = convolved(x, w, f"{at}.conv3", step) if block == 0 else x
            x = functional.leaky_relu(y + x, 0.01)
        return x

    skips = []
    for d, (stride, number) in enumerate(zip(strides, blocks, strict=True)):
        x = stage(x, f"conv_blocks_context.{d}", number, stride)
        skips.append(x)
    outputs = []
    for u in range(len(strides) - 1):
        for axis, factor in enumerate(strides[-1 - u]):  # nearest neighbours, before the convolution as published
            x = x.repeat_interleave(factor, dim=2 + axis)
        x = torch.cat((convolved(x, w, f"upsample_layers.{u}.conv"), skips[-2 - u]), 1)
        x = stage(x, f"conv_blocks_localization.{u}", blocks[-2 - u])
        outputs.append(convolved(x, w, f"seg_outputs.{u}"))
    return outputs[::-1]


@pytest.mark.parametrize("blocks", [(1, 1, 1, 1), (2, 1, 3, 2)])
def test_stu_net_is_the_papers(blocks: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    strides = ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 1, 2))
    kernels = ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    network = STUNet(
        2, 3, features_per_stage=(3, 4, 5, 6), n_blocks_per_stage=blocks, strides=strides, kernel_sizes=kernels
    ).double()
    image = torch.randn(2, 2, 8, 12, 16, dtype=torch.float64)
    wanted = stu_reference(image, network.state_dict(), strides, blocks)
    with torch.no_grad():
        assert torch.allclose(network.eval()(image), wanted[0])
        network.decoder.deep_supervision = True
        given = network(image)
    assert len(given) == len(wanted)
    assert all(torch.allclose(one, other) for one, other in zip(given, wanted, strict=True))


@pytest.mark.parametrize(
    ("name", "millions"), [("stunet-s", 14.60), ("stunet-b", 58.26), ("stunet-l", 440.30), ("stunet-h", 1457.33)]
)
def test_a_stu_net_at_full_size_has_the_papers_parameters(name: str, millions: float) -> None:
    """Table 1 of the paper, whose models have 105 outputs; six stages, whatever number of strides is planned."""
    card = ARCHITECTURES[name]
    for strides in ([[1, 1, 1]] + [[2, 2, 2]] * 4, [[1, 1, 1]] + [[2, 2, 2]] * 6):
        plan = card.build_plan(card.stage_features(len(strides)), strides)["arch_kwargs"]
        assert plan["strides"] == [*strides, [1, 1, 1]][:6]
        with torch.device("meta"):
            counts = [sum(p.numel() for p in STUNet(1, k, **plan).parameters()) for k in (105, 2)]
        assert counts[0] / 1e6 == pytest.approx(millions, abs=0.01)
        assert counts[1] == card.parameters


def genesis_reference(x: Tensor, w: Weights) -> Tensor:
    """Zhou et al.'s U-Net, for one sample; its batch norm takes the statistics of what it sees."""

    def ops(x: Tensor, name: str) -> Tensor:
        for n in (0, 1):
            x = normed(convolved(x, w, f"{name}.ops.{n}.conv1"), w, f"{name}.ops.{n}.bn1").clamp(min=0)
        return x

    skips = []
    for n, name in enumerate(("64", "128", "256", "512")):
        x = ops(functional.max_pool3d(x, 2) if n else x, f"down_tr{name}")
        skips.append(x)
    for skip, name in zip(skips[-2::-1], ("256", "128", "64"), strict=True):
        up = f"up_tr{name}.up_conv"
        x = functional.conv_transpose3d(x, w[f"{up}.weight"], w[f"{up}.bias"], stride=2)
        x = ops(torch.cat((x, skip), 1), f"up_tr{name}")
    return convolved(x, w, "out_tr.final_conv")


def test_genesis_unet_is_the_releases_one_tile_at_a_time() -> None:
    torch.manual_seed(0)
    network = GenesisUNet(1, 3, features=4).double()
    image = torch.randn(3, 1, 8, 16, 24, dtype=torch.float64)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for training in (False, True):
        with torch.no_grad():
            given = network.train(training)(image)
        for k in range(3):
            assert torch.allclose(given[k : k + 1], genesis_reference(image[k : k + 1], before))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_the_widths_of_the_release_are_those_of_its_files() -> None:
    """19.08 million parameters, as SuPreM's README says of its U-Net."""
    with torch.device("meta"):
        network = GenesisUNet(1, 1)
    names = dict(network.state_dict())
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(19.08, abs=0.01)
    assert names["down_tr64.ops.0.bn1.running_var"].shape == (32,)
    assert names["down_tr512.ops.1.conv1.weight"].shape == (512, 256, 3, 3, 3)
    assert names["up_tr256.up_conv.weight"].shape == (512, 512, 2, 2, 2)
    assert names["up_tr256.ops.0.conv1.weight"].shape == (256, 768, 3, 3, 3)
    assert "down_tr64.ops.0.bn1.num_batches_tracked" in names


def test_seg_res_net_is_monais() -> None:
    torch.manual_seed(0)
    theirs = MonaiSegResNet(init_filters=8, in_channels=2, out_channels=3, blocks_down=(1, 2, 1), blocks_up=(1, 2))
    found = seg_res_net.arguments_of(theirs.state_dict())
    assert (found["blocks_down"], found["blocks_up"], found["strides"][1:]) == ([1, 2, 1], [1, 2], [[2, 2, 2]] * 2)
    ours = SegResNet(num_classes=3, **found)
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 2, 8, 8, 16)
    with torch.no_grad():
        assert torch.equal(ours.eval()(image), theirs.eval()(image))
    with pytest.raises(ModelError, match="not complete"):
        seg_res_net.arguments_of({n: t for n, t in theirs.state_dict().items() if not n.startswith("up_layers.0")})
    with pytest.raises(ConfigError, match="SegResNet"):
        SegResNet(1, 2, upsample_mode="none of them")


DYN_UNETS: dict[str, dict[str, Any]] = {
    "residual, supervised": {"res_block": True, "deep_supervision": True, "deep_supr_num": 2},
    "batch norm, biases": {"norm_name": "batch", "trans_bias": True},
    "instance norm without scale": {"norm_name": "instance"},
}


@pytest.mark.parametrize("kind", DYN_UNETS)
def test_dyn_unet_is_monais(kind: str) -> None:
    torch.manual_seed(0)
    strides: list[Any] = [1, (1, 2, 2), 2, 2]
    kernels = [(1, 3, 3), 3, 3, 3]
    theirs = MonaiDynUNet(3, 2, 3, kernels, strides, strides[1:], filters=[4, 6, 8, 8], **DYN_UNETS[kind])
    found = dyn_unet.arguments_of(theirs.state_dict())
    assert found["kernel_size"] == [[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]]
    assert found["strides"] == [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]]
    ours: Any = DynUNet(num_classes=3, **found)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    image = torch.randn(2, 2, 8, 16, 16)
    with torch.no_grad():
        assert torch.equal(ours.eval()(image), theirs.eval()(image))
        if found["outputs"] > 1:
            ours.decoder.deep_supervision = True
            stacked = theirs.train()(image).unbind(1)
            for given, wanted in zip(ours.train()(image), stacked, strict=True):
                assert torch.equal(functional.interpolate(given, wanted.shape[2:]), wanted)
    assert has_deep_supervision(NETWORKS["dyn-unet"].class_path, found) == (found["outputs"] > 1)


RES_DS_NETS: dict[str, dict[str, Any]] = {
    "of Auto3DSeg": {"norm": "INSTANCE_NVFUSER", "dsdepth": 3},
    "batch norm, thick slices": {"norm": "BATCH", "resolution": (3.0, 1.0, 1.0)},
    "three spacings": {"norm": "INSTANCE", "resolution": (1.0, 5.0, 2.0), "dsdepth": 2},
}


@pytest.mark.parametrize("kind", RES_DS_NETS)
def test_seg_res_net_ds_is_monais(kind: str) -> None:
    torch.manual_seed(0)
    said = {key: "INSTANCE" if value == "INSTANCE_NVFUSER" else value for key, value in RES_DS_NETS[kind].items()}
    theirs = MonaiSegResNetDS(
        3, 4, 2, 3, blocks_down=(1, 2, 2, 1), **said
    )  # the fused norm needs a GPU, and is the same
    found = seg_res_net_ds.arguments_of(theirs.state_dict())
    assert list(np.prod(found["strides"], axis=0)) == [int(n) for n in theirs.shape_factor()]
    ours: Any = SegResNetDS(num_classes=3, **found)
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(2, 2, 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(ours.eval()(image), theirs.eval()(image))
        if found["outputs"] > 1:
            ours.decoder.deep_supervision = True
            for given, wanted in zip(ours.train()(image), theirs.train()(image), strict=True):
                assert torch.equal(given, wanted)
        ours.decoder.deep_supervision = False
        squashing: Any = SegResNetDS(num_classes=3, intensities="sigmoid", **found).eval()
        squashing.load_state_dict(theirs.state_dict())
        assert torch.equal(squashing(image), theirs.eval()(torch.sigmoid(2 * image - 1)))


def test_weights_of_monais_networks_that_cannot_be_are_told() -> None:
    dyn = PUBLISHED["dyn-unet"].make()[0].state_dict()
    with pytest.raises(ModelError, match="not complete"):
        dyn_unet.arguments_of({name: tensor for name, tensor in dyn.items() if not name.startswith("upsamples.0")})
    with pytest.raises(ModelError, match="2D"):
        dyn_unet.arguments_of({dyn_unet.FIRST: torch.zeros(1, 1, 3, 3)})
    with pytest.raises(ConfigError, match="first stride"):
        DynUNet(1, 2, **(DYN | {"strides": ((2, 2, 2),) * 3}))
    with pytest.raises(ConfigError, match="DynUNet: "):
        DynUNet(1, 2, **DYN, norm_name="none of them")
    res = PUBLISHED["seg-res-net-ds"].make()[0].state_dict()
    with pytest.raises(ModelError, match="not complete"):
        seg_res_net_ds.arguments_of({name: t for name, t in res.items() if not name.startswith("up_layers.0")})
    with pytest.raises(ModelError, match="transposed convolution"):
        seg_res_net_ds.arguments_of({name: tensor for name, tensor in res.items() if "deconv" not in name})
    with pytest.raises(ConfigError, match="intensities 'tanh'"):
        SegResNetDS(1, 2, **RES_DS, intensities="tanh")


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_keeps_the_laws_of_networks(name: str) -> None:
    check_network(NETWORKS[name], PUBLISHED[name].build, shape=PUBLISHED[name].shape)


@pytest.mark.long
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_method_moves_what_it_says(name: str) -> None:
    methods = [
        method for method in METHODS if METHODS[method]().learns and method != "gps"
    ]  # its first steps look only
    check_network(NETWORKS[name], PUBLISHED[name].build, shape=PUBLISHED[name].shape, methods=methods)


@pytest.mark.parametrize("name", PUBLISHED)
def test_its_parameters_have_roles(name: str) -> None:
    network, _ = PUBLISHED[name].make()
    parameters = parameters_of(network)
    roles = {parameter.role for parameter in parameters}
    biases = {Role.BIAS} if name in ("stu-net", "genesis-unet") else set()  # MONAI's convolutions have none
    assert roles == {Role.HEAD, Role.WEIGHT, Role.NORM_WEIGHT, Role.NORM_BIAS, *biases}
    head = r"seg_outputs\.|out_tr\.|conv_final\.2\.|output_block\.|deep_supervision_heads\.|up_layers\.\d\.head\."
    assert all(bool(re.match(head, parameter.name)) == (parameter.role is Role.HEAD) for parameter in parameters)
    inner = ("upsample_layers.", "conv_blocks_localization.", "up_", "upsamples.", "conv_final.0.")
    assert all(parameter.in_decoder == parameter.name.startswith(inner) for parameter in parameters)


def test_arguments_are_read_off_the_weights() -> None:
    arguments: dict[str, Any] = {
        "features_per_stage": [3, 4, 6],
        "n_blocks_per_stage": [1, 3, 2],
        "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    }
    network = STUNet(2, 5, strides=((1, 1, 1),) * 3, **arguments)
    assert stu_net.is_stu_net(network.state_dict())
    assert stu_net.arguments_of(network.state_dict()) == arguments | {"input_channels": 2, "num_classes": 5}
    unet = GenesisUNet(2, 5, features=6).state_dict()
    assert genesis_unet.is_genesis_unet(unet)
    assert genesis_unet.arguments_of(unet) == {"input_channels": 2, "features": 6}
    assert not stu_net.is_stu_net(unet)
    assert not genesis_unet.is_genesis_unet(network.state_dict())


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_has_a_class_with_a_spatial_adapter(name: str) -> None:
    arguments: dict[str, Any] = {
        "stu-net": STU,
        "genesis-unet": {"features": 4},
        "dyn-unet": DYN,
        "seg-res-net-ds": RES_DS,
        "seg-res-net": {"init_filters": 8, "blocks_down": (1, 1), "blocks_up": (1,)},
    }[name]
    plain, _ = PUBLISHED[name].make()
    path = adapted_class(NETWORKS[name].class_path)
    adapted = locate(path)(1, 2, adapter_width=2, **arguments)  # type: ignore[operator]
    assert find_card(adapted) is NETWORKS[name]
    adapted.load_state_dict(plain.state_dict(), strict=False)
    image = PUBLISHED[name].batch(0)
    with torch.no_grad():
        given, wanted = (network.eval()(image) for network in (adapted, plain))
    assert torch.equal(*(out[0] if isinstance(out, list) else out for out in (given, wanted)))


def test_weights_and_plans_that_cannot_be_are_told() -> None:
    weights = PUBLISHED["stu-net"].make()[0].state_dict()
    with pytest.raises(ModelError, match=r"not complete \('seg_outputs.1.weight' is missing"):
        stu_net.arguments_of({name: tensor for name, tensor in weights.items() if "seg_outputs" not in name})
    with pytest.raises(ModelError, match="2D"):
        stu_net.arguments_of({name: tensor[..., 0] for name, tensor in weights.items() if tensor.ndim == 5})
    with pytest.raises(ModelError, match="2D"):
        genesis_unet.arguments_of({"down_tr64.ops.0.conv1.weight": torch.zeros(1, 1, 3, 3)})
    with pytest.raises(ConfigError, match="2, 2, 1 and 2 stages"):
        STUNet(
            1, 2, features_per_stage=(2, 3), n_blocks_per_stage=(1, 1), strides=((1,) * 3,), kernel_sizes=((3,),) * 2
        )

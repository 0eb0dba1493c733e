from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from lnsegfm.errors import ConfigError
from lnsegfm.networks.cards import find_card, unwrap
from lnsegfm.networks.parameter_roles import parameters_of
from lnsegfm.networks.role import Role
from lnsegfm.testing.tiny_networks import TINY, UNET, Sequence3d, Tied, Transformer

PLAIN_UNET_BY_HAND = {
    "encoder.stages.0.0.convs.0.conv.weight": Role.WEIGHT,
    "encoder.stages.0.0.convs.0.conv.bias": Role.BIAS,
    "encoder.stages.0.0.convs.0.norm.weight": Role.NORM_WEIGHT,
    "encoder.stages.0.0.convs.0.norm.bias": Role.NORM_BIAS,
    "encoder.stages.1.0.convs.0.conv.weight": Role.WEIGHT,
    "encoder.stages.1.0.convs.0.conv.bias": Role.BIAS,
    "encoder.stages.1.0.convs.0.norm.weight": Role.NORM_WEIGHT,
    "encoder.stages.1.0.convs.0.norm.bias": Role.NORM_BIAS,
    "encoder.stages.2.0.convs.0.conv.weight": Role.WEIGHT,
    "encoder.stages.2.0.convs.0.conv.bias": Role.BIAS,
    "encoder.stages.2.0.convs.0.norm.weight": Role.NORM_WEIGHT,
    "encoder.stages.2.0.convs.0.norm.bias": Role.NORM_BIAS,
    "decoder.stages.0.convs.0.conv.weight": Role.WEIGHT,
    "decoder.stages.0.convs.0.conv.bias": Role.BIAS,
    "decoder.stages.0.convs.0.norm.weight": Role.NORM_WEIGHT,
    "decoder.stages.0.convs.0.norm.bias": Role.NORM_BIAS,
    "decoder.stages.1.convs.0.conv.weight": Role.WEIGHT,
    "decoder.stages.1.convs.0.conv.bias": Role.BIAS,
    "decoder.stages.1.convs.0.norm.weight": Role.NORM_WEIGHT,
    "decoder.stages.1.convs.0.norm.bias": Role.NORM_BIAS,
    "decoder.transpconvs.0.weight": Role.WEIGHT,
    "decoder.transpconvs.0.bias": Role.BIAS,
    "decoder.transpconvs.1.weight": Role.WEIGHT,
    "decoder.transpconvs.1.bias": Role.BIAS,
    "decoder.seg_layers.0.weight": Role.HEAD,
    "decoder.seg_layers.0.bias": Role.HEAD,
    "decoder.seg_layers.1.weight": Role.HEAD,
    "decoder.seg_layers.1.bias": Role.HEAD,
}


def roles(network: nn.Module, head: object = None) -> dict[str, Role]:
    return {parameter.name: parameter.role for parameter in parameters_of(network, head)}  # type: ignore[arg-type]


def test_plain_unet_by_hand() -> None:
    network, _ = TINY["plain-unet"].make()
    assert roles(network) == PLAIN_UNET_BY_HAND


def test_transformer_by_hand() -> None:
    network, head = TINY["transformer"].make()
    assert roles(network, head) == {
        "position": Role.OTHER,
        "embed.weight": Role.WEIGHT,
        "embed.bias": Role.BIAS,
        "norm1.weight": Role.NORM_WEIGHT,
        "norm1.bias": Role.NORM_BIAS,
        "norm2.weight": Role.NORM_WEIGHT,
        "attention.in_proj_weight": Role.WEIGHT,
        "attention.in_proj_bias": Role.BIAS,
        "attention.out_proj.weight": Role.WEIGHT,
        "attention.out_proj.bias": Role.BIAS,
        "mlp.0.weight": Role.WEIGHT,
        "mlp.0.bias": Role.BIAS,
        "mlp.2.weight": Role.WEIGHT,
        "mlp.2.bias": Role.BIAS,
        "out.weight": Role.HEAD,
        "out.bias": Role.HEAD,
    }


@pytest.mark.parametrize("name", TINY)
def test_every_parameter_has_exactly_one_role(name: str) -> None:
    network, head = TINY[name].make()
    parameters = parameters_of(network, head)

    named = dict(network.named_parameters())
    assert [parameter.name for parameter in parameters] == list(named)
    assert all(parameter.tensor is named[parameter.name] for parameter in parameters)
    assert len({id(parameter.tensor) for parameter in parameters}) == len(parameters)
    assert all(isinstance(parameter.role, Role) for parameter in parameters)


def test_attention_with_separate_projections() -> None:
    network = nn.MultiheadAttention(8, 2, kdim=4, vdim=6, add_bias_kv=True)
    found = roles(network, [network.out_proj])
    assert found["q_proj_weight"] is found["k_proj_weight"] is found["v_proj_weight"] is Role.WEIGHT
    assert found["in_proj_bias"] is Role.BIAS
    assert found["bias_k"] is found["bias_v"] is Role.OTHER
    assert found["out_proj.weight"] is Role.HEAD


def test_tied_parameters_count_once() -> None:
    network = Tied()
    assert [name for name in roles(network, [network.out]) if "second" in name] == ["second.weight", "second.bias"]
    assert "third.weight" not in roles(network, [network.out])
    assert "third.bias" in roles(network, [network.out])


def test_a_tensor_shared_with_the_head_is_head() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    network[2].weight = network[0].weight
    assert roles(network, [network[2]])["0.weight"] is Role.HEAD


def test_head_is_asked_for_where_no_card_knows_it() -> None:
    with pytest.raises(ConfigError, match=r"Sequence3d.*head=\[network.out\]") as caught:
        parameters_of(Sequence3d())
    assert "\n" not in str(caught.value)


def test_a_head_of_another_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="are not the network"):
        parameters_of(Sequence3d(), [Sequence3d().out])


def test_subclasses_have_the_card_of_their_class() -> None:
    class Mine(PlainConvUNet):
        pass

    network = Mine(**UNET, n_conv_per_stage=1)
    assert find_card(network) is not None
    assert roles(network) == PLAIN_UNET_BY_HAND


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, lambda n: torch.compile(nn.DataParallel(n))])
def test_wrappers_are_looked_into(wrap: Callable[[nn.Module], nn.Module]) -> None:
    network, _ = TINY["plain-unet"].make()
    wrapped = wrap(network)
    assert wrapped is not network
    assert unwrap(wrapped) is network
    assert roles(wrapped) == PLAIN_UNET_BY_HAND


def test_a_named_head_overrules_the_card() -> None:
    network, _ = TINY["plain-unet"].make()
    found = roles(network, [network.decoder.seg_layers[-1]])
    assert found["decoder.seg_layers.0.weight"] is Role.WEIGHT
    assert found["decoder.seg_layers.1.weight"] is Role.HEAD


def test_transformer_has_no_role_by_name() -> None:
    class Misleading(Transformer):
        def __init__(self) -> None:
            super().__init__()
            self.bias_norm_head = nn.Linear(2, 2)

    network = Misleading()
    found = roles(network, [network.out])
    assert found["bias_norm_head.weight"] is Role.WEIGHT
    assert found["bias_norm_head.bias"] is Role.BIAS

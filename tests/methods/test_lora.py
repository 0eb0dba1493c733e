"""LoRA's and DoRA's settings: rank, where, layers, dropout, seed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from lnsegfm.errors import ConfigError
from lnsegfm.methods.dora import DoRA
from lnsegfm.methods.lora import LoRA
from lnsegfm.methods.ssf import SSF
from lnsegfm.networks.computed_weights import Decomposed, LowRank
from lnsegfm.networks.layout import KernelLayout
from lnsegfm.networks.parameter_roles import parameters_of
from lnsegfm.networks.role import Role
from lnsegfm.networks.spatial_adapter import PlainConvUNet as AdaptedUNet
from lnsegfm.testing.step_witness import LR
from lnsegfm.testing.tensor_bits import bits, same_state
from lnsegfm.testing.tiny_networks import SWINS, TINY, UNET, loss_of

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = pytest.mark.parametrize("kind", [LoRA, DoRA])


def modules(network: nn.Module) -> list[Any]:
    return [module for module in network.modules() if isinstance(module, LowRank)]


def adapted_names(network: nn.Module) -> set[str]:
    return {
        name.replace("parametrizations.", "")[: -len(".0")]
        for name, m in network.named_modules()
        if m in modules(network)
    }


@KINDS
@pytest.mark.parametrize("rank", [1, 4, 10_000])
def test_the_rank_is_capped_by_the_weight(kind: type[LoRA], rank: int) -> None:
    network, head = TINY["grouped"].make()
    shapes = {
        p.name: tuple(p.layout.rows(p.tensor).shape) for p in parameters_of(network, head) if p.role is Role.WEIGHT
    }
    kind(rank=rank, alpha=6.0).attach(network, head)
    found = {name: network.get_submodule(name).parametrizations.weight[0] for name in ("0", "3", "4", "6")}
    for name, module in found.items():
        kernels, fan_in = shapes[f"{name}.weight"]
        capped = min(rank, kernels, fan_in)
        assert tuple(module.a.shape) == (capped, fan_in)
        assert tuple(module.b.shape) == (kernels, capped)
        assert module.scale == 6.0 / capped
        assert isinstance(module, Decomposed) == (kind is DoRA)
        assert float(module.a.detach().abs().max()) <= fan_in**-0.5
        assert not module.b.detach().any()


@KINDS
def test_where_goes_by_the_card(kind: type[LoRA]) -> None:
    """nnU-Net's decoder holds the encoder, too; what counts is where a parameter lies first."""
    weights: dict[str, set[str]] = {}
    for where in ("all", "encoder", "decoder"):
        network, _ = TINY["plain-unet"].make()
        kind(where=where).attach(network)
        owners = [m for m in network.modules() if hasattr(m, "parametrizations")]
        first: dict[int, str] = {}
        for name, module in network.named_modules():
            first.setdefault(id(module), name)
        weights[where] = {first[id(owner)] for owner in owners}
    assert weights["encoder"] == {f"encoder.stages.{k}.0.convs.0.conv" for k in range(3)}
    assert weights["decoder"] == {f"decoder.stages.{k}.convs.0.conv" for k in range(2)} | {
        f"decoder.transpconvs.{k}" for k in range(2)
    }
    assert weights["all"] == weights["encoder"] | weights["decoder"]


def test_where_on_a_transformer() -> None:
    network, _ = SWINS["swinunetr"].make()
    LoRA(where="decoder").attach(network)
    held = [name for name, module in network.named_modules() if isinstance(module, LowRank)]
    assert held
    assert all(name.startswith("decoder") for name in held)
    network, head = TINY["sequence"].make()
    with pytest.raises(ConfigError, match=r"where encoder: which layers of Sequence3d are its decoder is not known"):
        LoRA(where="encoder").attach(network, head)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (
            "all",
            {"embed.weight", "attention.in_proj_weight", "attention.out_proj.weight", "mlp.0.weight", "mlp.2.weight"},
        ),
        ("convolutions", {"embed.weight"}),
        ("linear", {"attention.in_proj_weight", "attention.out_proj.weight", "mlp.0.weight", "mlp.2.weight"}),
    ],
)
def test_layers_go_by_kind(layers: str, expected: set[str]) -> None:
    network, head = TINY["transformer"].make()
    LoRA(layers=layers).attach(network, head)
    assert adapted_names(network) == expected


def test_no_layer_of_that_kind_is_an_error_and_leaves_the_network_alone() -> None:
    network, _ = TINY["plain-unet"].make()
    with pytest.raises(ConfigError, match=r"Method lora: PlainConvUNet has no parameters of the roles it trains"):
        LoRA(layers="linear").optimizer(network, lr=LR)
    assert all(p.requires_grad for p in network.parameters())


@KINDS
def test_the_seed_alone_decides_the_first_values(kind: type[LoRA]) -> None:
    drawn = []
    for seed, other in ((3, 0), (3, 1), (4, 0)):
        network, head = TINY["grouped"].make()
        torch.manual_seed(other)
        before = torch.random.get_rng_state()
        kind(seed=seed).attach(network, head)
        assert torch.equal(torch.random.get_rng_state(), before)
        drawn.append([module.a.detach() for module in modules(network)])
    assert all(torch.equal(a, b) for a, b in zip(drawn[0], drawn[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(drawn[0], drawn[2], strict=True))
    flat = [a.flatten()[:8].tolist() for a in drawn[0]]
    assert all(flat[i] != flat[j] for i in range(len(flat)) for j in range(i))


@KINDS
def test_dropout_leaves_out_whole_components_in_training_only(kind: type[LoRA]) -> None:
    torch.manual_seed(0)
    weight, rank, p = torch.randn(5, 2, 3, 3, 3), 3, 0.25
    settings: dict[str, Any] = {"rank": rank, "alpha": 6.0, "dropout": p, "generator": torch.Generator().manual_seed(0)}
    module: Any = (Decomposed if kind is DoRA else LowRank)(weight, KernelLayout(), **settings)
    with torch.no_grad():
        module.b.normal_()
    whole = [6.0 / rank * torch.outer(module.b[:, k], module.a[k]).detach() for k in range(rank)]
    basis = torch.stack([component.flatten() for component in whole], dim=1)
    counts, mean, draws = set(), torch.zeros(5, 54), 2000
    for _ in range(draws):
        difference = module.difference().detach()
        mean += difference / draws
        kept = torch.linalg.lstsq(basis, difference.flatten()[:, None]).solution.flatten()
        assert torch.allclose(basis @ kept, difference.flatten(), atol=1e-5)
        assert all(abs(value) < 1e-4 or abs(value - 1 / (1 - p)) < 1e-4 for value in kept.tolist())
        counts.add(tuple(bool(value > 0.5) for value in kept.tolist()))
    assert len(counts) == 2**rank
    torch.testing.assert_close(mean, sum(whole), rtol=0, atol=0.1 * float(sum(whole).abs().max()))  # type: ignore[union-attr]
    module.eval()
    torch.testing.assert_close(module.difference(), sum(whole), rtol=1e-5, atol=1e-6)
    assert torch.equal(module(weight), module(weight))


def test_dropout_trains_and_is_gone_when_merged() -> None:
    network, head = TINY["grouped"].make()
    method = LoRA(dropout=0.5)
    optimizer = method.optimizer(network, lr=LR, head=head)
    for step in range(3):
        optimizer.zero_grad()
        loss_of(network(TINY["grouped"].batch(step)), step).backward()
        optimizer.step()
    x = TINY["grouped"].batch(0)
    with torch.no_grad():
        assert not torch.equal(network.train()(x), network(x))
        before = network.eval()(x)
        method.merge(network)
        torch.testing.assert_close(network.train()(x), before, rtol=1e-5, atol=1e-6)


@KINDS
def test_a_kernel_of_zeros_has_no_direction_and_does_no_harm(kind: type[LoRA]) -> None:
    network: Any = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    nn.init.zeros_(network[0].weight)
    optimizer = kind(rank=2).optimizer(network, lr=0.1, head=[network[1]])
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
    kind.merge(network)
    assert all(torch.isfinite(p).all() for p in network.parameters())


@pytest.mark.parametrize("method", [LoRA(), DoRA(), SSF()], ids=lambda m: m.name)
def test_an_adapter_that_the_base_came_with_stays(method: LoRA | SSF) -> None:
    torch.manual_seed(0)
    network = AdaptedUNet(**UNET, n_conv_per_stage=1, adapter_width=4)
    adapter = network.decoder.seg_layers[-1].spatial_adapter
    before = [bits(p) for p in adapter.parameters()]
    optimizer = method.optimizer(network, lr=LR)
    assert not any(p.requires_grad for p in adapter.parameters())
    for step in range(2):
        loss_of(network(TINY["plain-unet"].batch(step)), step).backward()
        optimizer.step()
    assert all((bits(p) == b).all() for p, b in zip(adapter.parameters(), before, strict=True))


def test_a_base_of_the_same_architecture_gives_the_same_start() -> None:
    """Attaching draws from no stream that anything else reads."""
    networks = []
    for _ in range(2):
        torch.manual_seed(1)
        network = PlainConvUNet(**UNET, n_conv_per_stage=1)
        LoRA().attach(network)
        networks.append(network)
    assert same_state(*networks)

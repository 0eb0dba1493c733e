"""What trains has an effect, and at the start an adapted network is its base."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from lnsegfm.methods.table import METHODS
from lnsegfm.networks.parameter_roles import parameters_of
from lnsegfm.networks.role import Role
from lnsegfm.testing.step_witness import LR
from lnsegfm.testing.tiny_networks import BATCH_UNET, SWINS, TINY, Tiny
from lnsegfm.testing.training_regimes import outputs
from lnsegfm.testing.undone_shifts import is_undone, undone_layers
from tests.methods.laws import ADDING, ALL_METHODS, PAIRS, adapted
from tests.methods.witness import is_meant

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = [(n, m) for n, m in PAIRS if m in METHODS] + [(n, "dgst-paper-1") for n in TINY]
"""One of each method: settings of the rule change neither what trains nor what it does to the output."""


@pytest.mark.parametrize(("network", "method"), KINDS)
def test_a_trained_tensor_that_changes_changes_the_output(network: str, method: str) -> None:
    """In float64, where no effect is below 1e-12 of the output and a scale before a norm, by its epsilon, has 1e-6."""
    tiny = TINY[network]
    made, trained = adapted(tiny, method)
    x = tiny.batch(0).double()
    layers = undone_layers(made, lambda: made.train()(x))
    found = {}
    with torch.no_grad():
        before = outputs(made, x)
        for parameter in trained:
            kept = parameter.tensor.clone()
            parameter.tensor.add_(torch.randn_like(kept))
            found[parameter.name] = float((outputs(made, x) - before).abs().max() / before.abs().max()) > 1e-9
            parameter.tensor.copy_(kept)
        assert torch.equal(outputs(made, x), before)
    assert found == {parameter.name: not is_undone(parameter, layers) for parameter in trained}


SWIN_PAIRS = [(n, m) for n in SWINS for m in ("full", *ADDING)]
SHORT = {("swinunetr", "full"), ("swinunetr", "ssf"), ("swinunetr-v2", "lora"), ("swinunetr-v2", "dora")}


@pytest.mark.parametrize(
    ("network", "method"), [pytest.param(*p, marks=[] if p in SHORT else [pytest.mark.long]) for p in SWIN_PAIRS]
)
def test_a_trained_tensor_of_a_transformer_has_an_effect(network: str, method: str) -> None:
    """By the slope of a random sum of the outputs, as a forward pass for each tensor would take minutes.

    Methods that add nothing train tensors of which ``full`` trains all.
    """
    made, trained = adapted(SWINS[network], method)
    x = SWINS[network].batch(0)[:1].double()
    layers = undone_layers(made, lambda: made(x))
    given = outputs(made, x)
    (given * torch.randn(given.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    slopes = {p.name: 0.0 if p.tensor.grad is None else float(p.tensor.grad.abs().max()) for p in trained}
    floor = 1e-9 * max(slopes.values())
    assert {n: s > floor for n, s in slopes.items()} == {p.name: not is_undone(p, layers) for p in trained}


def test_the_exceptions_are_those_that_a_norm_undoes() -> None:
    """By hand, so that the exception does not swallow the law."""
    names = {}
    for network in ("plain-unet", "transformer", "grouped", "batch-norm"):
        made, trained = adapted(TINY[network], "full")
        layers = undone_layers(made, lambda made=made, n=network: made(TINY[n].batch(0).double()))  # type: ignore[misc]
        names[network] = {parameter.name for parameter in trained if is_undone(parameter, layers)}
    assert names == {
        "plain-unet": {f"encoder.stages.{k}.0.convs.0.conv.bias" for k in range(3)}
        | {f"decoder.stages.{k}.convs.0.conv.bias" for k in range(2)},
        "transformer": set(),
        "grouped": set(),
        "batch-norm": {"3.bias", "6.bias"},
    }
    made, trained = adapted(BATCH_UNET, "bias")
    assert not undone_layers(made, lambda: made(BATCH_UNET.batch(0).double()))  # held norms subtract what they kept


def test_a_dead_tensor_is_found_out() -> None:
    """The law itself: a LoRA beside the layers, as if its module were never asked."""
    network, trained = adapted(TINY["grouped"], "lora")
    x = TINY["grouped"].batch(0).double()
    before = outputs(network, x)
    merged = ALL_METHODS["lora"].merge(copy.deepcopy(network))
    assert merged
    with torch.no_grad():
        for parameter in trained:
            if parameter.role is Role.ADAPTER:
                parameter.module.forward = lambda weight: weight
        still = outputs(network, x)
        for parameter in trained:
            if parameter.role is Role.ADAPTER:
                parameter.tensor.add_(1.0)
        assert torch.equal(outputs(network, x), still)
    assert not torch.equal(still, before)


def as_the_method_runs_it(base: nn.Module, method: str, head: Sequence[nn.Module] | None, mode: bool) -> nn.Module:
    """A base whose running statistics are held where the method holds them.

    It asks for the same gradients, too: by them torch picks among products of matrices that round differently.
    """
    base.train(mode)
    for parameter in parameters_of(base, head):
        parameter.tensor.requires_grad_(is_meant(ALL_METHODS[method], parameter))
        if (
            parameter.role is Role.NORM_WEIGHT
            and isinstance(parameter.module, _NormBase)
            and not parameter.tensor.requires_grad
        ):
            parameter.module.eval()
    return base


def assert_starts_as_its_base(tiny: Tiny, method: str) -> None:
    base, base_head = tiny.make()
    network, head = tiny.make()
    ALL_METHODS[method].optimizer(network, lr=LR, head=head)
    x = tiny.batch(0)
    for mode in (True, False):
        with torch.no_grad():
            expected = outputs(as_the_method_runs_it(base, method, base_head, mode), x)
            given = outputs(network.train(mode), x)
        if method in ADDING:
            assert (given - expected).abs().max() <= 1e-6 * expected.abs().max()
        else:
            assert torch.equal(given, expected)


@pytest.mark.parametrize(("network", "method"), KINDS)
def test_the_start_is_the_base(network: str, method: str) -> None:
    assert_starts_as_its_base(TINY[network], method)


@pytest.mark.parametrize("method", ["decoder", *ADDING])
@pytest.mark.parametrize("tiny", [BATCH_UNET, *SWINS.values()], ids=["batch-norm-unet", *SWINS])
def test_the_start_is_the_base_in_larger_networks(tiny: Tiny, method: str) -> None:
    assert_starts_as_its_base(tiny, method)

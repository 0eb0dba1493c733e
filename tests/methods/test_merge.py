"""An adapted network becomes a plain one again: the same outputs, the plain names, the same bits everywhere."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from lnsegfm.errors import ConfigError
from lnsegfm.methods.table import METHODS
from lnsegfm.networks.computed_weights import KINDS, Factors
from lnsegfm.networks.layout import KernelLayout
from lnsegfm.networks.parameter_roles import NetworkParameter, parameters_of
from lnsegfm.networks.reparametrize import is_reparametrized
from lnsegfm.networks.role import Role
from lnsegfm.testing.step_witness import LR
from lnsegfm.testing.tensor_bits import bits, require_same_bits, same_state
from lnsegfm.testing.tiny_networks import SWINS, TINY, Tiny
from lnsegfm.testing.training_regimes import outputs
from tests.methods.laws import ADDING, ALL_METHODS, PAIRS, adapted

pytestmark = pytest.mark.usefixtures("one_thread")
COMPUTED = ("ssf", "lora", "dora")
ADDED_PAIRS = [(n, m) for n, m in PAIRS if m in ADDING]
COMPUTED_PAIRS = [(n, m) for n, m in PAIRS if m in COMPUTED]


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def assert_merges(tiny: Tiny, method: str, dtype: torch.dtype = torch.float32, **layout: Any) -> None:
    base, _ = tiny.make()
    base.to(dtype, **layout)
    keys = list(base.state_dict())
    held = {id(tensor): name for name, tensor in base.state_dict(keep_vars=True).items()}
    tied = [held[id(tensor)] for tensor in base.state_dict(keep_vars=True).values()]

    network, _ = adapted(tiny, method, dtype=dtype)
    network.to(dtype, **layout)
    x = tiny.batch(0).to(dtype)
    with torch.no_grad():
        before = outputs(network.eval(), x)
    factors = ALL_METHODS[method].merge(network)
    with torch.no_grad():
        after = outputs(network, x)
    room = 1e-5 if dtype is torch.float32 else 1e-12
    assert (after - before).abs().max() <= room * before.abs().max()
    assert not is_reparametrized(network)
    state = network.state_dict(keep_vars=True)
    own = [key for key in state if "spatial_adapter" in key]
    if method == "spatial-adapter":
        names = ("down.weight", "down.bias", "up.weight", "up.bias")
        paths = {key.rpartition("spatial_adapter.")[0] for key in own}
        assert set(own) == {f"{path}spatial_adapter.{name}" for path in paths for name in names}
    assert (own == []) == (method != "spatial-adapter")
    assert [key for key in state if key not in own] == keys
    plain = {name: tensor for name, tensor in state.items() if name not in own}
    first = {id(tensor): name for name, tensor in plain.items()}
    assert [first[id(tensor)] for tensor in plain.values()] == tied
    assert all(type(a) is type(b) for a, b in zip(network.modules(), base.modules(), strict=False) if not own)
    assert [tensor.stride() for tensor in plain.values()] == [tensor.stride() for tensor in base.state_dict().values()]
    for name, made in factors.items():
        require_same_bits(plain[name], made.merged(base.state_dict()[name]), f"{method} {name}")
    assert bool(factors) == (method in COMPUTED)
    assert ALL_METHODS[method].merge(network) == {}
    assert all(np.array_equal(bits(tensor), bits(state[name])) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(("network", "method"), ADDED_PAIRS)
def test_merging_keeps_the_output_and_gives_the_plain_network(network: str, method: str) -> None:
    assert_merges(TINY[network], method)


@pytest.mark.parametrize("method", ADDING)
@pytest.mark.parametrize("network", ["grouped", "plain-unet"])
def test_merging_in_double_precision_and_channels_last(network: str, method: str) -> None:
    assert_merges(TINY[network], method, torch.float64)
    assert_merges(TINY[network], method, memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(("network", "method"), [("swinunetr", "lora"), ("swinunetr-v2", "ssf"), ("swinunetr", "dora")])
def test_merging_a_transformer(network: str, method: str) -> None:
    assert_merges(SWINS[network], method)


@pytest.mark.parametrize("method", sorted({m for m in ALL_METHODS if m not in ADDING and "-" not in m}))
def test_what_adds_nothing_merges_into_itself(method: str) -> None:
    network, _ = adapted(TINY["plain-unet"], method)
    before = copy.deepcopy(network)
    assert ALL_METHODS[method].merge(network) == {}
    assert same_state(network, before)


@pytest.mark.parametrize("method", COMPUTED)
@pytest.mark.parametrize("network", ["plain-unet", "tied", "transformer"])
def test_what_one_layer_is_made_of_is_told_under_its_first_name(network: str, method: str) -> None:
    made, _ = adapted(TINY[network], method)
    factors = ALL_METHODS[method].merge(made)
    plain, head = TINY[network].make()
    roles = {parameter.name: parameter.role for parameter in parameters_of(plain, head)}
    wanted = {Role.WEIGHT} if method != "ssf" else {Role.WEIGHT, Role.BIAS, Role.NORM_WEIGHT, Role.NORM_BIAS}
    assert factors.keys() == {name for name, role in roles.items() if role in wanted}


@pytest.mark.parametrize(("network", "method"), COMPUTED_PAIRS)
def test_a_copy_can_be_merged_and_the_network_trains_on(network: str, method: str) -> None:
    tiny = TINY[network]
    made, trained = adapted(tiny, method, dtype=torch.float32)
    x = tiny.batch(0)
    twin = copy.deepcopy(made)
    with torch.no_grad():
        before = outputs(made, x)
        assert torch.equal(outputs(twin, x), before)
    ALL_METHODS[method].merge(twin)
    outputs(made, x).sum().backward()
    assert all(parameter.tensor.grad is not None for parameter in trained)
    with torch.no_grad():
        assert torch.equal(outputs(made, x), before)
        assert (outputs(twin, x) - before).abs().max() <= 1e-5 * before.abs().max()


@pytest.mark.parametrize(("network", "method"), ADDED_PAIRS)
def test_an_attached_network_is_saved_and_loaded(network: str, method: str) -> None:
    made, _ = adapted(TINY[network], method, dtype=torch.float32)
    stream = io.BytesIO()
    torch.save(made.state_dict(), stream)
    stream.seek(0)
    fresh, head = TINY[network].make(seed=5)
    ALL_METHODS[method].optimizer(fresh, lr=LR, head=head)
    assert not same_state(fresh, made)
    fresh.load_state_dict(torch.load(stream, weights_only=True))
    assert same_state(fresh, made)
    x = TINY[network].batch(0)
    with torch.no_grad():
        assert torch.equal(outputs(fresh, x), outputs(made, x))


@pytest.mark.parametrize("first", COMPUTED)
@pytest.mark.parametrize("second", COMPUTED)
def test_an_attached_network_is_refused_until_it_is_merged(first: str, second: str) -> None:
    network, head = TINY["grouped"].make()
    METHODS[first]().optimizer(network, lr=LR, head=head)
    before = copy.deepcopy(network)
    refusal = rf"Method {second}: the network has adapters already.*merge"
    with pytest.raises(ConfigError, match=refusal):
        METHODS[second]().optimizer(network, lr=LR, head=head)
    with pytest.raises(ConfigError, match=refusal):
        METHODS[second]().attach(network, head)
    assert same_state(network, before)
    METHODS[first].merge(network)
    METHODS[second]().optimizer(network, lr=LR, head=head)
    assert is_reparametrized(network)


def test_a_spatial_adapter_that_is_there_trains_on() -> None:
    network, head = TINY["plain-unet"].make()
    METHODS["spatial-adapter"]().optimizer(network, lr=LR, head=head)
    keys = list(network.state_dict())
    hooks = len(network.decoder.seg_layers[-1]._forward_pre_hooks)
    METHODS["spatial-adapter"].from_text({"width": "7", "seed": "1"}).optimizer(network, lr=LR, head=head)
    assert list(network.state_dict()) == keys
    assert len(network.decoder.seg_layers[-1]._forward_pre_hooks) == hooks == 1


def big_factors(kind: str) -> tuple[torch.Tensor, Factors]:
    """A weight large enough for torch to share its work among threads."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(96, 64, 3, 3, 3, generator=generator)
    numbers = {"transposed": False, "groups": 1, "scale": 0.7}
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "lora": {"a": (4, 1728), "b": (96, 4)},
        "dora": {"a": (4, 1728), "b": (96, 4), "magnitude": (96, 1)},
        "scale": {"scale.factor": (96,)},
        "shift": {"scale.factor": (200_000,), "shift": (200_000,)},
    }
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes[kind].items()}
    return (torch.randn(200_000, generator=generator) if kind == "shift" else weight), Factors(kind, numbers, tensors)


@pytest.mark.parametrize("kind", KINDS)
def test_merged_weights_are_the_same_bits_on_one_thread_and_on_two(kind: str, threads: Callable[[int], None]) -> None:
    weight, factors = big_factors(kind)
    threads(1)
    alone = factors.merged(weight)
    threads(2)
    require_same_bits(factors.merged(weight), alone, kind)
    threads(1)
    cut = factors.merged(weight.clone().contiguous(memory_format=torch.channels_last_3d)) if kind != "shift" else alone
    require_same_bits(cut, alone, f"{kind} channels last")


@pytest.mark.parametrize("kind", ["lora", "dora", "scale"])
@pytest.mark.parametrize("transposed", [False, True])
def test_merged_weights_are_those_of_the_equation(kind: str, transposed: bool) -> None:
    """By NumPy in float64, kernel by kernel, to the last place of float32 but one."""
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(*((6, 4) if transposed else (4, 6)), 2, 2, 2, generator=generator)
    layout = {"transposed": transposed, "groups": 1}
    a, b, m = (torch.randn(shape, generator=generator) for shape in ((3, 48), (4, 3), (4, 1)))
    tensors = {"lora": {"a": a, "b": b}, "dora": {"a": a, "b": b, "magnitude": m}, "scale": {"scale.factor": m[:, 0]}}
    given = Factors(kind, {**layout, "scale": 0.3}, tensors[kind]).merged(weight).double().numpy()
    w = weight.double().numpy()
    for k in range(4):
        kernel = (w[:, k] if transposed else w[k]).reshape(-1)
        moved = kernel + 0.3 * (b[k].double().numpy() @ a.double().numpy())
        magnitude = float(m[k, 0])
        expected = {"lora": moved, "dora": magnitude * moved / np.linalg.norm(moved), "scale": magnitude * kernel}[kind]
        np.testing.assert_allclose((given[:, k] if transposed else given[k]).reshape(-1), expected, rtol=2e-7)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_sums_run_in_one_written_order(kind: str) -> None:
    """Bit for bit those of NumPy in float64: one component after the other, squares in halves.

    A library's own sum or product of matrices takes an order that hangs on the processor.
    """
    weight, factors = big_factors(kind)
    weight = weight.double()
    tensors = {name: tensor.double().numpy() for name, tensor in factors.tensors.items()}
    rows = weight.numpy().reshape(96, -1)
    for k in range(4):
        rows = rows + (tensors["b"][:, k : k + 1] * tensors["a"][k : k + 1]) * 0.7
    if kind == "dora":
        squares = rows * rows
        while squares.shape[1] > 1:
            half = squares.shape[1] // 2
            left = squares[:, 2 * half :]
            squares = np.concatenate([squares[:, :half] + squares[:, half : 2 * half], left], axis=1)
        rows = tensors["magnitude"] / np.sqrt(squares) * rows
    require_same_bits(factors.merged(weight), torch.from_numpy(rows).reshape(weight.shape), kind)


@pytest.mark.parametrize("wrong", ["kind", "missing", "shape", "numbers"])
def test_factors_of_another_weight_are_an_error(wrong: str) -> None:
    weight, good = big_factors("lora")
    bad = {
        "kind": Factors("loha", good.numbers, good.tensors),
        "missing": Factors("lora", good.numbers, {"a": good.tensors["a"]}),
        "shape": Factors("lora", good.numbers, {**good.tensors, "b": torch.zeros(7, 4)}),
        "numbers": Factors("lora", {"scale": 1.0}, good.tensors),
    }[wrong]
    with pytest.raises((KeyError, ValueError, TypeError, RuntimeError)):
        bad.merged(weight)


def test_layout_of_a_part_under_a_parametrization_is_its_modules() -> None:
    network, head = TINY["grouped"].make()
    METHODS["lora"]().optimizer(network, lr=LR, head=head)
    found: dict[str, NetworkParameter] = {parameter.name: parameter for parameter in parameters_of(network, head)}
    assert found["6.weight"].layout == KernelLayout(transposed=True, groups=2)
    assert found["3.weight"].role is Role.WEIGHT

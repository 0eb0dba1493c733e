"""What must hold of the adapter of every method on every network: base + adapter = model, to the bit."""

from __future__ import annotations

import copy
import io
import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lnsegfm.errors import ConfigError, LnSegFmError, ModelError, TransferError
from lnsegfm.methods.dora import DoRA
from lnsegfm.methods.lora import LoRA
from lnsegfm.methods.method import Method
from lnsegfm.methods.table import METHODS
from lnsegfm.networks.computed_weights import Factors
from lnsegfm.testing.tiny_networks import TINY, loss_of
from lnsegfm.weights.adapter import CARD, TENSORS, Adapter
from lnsegfm.weights.adapter_groups import adapter_groups
from lnsegfm.weights.factors import read_factors, save_factors, weight_of
from lnsegfm.weights.state import weights_hash
from tests.weights.test_adapter import same_bits

pytestmark = pytest.mark.usefixtures("one_thread")

WITHOUT_A_CARD = {"decoder", "spatial-adapter"}
"""What some networks refuse: their decoder is not known, their head is no convolution."""

COMPUTED: dict[str, Method] = {"lora": LoRA(rank=1), "dora": DoRA(rank=1), "ssf": METHODS["ssf"]()}
"""With as few numbers as fit into networks of some thousand weights."""

ARMS: dict[str, Method] = {**{name: cls() for name, cls in METHODS.items()}, **COMPUTED}
ARMS["gps"] = METHODS["gps"](passes=1)  # ten of them would be over before it moves

Weights = dict[str, Tensor]


def saved(weights: Weights) -> Weights:
    """A state dict as it comes from a file: names of one tensor share memory, and nothing else does."""
    stream = io.BytesIO()
    torch.save(dict(weights), stream)
    stream.seek(0)
    return dict(torch.load(stream, weights_only=True))


def trained(network_name: str, method: Method, steps: int = 3) -> tuple[Weights, Weights, dict[str, Factors]]:
    """Base, adapted weights, and what they are made of.

    Raises:
        ConfigError: The method refuses the network.
    """
    tiny = TINY[network_name]
    network, head = tiny.make()
    base = saved(network.state_dict())
    if method.learns:
        optimizer = method.optimizer(network, lr=0.01, head=head)
        for step in range(steps):
            optimizer.zero_grad()
            loss_of(network(tiny.batch(step)), step).backward()
            optimizer.step()
    factors = method.merge(network)
    return base, saved(network.state_dict()), factors


@pytest.mark.parametrize("method", ARMS)
@pytest.mark.parametrize("network", TINY)
def test_base_plus_adapter_is_the_model(network: str, method: str, tmp_path: Path) -> None:
    try:
        base, model, factors = trained(network, ARMS[method])
    except ConfigError:
        assert method in WITHOUT_A_CARD
        return
    save_factors(tmp_path / "factors.safetensors", factors)  # as a run leaves them
    factors = read_factors(tmp_path / "factors.safetensors")
    Adapter.between(base, model, {"method": method}, factors).save(tmp_path)
    adapter = Adapter.load(tmp_path)

    assert same_bits(adapter.apply(base), model)
    assert (adapter.base_sha256, adapter.model_sha256) == (weights_hash(base), weights_hash(model))
    assert bool(adapter.stored) == ARMS[method].learns
    assert bool(adapter.factors) == (method in COMPUTED)
    for wrong in (model if adapter.stored else {}, {**base, next(iter(base)): torch.zeros(3)}):
        with pytest.raises(TransferError, match="belongs to a base with hash"):
            adapter.apply(wrong)


@pytest.mark.parametrize("method", [*COMPUTED, "lora-4"])
def test_factors_are_smaller_than_what_they_make(method: str, tmp_path: Path) -> None:
    base, model, factors = trained("plain-unet", {**COMPUTED, "lora-4": LoRA(rank=4)}[method])
    with_them = Adapter.between(base, model, {}, factors)
    without = Adapter.between(base, model, {})
    assert with_them.factors
    assert not set(with_them.factors) & {*with_them.whole, *with_them.indices}
    assert with_them.save(tmp_path / "with") < without.save(tmp_path / "without")
    sizes = {stored.name: stored.bytes for stored in without.stored}
    for stored in with_them.stored:
        assert stored.bytes < sizes[stored.name] or stored.form != "factors"
    assert {stored.name for stored in with_them.stored} == set(sizes)


def test_factors_under_another_name_of_the_weight_are_found() -> None:
    """nnU-Net's networks name a convolution up to four times; a method knows it by one of them."""
    base, model, factors = trained("plain-unet", COMPUTED["lora"])
    expected = Adapter.between(base, model, {}, factors)
    names = {name: expected.same.get(name, name) for name in model}
    for pick in (min, max):
        others = {pick(n for n, first in names.items() if first == names[k]): f for k, f in factors.items()}
        assert set(Adapter.between(base, model, {}, others).factors) == set(expected.factors)


def test_factors_of_a_weight_that_went_on_moving_are_left_aside() -> None:
    base, model, factors = trained("plain-unet", COMPUTED["lora"])
    name = next(iter(Adapter.between(base, model, {}, factors).factors))
    model[name].view(-1)[0] += 1
    adapter = Adapter.between(base, model, {}, factors)
    assert name in {**adapter.whole, **adapter.indices}
    assert same_bits(adapter.apply(base), model)


def test_factors_of_a_weight_that_is_no_number_are_left_aside() -> None:
    """Machines do not agree on the bits of a NaN that they compute."""
    base, model, factors = trained("plain-unet", COMPUTED["lora"])
    name, found = next(iter(Adapter.between(base, model, {}, factors).factors.items()))
    found.tensors["b"][0, 0] = math.nan
    model[name].copy_(found.merged(base[name]))
    adapter = Adapter.between(base, model, {}, factors)
    assert name not in adapter.factors
    assert same_bits(adapter.apply(base), model)


def test_merging_is_that_of_an_independent_account() -> None:
    """NumPy in float64, entry by entry in the order that the docstrings state; no sum is left to a library."""
    draw = np.random.default_rng(0)
    weight, a, b = (draw.standard_normal(shape).astype(np.float32) for shape in ((5, 3, 2, 2, 2), (3, 24), (5, 3)))
    magnitude = draw.standard_normal((5, 1)).astype(np.float32)
    rows = weight.reshape(5, 24).astype(np.float64)
    for k in range(3):
        rows = rows + (b[:, k : k + 1].astype(np.float64) * a[k : k + 1].astype(np.float64)) * 0.3
    squares = [[value * value for value in row] for row in rows]
    sums = []
    for row in squares:
        while len(row) > 1:
            half = len(row) // 2
            row = [row[i] + row[half + i] for i in range(half)] + row[2 * half :]
        sums.append([math.sqrt(row[0])])
    expected = {"lora": rows, "dora": magnitude.astype(np.float64) / np.array(sums) * rows}
    tensors = {"a": torch.from_numpy(a), "b": torch.from_numpy(b), "magnitude": torch.from_numpy(magnitude)}
    numbers = {"transposed": False, "groups": 1, "scale": 0.3}
    for kind, made in expected.items():
        own = {key: tensor for key, tensor in tensors.items() if kind == "dora" or key != "magnitude"}
        found = weight_of("w", Factors(kind, numbers, own), torch.from_numpy(weight))
        assert np.array_equal(found.numpy().reshape(5, 24), made.astype(np.float32))


def test_stretches_tell_what_is_held_and_how_far_it_moved() -> None:
    base = {"encoder.stages.0.weight": torch.full((4, 4), 2.0), "decoder.seg_layers.0.weight": torch.ones(3)}
    model = {name: tensor.clone() for name, tensor in base.items()}
    model["encoder.stages.0.weight"][0, 0] = 4.0
    model["decoder.encoder.stages.0.weight"] = model["encoder.stages.0.weight"]
    model["decoder.seg_layers.1.weight"] = torch.zeros(5)
    base["decoder.encoder.stages.0.weight"] = base["encoder.stages.0.weight"]
    adapter = Adapter.between(base, model, {})
    encoder, head = adapter_groups(adapter, base)
    assert (encoder.name, encoder.tensors, encoder.values) == ("encoder.stages", 1, 1)
    assert (encoder.stored["entries"], head.stored["whole"], head.tensors) == (1, 1, 2)
    assert encoder.change is not None
    assert head.change is not None
    assert (encoder.change.entries, encoder.change.changed, encoder.change.new) == (16, 1, 0)
    assert encoder.change.relative_change == pytest.approx(math.sqrt((2.0**2 / 16) / 2.0**2))
    assert (head.change.entries, head.change.changed, head.change.new) == (8, 5, 5)
    assert head.change.relative_change == 0
    assert [s.change for s in adapter_groups(adapter)] == [None, None]


@pytest.fixture(scope="module")
def dora() -> tuple[Weights, Weights, dict[str, Factors]]:
    return trained("plain-unet", COMPUTED["dora"])


@pytest.fixture
def folder(dora: Any, tmp_path: Path) -> Path:
    base, model, factors = dora
    Adapter.between(base, model, {"method": "dora"}, factors).save(tmp_path)
    return tmp_path


def weight_in(folder: Path) -> str:
    return next(iter(json.loads((folder / CARD).read_text())["factors"]))


def refused(folder: Path, base: Weights) -> str:
    with pytest.raises(ModelError) as stopped:
        Adapter.load(folder).apply(base)
    assert "\n" not in str(stopped.value)
    assert len(str(stopped.value)) < 600
    return str(stopped.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "pickle"}, "its table of factors is damaged"),
        ({"kind": ["dora"]}, "its table of factors is damaged"),
        ({"kind": "lora"}, "does not belong to an adapter"),
        ({"numbers": []}, "its table of factors is damaged"),
        ({"numbers": {}}, "transposed None, groups None"),
        ({"scale": math.nan}, "scale nan"),
        ({"scale": None}, "scale None"),
        ({"scale": 10**400}, "scale 1000000000"),
        ({"scale": "9" * 5000}, "scale '999"),
        ({"scale": 3.25}, "The adapter is damaged"),
        ({"groups": 0}, "groups 0"),
        ({"groups": True}, "groups True"),
        ({"groups": 10**30, "transposed": True}, "groups 10000000000"),
        ({"transposed": 1}, "transposed 1"),
        ({"transposed": True}, "do not fit it"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_numbers_of_factors_that_cannot_be(folder: Path, dora: Any, change: dict[str, Any], said: str) -> None:
    card = json.loads((folder / CARD).read_text())
    entry = card["factors"][weight_in(folder)]
    for key, value in change.items():
        (entry if key in entry else entry["numbers"])[key] = value
    (folder / CARD).write_text(json.dumps(card))
    assert said in refused(folder, dora[0])


def wider(tensors: Weights, name: str) -> None:
    tensors[f"{name}:dora.a"] = torch.zeros(1, 2 + tensors[f"{name}:dora.a"].shape[1])


def huge_rank(tensors: Weights, name: str) -> None:
    """Nothing in a file, and hours of work for who believes it."""
    tensors[f"{name}:dora.a"] = torch.zeros(10**9, 0)


def higher_rank_than_the_weight(tensors: Weights, name: str) -> None:
    tensors[f"{name}:dora.a"] = torch.zeros(1000, tensors[f"{name}:dora.a"].shape[1])
    tensors[f"{name}:dora.b"] = torch.zeros(tensors[f"{name}:dora.b"].shape[0], 1000)


def no_magnitude(tensors: Weights, name: str) -> None:
    del tensors[f"{name}:dora.magnitude"]


def one_more(tensors: Weights, name: str) -> None:
    tensors[f"{name}:dora.c"] = torch.zeros(1)


def whole_numbers(tensors: Weights, name: str) -> None:
    tensors[f"{name}:dora.b"] = tensors[f"{name}:dora.b"].long()


def flat(tensors: Weights, name: str) -> None:
    tensors[f"{name}:dora.a"] = tensors[f"{name}:dora.a"].reshape(-1)


def of_no_weight(tensors: Weights, name: str) -> None:
    tensors["stranger:dora.a"] = tensors[f"{name}:dora.a"].clone()


def no_numbers(tensors: Weights, name: str) -> None:
    tensors[f"{name}:dora.b"].fill_(math.nan)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (wider, "do not fit it (a is torch.float32 of shape"),
        (huge_rank, "do not fit it (a is torch.float32 of shape [1000000000, 0]"),
        (higher_rank_than_the_weight, "do not fit it"),
        (no_magnitude, "magnitude is missing"),
        (one_more, "c is no factor of dora"),
        (whole_numbers, "b is torch.int64"),
        (flat, "do not fit it"),
        (of_no_weight, "tensor stranger:dora.a does not belong to an adapter"),
        (no_numbers, "The adapter is damaged"),
    ],
)
def test_factors_that_do_not_fit(folder: Path, dora: Any, change: Callable[..., None], said: str) -> None:
    tensors = load_file(folder / TENSORS)
    change(tensors, weight_in(folder))
    save_file(tensors, folder / TENSORS)
    assert said in refused(folder, dora[0])


def test_a_table_of_factors_that_is_none(folder: Path, dora: Any) -> None:
    for table in ([], None, 3, {"w": None}, {"w": {"kind": "lora"}}):
        card = json.loads((folder / CARD).read_text())
        (folder / CARD).write_text(json.dumps(card | {"factors": table}))
        refused(folder, dora[0])


def test_a_card_that_is_too_long_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lnsegfm.weights.adapter.LONGEST_CARD", 100)
    with pytest.raises(ModelError, match="longer than an adapter's"):
        Adapter.load(folder)


def test_an_adapter_of_the_first_format_is_read(dora: Any, tmp_path: Path) -> None:
    base, model, _ = dora
    Adapter.between(base, model, {"method": "dora"}).save(tmp_path)
    card = json.loads((tmp_path / CARD).read_text())
    del card["factors"]
    (tmp_path / CARD).write_text(json.dumps(card | {"format": "lnsegfm.adapter/1"}))
    assert same_bits(Adapter.load(tmp_path).apply(base), model)


def test_either_file_stands_for_both(folder: Path, dora: Any) -> None:
    for suffix in ("safetensors", "json"):
        shutil.copy(folder / f"adapter.{suffix}", folder / f"clinic.v2.{suffix}")
    for place in (folder, folder / TENSORS, folder / CARD, folder / "clinic.v2.safetensors", folder / "clinic.v2.json"):
        assert same_bits(Adapter.load(place).apply(dora[0]), dora[1])
    with pytest.raises(ModelError, match="no such file"):
        Adapter.load(folder / "none.safetensors")


JUNK: list[Any] = [None, True, -1, 0, 3, 2**70, 1.5, "", "dora", [], [1, 2], {}, {"a": []}, [[[]]]]


def places(table: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in nested tables and lists."""
    entries = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    return [found for key, value in entries for found in ((table, key), *places(value))]


def test_spoilt_cards_and_bytes(folder: Path, dora: Any) -> None:
    """The very model, or one of the project's errors; nothing else, whatever a file holds."""
    base, model, _ = dora
    draw = random.Random(0)
    whole = {name: (folder / name).read_bytes() for name in (CARD, TENSORS)}
    outcomes: dict[str, set[bool | None]] = {CARD: set(), TENSORS: set()}
    said = ""
    for turn in range(80):
        name = (CARD, TENSORS)[turn % 2]
        for other, content in whole.items():
            (folder / other).write_bytes(content)
        if name == CARD and turn % 4:
            card = json.loads(whole[CARD])
            found = places(card)
            container, key = draw.choice(found if draw.random() < 0.5 else [p for p in found if p[0] is card])
            if isinstance(container, dict) and draw.random() < 0.3:
                del container[key]
            else:
                container[key] = copy.deepcopy(draw.choice(JUNK))
            (folder / CARD).write_text(json.dumps(card))
        else:
            content = bytearray(whole[name])
            reach = len(content) if draw.random() < 0.5 else min(4000, len(content))  # the header
            for _ in range(draw.randint(1, 6)):
                content[draw.randrange(reach)] = draw.randrange(256)
            (folder / name).write_bytes(content if draw.random() < 0.8 else content[: draw.randrange(len(content))])
        try:
            outcomes[name].add(same_bits(Adapter.load(folder).apply(base), model))
        except LnSegFmError as error:
            outcomes[name].add(None)
            said = str(error)
        assert "\n" not in said
    assert outcomes[CARD] == {True, None}
    assert None in outcomes[TENSORS]
    assert False not in outcomes[TENSORS]

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from lnsegfm.errors import ModelError, TransferError
from lnsegfm.weights.adapter import CARD, TENSORS, Adapter
from lnsegfm.weights.state import raw, weights_hash

KINDS = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
Weights = dict[str, Tensor]


def same_bits(one: Weights, other: Weights) -> bool:
    return list(one) == list(other) and all(
        one[n].dtype == other[n].dtype and one[n].shape == other[n].shape and torch.equal(raw(one[n]), raw(other[n]))
        for n in one
    )


def through_a_file(adapter: Adapter, folder: Path) -> Adapter:
    adapter.save(folder)
    return Adapter.load(folder)


def noise(shape: tuple[int, ...], kind: torch.dtype, seed: int) -> Tensor:
    """Any bits there are: NaN of every sort, infinities, -0.0, subnormal numbers."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.empty(shape, dtype=kind).nbytes
    high = 2 if kind is torch.bool else 256
    return torch.randint(0, high, (size,), dtype=torch.uint8, generator=generator).view(kind).reshape(shape)


shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
kinds = st.sampled_from(KINDS)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Weights, Weights]:
    """A base, and a model made from it by every kind of change."""
    base: Weights = {}
    model: Weights = {}
    for number in range(draw(st.integers(1, 4))):
        name, seed = draw(st.sampled_from(["a", "b:whole", "c.weight", "d"])) + str(number), draw(st.integers(0, 99))
        shape, kind = draw(shapes), draw(kinds)
        tensor = noise(shape, kind, seed)
        change = draw(st.sampled_from(["none", "sparse", "dense", "shape", "type", "gone", "new"]))
        if change != "new":
            base[name] = tensor
        if change == "gone":
            continue
        new = tensor.clone()
        if change == "sparse" and new.numel():
            place = draw(st.integers(0, new.numel() - 1))
            new.view(-1)[place] = noise((1,), kind, seed + 1)[0]
        elif change == "dense":
            new = noise(shape, kind, seed + 1)
        elif change == "shape":
            new = noise((*shape, 2), kind, seed)
        elif change == "type":
            new = noise(shape, draw(kinds), seed)
        model[name] = new
        if draw(st.booleans()):
            model[f"z.{name}"] = new
        if draw(st.booleans()):
            model[f"0.{name}"] = new
    names = draw(st.permutations(list(model)))
    return base, {name: model[name] for name in names}


@settings(max_examples=80, deadline=None)
@given(pair=pairs())
def test_base_plus_adapter_is_the_model_bit_for_bit(pair, tmp_path_factory):
    base, model = pair
    found = through_a_file(Adapter.between(base, model, {"method": "dgst"}), tmp_path_factory.mktemp("adapter"))

    assert same_bits(found.apply(base), model)
    assert found.card["method"] == "dgst"
    assert (found.base_sha256, found.model_sha256) == (weights_hash(base), weights_hash(model))


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("new", [-0.0, float("nan"), float("inf"), 1e-40])
def test_odd_numbers_move_one_entry(kind, new):
    base = {"a": torch.zeros(100, dtype=kind)}
    model = {"a": base["a"].clone()}
    model["a"][7] = new
    adapter = Adapter.between(base, model, {})
    moved = 0 if torch.equal(raw(model["a"]), raw(base["a"])) else 1  # 1e-40 is 0 in half precision
    assert adapter.entries == moved
    assert same_bits(adapter.apply(base), model)


def test_equal_nan_has_not_moved():
    base = {"a": torch.full((10,), float("nan"))}
    assert Adapter.between(base, {"a": base["a"].clone()}, {}).entries == 0


def test_tensors_that_share_memory_are_saved(tmp_path):
    """safetensors refuses such tensors unless each has memory of its own."""
    buffer = torch.arange(12.0)
    model = {"all": buffer, "square": buffer.reshape(3, 4), "part": buffer[2:6], "turned": buffer.reshape(3, 4).T}
    assert same_bits(through_a_file(Adapter.between({}, model, {}), tmp_path).apply({}), model)


def test_names_of_one_tensor_are_one_tensor_again():
    shared = torch.zeros(4)
    model = {"encoder.a": shared, "decoder.a": shared, "own": torch.zeros(4)}
    adapter = Adapter.between({}, model, {})
    assert adapter.entries == 8
    rebuilt = adapter.apply({})
    assert rebuilt["encoder.a"].data_ptr() == rebuilt["decoder.a"].data_ptr() != rebuilt["own"].data_ptr()


def test_neither_base_nor_adapter_changes_when_it_is_applied():
    base, model = some_pair()
    adapter = Adapter.between(base, model, {})
    before = {name: tensor.clone() for name, tensor in base.items()}
    for tensor in adapter.apply(base).values():
        tensor.fill_(1)
    assert same_bits(base, before)
    assert same_bits(adapter.apply(base), model)


def some_pair(moved: int = 3) -> tuple[Weights, Weights]:
    base = {"a.weight": noise((40, 50), torch.float32, 0), "a.bias": torch.zeros(40), "n": torch.tensor(3)}
    model = {name: tensor.clone() for name, tensor in base.items()}
    model["a.weight"].view(-1)[:moved] += 1.0
    model["new"] = torch.ones(2, 2)
    model["alias"] = model["a.bias"]
    return base, model


def test_few_moved_entries_are_stored_sparsely_and_many_are_not(tmp_path):
    sizes = {}
    for moved in (3, 30, 2000):
        base, model = some_pair(moved)
        model["a.weight"].view(-1)[:moved] = 7.0
        adapter = Adapter.between(base, model, {})
        assert set(adapter.indices) == (set() if moved == 2000 else {"a.weight"})
        assert set(adapter.whole) == ({"new", "a.weight"} if moved == 2000 else {"new"})
        sizes[moved] = adapter.save(tmp_path / str(moved))
        files = [tmp_path / str(moved) / name for name in (TENSORS, CARD)]
        assert sizes[moved] == sum(file.stat().st_size for file in files)
    assert sizes[3] < sizes[30] < sizes[2000] / 3


def test_equal_adapters_are_equal_files(tmp_path):
    for name in ("one", "two"):
        base, model = some_pair()
        Adapter.between(base, model, {"method": "dgst", "settings": {"gamma": 1}}).save(tmp_path / name)
    for file in (TENSORS, CARD):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == [CARD, TENSORS]


def test_another_base_is_refused():
    base, model = some_pair()
    adapter = Adapter.between(base, model, {})
    other = base | {"a.bias": torch.full((40,), -0.0)}
    for wrong in (other, model, {}, {"z": base["a.weight"]}):
        with pytest.raises(TransferError, match="belongs to a base with hash"):
            adapter.apply(wrong)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    base, model = some_pair()
    Adapter.between(base, model, {"method": "dgst"}).save(tmp_path)
    return tmp_path


@pytest.mark.parametrize("file", [TENSORS, CARD])
@pytest.mark.parametrize(
    "damage",
    [lambda b: b[: len(b) // 2], lambda _: b"", lambda b: b"\xff" + b, None],
    ids=["half", "empty", "shifted", "gone"],
)
def test_a_damaged_file_is_refused_by_name(folder, file, damage):
    if damage is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(damage((folder / file).read_bytes()))
    with pytest.raises(ModelError, match=file) as refused:
        Adapter.load(folder)
    assert "\n" not in str(refused.value)


def test_a_changed_value_is_noticed(folder):
    base, _ = some_pair()
    content = bytearray((folder / TENSORS).read_bytes())
    content[-1] ^= 1
    (folder / TENSORS).write_bytes(content)
    with pytest.raises(TransferError, match="damaged"):
        Adapter.load(folder).apply(base)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other/1"},
        {"format": None},
        {"base_sha256": 3},
        {"model_sha256": None},
        {"same": ["alias"]},
        {"same": {"alias": "nowhere"}},
        {"same": {"alias": "alias"}},
        {"same": {"a.bias": "alias", "alias": "a.bias"}},
        {"same": {"alias": ["a.bias"]}},
        {"names": ["unknown"]},
        {"names": []},
        {"names": None},
        {"names": 3},
        {"names": [["a.weight"]]},
        {"names": ["a.weight", "a.bias", "n", "new"]},
    ],
    ids=str,
)
def test_a_card_that_is_wrong_is_an_error_of_ours(folder, change):
    base, _ = some_pair()
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | change))
    with pytest.raises(ModelError) as refused:  # TransferError is one
        Adapter.load(folder).apply(base)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("missing", ["format", "base_sha256", "model_sha256", "same", "names"])
def test_a_card_that_lacks_something(folder, missing):
    base, _ = some_pair()
    card = json.loads((folder / CARD).read_text())
    del card[missing]
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(ModelError):
        Adapter.load(folder).apply(base)


def test_a_card_that_is_a_list(folder):
    (folder / CARD).write_text("[]")
    with pytest.raises(ModelError, match="not an adapter"):
        Adapter.load(folder)


def beyond(tensors: Weights) -> None:
    tensors["a.weight:indices"] = torch.tensor([0, 1, 2**30], dtype=torch.int32)


def before_the_first(tensors: Weights) -> None:
    tensors["a.weight:indices"] = torch.tensor([0, 1, -99999], dtype=torch.int32)


def no_indices(tensors: Weights) -> None:
    tensors["a.weight:indices"] = torch.tensor([0.5, 1.5, 2.5])


def too_few_values(tensors: Weights) -> None:
    tensors["a.weight:values"] = torch.zeros(2)


def no_values(tensors: Weights) -> None:
    del tensors["a.weight:values"]


def of_another_tensor(tensors: Weights) -> None:
    tensors["stranger:indices"] = tensors.pop("a.weight:indices")
    tensors["stranger:values"] = tensors.pop("a.weight:values")


def of_another_part(tensors: Weights) -> None:
    tensors["a.weight:everything"] = torch.zeros(2)


def of_another_type(tensors: Weights) -> None:
    tensors["a.weight:values"] = tensors["a.weight:values"].to(torch.float64)[:, None]


@pytest.mark.parametrize(
    "change",
    [
        beyond,
        before_the_first,
        no_indices,
        too_few_values,
        no_values,
        of_another_tensor,
        of_another_part,
        of_another_type,
    ],
)
def test_tensors_that_do_not_belong_are_an_error_of_ours(folder, change: Any):
    base, _ = some_pair()
    tensors = load_file(folder / TENSORS)
    change(tensors)
    save_file(tensors, folder / TENSORS)
    with pytest.raises(ModelError) as refused:
        Adapter.load(folder).apply(base)
    assert "\n" not in str(refused.value)

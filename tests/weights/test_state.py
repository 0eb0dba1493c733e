from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lnsegfm.nnunet.network_building import build_network
from lnsegfm.weights.checkpoint import Checkpoint
from lnsegfm.weights.state import aliases, raw, weights_hash
from tests.scenes import small_plans


def test_the_convolutions_of_nnunets_network_are_known_under_all_their_names():
    labels = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "node": 1}, "file_ending": ".nii.gz"}
    network = build_network(
        Checkpoint({}, "3d_fullres", small_plans(), labels, "nnUNetTrainer", None), deep_supervision=True
    )
    weights = network.state_dict()

    names = aliases(weights)

    assert set(names) == set(weights)
    assert len(set(names.values())) == len({id(p) for p in network.parameters()})
    for alias, name in names.items():
        assert weights[alias].data_ptr() == weights[name].data_ptr()
    of_one = [alias for alias, name in names.items() if name == names["encoder.stages.0.0.convs.0.conv.weight"]]
    assert sorted(of_one) == [
        "decoder.encoder.stages.0.0.convs.0.all_modules.0.weight",
        "decoder.encoder.stages.0.0.convs.0.conv.weight",
        "encoder.stages.0.0.convs.0.all_modules.0.weight",
        "encoder.stages.0.0.convs.0.conv.weight",
    ]


def test_only_the_same_place_shape_stride_and_type_are_the_same_tensor():
    square = torch.arange(9.0).reshape(3, 3)
    weights = {
        "a": square,
        "b": square,
        "copy": square.clone(),
        "first row": square[0],
        "transposed": square.T,
        "as integers": square.view(torch.int32),
        "empty": torch.empty(0),
        "also empty": torch.empty(0),
    }
    assert aliases(weights) == {name: "a" if name == "b" else name for name in weights}


def base() -> dict[str, Tensor]:
    return {"a": torch.tensor([[0.0, 1.0], [2.0, 3.0]]), "b": torch.zeros(3, dtype=torch.int64)}


def one_bit(weights: dict[str, Tensor]) -> None:
    weights["a"].view(torch.int32)[1, 1] ^= 1


def minus_zero(weights: dict[str, Tensor]) -> None:
    weights["a"][0, 0] = -0.0


def renamed(weights: dict[str, Tensor]) -> None:
    weights["c"] = weights.pop("b")


def retyped(weights: dict[str, Tensor]) -> None:
    weights["b"] = weights["b"].to(torch.float64)  # the bytes stay: eight zeros an entry


def reshaped(weights: dict[str, Tensor]) -> None:
    weights["a"] = weights["a"].reshape(4)


def swapped(weights: dict[str, Tensor]) -> None:
    weights["a"] = weights["a"].T


def one_more(weights: dict[str, Tensor]) -> None:
    weights["d"] = torch.empty(0)


@pytest.mark.parametrize("change", [one_bit, minus_zero, renamed, retyped, reshaped, swapped, one_more])
def test_the_hash_sees(change):
    weights = base()
    change(weights)
    assert weights_hash(weights) != weights_hash(base())


def test_the_hash_sees_one_nan_from_another():
    quiet, signed = torch.tensor([0x7FC00000]), torch.tensor([0x7FC00001])
    nans = [bits.to(torch.int32).view(torch.float32) for bits in (quiet, signed)]
    assert all(nan.isnan().all() for nan in nans)
    assert weights_hash({"a": nans[0]}) != weights_hash({"a": nans[1]})


def test_the_hash_does_not_see_order_layout_or_gradients():
    weights = base()
    laid_out_otherwise = {"b": weights["b"].clone(), "a": weights["a"].T.contiguous().T.requires_grad_()}
    assert weights_hash(laid_out_otherwise) == weights_hash(weights)


@pytest.mark.parametrize(("tensor", "shape"), [(torch.tensor(3), (1, 8)), (torch.empty(0, 4), (0, 4))])
def test_bytes_of_a_single_number_and_of_nothing(tensor, shape):
    assert tuple(raw(tensor).shape) == shape
    assert weights_hash({"a": tensor})

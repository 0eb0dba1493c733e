from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import Tensor, nn

from lnsegfm.errors import ConfigError, TransferError
from lnsegfm.testing.tiny_networks import UNET
from lnsegfm.weights.state import aliases, raw
from lnsegfm.weights.transfer import transfer
from lnsegfm.weights.transfer_report import percent

NODES = ["background", "node", "vessel", "thyroid"]
State = dict[str, Tensor]
TABLE = """\
module group         tensors  parameters  matched  adapted    new
encoder.stages            12       1,419   88.6 %   11.4 %    0 %  input channels 1 -> 2: repeated and halved
decoder.stages             8       1,860   99.8 %      0 %  0.2 %  not in the base
decoder.transpconvs        4         368    100 %      0 %    0 %
head                       4          30      0 %    100 %    0 %  labels kept: node; new: tumour
all                       28       3,677   94.7 %    5.2 %  0.1 %
unused of the base: old.weight
"""


def unet(labels: list[str], seed: int, **settings: Any) -> nn.Module:
    torch.manual_seed(seed)
    network = PlainConvUNet(**UNET | {"num_classes": len(labels)} | settings, n_conv_per_stage=1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()  # norms and biases start equal in any two networks
    return network


@pytest.fixture(scope="module")
def base() -> State:
    return unet(NODES, 0).state_dict()


def is_head(name: str) -> bool:
    return "seg_layers" in name


def same_bits(one: State, other: State) -> bool:
    return list(one) == list(other) and all(torch.equal(raw(one[name]), raw(other[name])) for name in one)


def without(base: State, *first_names: str) -> State:
    """A base that lacks tensors under any of their names."""
    names = aliases(base)
    return {name: tensor for name, tensor in base.items() if names[name] not in {names[n] for n in first_names}}


def changed(base: State, *names: str, to: Tensor) -> State:
    """A base in which tensors are another one under any of their names."""
    first = aliases(base)
    return {name: to if first[name] in {first[n] for n in names} else tensor for name, tensor in base.items()}


@pytest.mark.parametrize(
    ("labels", "kept", "new"),
    [
        (NODES, NODES[1:], []),
        (["background", "thyroid", "node", "vessel"], ["thyroid", "node", "vessel"], []),
        (["background", "larynx", "vessel"], ["vessel"], ["larynx"]),
        (["background", "node"], ["node"], []),
        (["background", "a", "b", "c", "d", "node"], ["node"], ["a", "b", "c", "d"]),
        (["background", "larynx"], [], ["larynx"]),
    ],
    ids=["same", "reordered", "one new", "dropped", "more", "none known"],
)
def test_heads_go_by_label_name_and_all_else_as_it_is(base, labels, kept, new):
    network = unet(labels, 1)

    report = transfer(base, network, base_labels=NODES, labels=labels)

    for name, tensor in network.state_dict().items():
        if not is_head(name):
            assert torch.equal(raw(tensor), raw(base[name])), name
            continue
        for row, label in enumerate(labels):
            expected = base[name][NODES.index(label if label in NODES else "background")]
            if name.endswith("bias") and new and label not in kept:
                expected = expected + math.log(0.99 if label == "background" else 0.01 / len(new))
            torch.testing.assert_close(tensor[row], expected, rtol=0, atol=1e-7)
            assert label not in kept or torch.equal(tensor[row], expected), (name, label)
    assert list(report.labels_kept) == kept
    assert list(report.labels_new) == new
    # each tensor once, whatever number of names it has
    tensors = len({id(p) for p in network.parameters()})
    assert len(report.matched) + len(report.adapted) + len(report.fresh) == tensors
    heads = 2 * len(network.decoder.seg_layers)
    assert len(report.adapted) == (0 if labels == NODES else heads)
    assert report.fresh == report.unused == ()
    assert report.to_json()["matched"] == len(report.matched)
    assert report.parameters.fresh == 0
    assert report.share == 1


@pytest.mark.parametrize("new", [["larynx"], ["a", "b", "c"]], ids=["one", "three"])
def test_new_labels_take_a_hundredth_of_the_backgrounds_probability_and_leave_the_others_theirs(base, new):
    """Beside a certain background a fresh head has a probability near 0, and nothing is learnt."""
    labels = ["background", *new[1:], "vessel", new[0], "node", "thyroid"]
    before, after = unet(NODES, 1), unet(labels, 1)
    before.load_state_dict(base)
    transfer(base, after, base_labels=NODES, labels=labels)
    scan = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        old, found = (network.eval()(scan)[0].softmax(1)[0] for network in (before, after))
    for label in NODES[1:]:
        torch.testing.assert_close(found[labels.index(label)], old[NODES.index(label)])
    torch.testing.assert_close(found[0], 0.99 * old[0])
    for label in new:
        torch.testing.assert_close(found[labels.index(label)], 0.01 / len(new) * old[0])


def test_rows_of_new_labels_are_fresh_where_no_bias_can_lower_them_or_nothing_is_the_background():
    """Half of the background's probability at once would drive training to where everything is background."""
    for bias, known in ((False, "background"), (True, "organ")):
        network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2, bias=bias))
        before = copy.deepcopy(network[1].state_dict())
        base = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2, bias=bias)).state_dict()
        report = transfer(base, network, base_labels=[known, "x"], labels=[known, "v"], head=[network[1]])
        for name, tensor in network[1].state_dict().items():
            assert torch.equal(tensor[0], base[f"1.{name}"][0])
            assert torch.equal(tensor[1], before[name][1])
        assert report.parameters.fresh == sum(tensor[1].numel() for tensor in before.values())


def test_the_base_is_left_alone(base):
    before = {name: tensor.clone() for name, tensor in base.items()}
    network = unet(["background", "node"], 1, input_channels=2)
    transfer(base, network, base_labels=NODES, labels=["background", "node"], base_channels=1, channels=2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert all(torch.equal(base[name], before[name]) for name in base)


def test_the_report_is_told_in_a_line(base):
    network = unet(["background", "larynx", "node"], 1)
    report = transfer(
        base | {"extra": torch.zeros(2)}, network, base_labels=NODES, labels=["background", "larynx", "node"]
    )
    tensors = len({id(p) for p in network.parameters()})
    heads = len(report.adapted)
    assert report.summary() == (
        f"{tensors - heads} tensors matched (99.2 % of the parameters), {heads} adapted (0.8 %), 0 new, "
        "1 of the base unused; heads kept: node; new heads: larynx"
    )


def test_what_the_network_has_no_place_for_is_counted_once(base):
    extra = torch.zeros(2)
    report = transfer(
        base | {"second": extra, "first": extra, "other": torch.ones(1)},
        unet(NODES, 1),
        base_labels=NODES,
        labels=NODES,
    )
    assert report.unused == ("first", "other")


def test_heads_without_any_row_of_the_base_are_fresh():
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    before = copy.deepcopy(network[1].state_dict())
    base = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)).state_dict()
    report = transfer(base, network, base_labels=["x", "y"], labels=["u", "v"], head=[network[1]])
    assert report.fresh == ("1.weight", "1.bias")
    assert report.matched == ("0.weight", "0.bias")
    assert all(torch.equal(network[1].state_dict()[name], before[name]) for name in before)


@pytest.mark.parametrize("damage", ["missing", "wider"])
def test_a_label_is_kept_only_where_its_whole_head_is(base, damage):
    """Two heads, for deep supervision: a label whose one head is fresh is not told as kept."""
    head = "decoder.seg_layers.0.weight"
    shape = torch.zeros(len(NODES), 99, 1, 1, 1)
    part = without(base, head) if damage == "missing" else changed(base, head, to=shape)
    report = transfer(part, unet(NODES[:2], 1), base_labels=NODES, labels=NODES[:2])
    assert report.fresh == (head,)
    assert (report.labels_kept, report.labels_new) == ((), ("node",))
    assert report.share == 1, "a head is no part of the share"


def test_too_little_is_refused_with_the_first_differences_counted_once_and_the_network_left_as_it_was(base):
    names = aliases(base)
    body = list(dict.fromkeys(names[name] for name in base if not is_head(name)))
    missing, others = body[0], body[1:8]
    damaged = without(changed(base, *others, to=torch.zeros(99)), missing)
    network = unet(NODES[:2], 1)
    before = copy.deepcopy(network.state_dict())

    with pytest.raises(TransferError) as refused:
        transfer(damaged, network, base_labels=NODES, labels=NODES[:2], minimum=0.95)

    said = str(refused.value)
    assert "of the parameters come from it, at least 95 % should, 8 tensors differ: " in said
    assert said.count("(99,) in the base") + said.count("is not in the base") == 5
    assert " and 3 more. " in said
    assert "\n" not in said
    places = [said.index(f"{name} (") for name in list(before) if f" {name} (" in said]
    assert len(places) == 5
    assert places == sorted(places), "in the network's order"
    assert same_bits(network.state_dict(), before)


def test_one_difference_is_told_without_a_remainder(base):
    name = "encoder.stages.0.0.convs.0.conv.weight"
    for shape in ((7,), ()):
        damaged = changed(base, name, to=torch.zeros(shape))
        with pytest.raises(TransferError, match="1 tensor differs: ") as refused:
            transfer(damaged, unet(NODES[:2], 1), base_labels=NODES, labels=NODES[:2], minimum=1)
        assert f"{name} (3, 1, 3, 3, 3) is {shape} in the base. " in str(refused.value)
        assert "more" not in str(refused.value)


def test_the_share_is_of_parameters_and_the_minimum_just_reached_is_enough():
    network = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False), nn.Linear(2, 2))
    base = copy.deepcopy(network.state_dict())
    del base["1.weight"]  # 8 of 20
    labels = ["background", "node"]
    call = {"base_labels": labels, "labels": labels, "head": [network[2]]}
    report = transfer(base, network, minimum=0.6, **call)
    assert report.share == 0.6
    assert report.parameters.total == 26
    with pytest.raises(TransferError, match=r"60 % of the parameters come from it, at least 60\.1 % should"):
        transfer(base, network, minimum=0.601, **call)
    assert transfer({}, network, minimum=0, **call).share == 0
    assert transfer(base, network, minimum=1, covers=["0."], **call).share == 1
    with pytest.raises(TransferError, match=r"0 % of the parameters of 1\. come from it"):
        transfer(base, network, covers=["1."], **call)
    with pytest.raises(TransferError, match=r"Modules 3\. of the base: no parameter of the network"):
        transfer(base, network, covers=["3."], **call)
    for minimum in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="minimum"):
            transfer(base, network, minimum=minimum, **call)


def test_a_base_that_has_the_encoder_alone(base):
    network = unet(["background", "larynx"], 1)
    before = copy.deepcopy(network.state_dict())
    encoder = {name: tensor for name, tensor in base.items() if name.startswith("encoder.")}
    with pytest.raises(TransferError, match=r"decoder\.stages.* is not in the base"):
        transfer(encoder, network, base_labels=[], labels=["background", "larynx"])
    assert same_bits(network.state_dict(), before)

    report = transfer(encoder, network, base_labels=[], labels=["background", "larynx"], covers=["encoder"])

    assert report.share == 1
    assert report.labels_new == ("larynx",)
    for name, tensor in network.state_dict().items():
        part_of_encoder = name.removeprefix("decoder.").startswith("encoder.")
        assert torch.equal(tensor, (base if part_of_encoder else before)[name]), name
    assert {group.name: group.tensors.fresh > 0 for group in report.groups} == {
        "encoder.stages": False,
        "decoder.stages": True,
        "decoder.transpconvs": True,
        "head": True,
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e300])
@pytest.mark.parametrize("name", ["decoder.stages.0.convs.0.norm.bias", "decoder.seg_layers.1.weight", "unused"])
def test_a_value_that_is_no_finite_number_is_refused_by_name(base, name, value):
    tensor = base.get(name, torch.zeros(3)).to(torch.float64)
    tensor.view(-1)[-1] = value
    network = unet(NODES[:2], 1)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(TransferError, match="values that are not finite") as refused:
        transfer(base | {name: tensor}, network, base_labels=NODES, labels=NODES[:2], minimum=0)
    assert f"Tensor {name} of the base" in str(refused.value)
    assert same_bits(network.state_dict(), before)


def test_names_of_one_tensor_that_hold_two_in_the_base_are_no_match(base):
    name = "encoder.stages.0.0.convs.0.conv.weight"
    twins = [n for n, first in aliases(base).items() if first == aliases(base)[name] and n != name]
    assert len(twins) == 3
    equal = base | {twins[0]: base[name].clone()}
    assert transfer(equal, unet(NODES, 1), base_labels=NODES, labels=NODES).fresh == ()
    other = base | {twins[0]: base[name] + 1}
    report = transfer(other, unet(NODES, 1), base_labels=NODES, labels=NODES)
    assert report.fresh == (name,)
    assert "two tensors in the base" in report.groups[0].notes


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_another_precision_are_taken_as_floats(base, kind):
    network = unet(NODES, 1)
    report = transfer({n: t.to(kind) for n, t in base.items()}, network, base_labels=NODES, labels=NODES)
    assert report.adapted == report.fresh == ()
    assert all(torch.equal(t, base[n].to(kind).float()) for n, t in network.state_dict().items())


def test_integers_are_not_taken_for_floats(base):
    name = "decoder.stages.0.convs.0.norm.bias"
    report = transfer(
        changed(base, name, to=torch.ones(5, dtype=torch.int64)), unet(NODES, 1), base_labels=NODES, labels=NODES
    )
    assert report.fresh == (name,)
    assert {group.name: group.notes for group in report.groups}["decoder.stages"] == ("int64 in the base",)


def test_the_report_as_json_and_as_a_table(base):
    labels = ["background", "tumour", "node"]
    network = unet(labels, 1, input_channels=2)
    part = without(base, "decoder.stages.1.convs.0.norm.weight") | {"old.weight": torch.zeros(3)}
    report = transfer(part, network, base_labels=NODES, labels=labels, base_channels=1, channels=2)

    told = json.loads(json.dumps(report.to_json()))
    assert told["fresh"] == ["decoder.stages.1.convs.0.norm.weight"]
    assert told["unused"] == ["old.weight"]
    assert (told["labels_kept"], told["labels_new"]) == (["node"], ["tumour"])
    assert told["adapted"][0] == "encoder.stages.0.0.convs.0.conv.weight"
    assert told["matched"] == len(report.matched)
    assert sum(told["parameters"].values()) == sum(p.numel() for p in network.parameters())
    assert [group["name"] for group in told["groups"]] == [
        "encoder.stages",
        "decoder.stages",
        "decoder.transpconvs",
        "head",
    ]
    assert told["groups"][0] == {
        "name": "encoder.stages",
        "tensors": {"matched": 11, "adapted": 1, "fresh": 0},
        "parameters": {"matched": 1257, "adapted": 162, "fresh": 0},
        "notes": ["input channels 1 -> 2: repeated and halved"],
    }
    assert told["groups"][1]["notes"] == ["not in the base"]

    assert report.lines() == tuple(TABLE.splitlines())


def test_a_head_in_groups_is_taken_whole_or_not_at_all():
    """Which inputs a row reads depends on its place, so rows cannot be put in another order."""
    network = nn.Sequential(nn.Conv3d(1, 4, 1), nn.Conv3d(4, 2, 1, groups=2))
    base = copy.deepcopy(network.state_dict())
    for labels, fresh in ((["background", "b"], 0), (["b", "background"], 2)):
        report = transfer(base, network, base_labels=["background", "b"], labels=labels, head=[network[1]])
        assert len(report.fresh) == fresh
        assert report.labels_kept == (() if fresh else ("b",))


@pytest.mark.parametrize(
    ("part", "whole", "told"),
    [
        (0, 9, "0 %"),
        (9, 9, "100 %"),
        (0, 0, "0 %"),
        (1, 8, "12.5 %"),
        (1, 10**6, "0.1 %"),
        (10**6 - 1, 10**6, "99.9 %"),
    ],
)
def test_none_and_all_are_told_of_none_and_all_only(part, whole, told):
    assert percent(part, whole) == told


def test_a_network_that_nobody_knows_needs_its_head_named():
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    with pytest.raises(ConfigError, match="its head is not known"):
        transfer(network.state_dict(), network, base_labels=["a", "b"], labels=["a", "b"])

"""What holds for every network: each way of holding parameters that the tiny ones have."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lnsegfm.errors import TransferError
from lnsegfm.networks.parameter_roles import parameters_of
from lnsegfm.networks.role import Role
from lnsegfm.testing.tiny_networks import TINY
from lnsegfm.weights.state import aliases, raw
from lnsegfm.weights.transfer import Transfer, transfer

LABELS = ["background", "node"]
State = dict[str, Tensor]


@pytest.fixture(params=sorted(TINY))
def name(request) -> str:
    return request.param


def trained(name: str, seed: int, labels: int = 2, channels: int = 1) -> tuple[Any, list[nn.Module]]:
    """A tiny network no tensor of which is as it was made, with another number of labels or input channels."""
    network, head = TINY[name].make(seed)
    with torch.no_grad():
        for layer in head_layers(network, head):
            axis = 1 if isinstance(layer, nn.ConvTranspose3d) else 0
            layer.weight = nn.Parameter(layer.weight.narrow(axis, 0, 1).repeat_interleave(labels, axis))
            layer.bias = nn.Parameter(torch.zeros(labels))
            if hasattr(layer, "out_channels"):
                layer.out_channels = labels
        first = next(module for module in network.modules() if isinstance(module, nn.Conv3d))
        first.weight = nn.Parameter(first.weight.repeat_interleave(channels, 1))
        first.in_channels = channels
        for parameter in network.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1000 * seed + parameter.numel()))
        for key, buffer in network.named_buffers():
            if "var" in key:
                buffer.uniform_(0.5, 2)
            elif buffer.is_floating_point():
                buffer.normal_()
            else:
                buffer.fill_(seed + 7)
    return network, head_layers(network, head)


def head_layers(network: nn.Module, head: Any) -> list[nn.Module]:
    """The layers of the head themselves."""
    modules = head if head is not None else [network.decoder.seg_layers]
    return [layer for module in modules for layer in module.modules() if hasattr(layer, "weight")]


def between(name: str, base: State, network: nn.Module, head: list[nn.Module], **settings: Any) -> Transfer:
    settings = {"base_labels": LABELS, "labels": LABELS} | settings
    return transfer(base, network, head=head if TINY[name].head else None, **settings)


def same_bits(one: State, other: State) -> bool:
    return list(one) == list(other) and all(torch.equal(raw(one[name]), raw(other[name])) for name in one)


def require_true_counts(report: Transfer, network: nn.Module) -> None:
    """Everything is counted once, and the groups are the whole."""
    parameters = {id(p): p.numel() for p in network.parameters()}
    assert report.parameters.total == sum(parameters.values())
    statistics = sum(1 for _ in network.buffers())
    tensors = [len(report.matched), len(report.adapted), len(report.fresh)]
    assert sum(tensors) == len(parameters) + statistics
    for fate, number in zip(("matched", "adapted", "fresh"), tensors, strict=True):
        assert sum(getattr(group.tensors, fate) for group in report.groups) == number
    assert len({group.name for group in report.groups}) == len(report.groups)
    named = [*report.matched, *report.adapted, *report.fresh]
    assert len(set(named)) == len(named)
    assert len(report.lines()) == len(report.groups) + 2 + bool(report.unused)


def test_the_same_network_takes_everything_bit_for_bit(name):
    base = trained(name, 0)[0].state_dict()
    network, head = trained(name, 1)
    assert not same_bits(network.state_dict(), base)

    report = between(name, base, network, head, minimum=1)

    assert same_bits(network.state_dict(), base)
    assert report.adapted == report.fresh == report.unused == report.labels_new == ()
    assert report.share == 1
    assert {parameter.name for parameter in parameters_of(network, head)} <= set(report.matched)
    require_true_counts(report, network)


@pytest.mark.parametrize("which", [0, -1], ids=["first", "last"])
def test_one_name_of_a_tensor_is_enough(name, which):
    """Each tensor of the base under its first or its last name alone, in memory of its own."""
    whole = trained(name, 0)[0].state_dict()
    names: dict[str, list[str]] = {}
    for alias, first in aliases(whole).items():
        names.setdefault(first, []).append(alias)
    base = {sorted(same)[which]: whole[first].clone() for first, same in names.items()}
    if name in ("plain-unet", "resenc-unet", "tied"):
        assert len(base) < len(whole)
    network, head = trained(name, 1)

    report = between(name, base, network, head, minimum=1)

    assert same_bits(network.state_dict(), whole)
    assert report.adapted == report.fresh == report.unused == ()


@pytest.mark.parametrize(
    "labels",
    [["background", "vessel", "node"], ["background", "larynx", "vessel", "x"], ["background", "node"]],
    ids=["permuted", "one kept, two new", "dropped"],
)
def test_heads_go_by_label_name(name, labels):
    theirs = ["background", "node", "vessel"]
    network, _ = trained(name, 0, labels=len(theirs))
    base = copy.deepcopy(network.state_dict())
    network, head = trained(name, 1, labels=len(labels))
    new = [label for label in labels if label not in theirs]

    report = between(name, base, network, head, base_labels=theirs, labels=labels, minimum=1)

    heads = {parameter.name: parameter for parameter in parameters_of(network, head) if parameter.role is Role.HEAD}
    assert set(report.adapted) == set(heads)
    for key, tensor in network.state_dict().items():
        if aliases(network.state_dict())[key] not in {aliases(network.state_dict())[h] for h in heads}:
            assert torch.equal(raw(tensor), raw(base[key])), key
    for key, parameter in heads.items():
        axis = 1 if isinstance(parameter.module, nn.ConvTranspose3d) and parameter.tensor.dim() > 1 else 0
        for row, label in enumerate(labels):
            expected = base[key].select(axis, theirs.index(label if label in theirs else "background"))
            if parameter.tensor.dim() == 1 and new and label not in theirs[1:]:
                expected = expected + math.log(0.99 if label == "background" else 0.01 / len(new))
            assert torch.equal(parameter.tensor.select(axis, row), expected), (key, label)
    assert report.labels_kept == tuple(label for label in labels[1:] if label in theirs)
    assert report.parameters.adapted == sum(p.tensor.numel() for p in heads.values())
    require_true_counts(report, network)


@pytest.mark.parametrize(("old", "new"), [(1, 2), (1, 3), (2, 1), (3, 1), (2, 3), (4, 2), (3, 4)])
def test_one_image_in_every_channel_has_the_response_it_had(name, old, new):
    teacher, _ = trained(name, 0, channels=old)
    base = copy.deepcopy(teacher.state_dict())
    network, head = trained(name, 1, channels=new)

    report = between(name, base, network, head, base_channels=old, channels=new, minimum=1)

    assert len(report.adapted) == 1
    assert report.fresh == ()
    image = TINY[name].batch(3)
    teacher.double().eval()
    network.double().eval()
    with torch.no_grad():
        theirs = teacher(image.double().expand(-1, old, -1, -1, -1))
        ours = network(image.double().expand(-1, new, -1, -1, -1))
    for one, other in zip(*([o] if isinstance(o, Tensor) else o for o in (theirs, ours)), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)  # the weights are single numbers
    require_true_counts(report, network)


@pytest.mark.parametrize(("old", "new"), [(1, 2), (2, 1), (1, 4), (4, 2), (2, 8), (3, 2)])
def test_the_first_layers_response_is_exactly_what_it_was(name, old, new):
    """Whole numbers, divided by powers of two: nothing is rounded."""
    integers = torch.Generator().manual_seed(5)
    teacher, _ = trained(name, 0, channels=old)
    theirs = next(module for module in teacher.modules() if isinstance(module, nn.Conv3d))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randint(-8, 9, parameter.shape, generator=integers))
    network, head = trained(name, 1, channels=new)
    between(name, teacher.state_dict(), network, head, base_channels=old, channels=new)
    ours = next(module for module in network.modules() if isinstance(module, nn.Conv3d))
    image = torch.randint(-8, 9, (1, 1, 8, 8, 8), generator=integers).float()
    with torch.no_grad():
        assert torch.equal(ours(image.expand(-1, new, -1, -1, -1)), theirs(image.expand(-1, old, -1, -1, -1)))


@pytest.mark.parametrize(
    "told", [{}, {"base_channels": 2, "channels": 3}, {"base_channels": 1, "channels": 3}], ids=str
)
def test_channels_that_are_not_those_of_the_images_are_not_adapted(name, told):
    base = copy.deepcopy(trained(name, 0, channels=1)[0].state_dict())
    network, head = trained(name, 1, channels=2)
    before = copy.deepcopy(network.state_dict())
    report = between(name, base, network, head, minimum=0, **told)
    (left,) = report.fresh
    assert torch.equal(network.state_dict()[left], before[left])
    require_true_counts(report, network)


def test_a_refusal_changes_nothing(name):
    """A base with heads, channels and tensors that fit, which would all be taken if it came first to copying."""
    base = copy.deepcopy(trained(name, 0, labels=3, channels=1)[0].state_dict())
    network, head = trained(name, 1, labels=4, channels=2)
    parameters = [parameter for parameter in parameters_of(network, head) if parameter.role is not Role.HEAD]
    first = aliases(network.state_dict())
    lost = {first[parameter.name] for parameter in parameters[len(parameters) // 2 :]}
    base = {key: tensor for key, tensor in base.items() if first[key] not in lost}
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(TransferError, match="is not in the base") as refused:
        between(
            name,
            base,
            network,
            head,
            base_labels=["background", "a", "b"],
            labels=["background", "b", "c", "d"],
            base_channels=1,
            channels=2,
            minimum=0.999,
        )
    assert "\n" not in str(refused.value)
    assert f": {parameters[len(parameters) // 2].name} (" in str(refused.value), "what differs first is told first"
    assert same_bits(network.state_dict(), before)


def test_an_empty_base_leaves_everything_fresh_where_that_is_asked_for(name):
    network, head = trained(name, 1)
    before = copy.deepcopy(network.state_dict())
    report = between(name, {}, network, head, minimum=0)
    assert same_bits(network.state_dict(), before)
    assert report.share == 0
    assert report.parameters.fresh == report.parameters.total
    assert report.labels_kept == ()
    require_true_counts(report, network)


def test_counters_of_a_norm_come_along_and_what_a_network_computes_stays_its_own():
    class Computed(nn.Sequential):
        def __init__(self, size: int) -> None:
            super().__init__(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2), nn.Conv3d(2, 2, 1))
            self.register_buffer("index", torch.arange(size))
            self.register_buffer("mask", torch.zeros(size, dtype=torch.bool))

    base, network = Computed(9), Computed(4)
    base[1].num_batches_tracked.fill_(12)
    for state in (base.state_dict(), base.state_dict() | {"index": torch.full((4,), 3)}):
        report = transfer(state, network, base_labels=LABELS, labels=LABELS, head=[network[2]])
        assert report.adapted == report.fresh == report.unused == ()
        assert "index" not in report.matched
        assert torch.equal(network.index, torch.arange(4))
        assert network[1].num_batches_tracked == 12

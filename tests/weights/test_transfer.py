from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from lnsegfm.errors import ConfigError, TransferError
from lnsegfm.nnunet.model import build_network
from lnsegfm.weights.checkpoint import Checkpoint
from lnsegfm.weights.state import aliases, raw
from lnsegfm.weights.transfer import transfer
from tests.nnunet.scenes import small_plans

NODES = ["background", "node", "vessel", "thyroid"]


def unet(labels: list[str], seed: int) -> nn.Module:
    described = {
        "channel_names": {"0": "CT"},
        "labels": {name: value for value, name in enumerate(labels)},
        "file_ending": ".nii.gz",
    }
    torch.manual_seed(seed)
    start = Checkpoint({}, "3d_fullres", small_plans(), described, "nnUNetTrainer", None)
    network = build_network(start, deep_supervision=True)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()  # norms and biases start equal in any two networks
    return network


@pytest.fixture(scope="module")
def base() -> dict[str, Tensor]:
    return unet(NODES, 0).state_dict()


def is_head(name: str) -> bool:
    return "seg_layers" in name


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
    fresh = copy.deepcopy(network.state_dict())

    report = transfer(base, network, base_labels=NODES, labels=labels)

    for name, tensor in network.state_dict().items():
        if not is_head(name):
            assert torch.equal(raw(tensor), raw(base[name])), name
            continue
        for row, label in enumerate(labels):
            expected = base[name][NODES.index(label)] if label in NODES else fresh[name][row]
            assert torch.equal(tensor[row], expected), (name, label)
    assert list(report.labels_kept) == kept
    assert list(report.labels_new) == new
    # each tensor once, whatever number of names it has
    tensors = len({id(p) for p in network.parameters()})
    assert len(report.matched) + len(report.adapted) + len(report.fresh) == tensors
    heads = 2 * len(network.decoder.seg_layers)
    assert len(report.adapted) == (0 if labels == NODES else heads)
    assert report.fresh == report.unused == ()
    assert report.to_json()["matched"] == len(report.matched)


def test_the_base_is_left_alone(base):
    before = {name: tensor.clone() for name, tensor in base.items()}
    network = unet(["background", "node"], 1)
    transfer(base, network, base_labels=NODES, labels=["background", "node"])
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
        f"{tensors - heads} tensors matched, {heads} adapted, 0 new, 1 of the base unused; "
        "heads kept: node; fresh heads: larynx"
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


def test_differences_are_listed_and_counted_aliases_once(base):
    names = aliases(base)
    body = sorted({name for name in names.values() if not is_head(name)})
    missing, others = body[0], body[1:8]
    damaged = {name: tensor for name, tensor in base.items() if names[name] != missing}
    for name in damaged:
        if names[name] in others:
            damaged[name] = torch.zeros(99)

    with pytest.raises(TransferError) as refused:
        transfer(damaged, unet(NODES, 1), base_labels=NODES, labels=NODES)

    said = str(refused.value)
    assert "8 tensors differ: " in said
    assert said.count("(99,) in the base") + said.count("is not in the base") == 5
    assert " and 3 more. " in said
    assert "\n" not in said


def test_one_difference_is_told_without_a_remainder(base):
    head = next(name for name in base if is_head(name) and name.endswith("bias"))
    tied = {name for name, first in aliases(base).items() if first == aliases(base)[head]}
    for shape in ((7,), ()):
        damaged = base | dict.fromkeys(tied, torch.zeros(shape))
        with pytest.raises(TransferError, match="1 tensor differs: ") as refused:
            transfer(damaged, unet(NODES[:2], 1), base_labels=NODES, labels=NODES[:2])
        assert f"is {shape} in the base" in str(refused.value)
        assert "more" not in str(refused.value)


def test_a_network_that_nobody_knows_needs_its_head_named():
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    with pytest.raises(ConfigError, match="its head is not known"):
        transfer(network.state_dict(), network, base_labels=["a", "b"], labels=["a", "b"])

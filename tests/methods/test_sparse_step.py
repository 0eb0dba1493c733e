"""A sparse step beside one that is taken kernel by kernel, whichever way entries are found."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lnsegfm.methods.sparse_sgd import FEW, SparseSGD
from lnsegfm.networks.layout import KernelLayout

LAYERS = {
    "plain": nn.Conv3d(6, 5, 3),
    "grouped": nn.Conv3d(6, 4, 3, groups=2),
    "few entries": nn.Conv3d(2, 5, 2),
    "point": nn.Conv3d(96, 3, 1),
    "prime": nn.Conv3d(67, 3, 1),
    "linear": nn.Linear(128, 3),
    "up": nn.ConvTranspose3d(12, 5, 2),
    "up in groups": nn.ConvTranspose3d(24, 6, 2, groups=2),
}


def kernels(weight: Tensor, layer: nn.Module) -> list[Tensor]:
    """Views of each output filter."""
    if not isinstance(layer, nn.ConvTranspose3d):
        return list(weight)
    parts = weight.view(layer.groups, -1, *weight.shape[1:])
    return [parts[group, :, out] for group in range(layer.groups) for out in range(weight.shape[1])]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("gamma", [1, 2, FEW, FEW + 1, 0])
@pytest.mark.parametrize("name", LAYERS)
def test_a_kernel_moves_in_its_steepest_entries(name: str, gamma: int, last: bool) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]
    start = torch.randn_like(layer.weight).detach()
    gradient = torch.randn_like(start)
    weight = nn.Parameter(start.clone())
    if last and start.dim() == 5:
        weight = nn.Parameter(start.clone(memory_format=torch.channels_last_3d))
        gradient = gradient.contiguous(memory_format=torch.channels_last_3d)
    weight.grad = gradient
    optimizer = SparseSGD(
        [], [(weight, KernelLayout.of(layer))], gamma=gamma, mode="paper", lr=0.1, momentum=0.9, nesterov=True,
        weight_decay=1e-4,
    )  # fmt: skip
    optimizer.step()
    wanted = start.clone()
    for own, steps in zip(kernels(wanted, layer), kernels(gradient.contiguous(), layer), strict=True):
        number = min(gamma or own.numel(), own.numel())
        least = steps.abs().flatten().sort(descending=True).values[number - 1]
        own.copy_(torch.where(steps.abs() >= least, own.sub(steps, alpha=0.1), own))
    assert torch.equal(weight.detach(), wanted)


@pytest.mark.parametrize("length", [64, 67, 81, 128, 864, 1000])
def test_of_equal_entries_the_first_moves(length: int) -> None:
    weight = nn.Parameter(torch.zeros(40, length))
    weight.grad = torch.randint(-3, 4, weight.shape, generator=torch.Generator().manual_seed(1)).float()
    layout = KernelLayout()
    SparseSGD(
        [], [(weight, layout)], gamma=1, mode="paper", lr=1.0, momentum=0.0, nesterov=False, weight_decay=0.0
    ).step()
    moved = weight.detach().abs().argmax(1)
    assert int(weight.detach().count_nonzero()) == len(weight)
    for row, place in zip(weight.grad.abs(), moved, strict=True):
        assert int(place) == int((row == row.max()).nonzero()[0])


@pytest.mark.parametrize("name", LAYERS)
def test_places_are_where_the_rows_lie(name: str) -> None:
    layout, weight = KernelLayout.of(LAYERS[name]), LAYERS[name].weight.detach()
    rows = layout.rows(weight)
    chosen = torch.stack([torch.randperm(rows.shape[1])[:5] for _ in rows])
    assert torch.equal(weight.flatten()[layout.places(chosen, weight)], rows.gather(1, chosen))

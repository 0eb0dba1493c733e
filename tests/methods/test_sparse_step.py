"""A sparse step against one that is taken kernel by kernel; every selection with every update."""

from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor, nn

from lnsegfm.methods.entry_selection import FixedOnce, RandomEntries, RunningMean, Selection, Steepest
from lnsegfm.methods.entry_update import (
    FEW,
    BoundedStep,
    FixedEntriesSGD,
    GradientStep,
    MaskedGradient,
    MomentumStep,
    Update,
)
from lnsegfm.methods.sparse_sgd import SparseSGD
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
        [],
        [(weight, KernelLayout.of(layer))],
        selection=Steepest(gamma),
        update=GradientStep(),
        lr=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-4,
    )
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
        [],
        [(weight, layout)],
        selection=Steepest(1),
        update=GradientStep(),
        lr=1.0,
        momentum=0.0,
        nesterov=False,
        weight_decay=0.0,
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


SELECTIONS = [
    Steepest(2),
    RunningMean(2, 0.5),
    RandomEntries(2, seed=3),
    FixedOnce(Steepest(2), passes=2),
    FixedOnce(RandomEntries(2, seed=3)),
    FixedOnce(RunningMean(2, 0.5), passes=1),
]
UPDATES = [GradientStep(2.0), BoundedStep(1.0, 0.5), MomentumStep(), FixedEntriesSGD(), MaskedGradient()]


def optimizer_of(selection: Selection, update: Update, momentum: float = 0.5) -> tuple[SparseSGD, list[nn.Parameter]]:
    torch.manual_seed(0)
    weights = [nn.Parameter(layer.weight.detach().clone()) for layer in (nn.Linear(9, 3), nn.ConvTranspose3d(3, 4, 2))]
    layouts = [KernelLayout(), KernelLayout(transposed=True)]
    bias = nn.Parameter(torch.ones(3))
    rates = {"lr": 0.25, "momentum": momentum, "nesterov": momentum > 0, "weight_decay": 0.125 if momentum else 0.0}
    pairs = list(zip(weights, layouts, strict=True))
    return SparseSGD([bias], pairs, selection=selection, update=update, **rates), [*weights, bias]


def take(optimizer: SparseSGD, parameters: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        for index, parameter in enumerate(parameters):
            generator = torch.Generator().manual_seed(10 * step + index)
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize("update", UPDATES, ids=lambda update: type(update).__name__)
@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
def test_any_selection_goes_with_any_update(selection: Selection, update: Update) -> None:
    """Two entries of each kernel change in a step, and none during the passes; masks hold without momentum."""
    momentum = 0.0 if isinstance(update, MaskedGradient) else 0.5
    optimizer, parameters = optimizer_of(selection, update, momentum)
    for step in range(5):
        before = [parameter.detach().clone() for parameter in parameters]
        take(optimizer, parameters, range(step, step + 1))
        changed = [(parameter.detach() != old) for parameter, old in zip(parameters, before, strict=True)]
        wanted = 2 if step >= selection.passes else 0
        for mask, layout in zip(changed, (KernelLayout(), KernelLayout(transposed=True)), strict=False):
            assert layout.rows(mask).sum(1).tolist() == [wanted] * len(layout.rows(mask))
        assert bool(changed[2].all()) == (step >= selection.passes)


@pytest.mark.parametrize("update", UPDATES, ids=lambda update: type(update).__name__)
@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
def test_a_state_dict_is_plain_and_restores_rules_and_rates(selection: Selection, update: Update) -> None:
    """Saved after three steps and loaded, without executing anything, by an optimizer with other rules."""
    optimizer, parameters = optimizer_of(selection, update)
    take(optimizer, parameters, range(3))
    file = io.BytesIO()
    torch.save([optimizer.state_dict(), parameters], file)
    file.seek(0)
    state, loaded = torch.load(file, weights_only=True)

    other, places = optimizer_of(Steepest(1), GradientStep())
    with torch.no_grad():
        for place, value in zip(places, loaded, strict=True):
            place.copy_(value)
    other.load_state_dict(state)
    assert [group["selection"] for group in other.param_groups] == [selection] * 2
    assert [group["update"] for group in other.param_groups] == [update] * 2
    for each, tensors in ((optimizer, parameters), (other, places)):
        take(each, tensors, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(parameters, places, strict=True))

"""Laws of the loss of partly annotated batches, beside nnU-Net's own."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor

from lnsegfm.training.partial_loss import PartialLoss, without_labels

SHAPE, CLASSES = (6, 7, 8), 4


def stock(ignore: int | None = None, *, batch_dice: bool = False) -> DC_and_CE_loss:
    """What nnU-Net's trainer builds."""
    overlap = {"batch_dice": batch_dice, "smooth": 1e-5, "do_bg": False, "ddp": False}
    return DC_and_CE_loss(overlap, {}, ignore_label=ignore, dice_class=MemoryEfficientSoftDiceLoss)


def batch(samples: int, seed: int = 0, highest: int = CLASSES - 1) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn((samples, CLASSES, *SHAPE), generator=random, dtype=torch.float64)
    return logits, torch.randint(0, highest + 1, (samples, 1, *SHAPE), generator=random, dtype=torch.int16)


def partial(loss: DC_and_CE_loss, unlabelled: Sequence[Sequence[int]], logits: Tensor, target: Tensor) -> Tensor:
    judge = PartialLoss(loss)
    judge.unlabelled = unlabelled
    return judge(logits, target)


def cleared(target: Tensor, unlabelled: Sequence[Sequence[int]]) -> Tensor:
    """The labels with background where nobody annotated."""
    target = target.clone()
    for sample, values in zip(target, unlabelled, strict=True):
        for value in values:
            sample[sample == value] = 0
    return target


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("ignore", [None, CLASSES])
def test_of_fully_annotated_batches_it_is_the_loss_itself(batch_dice, ignore):
    logits, target = batch(3, highest=CLASSES if ignore else CLASSES - 1)
    loss = stock(ignore, batch_dice=batch_dice)
    for unlabelled in ((), [(), (), ()], [[], [], []]):
        assert torch.equal(partial(loss, unlabelled, logits, target), loss(logits, target))


@pytest.mark.parametrize("ignore", [None, CLASSES])
def test_samples_without_an_annotated_label_play_no_part(ignore):
    logits, target = batch(4, highest=CLASSES if ignore else CLASSES - 1)
    every = tuple(range(1, CLASSES))
    unlabelled = [(), every, (), every]
    logits.requires_grad_()
    found = partial(stock(ignore), unlabelled, logits, cleared(target, unlabelled))
    torch.testing.assert_close(found, stock(ignore)(logits[[0, 2]], target[[0, 2]]), rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(found, logits)
    assert not gradient[[1, 3]].any()
    nothing = partial(stock(ignore), [every] * 4, logits, torch.zeros_like(target))
    assert nothing.item() == 0
    assert not torch.autograd.grad(nothing, logits)[0].any()


@pytest.mark.parametrize("missing", [(1,), (2,), (3,), (1, 3), (2, 3)])
@pytest.mark.parametrize("ignore", [None, CLASSES])
def test_it_is_nnunets_loss_of_a_network_without_the_output(missing, ignore):
    """Written from the definition: probabilities of background and the label added up, labels renumbered."""
    logits, target = batch(2, highest=CLASSES if ignore else CLASSES - 1)
    unlabelled = [missing, missing]
    target = cleared(target, unlabelled)
    kept = [value for value in range(1, CLASSES) if value not in missing]
    shares = logits.softmax(1)
    smaller = torch.stack([shares[:, [0, *missing]].sum(1), *(shares[:, value] for value in kept)], 1).log()
    renumbered = torch.zeros_like(target)
    for number, value in enumerate(kept, 1):
        renumbered[target == value] = number
    if ignore:
        renumbered[target == ignore] = len(kept) + 1
    expected = stock(len(kept) + 1 if ignore else None)(smaller, renumbered)
    torch.testing.assert_close(partial(stock(ignore), unlabelled, logits, target), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("missing", [(1,), (2,), (3,), (1, 3)])
@pytest.mark.parametrize("ignore", [None, CLASSES])
def test_what_somebody_drew_of_an_unannotated_label_counts_as_background(missing, ignore):
    """A patch may hold the label's value where a case is said to lack it: loss and gradient are those without it."""
    logits, target = batch(2, highest=CLASSES if ignore else CLASSES - 1)
    unlabelled = [missing, missing]
    assert all((target == value).any() for value in missing)
    logits.requires_grad_()
    found, expected = (
        partial(stock(ignore), unlabelled, logits, each) for each in (target, cleared(target, unlabelled))
    )
    assert torch.equal(found, expected)
    ours, theirs = (torch.autograd.grad(each, logits)[0] for each in (found, expected))
    assert torch.equal(ours, theirs)
    (plain,) = torch.autograd.grad(stock(ignore)(logits, target), logits)
    assert not torch.equal(ours, plain)


def test_a_mixed_batch_is_the_mean_of_its_samples():
    logits, target = batch(4)
    unlabelled = [(), (2,), (2,), (1, 3)]
    target = cleared(target, unlabelled)
    each = [
        partial(stock(), unlabelled[k : k + 1], logits[k : k + 1], target[k : k + 1]) for k in range(len(unlabelled))
    ]
    torch.testing.assert_close(partial(stock(), unlabelled, logits, target), torch.stack(each).mean())


def test_how_background_and_an_unannotated_label_share_their_probability_does_not_matter():
    logits, target = batch(2)
    unlabelled = [(2,), (2,)]
    target = cleared(target, unlabelled)
    moved = logits.clone()
    both = logits[:, [0, 2]].logsumexp(1)
    moved[:, 0], moved[:, 2] = both + torch.tensor(0.9).log(), both + torch.tensor(0.1).log()
    found, other = (partial(stock(), unlabelled, one, target) for one in (logits, moved))
    torch.testing.assert_close(found, other, rtol=0, atol=1e-6)


def test_labels_are_renumbered_and_ignored_voxels_kept():
    logits, _ = batch(1)
    target = torch.tensor([0, 1, 2, 3, 4], dtype=torch.int16).view(1, 1, 1, 1, 5)
    assert without_labels(logits, target, (2,))[1].flatten().tolist() == [0, 1, 0, 2, 4]
    assert without_labels(logits, target, ()) == (logits, target)

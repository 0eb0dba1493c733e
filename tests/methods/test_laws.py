"""What must hold for every method on every network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from packaging.version import Version
from torch import nn

from lnsegfm.errors import ConfigError
from lnsegfm.methods.dgst import DGST
from lnsegfm.methods.gps import GPS
from lnsegfm.methods.table import METHODS
from lnsegfm.networks.parameter_roles import parameters_of
from lnsegfm.networks.role import Role
from lnsegfm.testing import method_laws as laws
from lnsegfm.testing.step_witness import LR
from lnsegfm.testing.tensor_bits import bits, state_of
from lnsegfm.testing.tiny_networks import BATCH_UNET, SWINS, TINY, Tiny, loss_of
from lnsegfm.testing.training_regimes import PRECISIONS, REGIMES, require_all_moved
from tests.methods.laws import ALL_METHODS, PAIRS, REFUSED, bearer, train
from tests.methods.witness import is_meant
from tests.networks.kernels import kernel_indices

pytestmark = pytest.mark.usefixtures("one_thread")
MASKED = "masked-gradient"


SLOW_AGAIN = ("resenc-unet", "bfloat16")  # every other network in bfloat16, and this one in float32, are not
EACH_PRECISION = [
    pytest.param(network, method, precision, marks=pytest.mark.long if (network, precision) == SLOW_AGAIN else ())
    for network, method in PAIRS
    for precision in PRECISIONS
]


@pytest.mark.parametrize(("network", "method", "precision"), EACH_PRECISION)
def test_twenty_steps_keep_the_promise(network: str, method: str, precision: str) -> None:
    """Momentum 0.99, Nesterov, decay 3e-5. What is checked at each step is written in `witness.Witness`."""
    witness = train(TINY[network], ALL_METHODS[method], steps=20, regime=PRECISIONS[precision])
    require_all_moved(witness, TINY[network])


def test_these_pairs_are_refused_and_no_others() -> None:
    refused: dict[str, set[str]] = {}
    for network, tiny in {**TINY, **SWINS}.items():
        for name, cls in METHODS.items():
            made, head = tiny.make()
            before = state_of(made)
            try:
                cls().optimizer(made, lr=LR, head=head)
                continue
            except ConfigError as error:
                told = str(error)
            assert told.startswith((f"Method {name}: ", "Head Linear: "))
            assert "\n" not in told
            assert all(np.array_equal(bits, before[key]) for key, bits in state_of(made).items())
            assert all(p.requires_grad for p in made.parameters())
            refused.setdefault(name, set()).add(network)
    assert refused == {**REFUSED, "zero-shot": {*TINY, *SWINS}}


@pytest.mark.parametrize("method", ALL_METHODS)
@pytest.mark.parametrize("regime", REGIMES)
def test_the_promise_holds_under(regime: str, method: str) -> None:
    witness = train(bearer(method), ALL_METHODS[method], steps=6, regime=REGIMES[regime])
    require_all_moved(witness, bearer(method))


@pytest.mark.parametrize("regime", REGIMES)
def test_dgst_on_a_unet_under(regime: str) -> None:
    train(TINY["plain-unet"], ALL_METHODS["dgst-paper-2"], steps=6, regime=REGIMES[regime])


@pytest.mark.parametrize("method", ALL_METHODS)
def test_two_runs_with_one_seed_are_identical(method: str) -> None:
    laws.one_seed_gives_one_result(ALL_METHODS[method], TINY["plain-unet"])


@pytest.mark.parametrize("method", [m for m in ALL_METHODS if m not in ("dgst-paper-2", "dgst-momentum-2")])
def test_double_precision(method: str) -> None:
    train(bearer(method), ALL_METHODS[method], steps=4, prepare=lambda n: n.double())


@pytest.mark.parametrize("method", ALL_METHODS)
@pytest.mark.parametrize("network", ["grouped", "plain-unet"])
def test_channels_last(network: str, method: str) -> None:
    if (network, method) == ("grouped", "affine") and Version(torch.__version__) < Version("2.14"):
        pytest.skip("torch crashes: backward of a GroupNorm in channels-last whose input needs no gradient")
    tiny = bearer(method, network)
    train(tiny, ALL_METHODS[method], 4, prepare=lambda n: n.to(memory_format=torch.channels_last_3d))


@pytest.mark.parametrize("gamma", [1, 3])
@pytest.mark.parametrize("mode", ["paper", "momentum"])
def test_bfloat16_weights(mode: str, gamma: int) -> None:
    network, head = TINY["grouped"].make()
    network.bfloat16()
    optimizer = DGST(gamma=gamma, mode=mode).optimizer(network, lr=0.01, head=head)
    weight = network[6].weight
    for step in range(5):
        optimizer.zero_grad()
        loss_of(network(TINY["grouped"].batch(step).bfloat16()).float(), step).backward()
        before = bits(weight)
        optimizer.step()
        assert weight.dtype is torch.bfloat16
        changed = (bits(weight) != before).reshape(weight.shape)
        per_kernel = [changed[3 * g : 3 * g + 3, o].sum() for g in range(2) for o in range(weight.shape[1])]
        assert 0 < max(per_kernel) <= gamma


@pytest.mark.parametrize("after", [1, 3])
@pytest.mark.parametrize("through_file", [False, True])
@pytest.mark.parametrize("method", ALL_METHODS)
def test_a_saved_run_continues_as_if_undisturbed(method: str, through_file: bool, after: int) -> None:
    """After one step GPS still looks; after three it has chosen."""
    laws.a_saved_run_continues(ALL_METHODS[method], bearer(method), after, through_file)


def test_entries_that_were_chosen_once_survive_a_saved_run_in_bfloat16() -> None:
    """Kernels of 2048 entries: as numbers in bfloat16, which torch loads states as, indices would be rounded."""
    network: Any = nn.Sequential(nn.Linear(2048, 3, bias=False), nn.Linear(3, 2)).bfloat16()
    optimizer = GPS(passes=1).optimizer(network, lr=1.0, head=[network[1]])
    gradient = torch.zeros(3, 2048).bfloat16()
    gradient[:, 2047] = 1.0

    def step() -> None:
        network[0].weight.grad = gradient.clone()
        optimizer.step()

    step()
    step()
    optimizer.load_state_dict(laws.saved_and_loaded(optimizer.state_dict()))
    before = network[0].weight.detach().clone()
    step()
    assert (network[0].weight != before).nonzero().tolist() == [[0, 2047], [1, 2047], [2, 2047]]
    assert optimizer.state[network[0].weight]["chosen"].dtype is torch.int64


@pytest.mark.parametrize("method", ALL_METHODS)
def test_a_step_with_infinite_gradients_is_skipped_whole(method: str) -> None:
    laws.infinite_gradients_are_skipped(ALL_METHODS[method], bearer(method))


@pytest.mark.parametrize("method", ALL_METHODS)
@pytest.mark.parametrize("tiny", [TINY["batch-norm"], BATCH_UNET], ids=["batch-norm", "batch-norm-unet"])
def test_running_statistics_move_only_with_their_norms(tiny: Tiny, method: str) -> None:
    if tiny is TINY["batch-norm"] and bearer(method, "batch-norm") is not tiny:
        return
    chosen = ALL_METHODS[method]
    laws.running_statistics_follow_their_norms(chosen, tiny, lambda parameter: is_meant(chosen, parameter))


@pytest.mark.parametrize("method", ALL_METHODS)
def test_the_first_step_starts_from_the_bases_outputs(method: str) -> None:
    laws.starts_where_the_base_is(ALL_METHODS[method], bearer(method))


@pytest.mark.parametrize("method", ALL_METHODS)
def test_the_card_is_complete(method: str) -> None:
    laws.card_is_complete(ALL_METHODS[method])


@pytest.mark.parametrize("method", ALL_METHODS)
def test_counts_are_those_of_the_network(method: str) -> None:
    for name, tiny in TINY.items():
        if name in REFUSED.get(ALL_METHODS[method].name, ()):
            continue
        laws.counts_are_those_of_the_network(ALL_METHODS[method], tiny)
        network, head = tiny.make()
        counted = ALL_METHODS[method].trainable(network, head)
        ALL_METHODS[method].optimizer(network, lr=LR, head=head)
        assert counted.per_step == steps_of(network, head, ALL_METHODS[method])


def steps_of(network: nn.Module, head: Any, method: Any) -> int:
    """Entries that one step can change, by indices of kernels written down by hand."""
    count = 0
    for parameter in parameters_of(network, head):
        if is_meant(method, parameter):
            entries = parameter.tensor.numel()
            if parameter.role is Role.WEIGHT and hasattr(method, "gamma") and method.settings().get("mode") != MASKED:
                kernels, fan_in = kernel_indices(parameter.module, tuple(parameter.tensor.shape)).shape
                entries = kernels * min(method.gamma or fan_in, fan_in)
            count += entries
    return count


def test_nothing_moves_without_training() -> None:
    network, head = TINY["grouped"].make()
    counted = METHODS["zero-shot"]().trainable(network, head)
    assert (counted.tensors, counted.parameters, counted.per_step, counted.total) == (0, 0, 0, 844)

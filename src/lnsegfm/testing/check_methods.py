"""The laws of a method, run one after the other on networks of a few thousand parameters."""

from __future__ import annotations

from collections.abc import Callable

from lnsegfm.methods.method import Method
from lnsegfm.testing import method_laws as laws
from lnsegfm.testing.law import require
from lnsegfm.testing.one_thread import one_thread
from lnsegfm.testing.tiny_networks import BATCH_UNET, TINY
from lnsegfm.testing.training_regimes import PRECISIONS, REGIMES, require_all_moved, train

NETWORKS = {**TINY, "batch-norm-unet": BATCH_UNET}


def check_method(method: Method | type[Method]) -> None:
    """Check that a method keeps the laws of all methods: some seconds on one core.

    On every network that it does not refuse: only what it says moves, in no more entries than it says; every trained
    tensor gets a gradient and moves; one seed gives one result; a saved run continues as if undisturbed; steps with
    infinite gradients are left out; running statistics follow their norms; ``moved`` counts rightly; the first step
    starts from the base's outputs; ``merge`` keeps the outputs. A refusal is one line and changes nothing.

    Args:
        method: The class, which is made with its default settings, or a method with settings of its own.

    Raises:
        AssertionError: A law is broken; the text says which, on which network.
    """
    made = method() if isinstance(method, type) else method
    laws.card_is_complete(made)
    with one_thread():
        if not made.learns:
            for tiny in NETWORKS.values():
                laws.has_no_optimizer(made, tiny)
            return
        takes = [name for name, tiny in NETWORKS.items() if not laws.is_refused(made, tiny)]
        require(takes, f"method {made.name}: it refuses every network: {', '.join(NETWORKS)}")
        for network in takes:
            _run(f"on {network}", lambda network=network: _on(made, network))  # type: ignore[misc]
        first = NETWORKS[takes[0]]
        for name, regime in {**REGIMES, "bfloat16": PRECISIONS["bfloat16"]}.items():
            _run(
                f"on {takes[0]}, regime {name}",
                lambda regime=regime: require_all_moved(train(first, made, 6, regime), first),  # type: ignore[misc]
            )
        _run(f"on {takes[0]} in double", lambda: train(first, made, 4, prepare=lambda network: network.double()))


def _on(method: Method, network: str) -> None:
    tiny = NETWORKS[network]
    require_all_moved(train(tiny, method, 6), tiny)
    laws.one_seed_gives_one_result(method, tiny, steps=3)
    for after in (1, 3):
        laws.a_saved_run_continues(method, tiny, after)
    laws.infinite_gradients_are_skipped(method, tiny)
    laws.running_statistics_follow_their_norms(method, tiny)
    laws.counts_are_those_of_the_network(method, tiny)
    laws.starts_where_the_base_is(method, tiny)
    laws.merging_keeps_the_outputs(method, tiny)


def _run(where: str, law: Callable[[], object]) -> None:
    try:
        law()
    except AssertionError as broken:
        raise AssertionError(f"{where}: {broken}") from None

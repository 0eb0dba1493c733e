"""The laws on networks of millions of parameters, where a step takes seconds: two steps, and twenty when long."""

from __future__ import annotations

import pytest

from lnsegfm.methods.table import METHODS
from lnsegfm.testing.tiny_networks import SWINS
from lnsegfm.testing.training_regimes import PRECISIONS, require_all_moved
from tests.methods.laws import ALL_METHODS, train
from tests.methods.witness import Witness

pytestmark = pytest.mark.usefixtures("one_thread")
ONE_OF_A_KIND = [name for name in ALL_METHODS if name in METHODS]
ONE_OF_A_KIND += ["full-adamw", "dgst-paper-2", "dgst-momentum-2", "dgst-masked-gradient-2"]
IN_BFLOAT16 = ["full", "lora", "spatial-adapter", "dgst-paper-2", "dgst-bounded"]
"""What differs between two methods on one network differs on the small ones, too; twenty long steps leave none out."""


def assert_kept(network: str, method: str, steps: int, precision: str) -> None:
    witness: Witness = train(SWINS[network], ALL_METHODS[method], steps=steps, regime=PRECISIONS[precision])
    if steps <= getattr(ALL_METHODS[method], "passes", 0):
        assert witness.moved == set()
    elif method != "l2-sp" or steps > 2:  # without decay, two steps of a norm's scale lie below its resolution
        require_all_moved(witness, SWINS[network])


IN_SHORT = [
    pytest.param(network, method, marks=() if network == "swinunetr" or method in IN_BFLOAT16 else pytest.mark.long)
    for network in SWINS
    for method in ONE_OF_A_KIND
]
"""Version 2 adds a convolution before each stage: the methods that tell convolutions apart, the rest in long tests."""


@pytest.mark.parametrize(("network", "method"), IN_SHORT)
def test_two_steps_keep_the_promise(network: str, method: str) -> None:
    assert_kept(network, method, 2, "float32")


@pytest.mark.parametrize("method", IN_BFLOAT16)
@pytest.mark.parametrize("network", ["swinunetr"])
def test_two_steps_keep_the_promise_in_bfloat16(network: str, method: str) -> None:
    assert_kept(network, method, 2, "bfloat16")


@pytest.mark.long
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("method", ALL_METHODS)
@pytest.mark.parametrize("network", SWINS)
def test_twenty_steps_keep_the_promise(network: str, method: str, precision: str) -> None:
    assert_kept(network, method, 20, precision)

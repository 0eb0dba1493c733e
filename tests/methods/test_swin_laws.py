"""The laws on networks of millions of parameters, where a step takes seconds: two steps, and twenty when long."""

from __future__ import annotations

import pytest

from tests.methods.laws import ALL_METHODS, train
from tests.networks.tiny import SWINS

pytestmark = pytest.mark.usefixtures("one_thread")
ONE_OF_A_KIND = sorted(set(ALL_METHODS) - {name for name in ALL_METHODS if name.endswith(("-1", "-10000"))})


@pytest.mark.parametrize("method", ONE_OF_A_KIND)
@pytest.mark.parametrize("network", SWINS)
def test_two_steps_keep_the_promise(network: str, method: str) -> None:
    witness = train(SWINS[network], ALL_METHODS[method], steps=2)
    assert witness.moved == {part.name for part in witness.trained}


@pytest.mark.long
@pytest.mark.parametrize("method", ALL_METHODS)
@pytest.mark.parametrize("network", SWINS)
def test_twenty_steps_keep_the_promise(network: str, method: str) -> None:
    witness = train(SWINS[network], ALL_METHODS[method], steps=20)
    assert witness.moved == {part.name for part in witness.trained}

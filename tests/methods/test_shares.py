"""The kept share of each method against a count on nnU-Net's default network, which holds no numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files

import pytest

from lnsegfm.methods.bias import Bias
from lnsegfm.methods.shares import FILE, STRIDES, count_share, default_network, share_of
from lnsegfm.methods.table import METHODS
from lnsegfm.networks.architectures import ARCHITECTURES
from lnsegfm.nnunet.planners import topology

KEPT = json.loads(files("lnsegfm.methods").joinpath(FILE).read_text(encoding="utf-8"))


def test_the_network_that_is_counted_on_is_the_one_that_nnunet_plans() -> None:
    strides, kernels = topology((1.0, 1.0, 1.0), ARCHITECTURES["nnunet"].release_patch)
    assert strides == STRIDES
    assert set(kernels) == {(3, 3, 3)}
    assert sum(p.numel() for p in default_network().parameters()) == ARCHITECTURES["nnunet"].parameters


@pytest.mark.parametrize("name", METHODS)
def test_the_share_that_is_kept_is_that_of_the_default_network(name: str) -> None:
    """One channel, background and one label; three significant digits of a percentage."""
    moved = METHODS[name]().trainable(default_network())
    assert moved.total == ARCHITECTURES["nnunet"].parameters
    assert KEPT[name] == float(f"{100 * moved.per_step / moved.total:.3g}"), "make tables"
    assert share_of(METHODS[name]) == KEPT[name]


def test_nothing_else_is_kept() -> None:
    assert list(KEPT) == list(METHODS.builtin), "make tables"


def test_the_share_of_a_method_that_is_not_built_in_is_counted() -> None:
    class Other(Bias):
        """Another method under a name that is built in."""

        name = "full"

    assert share_of(Other) == count_share(Bias) == KEPT["bias"]


def test_kept_shares_need_no_torch() -> None:
    code = (
        "import sys; from lnsegfm.methods.shares import share_of; from lnsegfm.methods.table import METHODS\n"
        "print([share_of(METHODS[name]) for name in METHODS][1], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["100.0", "False"]

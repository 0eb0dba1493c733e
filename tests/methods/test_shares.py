"""Each card's share of nnU-Net's default network against a count on that network, which holds no numbers."""

from __future__ import annotations

import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from lnsegfm.methods.table import METHODS
from lnsegfm.networks.architectures import ARCHITECTURES
from lnsegfm.nnunet.planners import topology


@pytest.fixture(scope="module")
def default_network() -> nn.Module:
    card = ARCHITECTURES["nnunet"]
    plan = card.build_plan([32, 64, 128, 256, 320, 320], *topology((1.0, 1.0, 1.0), card.release_patch))
    names = (plan["network_class_name"], plan["arch_kwargs"], plan["_kw_requires_import"])
    with torch.device("meta"):
        network: nn.Module = get_network_from_plans(*names, 1, 2, allow_init=False, deep_supervision=True)
    return network


@pytest.mark.parametrize("name", METHODS)
def test_the_share_on_the_card_is_that_of_the_default_network(name: str, default_network: nn.Module) -> None:
    """One channel, background and one label; three significant digits of a percentage."""
    moved = METHODS[name]().moved(default_network)
    assert moved.total == ARCHITECTURES["nnunet"].parameters
    assert METHODS[name].share == float(f"{100 * moved.per_step / moved.total:.3g}")

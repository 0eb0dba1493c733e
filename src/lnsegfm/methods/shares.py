"""What one step of a method can change of nnU-Net's default network.

The shares of the built-in methods are kept in ``shares.json``, so that methods are listed without torch; ``make
tables`` counts them anew. The share of any other method is counted when it is asked for.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from lnsegfm.methods.method import Method
from lnsegfm.networks.architectures import ARCHITECTURES

if TYPE_CHECKING:
    from torch import nn

FEATURES = (32, 64, 128, 256, 320, 320)
STRIDES = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 1, 2))
"""Channels and halvings that nnU-Net plans for isotropic spacing and the patch of the paper's release."""
FILE = "shares.json"


def share_of(method: type[Method]) -> float:
    """The share of a method with its default settings, in percent; see `count_share`."""
    kept = _kept()
    from lnsegfm.methods.table import METHODS

    if method.name in kept and METHODS.builtin.get(method.name) is method:
        return kept[method.name]
    return count_share(method)


def count_share(method: type[Method]) -> float:
    """Count which share of the default network's parameters one step can change: three digits of a percentage.

    Parameters that the method adds count among those that change, not among those of the network.
    """
    moved = method().trainable(default_network())
    return float(f"{100 * moved.per_step / moved.total:.3g}")


@cache
def default_network() -> nn.Module:
    """nnU-Net's default network for one channel, background and one label; it holds no numbers."""
    from pydoc import locate

    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    plan = ARCHITECTURES["nnunet"].build_plan(FEATURES, STRIDES)
    arguments: dict[str, Any] = dict(plan["arch_kwargs"])
    for name in plan["_kw_requires_import"]:
        arguments[name] = locate(arguments[name]) if arguments[name] is not None else None
    with torch.device("meta"):
        network: nn.Module = PlainConvUNet(input_channels=1, num_classes=2, deep_supervision=True, **arguments)
    return network


def shares_text(methods: dict[str, type[Method]]) -> str:
    """The content of ``shares.json``, counted."""
    return json.dumps({name: count_share(method) for name, method in methods.items()}, indent=2) + "\n"


@cache
def _kept() -> dict[str, float]:
    content: dict[str, float] = json.loads(files("lnsegfm.methods").joinpath(FILE).read_text(encoding="utf-8"))
    return content

"""The attribute by which nnU-Net switches deep supervision: ``network.decoder.deep_supervision``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class DeepSupervisionSwitch:
    """What stands as ``decoder`` in a network that has no module of that name.

    Args:
        deep_supervision: Whether outputs of several resolutions are given; without effect in a network that has one.
    """

    deep_supervision: bool = False

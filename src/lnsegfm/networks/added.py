"""Modules that a method adds to a network, distinguished from the network's own."""

from __future__ import annotations

from torch import nn


class Added(nn.Module):
    """A module that a method added; every parameter in it has the role `Role.ADAPTER`."""

"""No training: the base as it is."""

from __future__ import annotations

from dataclasses import dataclass

from lnsegfm.methods.method import Method


@dataclass(frozen=True, kw_only=True)
class ZeroShot(Method):
    """Nothing trains: the base is evaluated on the new data."""

    name = "zero-shot"
    summary = "nothing trains: the base is evaluated as it is"
    source = "the control of every comparison"
    trains = frozenset()
    learns = False

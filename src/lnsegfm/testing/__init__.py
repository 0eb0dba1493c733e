"""The project's laws for what others bring, as functions: they raise an AssertionError that says which law is broken.

::

    from lnsegfm.testing import check_method

    def test_my_method():
        check_method(MyMethod)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lnsegfm.testing.check_commands import check_command
    from lnsegfm.testing.check_datasets import check_dataset
    from lnsegfm.testing.check_methods import check_method
    from lnsegfm.testing.check_metrics import check_metric
    from lnsegfm.testing.check_networks import check_network
    from lnsegfm.testing.check_readers import check_reader
    from lnsegfm.testing.check_writers import check_writer

_LAZY = {
    "check_command": "lnsegfm.testing.check_commands",
    "check_dataset": "lnsegfm.testing.check_datasets",
    "check_method": "lnsegfm.testing.check_methods",
    "check_metric": "lnsegfm.testing.check_metrics",
    "check_network": "lnsegfm.testing.check_networks",
    "check_reader": "lnsegfm.testing.check_readers",
    "check_writer": "lnsegfm.testing.check_writers",
}

__all__ = [
    "check_command",
    "check_dataset",
    "check_method",
    "check_metric",
    "check_network",
    "check_reader",
    "check_writer",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

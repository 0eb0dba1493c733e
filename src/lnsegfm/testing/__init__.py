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
    from lnsegfm.testing.check_methods import check_method

_LAZY = {"check_method": "lnsegfm.testing.check_methods"}

__all__ = ["check_method"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The one door for packages that engines need and that come with an extra."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lnsegfm.errors import ConfigError


def engine_package(name: str, extra: str) -> Any:
    """Import a package.

    Args:
        name: Of its module.
        extra: The extra of ``lnsegfm`` that installs it.

    Raises:
        ConfigError: It is not installed, or cannot be loaded.
    """
    try:
        return import_module(name)
    except ImportError as error:
        why = "it is not installed" if error.name == name else f"it cannot be loaded ({error})"
        raise ConfigError(f"--on {extra}: it needs {name}, and {why}. pip install 'lnsegfm[{extra}]'.") from None

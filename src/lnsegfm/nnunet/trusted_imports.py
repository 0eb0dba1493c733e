"""What plans may have imported: networks and layers of known packages, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pydoc import ErrorDuringImport, locate
from typing import Any

from torch import nn

from lnsegfm.errors import ModelError
from lnsegfm.networks.cards import plugin_packages

# What a plans file may have imported. A file from a stranger must not choose what is called in this process.
# Packages that bring a card of a network (entry points lnsegfm.networks) are known besides: who installs one trusts it.
NETWORK_PACKAGES = ("dynamic_network_architectures.", "lnsegfm.networks.")


ARGUMENT_PACKAGES = ("torch.nn.", "dynamic_network_architectures.")


def require_known_imports(configuration: Mapping[str, Any], file: Path) -> None:
    """Refuse plans that would have something imported that is no network.

    Raises:
        ModelError: The import path lies outside the known packages; the message names it.
    """
    architecture = configuration.get("architecture")
    if architecture is None:  # plans older than 2.2 name one of two classes, which nnU-Net resolves itself
        return
    networks = (*NETWORK_PACKAGES, *plugin_packages())
    wanted: list[tuple[Any, tuple[str, ...]]] = [(architecture["network_class_name"], networks)]
    arguments = architecture["arch_kwargs"]
    wanted += [(arguments.get(name), ARGUMENT_PACKAGES) for name in architecture["_kw_requires_import"]]
    for path, packages in wanted:
        if path is not None and not (str(path).startswith(packages) and _is_layer(str(path), packages)):
            known = ", ".join(package.rstrip(".") for package in packages)
            raise ModelError(
                f"{file}: it wants {path} called, which is no network or layer of {known}. "
                "Do not use this model unless you trust its source."
            )


def _is_layer(path: str, packages: tuple[str, ...]) -> bool:
    """Whether a path leads to a class of the packages: their modules hold others, ``torch.hub.load`` among them."""
    try:
        found = locate(path)
    except ErrorDuringImport:
        return False
    if found is None:  # not installed; nnU-Net then looks for a class of that name in its own networks
        return True
    return isinstance(found, type) and issubclass(found, nn.Module) and f"{found.__module__}.".startswith(packages)

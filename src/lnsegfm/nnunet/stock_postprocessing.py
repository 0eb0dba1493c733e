"""nnU-Net's ``postprocessing.pkl``: written in its own form, and read without executing anything."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lnsegfm.errors import UnsafeFile
from lnsegfm.nnunet.environment import nnunet_environment

MODULE = "nnunetv2.postprocessing.remove_connected_components"
FUNCTION = "remove_all_but_largest_component_from_segmentation"
"""The only function that nnU-Net's choice of postprocessing stores."""


def pickled(values: Sequence[tuple[int, ...]]) -> bytes:
    """The content of a ``postprocessing.pkl`` for ``nnUNetv2_apply_postprocessing -pp_pkl_file``.

    Args:
        values: Of each rule of a largest component, in their order.
    """
    with nnunet_environment():
        from nnunetv2.postprocessing.remove_connected_components import (
            remove_all_but_largest_component_from_segmentation as keep_largest,
        )
    kwargs = [{"labels_or_regions": labels_or_regions(own)} for own in values]
    return pickle.dumps(([keep_largest] * len(kwargs), kwargs), protocol=4)


def labels_or_regions(values: tuple[int, ...]) -> int | tuple[int, ...]:
    """Values as nnU-Net's function takes them: a tuple is one region, all of them together."""
    return values[0] if len(values) == 1 else values


def unpickled(file: Path) -> tuple[list[str], list[Any]]:
    """Names of the functions and their arguments, of a ``postprocessing.pkl``; no function is imported or called.

    Raises:
        UnsafeFile: It names anything but nnU-Net's function, or is no such file.
    """
    try:
        functions, kwargs = _NamesOnly(io.BytesIO(file.read_bytes())).load()
        return [str(function) for function in functions], list(kwargs)
    except UnsafeFile as error:
        raise UnsafeFile(f"{file}: {error}") from None
    except Exception as error:  # a damaged pickle raises whatever its bytes lead to
        raise UnsafeFile(f"{file}: not nnU-Net's postprocessing ({type(error).__name__}). Remove the file.") from None


class _NamesOnly(pickle.Unpickler):
    """Gives the name of nnU-Net's function in its place, and refuses anything else that would be imported."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == (MODULE, FUNCTION):
            return _Name(FUNCTION)
        raise UnsafeFile(f"it would run {module}.{name} when read. Remove the file, or ask who made it for its JSON.")


class _Name(str):
    """The name of a function; calling it, as a pickle could ask for, is a mistake."""

    __slots__ = ()

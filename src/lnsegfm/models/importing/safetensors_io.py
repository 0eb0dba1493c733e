"""State dicts as safetensors: every tensor once, and in the metadata which further names it has."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from lnsegfm.errors import ModelError
from lnsegfm.storage import atomic_write
from lnsegfm.weights.state import aliases

METADATA = "lnsegfm"


def write_tensors(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a state dict.

    The same weights give the same bytes: there is one entry of metadata, because the format has no order of several.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name, first in aliases(weights).items():
        groups[first].append(name)
    named = {min(names, key=lambda name: (len(name), name)): names for names in groups.values()}
    tensors = {
        name: weights[name].detach().cpu().clone(memory_format=torch.contiguous_format) for name in sorted(named)
    }
    same = {alias: name for name, names in named.items() for alias in names if alias != name}
    with atomic_write(path) as partial:
        safetensors.torch.save_file(tensors, partial, {METADATA: json.dumps({"aliases": same}, sort_keys=True)})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file of anyone.

    Returns:
        The tensors by name, those with several names under each; and alias -> name.

    Raises:
        ModelError: It is damaged, or no such file.
    """
    try:
        with safetensors.safe_open(path, "pt") as opened:
            metadata = opened.metadata() or {}
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is no dict
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file. Check the path.") from None
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path}: not a whole safetensors file ({reason}). Copy it again.") from None
    same = _same(metadata.get(METADATA, "{}"))
    for alias, name in same.items():
        if name not in weights or alias in weights:
            raise ModelError(f"{path}: {alias} is said to be the tensor {name}, which cannot be. Copy it again.")
    return weights | {alias: weights[name] for alias, name in same.items()}, same


def _same(text: str) -> dict[str, str]:
    try:
        same = json.loads(text)["aliases"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    pairs = same.items() if isinstance(same, dict) else ()
    return {alias: name for alias, name in pairs if isinstance(name, str)}

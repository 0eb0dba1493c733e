"""Factors of computed weights as a file: what a training leaves for the adapter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from lnsegfm.errors import ModelError
from lnsegfm.networks.reparametrize import KINDS, Factors
from lnsegfm.storage import write_bytes


def pack(factors: Mapping[str, Factors]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Factors as tensors named ``weight:kind.tensor`` and as plain values, a table by weight."""
    tensors = {
        f"{name}:{found.kind}.{key}": tensor for name, found in factors.items() for key, tensor in found.tensors.items()
    }
    return tensors, {name: {"kind": found.kind, "numbers": dict(found.numbers)} for name, found in factors.items()}


def unpack(tensors: Mapping[str, Tensor], table: Any) -> dict[str, Factors]:
    """The inverse of `pack`; tensors of other names are left aside.

    Raises:
        ModelError: The table is not one of factors.
    """
    found = {}
    try:
        for name, entry in table.items():
            kind, numbers = entry["kind"], entry["numbers"]
            if kind not in KINDS or not isinstance(numbers, dict):
                raise KeyError(kind)
            prefix = f"{name}:{kind}."
            own = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
            found[name] = Factors(kind, numbers, own)
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"Adapter: its table of factors is not one ({error!r}). Copy it again.") from None
    return found


def save_factors(file: Path, factors: Mapping[str, Factors]) -> None:
    """Write factors, whole or not at all; none are a file without tensors."""
    tensors, table = pack(factors)
    write_bytes(file, safetensors.torch.save(tensors, metadata={"factors": json.dumps(table)}))


def read_factors(file: Path) -> dict[str, Factors]:
    """Read what `save_factors` wrote.

    Raises:
        ModelError: It is damaged, or no such file.
    """
    try:
        with safetensors.safe_open(file, framework="pt") as content:
            table = json.loads((content.metadata() or {}).get("factors", "{}"))
            tensors = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118 - it is no mapping
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{file}: not factors of a training ({error}). Remove the run and start it again.") from None
    return unpack(tensors, table)

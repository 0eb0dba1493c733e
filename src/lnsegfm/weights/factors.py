"""Factors of computed weights: as tensors and plain values, as a file that a training leaves, and back into weights.

What comes from a file is checked before anything is computed from it: an adapter may be a stranger's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Size, Tensor

from lnsegfm.errors import ModelError, TransferError
from lnsegfm.networks.layout import KernelLayout
from lnsegfm.networks.reparametrize import KINDS, Factors
from lnsegfm.storage import write_bytes

LOW_RANK = ("lora", "dora")


def pack(factors: Mapping[str, Factors]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Factors as tensors named ``weight:kind.tensor`` and as plain values, a table by weight."""
    tensors = {
        f"{name}:{found.kind}.{key}": tensor for name, found in factors.items() for key, tensor in found.tensors.items()
    }
    return tensors, {name: {"kind": found.kind, "numbers": dict(found.numbers)} for name, found in factors.items()}


def unpack(tensors: Mapping[str, Tensor], table: Any) -> dict[str, Factors]:
    """The inverse of `pack`; tensors that belong to no weight of the table are left aside.

    Raises:
        ModelError: The table is not one of factors.
    """
    own: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, place = key.rpartition(":")
        kind, _, part = place.partition(".")
        own.setdefault((name, kind), {})[part] = tensor
    found = {}
    try:
        for name, entry in table.items():
            kind, numbers = entry["kind"], entry["numbers"]
            if kind not in KINDS or not isinstance(numbers, dict):
                raise KeyError(kind)
            found[name] = Factors(kind, numbers, own.get((name, kind), {}))
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"Adapter: its table of factors is not one ({error!r:.80}). Copy it again.") from None
    return found


def made_of(name: str, found: Factors, weight: Tensor) -> Tensor:
    """The plain weight that factors make of a base's, after a look at whether they can be such factors.

    Args:
        name: The weight's name, for the message.
        found: What it is made of.
        weight: The base's.

    Raises:
        TransferError: They are not factors of a weight of this shape. Nothing was computed.
    """
    problem = _problem(found, weight)
    if problem:
        raise TransferError(f"Adapter: the factors of {name} do not fit it ({problem}). Copy both files again.")
    return found.merged(weight)


def _problem(found: Factors, weight: Tensor) -> str | None:
    """Why factors are none of a weight; None where they are."""
    if not weight.is_floating_point():
        return f"it holds {weight.dtype}"
    problem = _wrong_number(found, weight)
    if problem:
        return problem
    wanted = _wanted(found, weight)
    for part in {**wanted, **found.tensors}:
        if part not in wanted:
            return f"{part} is none of a {found.kind}'s"
        if part not in found.tensors:
            return f"{part} is missing"
        tensor = found.tensors[part]
        if tensor.shape != wanted[part] or not tensor.is_floating_point():
            return f"{part} is {tensor.dtype} of shape {list(tensor.shape)}, not {list(wanted[part])}"
    return None


def _wrong_number(found: Factors, weight: Tensor) -> str | None:
    transposed, groups = found.numbers.get("transposed"), found.numbers.get("groups")
    least = 1 if found.kind in ("scale", "shift") else 2
    if weight.dim() < least or not weight.numel():
        return f"a weight of shape {list(weight.shape)} is not {found.kind}'s"
    if not isinstance(transposed, bool) or type(groups) is not int or groups < 1:
        return f"transposed {transposed!r:.20}, groups {groups!r:.20}"
    if transposed and (weight.dim() < 2 or weight.shape[0] % groups):
        return f"groups {groups!r:.20} for shape {list(weight.shape)}"
    scale = found.numbers.get("scale")
    if found.kind in LOW_RANK and not (isinstance(scale, float) and math.isfinite(scale)):
        return f"scale {scale!r:.20}"
    return None


def _wanted(found: Factors, weight: Tensor) -> dict[str, Size]:
    """Shapes of the tensors that a weight of this kind is made of."""
    if found.kind == "shift":
        return {"scale.factor": weight.shape, "shift": weight.shape}
    if weight.dim() == 1:
        return {"scale.factor": weight.shape}
    layout = KernelLayout(transposed=found.numbers["transposed"], groups=found.numbers["groups"])
    kernels, fan_in = layout.rows(weight).shape
    if found.kind == "scale":
        return {"scale.factor": Size([kernels])}
    a = found.tensors.get("a")
    rank = a.shape[0] if a is not None and a.dim() == 2 and 1 <= a.shape[0] <= min(kernels, fan_in) else 1
    wanted = {"a": Size([rank, fan_in]), "b": Size([kernels, rank])}
    return wanted | ({"magnitude": Size([kernels, 1])} if found.kind == "dora" else {})


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

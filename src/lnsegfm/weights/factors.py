"""Factors of computed weights: as tensors and plain values, as a file of a run, and multiplied into weights.

Factors from a file are checked before anything is computed from them: an adapter may come from a stranger.
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
from lnsegfm.networks.computed_weights import KINDS, Factors
from lnsegfm.networks.layout import KernelLayout
from lnsegfm.storage import write_bytes

LOW_RANK = ("lora", "dora")


def pack(factors: Mapping[str, Factors]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Factors as tensors named ``weight:kind.tensor`` and as plain values, a table by weight."""
    tensors = {
        f"{name}:{entry.kind}.{key}": tensor for name, entry in factors.items() for key, tensor in entry.tensors.items()
    }
    return tensors, {name: {"kind": entry.kind, "numbers": dict(entry.numbers)} for name, entry in factors.items()}


def unpack(tensors: Mapping[str, Tensor], table: Any) -> dict[str, Factors]:
    """The inverse of `pack`; tensors that belong to no weight of the table are ignored.

    Raises:
        ModelError: The table is damaged.
    """
    own: dict[tuple[str, str], dict[str, Tensor]] = {}
    for full, tensor in tensors.items():
        name, _, form = full.rpartition(":")
        kind, _, key = form.partition(".")
        own.setdefault((name, kind), {})[key] = tensor
    factors = {}
    try:
        for name, entry in table.items():
            kind, numbers = entry["kind"], entry["numbers"]
            if kind not in KINDS or not isinstance(numbers, dict):
                raise KeyError(kind)
            factors[name] = Factors(kind, numbers, own.get((name, kind), {}))
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"Adapter: its table of factors is damaged ({error!r:.80}). Copy it again.") from None
    return factors


def weight_of(name: str, factors: Factors, weight: Tensor) -> Tensor:
    """The plain weight computed from factors and a base's weight, after checking that they fit.

    Args:
        name: The weight's name, for the message.
        factors: Its factors.
        weight: The base's weight.

    Raises:
        TransferError: They do not fit a weight of this shape. Nothing was computed.
    """
    problem = _problem(factors, weight)
    if problem:
        raise TransferError(f"Adapter: the factors of {name} do not fit it ({problem}). Copy both files again.")
    return factors.merged(weight)


def _problem(factors: Factors, weight: Tensor) -> str | None:
    """Why factors do not fit a weight; None where they do."""
    if not weight.is_floating_point():
        return f"it holds {weight.dtype}"
    problem = _wrong_number(factors, weight)
    if problem:
        return problem
    shapes = _shapes(factors, weight)
    for key in {**shapes, **factors.tensors}:
        if key not in shapes:
            return f"{key} is no factor of {factors.kind}"
        if key not in factors.tensors:
            return f"{key} is missing"
        tensor = factors.tensors[key]
        if tensor.shape != shapes[key] or not tensor.is_floating_point():
            return f"{key} is {tensor.dtype} of shape {list(tensor.shape)}, not {list(shapes[key])}"
    return None


def _wrong_number(factors: Factors, weight: Tensor) -> str | None:
    transposed, groups = factors.numbers.get("transposed"), factors.numbers.get("groups")
    least = 1 if factors.kind in ("scale", "shift") else 2
    if weight.dim() < least or not weight.numel():
        return f"a weight of shape {list(weight.shape)} has no factors of {factors.kind}"
    if not isinstance(transposed, bool) or type(groups) is not int or groups < 1:
        return f"transposed {transposed!r:.20}, groups {groups!r:.20}"
    if transposed and (weight.dim() < 2 or weight.shape[0] % groups):
        return f"groups {groups!r:.20} for shape {list(weight.shape)}"
    scale = factors.numbers.get("scale")
    if factors.kind in LOW_RANK and not (isinstance(scale, float) and math.isfinite(scale)):
        return f"scale {scale!r:.20}"
    return None


def _shapes(factors: Factors, weight: Tensor) -> dict[str, Size]:
    """Shapes of the factors of a weight of this kind."""
    if factors.kind == "shift":
        return {"scale.factor": weight.shape, "shift": weight.shape}
    if weight.dim() == 1:
        return {"scale.factor": weight.shape}
    layout = KernelLayout(transposed=factors.numbers["transposed"], groups=factors.numbers["groups"])
    kernels, fan_in = layout.rows(weight).shape
    if factors.kind == "scale":
        return {"scale.factor": Size([kernels])}
    a = factors.tensors.get("a")
    rank = a.shape[0] if a is not None and a.dim() == 2 and 1 <= a.shape[0] <= min(kernels, fan_in) else 1
    shapes = {"a": Size([rank, fan_in]), "b": Size([kernels, rank])}
    return shapes | ({"magnitude": Size([kernels, 1])} if factors.kind == "dora" else {})


def save_factors(file: Path, factors: Mapping[str, Factors]) -> None:
    """Write factors in one atomic write; without any, a file without tensors."""
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
        raise ModelError(f"{file}: no factors of a run ({error}). Remove the run and start it again.") from None
    return unpack(tensors, table)

"""The precision of training: nnU-Net's choice for the device, or a given one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lnsegfm.errors import ConfigError
from lnsegfm.recipe import PRECISIONS

DTYPES = dict(zip(PRECISIONS, (torch.float32, torch.float16, torch.bfloat16), strict=True))


def require_precision(precision: str | None, device: str) -> None:
    """Refuse numbers that a device does not train in.

    Args:
        precision: Of `lnsegfm.recipe.PRECISIONS`; None leaves it to nnU-Net: fp16 on CUDA, fp32 elsewhere.
        device: ``cpu``, ``cuda`` or ``mps``.

    Raises:
        ConfigError: It is not to be had there.
    """
    if precision is None or precision == "fp32":
        return
    if device != "cuda":  # bf16 on a CPU: torch's gradients of 3D convolutions on maps of a few voxels come out wrong
        raise ConfigError(f"Precision {precision}: on {device} training is in fp32. Leave it out.")
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError("Precision bf16: this GPU does not compute in it. Use fp16.")


def needs_scaling(precision: str | None) -> bool:
    """Whether gradients need a scaler: bf16 has the range of fp32."""
    return precision in (None, "fp16")


@contextmanager
def autocast_to(precision: str | None) -> Iterator[None]:
    """What nnU-Net's autocast on CUDA casts to while in here."""
    if precision is None:
        yield
        return
    before = torch.get_autocast_dtype("cuda")
    torch.set_autocast_dtype("cuda", DTYPES[precision])
    try:
        yield
    finally:
        torch.set_autocast_dtype("cuda", before)

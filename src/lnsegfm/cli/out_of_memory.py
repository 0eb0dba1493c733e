"""What is printed where memory runs out, of the machine or of its GPU."""

from __future__ import annotations

import re

_SIGNS = re.compile(r"out of memory|can't allocate memory|unable to allocate|CUBLAS_STATUS_ALLOC_FAILED", re.IGNORECASE)
_SIZE = re.compile(r"allocate ([\d.]+ ?[KMGTPE]iB)|allocate (\d+) bytes")
_GIB = 1 << 30


def memory_line(error: BaseException) -> str | None:
    """A line for the user, with a remedy; None where an error is of another kind.

    Args:
        error: Of Python, NumPy or torch, whose errors of this kind differ from device to device.
    """
    text = str(error)
    if not isinstance(error, MemoryError) and not _SIGNS.search(text):
        return None
    asked = _SIZE.search(text)
    amount = "" if asked is None else asked[1] or f"{int(asked[2]) / _GIB:.1f} GiB"
    wanted = f" ({amount} were asked for)" if amount else ""
    where = "GPU" if re.search(r"CUDA|CUBLAS|MPS|HIP", text) else "machine"
    return (
        f"Memory: the {where} has not enough of it{wanted}. Train with a smaller --batch-size or --patch-size, close "
        "other programs, or name another --device."
    )

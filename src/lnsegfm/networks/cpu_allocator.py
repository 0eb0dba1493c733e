"""Freed memory, kept for the next tensor."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import threading
from collections.abc import Iterator

import torch

_lock, _lent = threading.Lock(), 0
_MAPPINGS, _TRIM = -4, -1
"""M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h."""


@contextlib.contextmanager
def reused_memory(device: torch.device) -> Iterator[None]:
    """Let the C library keep freed memory while a network runs on the CPU.

    By default glibc maps each large tensor anew and unmaps it when freed, and the kernel has to clear every page
    each time: about two thirds of the time of a small network. It holds for the whole process, and is set back to what
    the C library starts with when the last one leaves. Elsewhere than on Linux with glibc nothing is done.
    """
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        yield
        return
    _keep(1)
    try:
        yield
    finally:
        _keep(-1)


def _keep(change: int) -> None:
    """Count who is inside, and set the allocator for the first, or back after the last, to what glibc starts with."""
    global _lent
    library = ctypes.CDLL(None)
    with _lock:
        _lent += change
        if change > 0 and _lent == 1:
            library.mallopt(_MAPPINGS, 0)
            library.mallopt(_TRIM, 2**31 - 1)
        elif not _lent:
            library.mallopt(_MAPPINGS, int(os.environ.get("MALLOC_MMAP_MAX_", 65536)))
            library.mallopt(_TRIM, int(os.environ.get("MALLOC_TRIM_THRESHOLD_", 2**17)))
            library.malloc_trim(0)

"""Freed memory, kept for the next tensor."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from collections.abc import Iterator

import torch

_lent = 0


@contextlib.contextmanager
def reused_memory(device: torch.device) -> Iterator[None]:
    """Let the C library keep freed memory while a network runs on the CPU.

    By default glibc maps each large tensor afresh and gives it back when freed, and the kernel has to clear every page
    each time: about two thirds of the time of a small network. Elsewhere than on Linux with glibc nothing is done.
    """
    global _lent
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    keep, trim, mappings = 2**31 - 1, -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
    library.mallopt(mappings, 0)
    library.mallopt(trim, keep)
    _lent += 1
    try:
        yield
    finally:
        _lent -= 1
        if not _lent:
            library.mallopt(mappings, 65536)
            library.mallopt(trim, 2**17)
            library.malloc_trim(0)

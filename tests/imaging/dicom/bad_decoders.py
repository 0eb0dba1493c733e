"""Decoders that end their process, or never return: what the C libraries do at some damaged frames."""

from __future__ import annotations

import ctypes
import os
import sys
import time

import numpy as np

from lnsegfm.imaging.dicom.decoder_child import FrameRequest, decode_code_stream


def aborts(request: FrameRequest, frame: bytes) -> np.ndarray:
    os.abort()


def reads_nowhere(request: FrameRequest, frame: bytes) -> np.ndarray:
    return np.full(2, ctypes.string_at(1, 8)[0])


def exits(request: FrameRequest, frame: bytes) -> np.ndarray:
    os._exit(3)


def hangs(request: FrameRequest, frame: bytes) -> np.ndarray:
    while True:
        time.sleep(0.01)


def hangs_in_c(request: FrameRequest, frame: bytes) -> np.ndarray:
    ctypes.PyDLL(None).sleep(1000)  # with the interpreter's lock held
    raise AssertionError


def swallows_memory(request: FrameRequest, frame: bytes) -> np.ndarray:
    np.empty(5 << 30, np.uint8)
    return decode_code_stream(request, frame)


def prints(request: FrameRequest, frame: bytes) -> np.ndarray:
    os.write(1, b"a library says something " * 100)
    os.write(2, b"and warns")
    print("on both", file=sys.stderr)
    return decode_code_stream(request, frame)


def crashes_at_odd_frames(request: FrameRequest, frame: bytes) -> np.ndarray:
    values = decode_code_stream(request, frame)
    if values[0, 0] % 2:
        os.abort()
    return values


def gives_its_process(request: FrameRequest, frame: bytes) -> np.ndarray:
    return np.full((request.rows, request.columns), os.getpid(), np.int64)

"""Decode compressed frames that come through a pipe: what runs in the process that ``decoder_process`` starts.

The C libraries of JPEG, JPEG-LS and JPEG 2000 may end their process, or not return, at damaged frames. Here that ends
this process alone. It holds itself to a time and an amount of memory, so that it also ends where its owner is gone.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from io import FileIO
from typing import Any

import numpy as np

MEMORY = 4 << 30
"""Bytes that the process may take: a frame of 8192 x 8192 takes a quarter of it."""
_LONGEST_HEADER = 1 << 16
_REMARKS_ON_DAMAGE = (b"Corrupt JPEG", b"remature end", b"length size inconsistent")
"""What decoders print where they go on with what they could not read."""


@dataclass(frozen=True)
class FrameRequest:
    """A frame and what is in it, as its code stream says.

    Args:
        syntax: TransferSyntaxUID.
        rows: Rows.
        columns: Columns.
        precision: Bits of a sample.
        signed: Whether samples are signed.
        seconds: Decoding takes no longer.
    """

    syntax: str
    rows: int
    columns: int
    precision: int
    signed: bool
    seconds: float


def decode_code_stream(request: FrameRequest, frame: bytes) -> np.ndarray:
    """The samples of a frame, (rows, columns), as its code stream has them.

    Raises:
        Exception: Whatever a decoder raises.
    """
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID, JPEGExtended12Bit, JPEGLossless, JPEGLSTransferSyntaxes

    syntax = UID(request.syntax)
    if syntax == JPEGExtended12Bit and request.precision > 8:
        syntax = JPEGLossless  # the stream says what it is, and pydicom keeps GDCM from seeing it under its own name
    decoder = get_decoder(syntax)
    # pyjpegls refuses damaged JPEG-LS more often than GDCM
    wanted = "pyjpegls" if syntax in JPEGLSTransferSyntaxes else "gdcm"
    plugin = wanted if wanted in decoder.available_plugins else decoder.available_plugins[0]
    options: dict[str, Any] = {
        "rows": request.rows,
        "columns": request.columns,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "number_of_frames": 1,
        "bits_allocated": 8 if request.precision <= 8 else 16 if request.precision <= 16 else 32,
        "bits_stored": request.precision,
        "pixel_representation": int(request.signed),
        "pixel_keyword": "PixelData",
    }
    values, _ = decoder.as_array(encapsulate([frame]), index=0, raw=True, decoding_plugin=plugin, **options)
    return np.asarray(values)


def serve(decode: str) -> None:
    """Answer requests from standard input on standard output until the input ends.

    Args:
        decode: ``module:function`` that takes a ``FrameRequest`` and the frame's bytes.
    """
    module, _, name = decode.partition(":")
    function: Callable[[FrameRequest, bytes], np.ndarray] = getattr(import_module(module), name)
    requests, answers = FileIO(os.dup(0)), FileIO(os.dup(1), "w")
    remarks = tempfile.TemporaryFile()  # noqa: SIM115 - for as long as the process
    os.dup2(remarks.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner has it as well, and closes the input
    _limit_memory()
    while (received := receive(requests)) is not None:
        request = FrameRequest(**received[0])
        _end_after(request.seconds)
        _said()
        try:
            values = np.ascontiguousarray(function(request, received[1]))
            said = _said()
            if any(remark in said for remark in _REMARKS_ON_DAMAGE):
                raise ValueError("damaged")
        except Exception as error:
            send(answers, {"error": type(error).__name__}, b"")
        else:
            send(answers, {"dtype": values.dtype.str, "shape": list(values.shape)}, values.data.cast("B"))
        _end_after(0)


def request_header(request: FrameRequest) -> dict[str, Any]:
    """A request as ``send`` takes it."""
    return asdict(request)


def send(stream: FileIO, header: dict[str, Any], content: bytes | memoryview) -> None:
    """Write a header and its content to a pipe.

    Raises:
        OSError: The other end is closed.
    """
    text = json.dumps(header).encode()
    for part in (struct.pack("<IQ", len(text), len(content)), text, content):
        view = memoryview(part)
        while len(view):
            view = view[stream.write(view) or 0 :]


def receive(stream: FileIO) -> tuple[dict[str, Any], bytes] | None:
    """Read what ``send`` wrote; None where the other end is closed."""
    lengths = _exactly(stream, struct.calcsize("<IQ"))
    if lengths is None:
        return None
    header_length, length = struct.unpack("<IQ", lengths)
    header = _exactly(stream, header_length) if header_length <= _LONGEST_HEADER else None
    content = _exactly(stream, length) if header is not None else None
    return (json.loads(header), bytes(content)) if header is not None and content is not None else None


def _exactly(stream: FileIO, length: int) -> bytearray | None:
    content = bytearray(length)
    view, position = memoryview(content), 0
    while position < length:
        count = stream.readinto(view[position:])
        if not count:
            return None
        position += count
    return content


def _said() -> bytes:
    """What decoders printed since this was last asked."""
    sys.stderr.flush()
    size = os.lseek(2, 0, os.SEEK_END)
    os.lseek(2, 0, os.SEEK_SET)
    said = os.read(2, min(size, 1 << 16))
    os.ftruncate(2, 0)
    os.lseek(2, 0, os.SEEK_SET)
    return said


def _limit_memory() -> None:
    with suppress(ImportError, ValueError, OSError):  # not on Windows, and not below what is taken already
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _end_after(seconds: float) -> None:
    if hasattr(signal, "setitimer"):  # its default action ends the process, wherever it is
        signal.setitimer(signal.ITIMER_REAL, seconds)

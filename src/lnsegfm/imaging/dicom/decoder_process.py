"""Decode compressed frames in a process of their own, so that a decoder that crashes or hangs takes nothing with it.

One such process serves all of a process's frames: it starts with the first one, and again after a frame ended it. It
takes no part in ``multiprocessing``, so scripts need no guard and notebooks work; a fork starts its own.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from io import FileIO
from threading import Lock, Timer
from typing import Any, cast

import numpy as np

from lnsegfm.imaging.dicom.decoder_child import FrameRequest, receive, request_header, send

SECONDS = 30.0
"""A frame may take this long, and a second more a million pixels: about a hundred times what it takes."""
_DECODE = "lnsegfm.imaging.dicom.decoder_child:decode_code_stream"
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from lnsegfm.imaging.dicom.decoder_child import serve; serve(sys.argv[2])"
)


class DecoderEnded(RuntimeError):
    """The decoder ended its process, or had to be ended. The message says how."""


class DecoderFailed(ValueError):
    """The decoder refused a frame. The message is the name of what it raised."""


def decoding_fault(error: Exception) -> str:
    """Why a frame does not decode, in a word or a few: never what a decoder says, which may quote anything."""
    return str(error) if isinstance(error, DecoderEnded | DecoderFailed) else type(error).__name__


class DecoderProcess:
    """A process that decodes frames, started when it is first needed.

    Args:
        decode: ``module:function`` that it calls, see ``decoder_child.serve``.
        seconds: What a small frame may take.
    """

    def __init__(self, decode: str = _DECODE, *, seconds: float = SECONDS) -> None:
        self.decode_name, self.seconds = decode, seconds
        self._lock = Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def decode(self, request: FrameRequest, frame: bytes) -> np.ndarray:
        """The samples of a frame.

        Raises:
            DecoderFailed: The decoder refused it.
            DecoderEnded: The decoder crashed, took too long, or could not be started.
        """
        request = replace(request, seconds=self.seconds + request.rows * request.columns / 1e6)
        with self._lock:
            header, content = self._exchange(request, frame)
        if "error" in header:
            raise DecoderFailed(str(header["error"]))
        return np.frombuffer(content, np.dtype(header["dtype"])).reshape(header["shape"])

    def close(self) -> None:
        """End the process; the next frame starts another."""
        child, self._child = self._child, None
        if child is not None:
            _pipe(child.stdin).close()
            child.kill()
            child.wait()
            _pipe(child.stdout).close()

    def forget(self) -> None:
        """In a fork: the process belongs to the parent."""
        child, self._child = self._child, None
        self._lock = Lock()
        if child is not None:
            _pipe(child.stdin).close()
            _pipe(child.stdout).close()
            child.returncode = 0  # it is not waited for

    def _exchange(self, request: FrameRequest, frame: bytes) -> tuple[dict[str, Any], bytes]:
        why = "its decoder does not start"
        for _ in range(2):  # again where it was not this frame that ended it
            child = self._running()
            expired: list[bool] = []
            # the child ends itself in time where it can; this is for where it cannot
            timer = Timer(request.seconds + 2, lambda c=child, e=expired: (e.append(True), c.kill()))
            timer.daemon = True
            timer.start()
            try:
                sent = _sent(child, request, frame)
                answer = receive(_pipe(child.stdout)) if sent else None
            except BaseException:  # an interrupt: an answer to come must not be taken for another frame's
                self.close()
                raise
            finally:
                timer.cancel()
            if answer is not None:
                return answer
            child.wait()
            self.close()
            why = _how(child.returncode, bool(expired), request.seconds)
            if sent and (expired or child.returncode != -getattr(signal, "SIGKILL", 0)):
                break
        raise DecoderEnded(why)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is not None:
            self.close()
        if self._child is None:
            command = [
                sys.executable or "python3",
                "-c",
                _START,
                json.dumps([str(place) for place in sys.path]),
                self.decode_name,
            ]
            try:
                self._child = subprocess.Popen(
                    command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
            except OSError as error:
                raise DecoderEnded(f"its decoder does not start ({error.strerror})") from None
        return self._child


def _sent(child: subprocess.Popen[bytes], request: FrameRequest, frame: bytes) -> bool:
    try:
        send(_pipe(child.stdin), request_header(request), frame)
    except OSError:  # it ended before it had the frame
        return False
    return True


def _how(code: int, expired: bool, seconds: float) -> str:
    if expired or code == -getattr(signal, "SIGALRM", 0):
        return f"its decoder took more than {seconds:.0f} s"
    if code < 0:
        return f"its decoder crashed ({signal.Signals(-code).name})"
    return f"its decoder ended (exit code {code})"


def _pipe(stream: object) -> FileIO:
    return cast(FileIO, stream)


SHARED = DecoderProcess()
"""The decoder of this process."""
atexit.register(lambda: SHARED.close())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: SHARED.forget())

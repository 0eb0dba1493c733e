"""The environment in which nnU-Net code runs: its own folders, no output, no warnings."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lnsegfm.errors import ConfigError

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


class _SharedChange(contextlib.AbstractContextManager[None]):
    """A change of process state that threads share: made by the first that enters, undone by the last that leaves.

    If each thread undid it for itself, the last one would restore what another had set, for good.
    """

    def __init__(self, change: Callable[[], contextlib.AbstractContextManager[object]]) -> None:
        self._change, self._lock, self._inside, self._undo = change, threading.Lock(), 0, contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._undo.enter_context(self._change())
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._undo.close()


class _FilteredOutput:
    """Standard output that drops what threads print while they run nnU-Net code."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text) if getattr(_here, "unheard", 0) else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _ignored() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


_here = threading.local()
_prints = _SharedChange(lambda: contextlib.redirect_stdout(_FilteredOutput(sys.stdout)))
without_warnings = _SharedChange(_ignored)
"""No warnings, in any thread. Whoever starts threads that run nnU-Net code keeps it around all of them."""


@contextlib.contextmanager
def nnunet_environment(work: Path | None = None) -> Iterator[None]:
    """Run nnU-Net code with its folders under ``work`` and without its output.

    Threads may be inside at the same time as long as they give no ``work``: folders are named in the environment.
    """
    changed = {} if work is None else {name: str(work / name) for name in FOLDERS}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        with _prints, without_warnings:
            _here.unheard = getattr(_here, "unheard", 0) + 1
            try:
                yield
            finally:
                _here.unheard -= 1
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def choose_device(name: str) -> str:
    """Resolve ``auto`` (CUDA where there is one, else the CPU) and refuse a device that is not there.

    Raises:
        ConfigError: An unknown device, or one that this machine lacks.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name not in there:
        raise ConfigError(f"Device {name}: not known. Use auto, cpu, cuda or mps.")
    if not there[name]:
        raise ConfigError(f"Device {name}: this machine has none that torch can use. Use --device cpu.")
    return name


@contextlib.contextmanager
def kept_randomness() -> Iterator[None]:
    """Give the caller's generators of random numbers back as they were: training seeds every one of them."""
    import numpy as np
    import torch

    python, numpy, here = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(here)
        if devices:
            torch.cuda.set_rng_state_all(devices)


def seed_everything(*numbers: int) -> None:
    """Seed every generator that training draws from, from the numbers alone."""
    import numpy as np
    import torch

    state = np.random.SeedSequence(numbers).generate_state(3)
    np.random.seed(state[0])
    torch.manual_seed(int(state[1]))
    random.seed(int(state[2]))

"""nnU-Net kept in its room: folders of our own, its prints in a log, no question asked of the user's environment."""

from __future__ import annotations

import contextlib
import io
import os
import random
import warnings
from collections.abc import Iterator
from pathlib import Path

from lnsegfm.errors import ConfigError

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


@contextlib.contextmanager
def engine(work: Path | None = None) -> Iterator[None]:
    """Run nnU-Net code with its folders under ``work`` and its prints unheard."""
    changed = {} if work is None else {name: str(work / name) for name in FOLDERS}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
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


def seed_everything(*numbers: int) -> None:
    """Seed every generator that training draws from, from the numbers alone."""
    import numpy as np
    import torch

    state = np.random.SeedSequence(numbers).generate_state(3)
    np.random.seed(state[0])
    torch.manual_seed(int(state[1]))
    random.seed(int(state[2]))

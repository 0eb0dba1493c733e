"""nnU-Net checkpoints, read without executing anything.

A checkpoint is a pickle, and a pickle is a program. `torch.load(weights_only=True)` calls only what is on a small
allow-list; the list here adds what nnU-Net 2 itself stores (NumPy scalars of its logs, a `torch.device`).
"""

from __future__ import annotations

import contextlib
import io
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lnsegfm.errors import ModelError, UnsafeFile
from lnsegfm.storage import write_bytes
from lnsegfm.weights.state import weights_hash

_multiarray = import_module("numpy._core.multiarray")
ALLOWED: list[Any] = [
    # under the names of NumPy 2, and of NumPy 1, with which most public models were trained
    *((getattr(_multiarray, name), f"numpy._core.multiarray.{name}") for name in ("scalar", "_reconstruct")),
    *((getattr(_multiarray, name), f"numpy.core.multiarray.{name}") for name in ("scalar", "_reconstruct")),
    np.ndarray,
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
    np.float32,
    np.float64,
    np.int64,
    torch.device,
]
_WANTED = "Give a checkpoint_final.pth of nnU-Net."
# Weights hardly compress. A file that unpacks to many times its size was made to exhaust memory.
UNPACKED_RATIO, UNPACKED_SPARE = 4, 64 * 2**20


@dataclass(frozen=True)
class Checkpoint:
    """What nnU-Net needs of a checkpoint to predict.

    Args:
        weights: The network's state dict.
        configuration: Name of the configuration in the plans, such as ``3d_fullres``.
        plans: The plans it was trained with.
        dataset_json: nnU-Net's description of the dataset it was trained on.
        trainer_name: Name of the trainer class whose ``build_network_architecture`` builds the network.
        mirroring_axes: Spatial axes along which test-time mirroring is allowed.
    """

    weights: Mapping[str, Tensor]
    configuration: str
    plans: Mapping[str, Any]
    dataset_json: Mapping[str, Any]
    trainer_name: str
    mirroring_axes: tuple[int, ...] | None

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of the weights, computed once: a large model's take seconds."""
        return weights_hash(self.weights)


def load_safely(path: Path) -> Any:
    """Read a file of ``torch.save`` onto the CPU; nothing in it is executed.

    Raises:
        UnsafeFile: It refers to a class or function outside the allow-list, which the message names; or it unpacks to
            many times its size; or it is TorchScript.
        ModelError: It is missing, cut short, or not a file of ``torch.save``.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file. Check the path.")
    _require_no_zip_bomb(path)
    _require_no_torchscript(path)
    try:
        with torch.serialization.safe_globals(ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or malicious file may raise anything
        forbidden = _forbidden(path, error)
        if forbidden:
            raise UnsafeFile(
                f"{path}: it asks to run {forbidden} while it is read. Weights need no such thing: "
                "do not open this file with other programs, ask its author for plain weights."
            ) from None
        raise ModelError(f"{path}: {_not_a_checkpoint(path)}") from None


def _require_no_zip_bomb(path: Path) -> None:
    """Refuse a zip whose directory lists more unpacked bytes than weights would have. torch uses the same sizes."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError):
        return  # no zip: the format of torch before 1.6, which is not compressed; or damaged
    if unpacked > UNPACKED_RATIO * path.stat().st_size + UNPACKED_SPARE:
        raise UnsafeFile(
            f"{path}: it would unpack to {unpacked / 2**20:.0f} MiB, from {path.stat().st_size / 2**20:.1f} MiB. "
            "Weights do not compress so far: do not open this file with other programs."
        )


def _require_no_torchscript(path: Path) -> None:
    """Refuse an archive of ``torch.jit.save``, whose code runs when the model does."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError):
        return
    if any(re.fullmatch(r"[^/]+/(constants\.pkl|code/.*)", name) for name in names):
        raise UnsafeFile(
            f"{path}: TorchScript, which runs code. Give the weights that it was made from: of a MONAI bundle "
            "models/model.pt."
        )


def _forbidden(path: Path, error: Exception) -> str | None:
    """What a refused pickle would call: from torch's message, else from its opcodes, none of which is executed."""
    if not isinstance(error, UnpicklingError):
        return None
    if match := re.search(r"(?:GLOBAL|global) ([\w.]+)", str(error)):
        return match.group(1)
    strings: list[str] = []
    with contextlib.suppress(Exception):  # a damaged file ends the search
        for opcode, argument, _ in pickletools.genops(_pickle_in(path)):
            name = str(argument).replace(" ", ".") if opcode.name == "GLOBAL" else ".".join(strings[-2:])
            if opcode.name in ("GLOBAL", "STACK_GLOBAL") and not name.startswith(("torch.", "numpy.", "collections.")):
                return name
            if isinstance(argument, str):
                strings.append(argument)
    return None


def _pickle_in(path: Path) -> bytes:
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def _not_a_checkpoint(path: Path) -> str:
    """Why a file is no checkpoint: torch's own message would advise users to execute it."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        return f"it cannot be read ({error.strerror}). Check its permissions."
    if not start:
        return "it is empty. Copy it again."
    if start == b"PK\x03\x04" or start[:1] == b"\x80":  # a zip archive, and the bare pickle of torch before 1.6
        return "not a checkpoint, or one that is cut short or damaged. Copy it again."
    return f"not a checkpoint (torch.save did not write it). {_WANTED}"


def read_checkpoint(path: Path) -> Checkpoint:
    """Read an nnU-Net checkpoint.

    Raises:
        UnsafeFile: Reading it would execute something.
        ModelError: It is not an nnU-Net checkpoint.
    """
    return checkpoint_of(load_safely(path), path)


def checkpoint_of(content: Any, path: Path) -> Checkpoint:
    """The nnU-Net checkpoint that a file's content is.

    Args:
        content: What `load_safely` read.
        path: The file, for the messages.

    Raises:
        ModelError: It is not an nnU-Net checkpoint.
    """
    try:
        if not isinstance(content, Mapping):
            raise TypeError
        arguments = content["init_args"]
        axes = content.get("inference_allowed_mirroring_axes")
        checkpoint = Checkpoint(
            weights=content["network_weights"],
            configuration=arguments["configuration"],
            plans=arguments["plans"],
            dataset_json=arguments["dataset_json"],
            trainer_name=content["trainer_name"],
            mirroring_axes=None if axes is None else tuple(axes),
        )
    except KeyError as error:
        raise ModelError(f"{path}: not an nnU-Net checkpoint ({error} is missing). {_WANTED}") from None
    except (TypeError, AttributeError, IndexError):
        raise ModelError(f"{path}: not an nnU-Net checkpoint (it is no dictionary). {_WANTED}") from None
    tables = (checkpoint.weights, checkpoint.plans, checkpoint.dataset_json)
    if not (
        all(isinstance(table, Mapping) for table in tables)
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in checkpoint.weights.items())
        and isinstance(checkpoint.configuration, str)
        and isinstance(checkpoint.trainer_name, str)
    ):
        raise ModelError(f"{path}: not an nnU-Net checkpoint (an entry has another type). {_WANTED}")
    return checkpoint


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint that stock nnU-Net predicts with and takes as ``-pretrained_weights``.

    It has no times and no logs: the same weights and plans give the same bytes.
    """
    save(
        path,
        {
            "network_weights": dict(checkpoint.weights),
            "optimizer_state": {},
            "grad_scaler_state": None,
            "logging": {},
            "_best_ema": None,
            "current_epoch": 0,
            "init_args": {
                "plans": dict(checkpoint.plans),
                "configuration": checkpoint.configuration,
                "fold": 0,
                "dataset_json": dict(checkpoint.dataset_json),
            },
            "trainer_name": checkpoint.trainer_name,
            "inference_allowed_mirroring_axes": checkpoint.mirroring_axes,
        },
    )


def save(path: Path, content: Any) -> None:
    """``torch.save`` in one atomic write, with bytes that depend on the content alone (not on the file's name)."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())

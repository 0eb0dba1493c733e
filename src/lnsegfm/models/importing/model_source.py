"""What a path holds, by its first bytes and not by its name: a folder, an archive, or a file of weights."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from lnsegfm.errors import ModelError
from lnsegfm.models.importing.config_files import find_config
from lnsegfm.models.importing.safetensors_io import read_tensors
from lnsegfm.models.model_layout import CHECKPOINTS, model_folders
from lnsegfm.weights.checkpoint import load_safely

WEIGHTS = (".pth", ".pt", ".ckpt", ".safetensors")
ARCHIVES = (".zip", ".tar", ".tgz", ".gz")
BUNDLE_CONFIGS = ("inference", "metadata")
"""What a MONAI bundle holds in ``configs`` beside ``models/model.pt``, in JSON or YAML."""
HYPER_PARAMETERS = ("hyper_parameters", "hyperparameters")
"""What an algorithm folder of Auto3DSeg holds in ``configs`` beside the folder of its weights."""
DESCRIPTION = "model.json"
"""Beside ``*.safetensors`` of this program: what the model is besides its weights."""


class SourceKind(StrEnum):
    """How a path is read."""

    FOLDER = "folder"
    ARCHIVE = "archive"
    CHECKPOINT = "file of torch.save"
    TENSORS = "safetensors file"


@dataclass(frozen=True)
class ModelSource:
    """A path and what it holds.

    Args:
        path: As the user gave it; messages name it.
        place: Where to read: the path, the file in the folder, the folder that an archive was unpacked to.
        kind: How to read it.
        unpacked: It came in an archive.
    """

    path: Path
    place: Path
    kind: SourceKind
    unpacked: bool = False

    @cached_property
    def content(self) -> Any:
        """What a file of weights holds. Nothing in it is executed.

        Raises:
            UnsafeFile: Reading it would execute something.
            ModelError: It is damaged, or no file of weights.
        """
        return read_tensors(self.place)[0] if self.kind is SourceKind.TENSORS else load_safely(self.place)

    def beside(self, *names: str) -> Path | None:
        """A file of one of these names in the file's folder, or one above where that is a fold's."""
        folders = [self.place.parent]
        if self.place.parent.name.startswith("fold_"):
            folders.append(self.place.parent.parent)
        places = (folder / name for folder in folders for name in names)
        return next((place for place in places if place.is_file()), None)


def open_source(path: Path) -> ModelSource:
    """Tell what a path holds.

    Raises:
        ModelError: There is nothing, or something that is neither a file nor a folder.
    """
    if not path.exists():
        raise ModelError(f"{path}: no such file or folder. Check the path.")
    if path.is_file() and path.name == DESCRIPTION:
        return ModelSource(path, path.parent, SourceKind.FOLDER)
    if not path.is_dir() and not path.is_file():
        raise ModelError(f"{path}: neither a file nor a folder. Give a model's file or folder.")
    return narrow_to_weights(ModelSource(path, path, SourceKind.FOLDER if path.is_dir() else _kind_of(path)))


def narrow_to_weights(source: ModelSource) -> ModelSource:
    """The file of weights in a folder that holds just one, and no model folder; else what was given."""
    if source.kind is not SourceKind.FOLDER or (source.place / DESCRIPTION).is_file() or model_folders(source.place):
        return source
    files = [file for file in sorted(source.place.rglob("*")) if file.suffix in WEIGHTS and file.is_file()]
    files = [file for file in files if file.name == CHECKPOINTS[0] or _is_main(file)] or files
    return replace(source, place=files[0], kind=_kind_of(files[0])) if len(files) == 1 else source


def configs_of_bundle(file: Path) -> Path | None:
    """The folder of configs of the MONAI bundle whose weights a file holds; None where it is of none."""
    configs = file.parent.parent / "configs"
    return configs if file.parent.name == "models" and _has_config(configs, BUNDLE_CONFIGS) else None


def configs_of_algorithm(file: Path) -> Path | None:
    """The folder of configs of the Auto3DSeg algorithm whose weights a file holds; None where it is of none."""
    configs = file.parent.parent / "configs"
    in_place = re.fullmatch(r"model(_fold\d+)?", file.parent.name)
    return configs if in_place and _has_config(configs, HYPER_PARAMETERS) else None


def _has_config(folder: Path, stems: tuple[str, ...]) -> bool:
    return any(find_config(folder, stem) is not None for stem in stems)


def _is_main(file: Path) -> bool:
    """Whether it is the main model of a MONAI bundle or an algorithm folder, which may hold others."""
    if file.name == "model.pt":
        return configs_of_bundle(file) is not None or configs_of_algorithm(file) is not None
    return file.name == "best_metric_model.pt" and configs_of_algorithm(file) is not None


def _kind_of(file: Path) -> SourceKind:
    with file.open("rb") as opened:
        start = opened.read(512)
    if start.startswith(b"PK"):
        return SourceKind.CHECKPOINT if _is_torch_zip(file) else SourceKind.ARCHIVE
    if start[257:262] == b"ustar" or start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")):
        return SourceKind.ARCHIVE
    if file.suffix == ".safetensors" or (start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**27):
        return SourceKind.TENSORS
    return SourceKind.ARCHIVE if file.suffix.lower() in ARCHIVES else SourceKind.CHECKPOINT


def _is_torch_zip(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return file.suffix.lower() not in ARCHIVES
    return any(re.fullmatch(r"[^/]+/data\.pkl", name) for name in names)

"""nnU-Net's layout of trained models on disk: where in a folder they lie, and which files are their folds.

``RESULTS/DATASET/TRAINER__PLANS__CONFIGURATION/fold_X/checkpoint_final.pth``, with ``plans.json`` and ``dataset.json``
beside the folds.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lnsegfm.errors import ConfigError, DataError
from lnsegfm.nnunet.plan_configuration import previous_stage
from lnsegfm.storage import read_json

CHECKPOINT = "checkpoint_final.pth"
CHECKPOINTS = (CHECKPOINT, "checkpoint_best.pth", "checkpoint_latest.pth")
"""Of a fold, the first that is there is taken."""
DESCRIPTIONS = ("plans.json", "dataset.json")
DEPTH = 3
"""Folders between a path that a user gives and a model below it: results, data set, model."""
FOLD = r"\d+|all"


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which of several models in one place is meant, and which of its folds.

    Args:
        configuration: Name of the configuration, such as ``3d_fullres``; None where there is one.
        folds: ``0``, ``1``, ... or ``all``; every numbered one unless given.
        previous_stage: The model of a cascade's previous stage; beside its own folder unless given.

    Raises:
        ConfigError: A fold that cannot be.
    """

    configuration: str | None = None
    folds: tuple[str, ...] = ()
    previous_stage: Path | None = None

    def __post_init__(self) -> None:
        for fold in self.folds:
            if not re.fullmatch(FOLD, fold):
                raise ConfigError(f"--fold {fold}: not a fold. Use a number, or all.")


@dataclass(frozen=True)
class FolderName:
    """What nnU-Net writes into the name of a model's folder.

    Args:
        trainer: Name of the trainer.
        plans: Name of the plans.
        configuration: Name of the configuration.
    """

    trainer: str
    plans: str
    configuration: str

    @classmethod
    def of(cls, folder: Path) -> FolderName | None:
        """The parts of a folder's name; None where it is not ``TRAINER__PLANS__CONFIGURATION``."""
        parts = folder.resolve().name.split("__")
        return cls(*parts) if len(parts) == 3 and all(parts) else None


def model_folders(place: Path, depth: int | None = None) -> tuple[Path, ...]:
    """Folders at a place or below it that nnU-Net could predict with: plans, dataset.json, a fold with a checkpoint.

    Args:
        place: Where to look.
        depth: Folders below the place that are looked into; None looks into all.
    """
    if depth is None:
        found: Iterable[Path] = place.rglob(DESCRIPTIONS[0])
    else:
        levels = ("*/" * level + DESCRIPTIONS[0] for level in range(depth + 1))
        found = itertools.chain.from_iterable(place.glob(level) for level in levels)
    folders = (file.parent for file in sorted(found))
    return tuple(folder for folder in folders if holds_model(folder) and not _is_inside(folder))


def _is_inside(folder: Path) -> bool:
    """Whether a folder is that of the previous stage within a stored cascade's."""
    return folder.name == PREVIOUS_STAGE and holds_model(folder.parent)


def holds_model(folder: Path) -> bool:
    """Whether a folder holds plans, dataset.json and a fold with a checkpoint."""
    return all((folder / name).is_file() for name in DESCRIPTIONS) and bool(fold_files(folder))


def fold_files(folder: Path) -> dict[str, Path]:
    """The file of each fold by its name, ``0``, ``1``, ... or ``all``, in that order."""
    found = {}
    for place in sorted(folder.glob("fold_*"), key=_by_number):
        name = place.name.removeprefix("fold_")
        file = next((place / each for each in CHECKPOINTS if (place / each).is_file()), None)
        if file is not None and re.fullmatch(FOLD, name):
            found[name] = file
    return found


def chosen_folds(folder: Path, folds: Sequence[str]) -> dict[str, Path]:
    """The files of the folds asked for; of every numbered fold, or of ``all``, where none is.

    Raises:
        ConfigError: A fold that is not there.
    """
    found = fold_files(folder)
    chosen = tuple(dict.fromkeys(folds)) or tuple(name for name in found if name != "all") or tuple(found)
    if missing := [name for name in chosen if name not in found]:
        there = ", ".join(found) or "none"
        raise ConfigError(f"--fold {' '.join(missing)}: {folder.name} has no checkpoint of it. It has: {there}.")
    return {name: found[name] for name in chosen}


def unfinished(folds: Mapping[str, Path]) -> tuple[str, ...]:
    """A line for each fold whose file is not that of a finished training."""
    return tuple(
        f"Fold {name} has no {CHECKPOINT}: {file.name} was taken, of a training not ended."
        for name, file in folds.items()
        if file.name != CHECKPOINT and not (file.parent / CHECKPOINT).is_file()
    )


def of_configuration(folders: Sequence[Path], configuration: str | None) -> tuple[Path, ...]:
    """Those of the folders whose names say that they are of a configuration; all where none is asked for."""
    names = {folder: FolderName.of(folder) for folder in folders}
    return tuple(
        folder
        for folder, name in names.items()
        if configuration is None or (name.configuration if name is not None else folder.name) == configuration
    )


def later_stage(folders: Sequence[Path]) -> Path | None:
    """Of two models that are the stages of one cascade the folder of the later one; None of any other models."""
    named = {folder: name.configuration for folder in folders if (name := FolderName.of(folder)) is not None}
    if len(folders) != 2 or len(named) != 2:
        return None
    for folder, other in (tuple(folders), tuple(reversed(folders))):
        before = _previous_stage(folder, named[folder])
        if before is not None and previous_stage_folder(folder, before) == other.resolve():
            return folder
    return None


def _previous_stage(folder: Path, configuration: str) -> str | None:
    try:
        return previous_stage(read_json(folder / DESCRIPTIONS[0]), configuration)
    except (DataError, KeyError, TypeError, AttributeError):  # what is wrong with it is said when it is read
        return None


def previous_stage_folder(folder: Path, previous: str) -> Path | None:
    """The model folder of a cascade's previous stage, beside the folder of its later stage.

    The one of the same trainer and plans counts; else the only one of that configuration.

    Args:
        folder: Of the later stage.
        previous: Name of the configuration before.
    """
    inside = folder / PREVIOUS_STAGE
    if holds_model(inside):
        return inside
    siblings = [place for place in sorted(folder.resolve().parent.iterdir()) if place.is_dir() and holds_model(place)]
    fitting = of_configuration(siblings, previous)
    own = FolderName.of(folder)
    same = [place for place in fitting if own is not None and _same_but_stage(FolderName.of(place), own)]
    return same[0] if same else fitting[0] if len(fitting) == 1 else None


PREVIOUS_STAGE = "previous_stage"
"""Folder within a stored cascade's that holds the model of its previous stage."""


def _same_but_stage(one: FolderName | None, other: FolderName) -> bool:
    return one is not None and (one.trainer, one.plans) == (other.trainer, other.plans)


def _by_number(place: Path) -> tuple[int, str]:
    name = place.name.removeprefix("fold_")
    return (int(name), "") if name.isdecimal() else (10**9, name)


def member_folder(run: Path, number: int) -> Path:
    """Where loss history, adapter and state of a further fold of a run are, which adapts all folds; counted from 1."""
    return run / MEMBERS / str(number)


def member_folders(run: Path) -> tuple[Path, ...]:
    """The folders of a run's further folds, in their order."""
    found = [place for place in (run / MEMBERS).glob("*") if place.name.isdecimal()]
    return tuple(sorted(found, key=lambda place: int(place.name)))


MEMBERS = "folds"
"""Folder in a run's of its further folds."""


def files_of_weights(place: Path) -> Iterator[Path]:
    """Files at a place, or in its folds, that may hold weights or a packed model."""
    for pattern in ("*", "fold_*/*"):
        for file in sorted(place.glob(pattern)):
            if file.is_file() and file.suffix.lower() in (".pth", ".pt", ".ckpt", ".safetensors", ".zip", ".model"):
                yield file

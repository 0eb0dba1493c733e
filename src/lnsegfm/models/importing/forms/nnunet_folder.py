"""nnU-Net's model folders: ``plans.json``, ``dataset.json``, ``fold_X/checkpoint_final.pth``, and what lies above."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.models.importing.import_options import ImportOptions
from lnsegfm.models.importing.model_source import CHECKPOINTS, ModelSource, SourceKind, model_folders
from lnsegfm.models.importing.recognised import NotThisForm, RecognisedFold, RecognisedModel
from lnsegfm.models.importing.state_dict_names import plain_names
from lnsegfm.models.importing.validate_plans import read_table
from lnsegfm.registry.home import CARD
from lnsegfm.registry.stored_model import Stored, stored_in, verify
from lnsegfm.weights.checkpoint import Checkpoint, read_checkpoint

TAKES = frozenset({"configuration", "folds", "patch_size"})


def read(source: ModelSource, options: ImportOptions) -> RecognisedModel:
    """Recognise a model folder, at the place or below it.

    Raises:
        NotThis: There is none.
        ConfigError: There are several and none was chosen; a fold that is not there.
        ModelError: A file is not JSON, or has changed since this program stored it.
    """
    if source.kind is not SourceKind.FOLDER:
        raise NotThisForm
    folders = model_folders(source.place)
    if not folders:
        raise NotThisForm("no folder in it holds plans.json, dataset.json and fold_X/checkpoint_final.pth")
    folder = _chosen(source, folders, options)
    files = (folder / "plans.json", folder / "dataset.json")
    stored = _stored(folder)
    plans, dataset_json = (read_table(file) for file in files)
    folds, notes = [], []
    for name, file in _folds(folder, options):
        if file.name != CHECKPOINTS[0]:
            notes.append(f"Fold {name} has no {CHECKPOINTS[0]}: {file.name} was taken, of a training not ended.")
        folds.append(RecognisedFold(name, file, partial(_read, file, plans, dataset_json, options)))
    of_total = "TotalSegmentator" in f"{plans.get('dataset_name') if isinstance(plans, dict) else ''}{folder}"
    form = "TotalSegmentator model folder" if of_total else "nnU-Net model folder"
    return RecognisedModel(
        form=f"{form}, from an archive" if source.unpacked else form,
        folds=tuple(folds),
        files=files,
        notes=tuple(notes),
        covers=stored.covers if stored is not None else (),
        card=stored.card if stored is not None else None,
    )


def _stored(folder: Path) -> Stored | None:
    """What a model that this program stored, perhaps on another machine, says of itself."""
    stored = stored_in(folder)
    changed = verify(folder) if stored is not None else ()
    if changed:
        raise ModelError(f"{folder}: {changed[0]} since it was stored. Copy it again, or remove its {CARD}.")
    return stored


def _chosen(source: ModelSource, folders: Sequence[Path], options: ImportOptions) -> Path:
    wanted = options.configuration
    if len(folders) == 1:
        return folders[0]
    fitting = [folder for folder in folders if wanted in (None, _configuration(folder))]
    if len(fitting) == 1:
        return fitting[0]
    listed = ", ".join(str(folder.relative_to(source.place)) for folder in fitting or folders)
    if source.unpacked:
        remedy = "Choose with --configuration, or unpack it and give one of them."
    else:
        remedy = "Choose with --configuration, or give one of them."
    raise ConfigError(f"{source.path}: it holds {len(fitting or folders)} models: {listed}. {remedy}")


def _configuration(folder: Path) -> str | None:
    """The configuration that nnU-Net wrote into the folder's name, ``TRAINER__PLANS__CONFIGURATION``."""
    parts = folder.name.split("__")
    return parts[2] if len(parts) == 3 else None


def _folds(folder: Path, options: ImportOptions) -> list[tuple[str, Path]]:
    found: dict[str, Path] = {}
    for place in sorted(folder.glob("fold_*")):
        name = place.name.removeprefix("fold_")
        file = next((place / each for each in CHECKPOINTS if (place / each).is_file()), None)
        if file is not None and re.fullmatch(r"\d+|all", name):
            found[name] = file
    numbered = [name for name in found if name != "all"]
    chosen = options.folds or tuple(numbered or found)
    missing = [name for name in chosen if name not in found]
    if missing or not chosen:
        there = ", ".join(found) or "none"
        raise ConfigError(f"--fold {' '.join(missing)}: {folder.name} has no checkpoint of it. It has: {there}.")
    return [(name, found[name]) for name in dict.fromkeys(chosen)]


def _read(file: Path, plans: Any, dataset_json: Any, options: ImportOptions) -> Checkpoint:
    checkpoint = read_checkpoint(file)
    if options.configuration not in (None, checkpoint.configuration):
        raise ConfigError(
            f"--configuration {options.configuration}: {file} is of {checkpoint.configuration}. Leave it out, or give "
            f"the folder of {options.configuration}."
        )
    # As in nnU-Net the folder's plans count, and not those inside a checkpoint.
    weights = plain_names(checkpoint.weights)
    return replace(checkpoint, weights=weights, plans=plans, dataset_json=dataset_json)

"""nnU-Net's model folders: ``plans.json``, ``dataset.json``, ``fold_X/checkpoint_final.pth``, and what lies above."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lnsegfm.errors import ConfigError, DataError, ModelError, UnsafeFile
from lnsegfm.evaluation.postprocessing import Postprocessing
from lnsegfm.models.importing.import_options import ImportOptions
from lnsegfm.models.importing.model_source import ModelSource, SourceKind
from lnsegfm.models.importing.nnunet_fold import FoldAsRead, fold_of
from lnsegfm.models.importing.recognised import NotThisForm, RecognisedFold, RecognisedModel
from lnsegfm.models.importing.validate_plans import read_table
from lnsegfm.models.model_layout import (
    FolderName,
    chosen_folds,
    later_stage,
    model_folders,
    of_configuration,
    previous_stage_folder,
    unfinished,
)
from lnsegfm.models.postprocessing_files import read_postprocessing
from lnsegfm.nnunet.plan_axes import RAS, is_totalsegmentators
from lnsegfm.nnunet.plan_configuration import previous_stage
from lnsegfm.registry.home import CARD
from lnsegfm.registry.stored_model import Stored, stored_in, verify
from lnsegfm.weights.checkpoint import load_safely
from lnsegfm.weights.state_dict_names import plain_names

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
    found = _recognised(source, _chosen(source, folders, options), options)
    place = found.files[0].parent
    of_total = any(
        (
            is_totalsegmentators(_dataset_name(found)),
            "TotalSegmentator" in str(place),
            ".totalsegmentator" in place.parts,  # where it keeps what it downloads
        )
    )
    form = "TotalSegmentator model folder" if of_total else "nnU-Net model folder"
    axes = RAS if of_total else None
    before = replace(found.previous, form="previous stage", axes=axes) if found.previous is not None else None
    form = f"{form}, from an archive" if source.unpacked else form
    return replace(found, form=form, axes=axes, previous=before)


def _recognised(source: ModelSource, folder: Path, options: ImportOptions) -> RecognisedModel:
    """The model of a folder, and that of its previous stage where it is the later one of a cascade."""
    files = (folder / "plans.json", folder / "dataset.json")
    stored = _stored(folder)
    plans, dataset_json = (read_table(file) for file in files)
    folds = chosen_folds(folder, options.folds)
    configuration = _configuration(folder, folds, plans, dataset_json, options)
    before = previous_stage(plans, configuration) if configuration is not None else None
    place = previous_stage_folder(folder, before) if before is not None else None
    notes = unfinished(folds)
    if before is not None:
        said = (
            f"stored with it, from {place.name}"
            if place is not None
            else "not there: predict asks for --previous-stage"
        )
        notes = (*notes, f"Its previous stage, {before}, is {said}.")
    cleaned, said_of_rules = _postprocessing(folder)
    return RecognisedModel(
        form="",
        folds=tuple(
            RecognisedFold(fold, file, partial(_read, file, plans, dataset_json, options))
            for fold, file in folds.items()
        ),
        files=files,
        notes=(*notes, *said_of_rules),
        postprocessing=cleaned,
        covers=stored.covers if stored is not None else (),
        backbone=stored is not None and stored.parts == "backbone",
        card=stored.card if stored is not None else None,
        previous=_recognised(source, place, ImportOptions()) if place is not None else None,
    )


def _postprocessing(folder: Path) -> tuple[Postprocessing, tuple[str, ...]]:
    """The rules beside a model; a file that cannot be taken is left out, with a note."""
    try:
        return read_postprocessing(folder), ()
    except (ModelError, UnsafeFile, DataError) as error:
        return Postprocessing(), (f"Its postprocessing is left out: {error}",)


def _configuration(
    folder: Path, folds: Mapping[str, Path], plans: Any, dataset_json: Any, options: ImportOptions
) -> str | None:
    """Of which configuration a model is, where that may be the later stage of a cascade; None elsewhere."""
    table = plans.get("configurations") if isinstance(plans, dict) else None
    stages = [each for each in (table or {}).values() if isinstance(each, dict) and each.get("previous_stage")]
    if not isinstance(table, dict) or not stages or not isinstance(dataset_json, dict):
        return None
    if (name := FolderName.of(folder)) is not None:
        return name.configuration
    file = next(iter(folds.values()))
    return fold_of(load_safely(file), file, plans, dataset_json, options.configuration).checkpoint.configuration


def _dataset_name(found: RecognisedModel) -> str:
    plans = read_table(found.files[0])
    return str(plans.get("dataset_name")) if isinstance(plans, dict) else ""


def _stored(folder: Path) -> Stored | None:
    """What a model that this program stored, perhaps on another machine, says of itself."""
    stored = stored_in(folder)
    changed = verify(folder) if stored is not None else ()
    if changed:
        raise ModelError(f"{folder}: {changed[0]} since it was stored. Copy it again, or remove its {CARD}.")
    return stored


def _chosen(source: ModelSource, folders: Sequence[Path], options: ImportOptions) -> Path:
    if len(folders) == 1:
        return folders[0]
    fitting = of_configuration(folders, options.configuration)
    if len(fitting) == 1:
        return fitting[0]
    if (later := later_stage(fitting)) is not None:
        return later
    listed = ", ".join(str(folder.relative_to(source.place)) for folder in fitting or folders)
    if source.unpacked:
        remedy = "Choose with --configuration, or unpack it and give one of them."
    else:
        remedy = "Choose with --configuration, or give one of them."
    raise ConfigError(f"{source.path}: it holds {len(fitting or folders)} models: {listed}. {remedy}")


def _read(file: Path, plans: Any, dataset_json: Any, options: ImportOptions) -> FoldAsRead:
    checkpoint, notes = fold_of(load_safely(file), file, plans, dataset_json, options.configuration)
    return FoldAsRead(replace(checkpoint, weights=plain_names(checkpoint.weights)), notes)

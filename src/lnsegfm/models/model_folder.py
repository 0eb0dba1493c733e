"""A model is a folder as nnU-Net lays it out: plans.json, dataset.json and fold_X/checkpoint_final.pth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnsegfm.datasets.nnunet_layout import file_ending
from lnsegfm.errors import ConfigError, DataError, LnSegFmError, ModelError
from lnsegfm.evaluation.postprocessing import Postprocessing
from lnsegfm.models.fold_reader import FoldAsRead, read_fold
from lnsegfm.models.model import Model
from lnsegfm.models.model_layout import (
    CHECKPOINT,
    CHECKPOINTS,
    DEPTH,
    DESCRIPTIONS,
    FolderName,
    ModelChoice,
    chosen_folds,
    files_of_weights,
    fold_files,
    later_stage,
    model_folders,
    of_configuration,
    previous_stage_folder,
    unfinished,
)
from lnsegfm.models.postprocessing_files import read_postprocessing
from lnsegfm.models.trained_scans import TrainedScans
from lnsegfm.nnunet.plan_axes import axes_of_plans
from lnsegfm.nnunet.trusted_imports import require_known_imports
from lnsegfm.registry.home import BUILT_IN, CARD
from lnsegfm.storage import read_json, write_json
from lnsegfm.weights.checkpoint import Checkpoint, write_checkpoint

if TYPE_CHECKING:
    from lnsegfm.registry.stored_model import Stored

__all__ = ["CHECKPOINT", "Model", "ModelChoice", "locate_model", "read_model", "read_models", "write_model"]

WANTED = "Give a folder with plans.json, dataset.json and fold_0/"
ANY = ModelChoice()


@dataclass(frozen=True)
class LocatedModel:
    """Where a model lies.

    Args:
        folder: With its plans.
        folds: The file of each of its folds, by its name.
        notes: How it was found, one line each.
    """

    folder: Path
    folds: Mapping[str, Path]
    notes: tuple[str, ...] = ()


def locate_model(path: Path, choice: ModelChoice = ANY) -> LocatedModel:
    """The model that a user means.

    A model's folder itself, ``model/`` of a run, an imported model by its name, the only model below a folder (of
    nnU-Net's results, or of a data set in them), a fold's folder, or a checkpoint in it.

    Args:
        path: What the user gave.
        choice: Which one, where there are several.

    Raises:
        ModelError: There is none, or only what has to be imported; the message says how.
        ConfigError: There are several and none is chosen, or a fold that is not there.
    """
    given = path
    if not path.exists():
        path = _by_name(path)
    if path.is_file():
        return _of_checkpoint(path)
    folder = path / "model" if (path / "model" / DESCRIPTIONS[0]).is_file() else path
    if folder.name.startswith("fold_") and (folder.parent / DESCRIPTIONS[0]).is_file():
        name = folder.name.removeprefix("fold_")
        folds = chosen_folds(folder.parent, (name,))
        return LocatedModel(folder.parent, folds, (f"Fold {name} alone is used, not the others of its model.",))
    notes: tuple[str, ...] = ()
    if not any((folder / name).is_file() for name in DESCRIPTIONS) and (below := model_folders(folder, DEPTH)):
        folder = _choose(given, below, choice)
        notes = (f"The model used is {folder.relative_to(path)} in {given}.",)
    _require_complete(given, folder)
    return LocatedModel(folder, chosen_folds(folder, choice.folds), notes)


def _by_name(path: Path) -> Path:
    """The folder of an imported model."""
    wanted = f"{WANTED}, or a name that `lnsegfm models list` shows."
    if path.parent != Path():
        raise ModelError(f"Model {path}: no such folder. {wanted}")
    from lnsegfm.registry.home import installed, model_place

    if path.name in installed():
        return model_place(path.name)
    from lnsegfm.registry.manifest import cards

    if path.name in cards():
        raise ModelError(f"Model {path}: it is not on this machine. Run: lnsegfm models pull {path}")
    raise ModelError(f"Model {path}: no such folder, and no model of that name. {wanted}")


def _of_checkpoint(file: Path) -> LocatedModel:
    """A checkpoint in a fold of a model's folder; any other file is to be imported."""
    folder, fold = file.parent.parent, file.parent.name
    described = all((folder / name).is_file() for name in DESCRIPTIONS)
    if described and fold.startswith("fold_") and file.name in CHECKPOINTS:
        name = fold.removeprefix("fold_")
        return LocatedModel(folder, {name: file}, (f"Fold {name} alone is used, from {file.name}.",))
    raise ModelError(f"Model {file}: it is a file. {_import_it(file)}")


def _import_it(path: Path) -> str:
    return f"Run: lnsegfm models import {path} --as NAME"


def _choose(given: Path, folders: Sequence[Path], choice: ModelChoice) -> Path:
    """The only model of the configuration asked for, or the later of the two stages of a cascade."""
    fitting = of_configuration(folders, choice.configuration)
    if len(fitting) == 1:
        return fitting[0]
    if (later := later_stage(fitting)) is not None:
        return later
    shown = ", ".join(str(folder.relative_to(given) if folder.is_relative_to(given) else folder) for folder in folders)
    if choice.configuration is not None and not fitting:
        raise ConfigError(f"--configuration {choice.configuration}: {given} has none of it. It holds {shown}.")
    raise ConfigError(
        f"Model {given}: it holds {len(folders)} models: {shown}. Choose with --configuration, or give one of them."
    )


def _require_complete(given: Path, folder: Path) -> None:
    """Refuse a folder that lacks a part, with what to do about what is there.

    Raises:
        ModelError: Always in one line.
    """
    folds, loose = fold_files(folder), list(files_of_weights(folder))
    for name in DESCRIPTIONS:
        if not (folder / name).is_file():
            remedy = f"{WANTED}."
            if folds:  # a checkpoint of nnU-Net holds plans and description itself
                remedy = _import_it(next(iter(folds.values())))
            elif (folder / "model.json").is_file():
                remedy = _import_it(given)
            elif len(loose) == 1:
                remedy = _import_it(loose[0])
            raise ModelError(f"Model {given}: {name} is missing. {remedy}")
    if not folds:
        remedy = "Finish its training, or copy the whole folder."
        if loose:
            remedy = f"It has {loose[0].relative_to(folder)}. {_import_it(loose[0])}"
        raise ModelError(f"Model {given}: it has no fold_X/{CHECKPOINT}. {remedy}")


def read_model(path: Path, *, whole: bool = True, choice: ModelChoice = ANY) -> Model:
    """Read a model folder, the model of a run, or an imported model by its name. Nothing in it is executed.

    Args:
        path: Folder or name (`locate_model`).
        whole: Refuse a model that holds an encoder only, which cannot predict.
        choice: Which model and folds, where there are several.

    Raises:
        ModelError: A part is missing or not what it should be.
        ConfigError: There are several models and none is chosen, or one is that is not there.
        UnsafeFile: A checkpoint would have to execute something to be read.
    """
    located = locate_model(path, choice)
    folder = located.folder
    plans, dataset_json = (read_json(folder / name) for name in DESCRIPTIONS)
    stored = _stored(folder)
    covers = stored.covers if stored is not None else ()
    if whole and stored is not None and covers:
        what = "network without an output layer" if stored.parts == "backbone" else "encoder without a decoder"
        raise ModelError(f"Model {path}: it is a pretrained {what}. Adapt it first (finetune).")
    with _description_faults(path, folder):
        if not isinstance(plans["configurations"], Mapping):
            raise TypeError
        for settings in plans["configurations"].values():  # all: one may inherit from another
            require_known_imports(settings, folder / DESCRIPTIONS[0])
        file_ending(dataset_json)
        axes_of_plans(plans)
        TrainedScans.of_plans(plans)
        folds = _read_folds(located, plans, dataset_json, choice, covers)
        said = () if folder.parent == BUILT_IN else (note for fold in folds for note in fold.notes)
        notes = (*located.notes, *unfinished(located.folds), *said)
        checkpoints = tuple(fold.checkpoint for fold in folds)
        first = checkpoints[0]
        model = Model(
            folder,
            checkpoints,
            first.plans,
            first.dataset_json,
            stored,
            fold_names=tuple(located.folds),
            notes=tuple(dict.fromkeys(notes)),
            postprocessing=Postprocessing() if covers else read_postprocessing(folder),
        )
        if not model.channels or not (model.covers or model.mask_labels):
            raise KeyError("channel_names")
    return with_previous_stage(model, choice.previous_stage) if whole else model


def with_previous_stage(model: Model, given: Path | None) -> Model:
    """A later stage of a cascade with the model of its previous stage; any other model as it is.

    Args:
        model: The model.
        given: The previous stage; None looks for it next to the model's folder.

    Raises:
        ConfigError: A previous stage that is not the one, or of a model that has none.
    """
    before = model.previous_configuration
    if before is None:
        if given is not None:
            raise ConfigError(
                f"--previous-stage {given}: {model.folder} is of {model.configuration}, which takes no other model's "
                "masks. Leave it out."
            )
        return model
    place = given if given is not None else previous_stage_folder(model.folder, before)
    if place is None:
        return model
    found = read_model(place, choice=ModelChoice(configuration=before if FolderName.of(place) is None else None))
    named = f"--previous-stage {place}" if given is not None else f"Model {place}"
    if found.configuration != before:
        raise ConfigError(f"{named}: it is of {found.configuration}, and {model.folder} takes masks of {before}.")
    if (found.labels.names, found.channel_names) != (model.labels.names, model.channel_names):
        raise ConfigError(
            f"{named}: it knows {found.labels} on {', '.join(found.channel_names)}, and {model.folder} "
            f"{model.labels} on {', '.join(model.channel_names)}. Give the stage that it was trained with."
        )
    told = () if given is not None else (f"Its masks of {before} are made by {found.folder}.",)
    return replace(model, previous=found, notes=(*model.notes, *told, *found.notes))


def read_models(paths: Sequence[Path], choice: ModelChoice = ANY) -> Model:
    """Read one model, or several whose probabilities are averaged.

    Args:
        paths: Folders or names (`locate_model`), at least one.
        choice: Which model, folds and previous stage, of the first.

    Raises:
        ModelError: A part is missing or not what it should be.
        ConfigError: They are not of the same labels and channels, or one is given twice.
        UnsafeFile: A checkpoint would have to execute something to be read.
    """
    first, *others = (read_model(path, choice=choice if not number else ANY) for number, path in enumerate(paths))
    seen = [first.identity]
    for other in others:
        if (other.mask_labels.names, other.channel_names) != (first.mask_labels.names, first.channel_names):
            raise ConfigError(
                f"Model {other.folder}: it knows {other.mask_labels} on {', '.join(other.channel_names)}, and "
                f"{first.folder} {first.mask_labels} on {', '.join(first.channel_names)}. Average models of the same "
                "labels and channels."
            )
        if other.identity in seen:
            raise ConfigError(f"Model {other.folder}: it is there twice. Name each model once.")
        seen.append(other.identity)
    notes = tuple(note for model in (first, *others) for note in model.notes)
    if any(other.postprocessing != first.postprocessing for other in others):
        notes = (*notes, "Postprocessing: these models have different rules, so their average gets none.")
    return replace(first, companions=tuple(others), notes=notes)


def _read_folds(
    located: LocatedModel,
    plans: Mapping[str, Any],
    dataset_json: Mapping[str, Any],
    choice: ModelChoice,
    covers: tuple[str, ...],
) -> list[FoldAsRead]:
    """The folds of a model, all of one configuration of its plans."""
    folds: list[FoldAsRead] = []
    for file in located.folds.values():
        fold = read_fold(file, plans, dataset_json, configuration=choice.configuration, covers=covers)
        named = fold.checkpoint.configuration
        if named not in plans["configurations"]:
            known = ", ".join(map(str, plans["configurations"])) or "none"
            raise ModelError(
                f"{file}: it is of configuration {named}, and plans.json beside it has {known}. "
                "Copy the plans.json that it was trained with."
            )
        if folds and named != (first := folds[0].checkpoint.configuration):
            raise ModelError(f"{file}: it is of {named}, and another fold of {first}. Choose folds with --fold.")
        folds.append(fold)
    return folds


@contextmanager
def _description_faults(path: Path, folder: Path) -> Iterator[None]:
    """Turn what tables of another form raise into one line."""
    try:
        yield
    except LnSegFmError as error:
        if type(error) is DataError:
            raise ModelError(f"{folder / DESCRIPTIONS[1]}: {error}") from None
        raise
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else "not tables of entries"
        raise ModelError(
            f"Model {path}: plans.json and dataset.json are not nnU-Net's ({reason}). Copy the folder again."
        ) from None


def _stored(folder: Path) -> Stored | None:
    if not (folder / CARD).is_file():
        return None  # at once, without pydantic
    from lnsegfm.registry.stored_model import stored_in

    return stored_in(folder)


def write_model(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a model folder that stock nnU-Net loads. The checkpoint comes last: with it the model is whole."""
    write_json(folder / "plans.json", checkpoint.plans)
    write_json(folder / "dataset.json", checkpoint.dataset_json)
    write_checkpoint(folder / "fold_0" / CHECKPOINT, checkpoint)

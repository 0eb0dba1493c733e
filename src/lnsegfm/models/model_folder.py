"""A model is a folder as nnU-Net lays it out: plans.json, dataset.json and fold_X/checkpoint_final.pth."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.datasets.nnunet_layout import channel_names, file_ending
from lnsegfm.errors import ConfigError, DataError, ModelError
from lnsegfm.nnunet.plan_configuration import network_class
from lnsegfm.nnunet.trusted_imports import require_known_imports
from lnsegfm.registry.home import CARD
from lnsegfm.storage import read_json, write_json
from lnsegfm.weights.checkpoint import Checkpoint, read_checkpoint, write_checkpoint

if TYPE_CHECKING:
    from lnsegfm.registry.stored_model import Stored

CHECKPOINT = "checkpoint_final.pth"


@dataclass(frozen=True)
class Model:
    """A trained model.

    Args:
        folder: Where it lies.
        folds: One checkpoint a fold; an ensemble has several.
        plans: How images are prepared and networks built.
        dataset_json: Labels, channels and file ending.
        stored: What an imported model says of itself: licence, citation, source; None for any other.
    """

    folder: Path
    folds: tuple[Checkpoint, ...]
    plans: Mapping[str, Any]
    dataset_json: Mapping[str, Any]
    stored: Stored | None = None

    @property
    def first(self) -> Checkpoint:
        """The fold that is adapted."""
        return self.folds[0]

    @property
    def configuration(self) -> str:
        """Name of the configuration in the plans."""
        return self.first.configuration

    @property
    def labels(self) -> LabelMap:
        """What its mask's numbers mean."""
        return LabelMap.from_dataset_json(self.dataset_json["labels"])

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of its foreground labels; none for a pretrained encoder."""
        return () if self.covers else tuple(self.labels.names)

    def with_labels(self, names: Mapping[str, str]) -> Model:
        """The model with some of its labels under other names.

        Args:
            names: Its label to the new name.

        Raises:
            ConfigError: It has no such label, or two labels would have one name.
        """
        for theirs in names:
            if theirs not in self.label_names:
                known = ", ".join(self.label_names) or "none"
                raise ConfigError(f"--map {theirs}={names[theirs]}: the base has no label {theirs}. It has: {known}.")
        renamed = {names.get(label, label): value for label, value in self.dataset_json["labels"].items()}
        if len(renamed) < len(self.dataset_json["labels"]):
            raise ConfigError(f"--map {names}: two labels of the base would have one name. Map each to its own.")
        description = {**self.dataset_json, "labels": renamed}
        folds = tuple(replace(fold, dataset_json=description) for fold in self.folds)
        return replace(self, folds=folds, dataset_json=description)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the input channels, in their order."""
        return channel_names(self.dataset_json)

    @property
    def file_ending(self) -> str:
        """The ending of its images and masks."""
        return file_ending(self.dataset_json)

    @property
    def channels(self) -> int:
        """Input channels."""
        return len(self.channel_names)

    def mask_files(self, folder: Path, cases: Iterable[str]) -> dict[str, Path]:
        """The file in a folder that holds its mask of each case, by the case's name."""
        ending = file_ending(self.dataset_json)
        return {case: folder / f"{case}{ending}" for case in cases}

    @property
    def covers(self) -> tuple[str, ...]:
        """Prefixes of the names of the weights it has; empty for a whole model."""
        return self.stored.covers if self.stored is not None else ()

    @property
    def network_class(self) -> str:
        """Import path of its network's class."""
        return network_class(self.plans, self.configuration)


def model_folder(path: Path) -> Path:
    """The model folder that a user means: the folder itself, ``model/`` of a run, or an imported model by its name.

    Raises:
        ModelError: Neither a folder nor the name of an imported model.
    """
    if path.is_dir():
        return path / "model" if (path / "model" / "plans.json").is_file() else path
    wanted = "Give a folder with plans.json, dataset.json and fold_0/, or a name that `lnsegfm models list` shows."
    if path.parent != Path() or path.exists():
        raise ModelError(f"Model {path}: no such folder. {wanted}")
    from lnsegfm.registry.home import installed, model_place

    if path.name in installed():
        return model_place(path.name)
    from lnsegfm.registry.manifest import cards

    if path.name in cards():
        raise ModelError(f"Model {path}: it is not on this machine. Run: lnsegfm models pull {path}")
    raise ModelError(f"Model {path}: no such folder, and no model of that name. {wanted}")


def read_model(path: Path, *, whole: bool = True) -> Model:
    """Read a model folder, the model of a run, or an imported model by its name. Nothing in it is executed.

    Args:
        path: Folder or name.
        whole: Refuse a model that holds an encoder only, which cannot predict.

    Raises:
        ModelError: A part is missing or not what it should be.
        UnsafeFile: A checkpoint would have to execute something to be read.
    """
    folder = model_folder(path)
    for name in ("plans.json", "dataset.json"):
        if not (folder / name).is_file():
            raise ModelError(
                f"Model {path}: {name} is missing. Give a folder with plans.json, dataset.json and fold_0/."
            )
    plans, dataset_json = read_json(folder / "plans.json"), read_json(folder / "dataset.json")
    found = sorted(folder.glob(f"fold_*/{CHECKPOINT}"), key=lambda file: file.parent.name)
    numbered = [file for file in found if re.fullmatch(r"fold_\d+", file.parent.name)]
    files = numbered or found
    if not files:
        raise ModelError(f"Model {path}: it has no fold_X/{CHECKPOINT}. Finish its training, or copy the whole folder.")
    # As in nnU-Net the folder's plans count, which are checked below, and not those inside a checkpoint.
    folds = tuple(replace(read_checkpoint(file), plans=plans, dataset_json=dataset_json) for file in files)
    model = Model(folder, folds, plans, dataset_json, _stored(folder))
    if whole and model.covers:
        raise ModelError(f"Model {path}: it is a pretrained encoder without a decoder. Adapt it first (finetune).")
    try:
        if model.configuration not in plans["configurations"]:
            raise KeyError(model.configuration)
        for configuration in plans["configurations"].values():  # all: one may inherit from another
            require_known_imports(configuration, folder / "plans.json")
        if not model.channels or not (model.covers or model.labels):
            raise KeyError("channel_names")
        file_ending(dataset_json)
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else "not tables of entries"
        raise ModelError(
            f"Model {path}: plans.json and dataset.json are not nnU-Net's ({reason}). Copy the folder again."
        ) from None
    except DataError as error:
        raise ModelError(f"{folder / 'dataset.json'}: {error}") from None
    return model


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

"""A trained model: its networks, plans and labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnsegfm.datasets.labels import CHOSEN, VALUES, LabelMap
from lnsegfm.datasets.nnunet_layout import channel_names, file_ending
from lnsegfm.errors import ConfigError
from lnsegfm.evaluation.domain_ranges import TrainedAxes
from lnsegfm.evaluation.postprocessing import Postprocessing
from lnsegfm.imaging.axis_code import require_axes
from lnsegfm.models.trained_scans import TrainedScans
from lnsegfm.nnunet.plan_axes import RAS, axes_of_plans, with_axes
from lnsegfm.nnunet.plan_configuration import network_class, previous_stage
from lnsegfm.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from lnsegfm.registry.stored_model import Parts, Stored

MONAI = "MONAI"
"""First word of the forms of models that MONAI trained, on scans turned to RAS."""


@dataclass(frozen=True)
class Model:
    """A trained model.

    Args:
        folder: Where it lies.
        folds: One checkpoint a fold; an ensemble has several.
        plans: How images are prepared and networks built.
        dataset_json: Labels, channels and file ending.
        stored: What an imported model says of itself: licence, citation, source; None for any other.
        fold_names: ``0``, ``1``, ... or ``all``, in the order of the folds.
        notes: What had to be done to read it, one line each.
        previous: Of a cascade's later stage the model of the previous stage, whose masks it takes; None of any other
            model, and where it was not found.
        companions: Further models whose probabilities are averaged with this one's.
        postprocessing: Rules that its masks are postprocessed by, on the numbers of the network's outputs.
    """

    folder: Path
    folds: tuple[Checkpoint, ...]
    plans: Mapping[str, Any]
    dataset_json: Mapping[str, Any]
    stored: Stored | None = None
    fold_names: tuple[str, ...] = ("0",)
    notes: tuple[str, ...] = ()
    previous: Model | None = None
    companions: tuple[Model, ...] = ()
    postprocessing: Postprocessing = Postprocessing()  # noqa: RUF009 - frozen

    @property
    def first(self) -> Checkpoint:
        """The fold that is adapted."""
        return self.folds[0]

    @property
    def weights_sha256(self) -> tuple[str, ...]:
        """Hash of the weights of each fold."""
        return tuple(fold.weights_sha256 for fold in self.folds)

    @property
    def identity(self) -> dict[str, Any]:
        """Hashes of all that its masks depend on: its folds, its previous stage and its companions."""
        before = {"previous_stage": self.previous.identity} if self.previous is not None else {}
        others = {"averaged_with": [other.identity for other in self.companions]} if self.companions else {}
        cleaned = self.mask_postprocessing
        rules = {"postprocessing": cleaned.to_json()} if cleaned else {}
        return {"model": list(self.weights_sha256), **before, **others, **rules}

    @property
    def mask_postprocessing(self) -> Postprocessing:
        """The rules that are applied: its own; of models that are averaged those that all of them have, else none."""
        own = self.postprocessing
        return own if all(other.postprocessing == own for other in self.companions) else Postprocessing()

    def without_postprocessing(self) -> Model:
        """The model whose masks are left as the network makes them."""
        others = tuple(replace(other, postprocessing=Postprocessing()) for other in self.companions)
        return replace(self, postprocessing=Postprocessing(), companions=others)

    @property
    def previous_configuration(self) -> str | None:
        """Name of the configuration whose masks it takes; None unless it is the later stage of a cascade."""
        return previous_stage(self.plans, self.configuration)

    @property
    def configuration(self) -> str:
        """Name of the configuration in the plans."""
        return self.first.configuration

    @property
    def labels(self) -> LabelMap:
        """Its outputs: 1, 2, 3, ..."""
        return LabelMap.of_model(self.dataset_json)

    @property
    def mask_labels(self) -> LabelMap:
        """What the numbers in its masks mean: the values of the data that it was trained on."""
        return LabelMap.of_masks(self.dataset_json)

    @property
    def masks_json(self) -> dict[str, Any]:
        """The ``dataset.json`` beside its masks: its own, with the values that they are written with."""
        kept = {key: value for key, value in self.dataset_json.items() if key not in (VALUES, CHOSEN)}
        return kept | (self.mask_labels.as_written() if VALUES in self.dataset_json else {})

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
        tables = {key: self.dataset_json[key] for key in ("labels", VALUES) if key in self.dataset_json}
        renamed = {key: {names.get(label, label): v for label, v in table.items()} for key, table in tables.items()}
        if len(renamed["labels"]) < len(self.dataset_json["labels"]):
            raise ConfigError(f"--map {names}: two labels of the base would have one name. Map each to its own.")
        description = {**self.dataset_json, **renamed}
        description.pop(CHOSEN, None)  # of its own training's masks
        folds = tuple(replace(fold, dataset_json=description) for fold in self.folds)
        return replace(self, folds=folds, dataset_json=description)

    @property
    def axes(self) -> str | None:
        """The axis code of the arrays that it was trained on, to which scans are turned; None where nobody knows it."""
        return self.trained_axes.codes

    @property
    def trained_axes(self) -> TrainedAxes:
        """The axes that it was trained on, and what says it: its plans, their reader, or its origin."""
        codes, source = axes_of_plans(self.plans)
        if codes is None and self.stored is not None and self.stored.source.form.startswith(MONAI):
            codes, source = RAS, f"its origin, {MONAI}"
        return TrainedAxes(codes, source, mirrored=set(self.first.mirroring_axes or ()) == {0, 1, 2})

    @property
    def trained_scans(self) -> TrainedScans:
        """The scans that trained it, its previous stage, its companions and their bases, where plans record them."""
        others = (*((self.previous,) if self.previous is not None else ()), *self.companions)
        return TrainedScans.of_plans(self.plans).together(other.trained_scans for other in others)

    def with_axes(self, axes: str | None) -> Model:
        """The model with its axes stated, its previous stage and what of its companions knows none; itself for None.

        Raises:
            ConfigError: Not an axis code.
        """
        if axes is None:
            return self
        plans = with_axes(self.plans, require_axes(axes, "--model-axes"), self.file_ending)
        return replace(
            self,
            folds=tuple(replace(fold, plans=plans) for fold in self.folds),
            plans=plans,
            previous=self.previous.with_axes(axes) if self.previous is not None else None,
            companions=tuple(other if other.axes is not None else other.with_axes(axes) for other in self.companions),
        )

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
    def parts(self) -> Parts:
        """Which part of its network it is."""
        return self.stored.parts if self.stored is not None else "all"

    @property
    def network_class(self) -> str:
        """Import path of its network's class."""
        return network_class(self.plans, self.configuration)

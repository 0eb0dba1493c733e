"""What the numbers in a mask mean."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lnsegfm.datasets.label_tables import BACKGROUND, names_first, of_regions, plain_labels, require_whole_number
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.spelling import spelt_alike

IGNORE = "ignore"
ORDER = "regions_class_order"
VALUES = "label_values"
"""Entry of a model's ``dataset.json``: the values that its masks are written with, where they are not consecutive."""
CHOSEN = "chosen_labels"
"""Entry of a model's ``dataset.json``: how masks are read in its training, where labels were merged or left out."""
HIGHEST = 65535
"""Of a label's value: masks hold 16 bits."""
NODE_WORDS = frozenset({"node", "nodes", "nodal", "lymph", "lymphnode", "lymphnodes", "ln", "lns", "gtvn", "gtvnd"})


@dataclass(frozen=True)
class LabelMap:
    """Foreground labels by name, and the value that marks voxels nobody annotated.

    Values are those of the masks, any from 1 to 65535; 0 is background. nnU-Net demands 1, 2, 3, ... without a gap and
    ``ignore`` the next one: `consecutive` are those values, in the same order.

    Args:
        names: Label name to value; kept in ascending order of value.
        ignore: Value of voxels that neither train nor count, if there are any.
        regions: Of region-based labels the values that each covers, in the order of the network's outputs, which
            ``names`` then keeps: there the value is the one that a voxel gets in a predicted mask (nnU-Net's
            ``regions_class_order``). Regions may overlap. Empty for labels of one value each.
        merged: Of labels that were merged the values that each covers; ``names`` holds the smallest of them.
        dropped: Values of labels that are not used: they are background.

    Raises:
        DataError: Names or values that cannot be.
    """

    names: Mapping[str, int]
    ignore: int | None = None
    regions: tuple[tuple[str, tuple[int, ...]], ...] = ()
    merged: tuple[tuple[str, tuple[int, ...]], ...] = ()
    dropped: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if not self.names:
            raise DataError("Labels {}: at least one label besides background is needed. Name it: lymph_node=1.")
        for name, value in [*self.names.items(), *([(IGNORE, self.ignore)] if self.ignore is not None else [])]:
            require_whole_number(name, value)
        for name in self.names:
            if not isinstance(name, str) or not name.strip() or not name.isprintable() or name in (BACKGROUND, IGNORE):
                raise DataError(f"Label name {name!r}: not a name for a foreground label. Use words like lymph_node.")
        order = [name for name, _ in self.regions] or sorted(self.names, key=lambda name: self.names[name])
        object.__setattr__(self, "names", {name: self.names[name] for name in order})
        values = self._values
        if self.regions:
            self._require_covered()
        if strange := [value for value in values if not 0 < value <= HIGHEST]:
            raise DataError(f"Label values {values}: {strange[0]} is not from 1 to {HIGHEST}. Renumber the masks.")
        if twice := [value for value in dict.fromkeys(values) if values.count(value) > 1]:
            raise DataError(f"Label values {values}: two labels have {twice[0]}. Give each label a value of its own.")

    def __hash__(self) -> int:
        return hash((tuple(self.names.items()), self.ignore, self.regions, self.merged, self.dropped))

    def _require_covered(self) -> None:
        written = list(self.names.values())
        if len(set(written)) < len(written):
            raise DataError(f"Label values {written}: two labels have one. Give each label a value of its own.")
        for name, values in self.regions:
            if self.names[name] not in values:
                raise DataError(
                    f"Label {name!r} {list(values)}: regions_class_order gives it {self.names[name]}, which is none of "
                    "its values. Correct the order."
                )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of a network's output channels in their order: background is one, but not beside regions."""
        return tuple(self.names) if self.regions else (BACKGROUND, *self.names)

    @property
    def covered(self) -> dict[str, tuple[int, ...]]:
        """The values that each label covers: one, or several of a region or of a merged label."""
        return dict(self.regions) or {name: (value,) for name, value in self.names.items()} | dict(self.merged)

    def voxels(self, mask: np.ndarray, name: str) -> np.ndarray:
        """Where a mask has a label (boolean, of the mask's shape)."""
        values = self.covered[name]
        return mask == values[0] if len(values) == 1 else np.isin(mask, values)

    @property
    def allowed(self) -> frozenset[int]:
        """Every value that a mask may hold: background, the labels, ignore."""
        return frozenset({0, *self._values, *self.dropped, *(v for _, values in self.merged for v in values)})

    @property
    def consecutive(self) -> LabelMap:
        """The labels with the values of a network's outputs: 1, 2, 3, ... in their order, ignore the next."""
        numbers = {value: number for number, value in enumerate(self._values, 1)}
        return LabelMap(
            {name: numbers[value] for name, value in self.names.items()},
            None if self.ignore is None else numbers[self.ignore],
            tuple((name, tuple(numbers[value] for value in values)) for name, values in self.regions),
        )

    def to_consecutive(self, mask: np.ndarray) -> np.ndarray:
        """A mask with the values of `consecutive` in the place of these; itself where they are the same.

        Raises:
            DataError: A value that no label has.
        """
        if self == self.consecutive:
            return mask
        if strangers := [value for value in values_in(mask) if value not in self.allowed]:
            raise DataError(f"Label values {strangers}: not among {self}. Name them with --label NAME=VALUE.")
        table = np.zeros(max(self.allowed) + 1, dtype=np.uint16)
        table[self._values] = range(1, len(self._values) + 1)
        for _, values in self.merged:
            table[list(values)] = table[values[0]]
        replaced: np.ndarray = table[mask]
        return replaced

    def from_consecutive(self, mask: np.ndarray) -> np.ndarray:
        """The inverse of `to_consecutive`, in the smallest unsigned type that holds the values."""
        if self == self.consecutive:
            return mask
        kind = np.uint8 if max(self.allowed) <= np.iinfo(np.uint8).max else np.uint16
        replaced: np.ndarray = np.array([0, *self._values], dtype=kind)[mask]
        return replaced

    @property
    def _values(self) -> list[int]:
        """The values of the labels, ascending, and ``ignore`` last."""
        own = sorted({v for _, values in self.regions for v in values}) if self.regions else sorted(self.names.values())
        return [*own, *([self.ignore] if self.ignore is not None else [])]

    @classmethod
    def of_model(cls, description: Mapping[str, Any]) -> LabelMap:
        """The labels of a network's outputs, from the ``dataset.json`` beside a model.

        Raises:
            DataError: Not such a table, or values that nnU-Net trains with none of: with a gap.
        """
        labels = cls.from_dataset_json(description.get("labels"), description.get(ORDER))
        if labels != labels.consecutive:
            raise DataError(
                f"Labels {labels}: a model's values are 1, 2, 3, ... without a gap, ignore last. "
                f"Write {labels.consecutive}, in the order of its outputs."
            )
        return labels

    @classmethod
    def of_masks(cls, description: Mapping[str, Any]) -> LabelMap:
        """The labels with the values that a model's masks are written with: its entry ``label_values``, else its own.

        Raises:
            DataError: As `of_model`, or values of other labels, or in another order.
        """
        own, values = cls.of_model(description), description.get(VALUES)
        if values is None:
            return own
        written = cls.from_dataset_json(values)
        if written.consecutive != own:
            raise DataError(f"{VALUES} {written}: they are not of the labels {own}. Copy the dataset.json again.")
        return written

    @classmethod
    def of_training(cls, description: Mapping[str, Any]) -> LabelMap:
        """The labels with the values of the masks of its training: its entry ``chosen_labels``, else `of_masks`.

        Raises:
            DataError: As `of_masks`, or labels that were chosen for other outputs.
        """
        record = description.get(CHOSEN)
        if record is None:
            return cls.of_masks(description)
        try:
            chosen = cls.from_record(record)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"{CHOSEN}: not the labels of masks ({error!r}). Copy the dataset.json again.") from None
        if chosen.consecutive != cls.of_model(description):
            raise DataError(f"{CHOSEN} {chosen}: they are not of the model's labels. Copy the dataset.json again.")
        return chosen

    def renamed(self, names: Mapping[str, str]) -> LabelMap:
        """The labels with some of them under other names.

        Args:
            names: Its label to the new name.

        Raises:
            ConfigError: It has no such label, or two labels would have one name.
        """
        for theirs, ours in names.items():
            if theirs not in self.names:
                raise ConfigError(f"--map {theirs}={ours}: there is no label {theirs}. There are: {self}.")
        renamed = {names.get(label, label): value for label, value in self.names.items()}
        if len(renamed) < len(self.names):
            raise ConfigError(f"--map {dict(names)}: two labels would have one name. Map each to its own.")

        def called(covered: tuple[tuple[str, tuple[int, ...]], ...]) -> tuple[tuple[str, tuple[int, ...]], ...]:
            return tuple((names.get(name, name), values) for name, values in covered)

        return replace(self, names=renamed, regions=called(self.regions), merged=called(self.merged))

    def as_written(self) -> dict[str, Any]:
        """What the ``dataset.json`` beside masks with these values says of them."""
        order = {ORDER: list(self.names.values())} if self.regions else {}
        return {"labels": self.to_dataset_json(), **order}

    def to_model_json(self) -> dict[str, Any]:
        """What a model's ``dataset.json`` says of its labels: ``labels``, and ``label_values`` where they differ."""
        trained = self.consecutive
        chosen = bool(self.merged or self.dropped)  # then the masks' own values are no longer the labels'
        if chosen:
            return {**trained.as_written(), CHOSEN: self.to_record()}
        return {**trained.as_written(), **({} if trained == self else {VALUES: self.to_dataset_json()})}

    @classmethod
    def from_dataset_json(cls, labels: Any, order: Any = None) -> LabelMap:
        """Read the ``labels`` of an nnU-Net ``dataset.json``: ``{"background": 0, "lymph_node": 1, "ignore": 2}``.

        ``background`` may be left out, a value may be text or a list of itself alone (`plain_labels`), and values may
        come before names as in MSD and nnU-Net version 1 (`names_first`). Lists of several values make region-based
        labels: ``{"whole": [1, 2], "core": 2}``.

        Args:
            labels: The table.
            order: Its ``regions_class_order``, the value that each region has in a predicted mask; where there is none
                it is the value that no smaller region covers.

        Raises:
            DataError: Not such a table; values that two labels have; regions without such a value.
        """
        if not isinstance(labels, Mapping) or not labels:
            raise DataError(f'Labels {labels!r}: not a table of names and values. Write {{"lymph_node": 1}}.')
        labels = plain_labels(names_first(labels))
        for name, value in labels.items():
            for each in value if isinstance(value, list | tuple) and name not in (BACKGROUND, IGNORE) else [value]:
                require_whole_number(name, each)
        if labels.get(BACKGROUND, 0) != 0:
            raise DataError(f"Label background {labels[BACKGROUND]}: background is always 0. Renumber the masks.")
        names = {name: value for name, value in labels.items() if name not in (BACKGROUND, IGNORE)}
        if any(isinstance(value, list | tuple) for value in names.values()):
            values, regions = of_regions(names, order)
            return cls(values, labels.get(IGNORE), regions)
        return cls(names, labels.get(IGNORE))

    def to_record(self) -> dict[str, Any]:
        """All of it, as `from_record` reads it: ``labels`` as of a ``dataset.json``, and what that cannot say."""
        order = {ORDER: list(self.names.values())} if self.regions else {}
        merged = {"merged_labels": [name for name, _ in self.merged]} if self.merged else {}
        dropped = {"dropped_values": sorted(self.dropped)} if self.dropped else {}
        return {"labels": self.to_dataset_json(), **order, **merged, **dropped}

    @classmethod
    def from_record(cls, content: Mapping[str, Any]) -> LabelMap:
        """The inverse of `to_record`.

        Raises:
            DataError: As `from_dataset_json`.
            KeyError: There are no ``labels``.
        """
        labels, named = content["labels"], set(content.get("merged_labels", ()))
        merged = tuple((name, tuple(values)) for name, values in labels.items() if name in named)
        plain = {name: min(value) if name in named else value for name, value in labels.items()}
        read = cls.from_dataset_json(plain, content.get(ORDER))
        return replace(read, merged=merged, dropped=frozenset(content.get("dropped_values", ())))

    @classmethod
    def from_options(cls, options: Iterable[str]) -> LabelMap | None:
        """Read ``NAME=VALUE`` options as the command line takes them; None when there are none.

        Raises:
            DataError: An option of another form, a name or a value given twice.
        """
        labels: dict[str, int] = {}
        for option in options:
            name, _, value = (part.strip() for part in option.rpartition("="))
            if not name or not value.isdecimal():
                raise DataError(f"Label option {option!r}: not NAME=VALUE. Write --label lymph_node=1.")
            if name in labels or int(value) in labels.values():
                raise DataError(f"Label option {option!r}: its name or value is already taken. Give each label once.")
            labels[name] = int(value)
        return cls.from_dataset_json(labels) if labels else None

    def to_dataset_json(self) -> dict[str, Any]:
        """The ``labels`` of an nnU-Net ``dataset.json``, background first and ignore last."""
        values = {name: list(v) if len(v) > 1 else v[0] for name, v in self.covered.items()}
        return {BACKGROUND: 0, **values, **({IGNORE: self.ignore} if self.ignore is not None else {})}

    def __str__(self) -> str:
        shown = {name: "+".join(map(str, values)) for name, values in self.covered.items()}
        shown |= {IGNORE: str(self.ignore)} if self.ignore is not None else {}
        return ", ".join(f"{name}={value}" for name, value in shown.items())


def require_same_spelling(theirs: Iterable[str], ours: Iterable[str], whose: str, *, option: bool = True) -> None:
    """Refuse labels that differ from others in case, blanks, hyphens or underscores alone.

    Args:
        theirs: Names of the labels of a model or its masks.
        ours: Names of the data's labels.
        whose: Whose the first are, for the message.
        option: Whether the command takes ``--map``.

    Raises:
        ConfigError: With the options that join them.
    """
    alike = spelt_alike(theirs, ours)
    if not alike:
        return
    words = " ".join(f"--map {shlex.quote(f'{name}={other}')}" for name, other in alike.items())
    remedy = f"Add {words}." if option else "Give one label one name in both."
    first, other = next(iter(alike.items()))
    raise ConfigError(f"Label {other}: {whose} {first}, and labels are matched by name, to the letter. {remedy}")


def values_in(mask: np.ndarray) -> list[int]:
    """The distinct values of an integer mask, ascending."""
    values: set[int] = set()
    for part in mask:  # slice by slice: sorting a whole CT's worth of voxels takes seconds and gigabytes
        values.update(int(v) for v in np.unique(part))
    return sorted(values)


def node_labels(names: Iterable[str]) -> tuple[str, ...]:
    """Those of the labels that are lymph nodes, by their names, in the order given.

    A name is split into words at whatever is neither a letter nor a digit; one of its words, in any case, must be one
    of ``NODE_WORDS``. ``Lymph_Node``, ``LN-2R`` and ``GTVn`` are nodes; ``kidney`` and ``nodule`` are not. Names in
    camel case are one word, so ``LymphNode`` counts and ``MediastinalNode`` does not.
    """
    return tuple(name for name in names if not NODE_WORDS.isdisjoint(re.split(r"[\W_]+", name.lower())))


def nodes_among(names: Iterable[str]) -> tuple[str, ...]:
    """The labels whose nodes are measured: those named as nodes, and all where none is."""
    names = tuple(names)
    return node_labels(names) or names

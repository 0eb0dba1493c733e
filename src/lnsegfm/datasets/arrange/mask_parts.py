"""What the masks of the cases are made of: maps of all labels, or a file or segment a structure; and their labels."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lnsegfm.datasets.arrange.arrange_options import ArrangeOptions
from lnsegfm.datasets.arrange.case_pairing import MaskFile
from lnsegfm.datasets.arrange.label_files import label_file_in, read_label_file
from lnsegfm.datasets.arrange.slicer_segments import segments_of
from lnsegfm.datasets.labels import ORDER, LabelMap, values_in
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.imaging.files import read_mask
from lnsegfm.messages import counted
from lnsegfm.spelling import normalise_name

_SHOWN = 12  # names or values that a message lists


@dataclass(frozen=True)
class MaskPart:
    """One file, or one segment of a file, of a case's mask.

    Args:
        path: The file.
        label: The label that it gives; None for a map of all labels.
        value: Which value in the file counts; None: every one above 0.
        layer: Which layer of a file of overlapping segments.
    """

    path: Path
    label: str | None = None
    value: int | None = None
    layer: int = 0


@dataclass(frozen=True)
class NamedParts:
    """The masks of all cases, and what their labels are called.

    Args:
        parts: By case, in the order of the labels' values.
        labels: What the masks will hold; None where there are none.
        labels_from: Where the names come from.
        missing: Labels that a case has no part for, by case.
        notes: Remarks, one line each.
    """

    parts: Mapping[str, tuple[MaskPart, ...]]
    labels: LabelMap | None
    labels_from: str
    missing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def used(self) -> frozenset[Path]:
        """The files that are taken."""
        return frozenset(part.path for parts in self.parts.values() for part in parts)


def named_parts(
    source: Path, masks: Mapping[str, Sequence[MaskFile]], options: ArrangeOptions, description: Mapping[str, Any]
) -> NamedParts:
    """The masks of the cases as parts with labels.

    Raises:
        DataError: Values that nothing names, files that cannot be read for it, or maps beside single structures.
        ConfigError: A label that no structure has.
    """
    if not any(masks.values()):
        return NamedParts({}, None, "")
    given = options.names
    if given is None and options.label_file is not None:
        given = read_label_file(options.label_file)
    parts = {name: [part for mask in each for part in _parts_of(mask)] for name, each in masks.items() if each}
    labels = {part.label for each in parts.values() for part in each}
    if None in labels and len(labels) > 1:
        whole = next(name for name, each in parts.items() if any(part.label is None for part in each))
        single = next(name for name, each in parts.items() if any(part.label is not None for part in each))
        raise DataError(
            f"Case {whole} has a map of all labels, case {single} a mask for each structure. Arrange them apart, with "
            "--labels."
        )
    if None not in labels and _is_one_map(parts, given):
        parts = {name: [MaskPart(part.path) for part in each] for name, each in parts.items()}
        labels = {None}
    if None in labels:
        map_labels, where = _labels_of_maps(source, parts, given, options, description)
        return NamedParts({name: tuple(each) for name, each in parts.items()}, map_labels, where)
    return _structures(parts, given, options)


def _parts_of(mask: MaskFile) -> list[MaskPart]:
    path = mask.file.path
    if segments := segments_of(path):
        return [MaskPart(path, segment.name, segment.value, segment.layer) for segment in segments]
    return [MaskPart(path, mask.structure)]


def _is_one_map(parts: Mapping[str, Sequence[MaskPart]], given: LabelMap | None) -> bool:
    """Whether the only "structure" is a name for maps of several labels: ``P7_organs.nii.gz`` with values 1 to 7."""
    names = {part.label for each in parts.values() for part in each}
    if len(names) > 1 or any(part.value is not None for each in parts.values() for part in each):
        return False
    if given is not None:
        return not any(_alike(name or "", given.names) for name in names)
    return any(len(_values(part.path) - {0}) > 1 for each in parts.values() for part in each)


def _values(path: Path) -> set[int]:
    try:
        return set(values_in(read_mask(path)[0]))
    except DataError:
        return set()  # its case says what is wrong with it


def _labels_of_maps(
    source: Path,
    parts: Mapping[str, Sequence[MaskPart]],
    given: LabelMap | None,
    options: ArrangeOptions,
    description: Mapping[str, Any],
) -> tuple[LabelMap, str]:
    if given is not None:
        return given, "--label" if options.names is not None else str(options.label_file)
    if description.get("labels"):
        return LabelMap.from_dataset_json(description["labels"], description.get(ORDER)), "dataset.json"
    if (file := label_file_in(source)) is not None:
        return read_label_file(file), file.name
    values = sorted({value for each in parts.values() for part in each for value in _values(part.path)} - {0})
    if not values:
        raise DataError(f"{source}: its masks hold nothing, or cannot be read. Check that these are the masks.")
    shown = [f"--label NAME={value}" for value in values[:_SHOWN]]
    more = " ..., or --label-file FILE" if len(values) > _SHOWN else ""
    raise DataError(
        f"{source}: the masks hold the values {', '.join(map(str, values[: 2 * _SHOWN]))}, and nothing says what they "
        f"mean. Name them: {' '.join(shown)}{more}."
    )


def _structures(parts: Mapping[str, Sequence[MaskPart]], given: LabelMap | None, options: ArrangeOptions) -> NamedParts:
    spelt = _one_spelling(part.label or "" for each in parts.values() for part in each)
    names = sorted(set(spelt.values()), key=lambda name: (name.casefold(), name))
    chosen = {name: name for name in names}
    notes = [
        f"{name} is taken for {other}: only the spelling differs." for name, other in spelt.items() if name != other
    ]
    if given is not None:
        if given.ignore is not None or given.regions:
            raise ConfigError("Labels of structures: one value each, and none for ignore. Name them: --label NAME=1.")
        chosen = {}
        for label in given.names:
            own = _alike(label, names)
            if own is None:
                near = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
                option = "--label" if options.names is not None else str(options.label_file)
                if options.names is None:
                    continue  # a file may name more structures than there are
                raise ConfigError(f"{option} {label}: no structure has this name. There are: {near}.")
            chosen[own] = label
        labels = LabelMap({label: given.names[label] for label in chosen.values()})
        if left := [name for name in names if name not in chosen]:
            notes.append(f"{counted(len(left), 'structure')} not named, and left: {', '.join(left[:_SHOWN])}.")
    else:
        labels = LabelMap({name: value for value, name in enumerate(names, start=1)})
    by_case: dict[str, tuple[MaskPart, ...]] = {}
    for case, each in parts.items():
        own_parts = [
            MaskPart(part.path, chosen[spelt[part.label or ""]], part.value, part.layer)
            for part in each
            if spelt[part.label or ""] in chosen
        ]
        repeated = [label for label, n in Counter(part.label for part in own_parts).items() if n > 1]
        if repeated:
            files = ", ".join(part.path.name for part in own_parts if part.label == repeated[0])
            raise DataError(f"Case {case}: several files give {repeated[0]} ({files}). Say which: --labels PATTERN.")
        if own_parts:
            by_case[case] = tuple(sorted(own_parts, key=lambda part: labels.names[part.label or ""]))
    missing = {
        case: tuple(label for label in labels.names if label not in {part.label for part in each})
        for case, each in by_case.items()
    }
    lacking = Counter(label for each in missing.values() for label in each)
    notes += [
        f"{label}: {counted(n, 'case')} of {len(by_case)} have no file of it. It counts as not annotated there "
        "(unlabelled.csv); where it is truly absent, remove the line."
        for label, n in lacking.items()
    ]
    where = "names of files" if given is None else "--label" if options.names is not None else str(options.label_file)
    return NamedParts(by_case, labels, where, {c: m for c, m in missing.items() if m}, tuple(notes))


def _one_spelling(names: Iterable[str]) -> dict[str, str]:
    """Each name, and how it is written most often: case, blanks, hyphens and underscores do not count."""
    counted_names = Counter(names)
    groups: dict[str, list[str]] = defaultdict(list)
    for name in counted_names:
        groups[normalise_name(name)].append(name)
    return {name: min(group, key=lambda n: (-counted_names[n], n)) for group in groups.values() for name in group}


def _alike(name: str, names: Iterable[str]) -> str | None:
    """The one of the names that is the same, or differs in its spelling alone."""
    known = list(names)
    if name in known:
        return name
    alike = [other for other in known if normalise_name(other) == normalise_name(name)]
    return alike[0] if len(alike) == 1 else None


def quoted(labels: LabelMap) -> str:
    """The labels as the options that name them."""
    return " ".join(f"--label {shlex.quote(f'{name}={value}')}" for name, value in labels.names.items())

"""Labelled scans on disk: an nnU-Net raw dataset, or a folder with ``images/`` and ``labels/``.

Opening a dataset pairs files by name and determines what the labels mean. Whether the files can be used is checked by
:mod:`lnsegfm.datasets.check`, which reads all of them and reports everything at once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lnsegfm.datasets.arranging_command import arrange_command, arranging
from lnsegfm.datasets.labels import ORDER, LabelMap, values_in
from lnsegfm.datasets.listed_files import dataset_list, training_list
from lnsegfm.datasets.nnunet_layout import DEFAULT_ENDING, channel_names, numbers_every_channel, parse_image_name
from lnsegfm.datasets.subjects import subjects_of
from lnsegfm.datasets.unlabelled import unlabelled_of
from lnsegfm.errors import DataError
from lnsegfm.imaging.files import IMAGE_ENDINGS, ending, image_files, read_mask, readable_endings, stem
from lnsegfm.storage import content_hash, read_json, sha256


@dataclass(frozen=True)
class Case:
    """One scan.

    Args:
        name: Its name, which is also the stem of the files made from it.
        images: One file per channel; empty where a label has no image.
        label: Its reference, if it has one.
        unlabelled: Labels that nobody annotated in it; in its reference they are background.

    Raises:
        DataError: A name that cannot be a file's name.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None
    unlabelled: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not self.name.isprintable() or self.name.strip(" ") in ("", ".", "..") or set("/\\") & set(self.name):
            raise DataError(f"Case name {self.name!r}: it cannot be a file's name. Use letters, digits, '_' and '-'.")

    def to_json(self) -> dict[str, Any]:
        """A plain table, from which `from_json` makes the case in another process."""
        label = None if self.label is None else str(self.label)
        return {
            "name": self.name,
            "images": [str(image) for image in self.images],
            "label": label,
            "unlabelled": sorted(self.unlabelled),
        }

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Case:
        """The case of a table that `to_json` made."""
        label = None if table["label"] is None else Path(table["label"])
        return cls(table["name"], tuple(map(Path, table["images"])), label, frozenset(table["unlabelled"]))


@dataclass(frozen=True)
class Dataset:
    """Scans that share labels and channels.

    Args:
        root: Its folder.
        cases: By name. Two may have one name, one may lack image or label: ``check`` finds them.
        labels: What the numbers in the masks mean.
        channels: Names of the channels, such as ``("CT",)``.
        file_ending: Ending of the images; the commonest where they differ.
        labels_from: Where the label map comes from, for people to read.
        subjects: The patient of each case, where the folder's ``subjects.csv`` says it.
        allow_empty: Labels without a voxel are of scans that hold nothing, not mistakes: the user says so.
    """

    root: Path
    cases: tuple[Case, ...]
    labels: LabelMap
    channels: tuple[str, ...] = ("CT",)
    file_ending: str = DEFAULT_ENDING
    labels_from: str = "the caller"
    subjects: Mapping[str, str] = field(default_factory=dict)
    allow_empty: bool = False

    @property
    def labelled(self) -> tuple[Case, ...]:
        """The cases that have a reference."""
        return tuple(case for case in self.cases if case.label is not None)

    def with_cases(self, names: Collection[str]) -> Dataset:
        """The dataset with some of its cases alone."""
        return replace(self, cases=tuple(case for case in self.cases if case.name in names))

    def content_hash(self, known: Mapping[Path, str] | None = None) -> str:
        """SHA-256 over case names, the bytes of their files, channels and labels; where the files lie plays no part.

        Args:
            known: SHA-256 of files that need not be read for it.
        """
        hashes = known or {}

        def of(file: Path) -> str:
            return hashes[file] if file in hashes else sha256(file)

        return content_hash(
            {
                "cases": [
                    [
                        case.name,
                        [of(image) for image in case.images],
                        of(case.label) if case.label else None,
                        *([sorted(case.unlabelled)] if case.unlabelled else []),
                    ]
                    for case in self.cases
                ],
                "channels": self.channels,
                **self.labels.to_record(),
            }
        )


def open_dataset(
    root: Path, labels: LabelMap | None = None, *, default_labels: LabelMap | None = None, allow_empty: bool = False
) -> Dataset:
    """Open an nnU-Net raw dataset, or a folder with ``images/`` and ``labels/``.

    What the labels mean is taken from the first of these that says it: ``labels``; the folder's ``dataset.json``; its
    ``labels.json``; ``default_labels``, if every value in the masks occurs in it.

    Args:
        root: The folder.
        labels: What the user says the labels are.
        default_labels: What they are when nobody says it: the labels of the base model.
        allow_empty: As of `Dataset`.

    Raises:
        DataError: Neither of the two layouts, no case in it, a description that cannot be read, or labels without
            names.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder. Give the folder that holds images and labels.")
    description = _read_description(root)
    cases = _find_cases(root, description, labels)
    if not cases:
        raise DataError(f"{root}: it holds no images ({', '.join(readable_endings())}). Put labelled scans into it.")
    labels, source = _labels_of(root, cases, labels, default_labels)
    unlabelled = unlabelled_of(root, {case.name for case in cases}, labels.names)
    cases = tuple(replace(case, unlabelled=unlabelled.get(case.name, frozenset())) for case in cases)
    return Dataset(
        root=root,
        cases=cases,
        labels=labels,
        channels=_channel_names(root, cases, description),
        file_ending=_file_ending(root, cases, description),
        labels_from=source,
        subjects=subjects_of(root),
        allow_empty=allow_empty,
    )


def named_labels(root: Path) -> tuple[LabelMap, str] | None:
    """The label map that a folder's ``dataset.json`` or ``labels.json`` states, and the file's name; None if neither.

    Raises:
        DataError: The file is not JSON, or its labels cannot be.
    """
    for name in ("dataset.json", "labels.json"):
        if not (root / name).is_file():
            continue
        content = read_json(root / name)
        table = content.get("labels") if name == "dataset.json" and isinstance(content, Mapping) else content
        if table is None:
            continue
        try:
            order = content.get(ORDER) if name == "dataset.json" else None
            return LabelMap.from_dataset_json(table, order), name
        except DataError as error:
            raise DataError(f"{root / name}: {error}") from None
    return None


def channel_of(case: Case, image: Path) -> int | None:
    """The channel that an image's name states (``_0002`` is 2, no suffix is 0); None if the name is not the case's."""
    name = stem(image)
    if name == case.name:
        return 0
    parsed = parse_image_name(name)
    return parsed.channel if parsed and parsed.case == case.name else None


def _read_description(root: Path) -> Mapping[str, Any]:
    if not (root / "dataset.json").is_file():
        return {}
    content = read_json(root / "dataset.json")
    if not isinstance(content, Mapping):
        raise DataError(f"{root / 'dataset.json'}: not a table. Write it as nnU-Net's dataset.json.")
    return content


def _find_cases(root: Path, description: Mapping[str, Any], named: LabelMap | None) -> tuple[Case, ...]:
    if "dataset" in description:
        return tuple(dataset_list(root, description["dataset"], Case))
    if listed := training_list(root, description, Case):
        return tuple(sorted(listed, key=lambda case: case.name))
    for images, labels in (("imagesTr", "labelsTr"), ("images", "labels")):
        if not (root / images).is_dir():
            continue
        if not (root / labels).is_dir():
            remedy = arranging(root, "Put the masks there, named as their images", named)
            raise DataError(f"{root}: it has {images}/ and no {labels}/. {remedy}.")
        if images == "imagesTr" and not description:
            remedy = arranging(root, "Add it, or rename to images/ and labels/", named)
            raise DataError(f"{root}: it has imagesTr/ and no dataset.json. {remedy}.")
        return _paired_cases(root / images, root / labels, suffixed=images == "imagesTr")
    raise DataError(
        f"{root}: neither an nnU-Net dataset (dataset.json, imagesTr/, labelsTr/) nor a folder with images/ and "
        f"labels/. {arranging(root, 'Give the folder that holds them', named)}."
    )


def _paired_cases(images: Path, labels: Path, *, suffixed: bool) -> tuple[Case, ...]:
    """Pair images and labels by name.

    An image with a label's very name is that case. Else ``_0000`` at its end is a channel, if what comes before it is
    a label's name, or if the folder's images are named so.
    """
    masks: dict[str, list[Path]] = defaultdict(list)
    for path in image_files(labels):
        masks[stem(path)].append(path)
    scans = {path: parse_image_name(stem(path)) for path in image_files(images)}
    suffixed = suffixed or any(p and p.case in masks for path, p in scans.items() if stem(path) not in masks)
    files: dict[str, dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path, parsed in scans.items():
        if parsed and stem(path) not in masks and (suffixed or parsed.case in masks):
            files[parsed.case][parsed.channel].append(path)
        else:
            files[stem(path)][0].append(path)
    names = sorted({*files, *masks})
    return tuple(case for name in names for case in _copies(name, files.get(name, {}), masks.get(name, [])))


def _copies(name: str, channels: Mapping[int, Sequence[Path]], masks: Sequence[Path]) -> list[Case]:
    """One case, or several of one name when an image or label exists twice (``a.nii.gz`` and ``a.nrrd``)."""
    copies = max([len(masks), *map(len, channels.values())])
    return [
        Case(
            name,
            tuple(channels[c][min(k, len(channels[c]) - 1)] for c in sorted(channels)),
            masks[min(k, len(masks) - 1)] if masks else None,
        )
        for k in range(copies)
    ]


def _labels_of(
    root: Path,
    cases: Sequence[Case],
    labels: LabelMap | None,
    default_labels: LabelMap | None,
) -> tuple[LabelMap, str]:
    if labels is not None:
        return labels, "the caller"
    if (named := named_labels(root)) is not None:
        return named
    values = _values_of(cases)
    if default_labels is None:
        why = "nothing says what they mean"
    elif unknown := sorted(values - default_labels.allowed):
        why = f"the base model's labels ({default_labels}) do not have {unknown}"
    else:
        return default_labels, "the base model"
    raise DataError(
        f"{root}: the masks hold the values {sorted(values)} and {why}. "
        'Name them: --label lymph_node=1, or a labels.json with {"lymph_node": 1}.'
    )


def _values_of(cases: Sequence[Case]) -> set[int]:
    values: set[int] = set()
    for case in cases:
        if case.label is not None:
            try:
                values.update(values_in(read_mask(case.label)[0]))
            except DataError:
                continue  # the check names every file that cannot be read
    return values


def _channel_names(root: Path, cases: Sequence[Case], description: Mapping[str, Any]) -> tuple[str, ...]:
    where = root / "dataset.json"
    table = description.get("channel_names", description.get("modality"))
    if table is None:
        count = max(len(case.images) for case in cases)
        if count > 1:
            raise DataError(f'{where}: {count} channels in a case and no \'channel_names\'. Add them: {{"0": "CT"}}.')
        return ("CT",)
    if not numbers_every_channel(table) or not all(isinstance(name, str) for name in table.values()):
        raise DataError(f'{where}: \'channel_names\' {table!r} is not a table of channels. Write {{"0": "CT"}}.')
    names = channel_names({"channel_names": table})
    if len(names) > 1 and all(len(c.images) == 1 and stem(c.images[0]) == c.name for c in cases):
        raise DataError(
            f"{where}: it names {len(names)} channels ({', '.join(names)}), and each case has one file without a "
            f"channel's number, as in MSD, whose files are 4D. Split them: {arrange_command(root)}."
        )
    return names


def _file_ending(root: Path, cases: Sequence[Case], description: Mapping[str, Any]) -> str:
    stated = description.get("file_ending")
    if stated is not None and stated not in readable_endings():
        where = root / "dataset.json"
        raise DataError(
            f"{where}: 'file_ending' {stated!r} is not read here. Use one of {', '.join(readable_endings())}."
        )
    counted = Counter(ending(image) for case in cases for image in case.images)
    commonest = max(IMAGE_ENDINGS, key=lambda e: counted[e])
    return str(stated) if stated in IMAGE_ENDINGS else commonest  # masks are written in it

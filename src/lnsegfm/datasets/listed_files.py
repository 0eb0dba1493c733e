"""Cases that a ``dataset.json`` lists by their files: nnU-Net's ``dataset``, ``training`` of MSD and nnU-Net v1."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from lnsegfm.datasets.nnunet_layout import image_name, parse_image_name
from lnsegfm.errors import DataError
from lnsegfm.imaging.files import ending, stem

Made = TypeVar("Made")
Make = Callable[[str, tuple[Path, ...], Path | None], Made]
"""Makes a case of its name, a file a channel, and its label's file; raises where the name cannot be a file's."""


def dataset_list(root: Path, listing: Any, make: Make[Made]) -> list[Made]:
    """The cases of nnU-Net's key ``dataset``, which names explicit paths, by name.

    Args:
        root: The folder.
        listing: The table under the key.
        make: Makes a case.

    Raises:
        DataError: Not such a table, with a line for each entry.
    """
    where = root / "dataset.json"
    if not isinstance(listing, Mapping):
        raise DataError(f"{where}: 'dataset' is not a table of cases. Write {{name: {{images: [...], label: ...}}}}.")
    cases: dict[str, Made] = {}
    problems: list[str] = []
    for name, entry in listing.items():
        images = entry.get("images") if isinstance(entry, Mapping) else None
        label = entry.get("label") if isinstance(entry, Mapping) else None
        if not isinstance(images, list) or not images or not all(isinstance(i, str) and i for i in images):
            problems.append(f"{where}: case {name}: 'images' is not a list of file names. Write [\"images/a.nii.gz\"].")
        elif label is not None and (not isinstance(label, str) or not label):
            problems.append(f"{where}: case {name}: 'label' is not a file name. Write \"labels/a.nii.gz\".")
        else:
            paths = tuple(_explicit_path(root, image) for image in images)
            try:
                cases[name] = make(name, paths, _explicit_path(root, label) if label else None)
            except DataError as error:
                problems.append(f"{where}: {error}")
    if problems:
        raise DataError(*problems)
    return [cases[name] for name in sorted(cases)]


def training_list(root: Path, description: Mapping[str, Any], make: Make[Made]) -> list[Made]:
    """The cases of the key ``training`` (``[{"image": ..., "label": ...}]``), as MSD and nnU-Net version 1 have it.

    There an image's name lacks the ``_0000`` that its file has in nnU-Net version 1.

    Returns:
        The cases; none where there is no such list, or ``imagesTr`` and ``labelsTr`` say the same by their names.

    Raises:
        DataError: An entry of another form, or one that leads out of the folder.
    """
    listing = description.get("training")
    if not isinstance(listing, list) or not listing or not all(isinstance(entry, Mapping) for entry in listing):
        return []
    where = root / "dataset.json"
    cases: list[Made] = []
    problems: list[str] = []
    for number, entry in enumerate(listing, start=1):
        image, label = entry.get("image"), entry.get("label")
        if not all(isinstance(name, str) and name for name in (image, label)):
            line = 'not an image and its label. Write {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}.'
            problems.append(f"{where}: entry {number} of 'training' is {line}")
        elif not all(_within(root, name) for name in (image, label)):
            problems.append(f"{where}: entry {number} of 'training' leads out of the folder. Put its files there.")
        else:
            cases.append(make(stem(label), _channels(existing(root / image)), existing(root / label)))
    if problems:
        raise DataError(*problems)
    folders = (root / "imagesTr").is_dir() and (root / "labelsTr").is_dir()
    return [] if folders and all(stem(entry["image"]) == stem(entry["label"]) for entry in listing) else cases


def existing(path: Path) -> Path:
    """A path as the disk spells it: names can be composed (NFC) in a list and decomposed (NFD) on the disk, or back."""
    if path.exists():
        return path
    for form in ("NFC", "NFD"):
        other = Path(unicodedata.normalize(form, str(path)))
        if other.exists():
            return other
    return path


def _explicit_path(root: Path, text: str) -> Path:
    return existing(root / os.path.expandvars(text))  # nnU-Net expands variables, and absolute paths stay as they are


def _within(root: Path, name: str) -> bool:
    return (root / name).resolve().is_relative_to(root.resolve())


def _channels(image: Path) -> tuple[Path, ...]:
    """The image itself, or the files of its channels where the name stands for those."""
    if image.is_file() or (kind := ending(image)) is None:
        return (image,)
    named = image_name(stem(image), 0, kind)
    found = [path for path in sorted(image.parent.glob(f"*{kind}")) if _channel_of(path, stem(named)) is not None]
    return tuple(found) or (image,)


def _channel_of(path: Path, first: str) -> int | None:
    parsed, own = parse_image_name(stem(path)), parse_image_name(first)
    return parsed.channel if parsed and own and parsed.case == own.case else None

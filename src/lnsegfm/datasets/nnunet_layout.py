"""The layout of an nnU-Net raw dataset: names of image files, and the content of ``dataset.json``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lnsegfm.datasets.label_tables import BACKGROUND, plain_labels
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.imaging.files import stem

DEFAULT_ENDING = ".nii.gz"
_IMAGE_NAME = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
_ENDING = re.compile(r"(\.\w+)+")


class ImageName(NamedTuple):
    """What the name of an image file says: ``case_0002`` is channel 2 of ``case``."""

    case: str
    channel: int


def parse_image_name(stem: str) -> ImageName | None:
    """Case and channel of a file's name without its ending; None where it does not end in four digits."""
    match = _IMAGE_NAME.fullmatch(stem)
    return ImageName(match["case"], int(match["channel"])) if match else None


def case_of(path: Path) -> str:
    """The case that an image file belongs to, by its name; a name that does not end in a channel is the case's own."""
    parsed = parse_image_name(stem(path))
    return parsed.case if parsed else stem(path)


def image_name(case: str, channel: int = 0, ending: str = DEFAULT_ENDING) -> str:
    """The name of the file that holds one channel of a case."""
    return f"{case}_{channel:04d}{ending}"


def label_name(case: str, ending: str = DEFAULT_ENDING) -> str:
    """The name of the file that holds the reference of a case."""
    return f"{case}{ending}"


def dataset_description(
    channels: Sequence[str], labels: LabelMap | None, training_cases: int, ending: str = DEFAULT_ENDING
) -> dict[str, Any]:
    """The content of a ``dataset.json``; without labels (an encoder has none) background is all there is."""
    return {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        **(labels.to_model_json() if labels is not None else {"labels": {BACKGROUND: 0}}),
        "numTraining": training_cases,
        "file_ending": ending,
    }


def channel_names(description: Mapping[str, Any]) -> tuple[str, ...]:
    """The channels' names that a ``dataset.json`` states, by their numbers; empty where it states none.

    A list of names is read in its order. nnU-Net version 1 calls the table ``modality``.

    Raises:
        DataError: Not a table of numbers and names.
    """
    table = description.get("channel_names") or description.get("modality") or {}
    if isinstance(table, list | tuple) and all(isinstance(name, str) for name in table):
        return tuple(table)
    try:
        return tuple(str(table[key]) for key in sorted(table, key=int))
    except (TypeError, ValueError, KeyError, IndexError):
        raise DataError(f'channel_names {table!r:.80}: not a table of channels. Write {{"0": "CT"}}.') from None


def plain_description(description: Mapping[str, Any]) -> Mapping[str, Any]:
    """A ``dataset.json`` in the form that nnU-Net writes today: channels as a table, values of labels as numbers.

    What other programs write for them, and nnU-Net reads, becomes that form: a list of channels, values as text,
    lists of one value, no background. The description itself where nothing is to be changed.
    """
    changed: dict[str, Any] = {}
    for key in ("channel_names", "modality"):
        table = description.get(key)
        if isinstance(table, list | tuple):
            changed[key] = {str(number): name for number, name in enumerate(table)}
        elif isinstance(table, Mapping) and not all(isinstance(number, str) for number in table):
            changed[key] = {str(number): name for number, name in table.items()}
    labels = plain_labels(description.get("labels"))
    if labels != description.get("labels"):
        changed["labels"] = labels
    return {**description, **changed} if changed else description


def numbers_every_channel(table: Any) -> bool:
    """Whether a table of channels has the keys "0", "1", "2", ... without a gap, at least one."""
    return isinstance(table, Mapping) and bool(table) and set(table) == {str(k) for k in range(len(table))}


def file_ending(description: Mapping[str, Any]) -> str:
    """The ending of image files that a ``dataset.json`` states; ``.nii.gz`` where it states none.

    Raises:
        DataError: Not an ending.
    """
    stated = description.get("file_ending", DEFAULT_ENDING)
    if not isinstance(stated, str) or not _ENDING.fullmatch(stated):
        raise DataError(f"file_ending {stated!r:.40} is none. Write .nii.gz.")
    return stated

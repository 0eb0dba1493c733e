"""The SHA-256 of downloads whose cards name none: recorded at the first, compared at every later one.

A record is a small file of its own below ``LNSEGFM_HOME/recorded``, one for a model and the place that its card names;
a mirror holds the same file, so it has none of its own. The first file is taken as it comes; one that has changed since
is refused.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lnsegfm.errors import DataError, ModelError
from lnsegfm.registry.home import home
from lnsegfm.registry.model_card import (
    FileName,
    HttpsLocation,
    HuggingFaceLocation,
    Location,
    ModelCard,
    Name,
    Record,
    Sha256,
    read,
)
from lnsegfm.storage import content_hash, read_json, sha256, write_json


class RecordedFile(Record):
    """What came at the first download of a model.

    Args:
        format: Which fields there are.
        model: Name of the model.
        location: Where its card says that the file is.
        file: Name of the file.
        sha256: SHA-256 of what came.
        bytes: Its size.
        recorded_at: When.
    """

    format: Literal["lnsegfm.recorded/1"] = "lnsegfm.recorded/1"
    model: Name
    location: Location
    file: FileName
    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]
    recorded_at: date


def has_record(card: ModelCard) -> bool:
    """Whether a hash is recorded for a model of this card: it can be downloaded, and the card names none."""
    return card.sha256 is None and isinstance(card.location, HttpsLocation | HuggingFaceLocation)


def record_place(card: ModelCard) -> Path:
    """Where the record of a card's file is, whether it is there or not."""
    location = card.location.as_json() if card.location else None
    return home() / "recorded" / f"{card.name}-{content_hash(location)[:12]}.json"


def recorded_file(card: ModelCard) -> RecordedFile | None:
    """What was recorded for a card's file; None where nothing was, or its card names a hash.

    Raises:
        ModelError: The record is not what it should be, one line a fault.
    """
    place = record_place(card)
    if not has_record(card) or not place.is_file():
        return None
    try:
        content = read_json(place)
    except DataError as error:
        raise ModelError(f"{error} To record the hash anew at the next pull, remove that file.") from None
    return read(RecordedFile, content, f"{place}: remove it to record the hash anew")


def record_file(card: ModelCard, path: Path) -> RecordedFile:
    """Record what came; a record that is there is replaced.

    Args:
        card: The model; `has_record` holds for it.
        path: The file.
    """
    assert card.location is not None, "has_record"
    recorded = RecordedFile(
        model=card.name,
        location=card.location,
        file=card.filename or card.name,
        sha256=sha256(path),
        bytes=path.stat().st_size,
        recorded_at=datetime.now(UTC).date(),
    )
    write_json(record_place(card), recorded.as_json())
    return recorded

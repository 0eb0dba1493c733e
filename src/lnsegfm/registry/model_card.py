"""The card of a model: what it segments, reported figures with their sources, terms of use, and where its file is."""

from __future__ import annotations

import json
import re
import unicodedata
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    StringConstraints,
    Tag,
    ValidationError,
)

from lnsegfm.errors import ModelError
from lnsegfm.registry.home import NAME, NAME_RULE

AXIS_LETTERS = tuple(map("".join, product("RL", "AP", "IS")))
"""The letters of an axis code (`lnsegfm.imaging.axis_code`), in any order."""
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
Architecture = Literal[
    "nnunet",
    "resenc-m",
    "resenc-l",
    "resenc-xl",
    "swinunetr",
    "swinunetr-v2",
    "stunet-s",
    "stunet-b",
    "stunet-l",
    "stunet-h",
    "other",
]


def _printable(text: str) -> str:
    # A card is printed on terminals: nothing in it may move the cursor or turn the writing direction.
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in text):
        raise ValueError("it holds control characters")
    return text


def _plain_name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError(f"not a plain name ({NAME_RULE})")
    return text


def _file_name(text: str) -> str:
    if not is_file_name(text):
        raise ValueError("not the name of a file")
    return text


def inner_path(text: str) -> str:
    """Check a relative path with forward slashes that stays in its folder.

    Raises:
        ValueError: It is none.
    """
    if not all(is_file_name(part) for part in text.split("/")):
        raise ValueError("not a relative path with forward slashes that stays in its folder")
    return text


def _axis_code(text: str) -> str:
    if sorted(text) not in [sorted(code) for code in AXIS_LETTERS]:
        raise ValueError("not the directions of three axes, such as RAS or LPS")
    return text


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("not a URL") from None
    if parts.scheme != "https" and not (parts.scheme == "http" and host in LOCAL_HOSTS):
        raise ValueError("not an https:// address")
    if not host or any(letter.isspace() for letter in text):
        raise ValueError("not a URL")
    if "@" in parts.netloc:
        raise ValueError("it holds a user name or password")
    return text


Text = Annotated[
    str, StringConstraints(min_length=1, max_length=2000, strip_whitespace=True), AfterValidator(_printable)
]
Name = Annotated[str, AfterValidator(_plain_name)]
FileName = Annotated[str, AfterValidator(_printable), AfterValidator(_file_name)]
Url = Annotated[str, AfterValidator(_printable), AfterValidator(_url)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
AxisCode = Annotated[str, AfterValidator(_axis_code)]
Millimetres = Annotated[FiniteFloat, Field(gt=0)]


def is_file_name(text: str) -> bool:
    """Whether a text is the name of a file, on every platform: it leads to no other folder and to no drive."""
    return text.isprintable() and text == text.strip(" ") and not re.search(r'^$|[/\\:*?"<>|]|\.$', text)


class Record(BaseModel):
    """A value that is valid where it exists: no field is unknown, converted or changed later."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def as_json(self) -> dict[str, Any]:
        """The record as a table that JSON can hold and that `read` takes."""
        return self.model_dump(mode="json")


class HttpsLocation(Record):
    """A file that anyone may download.

    Args:
        url: https; plain http on this machine only.
    """

    kind: Literal["https"] = "https"
    url: Url


class HuggingFaceLocation(Record):
    """A file of a repository at Hugging Face.

    Args:
        repo: ``owner/name``.
        filename: The file's path inside the repository.
        revision: Commit, tag or branch. A commit cannot change later.
    """

    kind: Literal["huggingface"] = "huggingface"
    repo: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=200)
    ]
    filename: Annotated[str, AfterValidator(_printable), AfterValidator(inner_path)]
    revision: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]*$", max_length=200)] = "main"


class FileLocation(Record):
    """A file or a folder on this machine, or on a drive that it sees.

    Args:
        path: Where; in a manifest it counts from the manifest's own folder.
    """

    kind: Literal["file"] = "file"
    path: Annotated[str, StringConstraints(min_length=1), AfterValidator(_printable)]


class ByHandLocation(Record):
    """A file that a person has to download: behind a share link, a form, or terms to accept.

    Args:
        pages: Where a person finds it.
        filename: What it is called there, where that is known.
    """

    kind: Literal["by-hand"] = "by-hand"
    pages: Annotated[tuple[Url, ...], Field(min_length=1)]
    filename: FileName | None = None


Location = Annotated[HttpsLocation | HuggingFaceLocation | FileLocation | ByHandLocation, Field(discriminator="kind")]


class Figure(Record):
    """A reported figure of a model.

    Args:
        what: The quantity, the data and, for times, the machine.
        value: The number.
        unit: Its unit.
        source: Who says so.
    """

    what: Text
    value: FiniteFloat
    unit: Text
    source: Text


LabelValue = Annotated[int, Field(ge=0)]
_ONE, _SEVERAL = "of one value", "of several values"
Covered = Annotated[
    Annotated[LabelValue, Tag(_ONE)] | Annotated[tuple[LabelValue, ...], Field(min_length=2), Tag(_SEVERAL)],
    Discriminator(lambda value: _SEVERAL if isinstance(value, list | tuple) else _ONE),
]
"""A label's value, or those that a region covers."""


class ModelCard(Record):
    """What is known of a model. What is not known is None, or empty; nothing is guessed.

    Made of what a file says, it is made with `read`, whose errors name the field for a person.

    Args:
        name: What a user calls it: lower case letters, digits, dots and dashes; never a path.
        title: One line for people.
        architecture: One of the architectures, or ``other`` where only its plans describe it.
        task: What it segments, on which scans.
        labels: Label name to value in the mask, of a region to the values that it covers; None where it is not
            published.
        channels: Names of the input channels, in order.
        spacing_mm: Voxel spacing that it was trained at, (z, y, x), in mm.
        axes: Axis code of the arrays that it was trained on, where its source says it and its file may not.
        figures: What was reported of it.
        licence: Terms of use, in words.
        citation: What to cite.
        sources: Where the above was read.
        location: Where its file is.
        sha256: SHA-256 of that file, in lower case hexadecimal.
        bytes: Size of that file.
    """

    name: Name
    title: Text
    architecture: Architecture
    task: Text
    labels: dict[Text, Covered] | None = None
    channels: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres] | None = None
    axes: AxisCode | None = None
    figures: tuple[Figure, ...] = ()
    licence: Text
    citation: Text | None = None
    sources: tuple[Url, ...] = ()
    location: Location | None = None
    sha256: Sha256 | None = None
    bytes: Annotated[int, Field(gt=0)] | None = None

    @property
    def shown_labels(self) -> tuple[str, ...]:
        """The labels as text: ``lymph_node=1``, and of a region the values that it covers, ``whole=1+2``."""
        values = {name: (v,) if isinstance(v, int) else v for name, v in (self.labels or {}).items()}
        return tuple(f"{name}={'+'.join(map(str, each))}" for name, each in values.items())

    @property
    def filename(self) -> str | None:
        """What its file is called, where its location says so."""
        match self.location:
            case HttpsLocation(url=url):
                last = unquote(urlsplit(url).path).rpartition("/")[2]
                return last if is_file_name(last) else None
            case HuggingFaceLocation(filename=path):
                return path.rpartition("/")[2]
            case FileLocation(path=path):
                return Path(path).name or None
            case ByHandLocation(filename=name):
                return name
        return None


R = TypeVar("R", bound=Record)


def read(kind: type[R], content: Any, where: str) -> R:
    """Check a table from a JSON file and make a record of it.

    Args:
        kind: What it should be.
        content: What the JSON file held.
        where: File and entry, for the messages.

    Raises:
        ModelError: One line a fault, naming file, entry and field.
    """
    try:
        return kind.model_validate_json(json.dumps(content))  # from JSON a list may be a tuple, and no more than that
    except ValidationError as error:
        raise ModelError(
            "\n".join(f"{where}: {_field(fault['loc'])}: {_reason(fault)}." for fault in error.errors())
        ) from None


def _field(place: tuple[int | str, ...]) -> str:
    kinds = {"https", "huggingface", "file", "by-hand", _ONE, _SEVERAL}  # the union's branch is no part of the file
    parts = [text if (text := str(part)).isprintable() else repr(text) for part in place if part not in kinds]
    return "field " + ".".join(parts) if parts else "the whole"


def _reason(fault: Any) -> str:
    reason = {"missing": "it is missing", "extra_forbidden": "no such field is known; check its spelling"}.get(
        fault["type"], fault["msg"].removeprefix("Value error, ")
    )
    if fault["type"] in ("missing", "extra_forbidden"):
        return reason
    shown = repr(fault["input"])
    return f"{shown[:60]}{'...' if len(shown) > 60 else ''} cannot be: {reason[:1].lower()}{reason[1:]}"

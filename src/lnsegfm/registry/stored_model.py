"""What a stored model's ``card.json`` says: the model's card, where it came from, and the hash of every file."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from lnsegfm.errors import DataError, ModelError
from lnsegfm.progress import Progress, Silent
from lnsegfm.registry.home import CARD
from lnsegfm.registry.model_card import ModelCard, Record, Sha256, Text, inner_path, read
from lnsegfm.storage import read_json, sha256, write_json

FORMAT = "lnsegfm.model/1"


class Source(Record):
    """The file that a model was imported from.

    Args:
        file: Its name, without the folder.
        sha256: Its hash; of a folder, the `content_hash` of the table of its files' hashes.
        bytes: Its size; of a folder, of all its files.
        form: What it was recognised as.
    """

    file: Text
    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]
    form: Text


Parts = Literal["all", "encoder", "backbone"]
"""Which part of a network a model is."""


class Stored(Record):
    """A model as it is stored.

    Args:
        format: Which fields there are.
        card: What is known of the model.
        source: What it was imported from.
        parts: ``all``; ``encoder`` where the rest was never trained; ``backbone`` where all but the output layer was.
        covers: First parts of the names of the parameters that such a part of a model holds.
        notes: Notes of its import.
        files: Relative path of each file to its SHA-256, less ``card.json`` itself.
        weights_sha256: Hash of the weights of each fold, as adapters name their base.
        installed_at: When.
    """

    format: Literal["lnsegfm.model/1"] = "lnsegfm.model/1"
    card: ModelCard
    source: Source
    parts: Parts = "all"
    covers: tuple[Text, ...] = ()
    notes: tuple[Text, ...] = ()
    files: Annotated[dict[Annotated[str, AfterValidator(inner_path)], Sha256], Field(min_length=1)]
    weights_sha256: Annotated[tuple[Sha256, ...], Field(min_length=1)]
    installed_at: date

    @field_validator("files")
    @classmethod
    def _not_itself(cls, files: dict[str, str]) -> dict[str, str]:
        if CARD in files:
            raise ValueError(f"{CARD} cannot hold its own hash")
        return files

    @model_validator(mode="after")
    def _encoder_says_what_it_covers(self) -> Stored:
        if (self.parts != "all") != bool(self.covers):
            raise ValueError("covers names the parameters of an encoder or a backbone, and of nothing else")
        return self

    def write(self, folder: Path) -> None:
        """Write ``card.json``. It comes last: with it the model is whole."""
        write_json(folder / CARD, self.as_json())


def read_stored(folder: Path) -> Stored:
    """Read the ``card.json`` of a stored model.

    Raises:
        ModelError: It is missing or not what it should be, one line a fault.
    """
    path = folder / CARD
    if not path.is_file():
        raise ModelError(f"{path}: no such file. Give the folder of a stored model, or import the model again.")
    try:
        content = read_json(path)
    except DataError as error:
        raise ModelError(str(error)) from None
    if isinstance(content, dict) and content.get("format") != FORMAT:
        raise ModelError(f"{path}: format {content.get('format')!r} is not {FORMAT}. Use the lnsegfm that wrote it.")
    return read(Stored, content, str(path))


def stored_in(folder: Path) -> Stored | None:
    """The card of a folder that this program stored; None where there is no card, or one of another program.

    Raises:
        ModelError: The card is this program's and not what it should be.
    """
    path = folder / CARD
    try:
        content = read_json(path) if path.is_file() else None
    except DataError:
        return None
    is_own = isinstance(content, dict) and str(content.get("format")).startswith("lnsegfm.")
    return read_stored(folder) if is_own else None


def hash_files(folder: Path, progress: Progress | None = None) -> dict[str, str]:
    """SHA-256 of every file below ``folder`` but ``card.json``, by relative path with forward slashes, sorted.

    Links are not followed and have no hash.
    """
    progress = progress or Silent()
    files = sorted(name for name, path in _listed(folder).items() if path.is_file() and not path.is_symlink())
    hashes = {}
    for done, name in enumerate(files):
        progress.advance(done, len(files), name)
        hashes[name] = sha256(folder / name)
    progress.advance(len(files), len(files))
    return hashes


def verify(folder: Path, progress: Progress | None = None) -> tuple[str, ...]:
    """Hash a stored model's files again.

    Returns:
        One line each for what is changed, missing, or not listed in ``card.json``; nothing where all is as it was.

    Raises:
        ModelError: ``card.json`` cannot be read.
    """
    listed = read_stored(folder).files
    present = {name: path for name, path in _listed(folder).items() if path.is_symlink() or not path.is_dir()}
    hashes = hash_files(folder, progress)
    problems = [f"{name}: missing" for name in sorted(listed.keys() - present.keys())]
    problems += [f"{name}: not a plain file" for name in sorted(present.keys() - hashes.keys())]
    problems += [f"{name}: changed" for name in sorted(listed.keys() & hashes.keys()) if listed[name] != hashes[name]]
    problems += [f"{name}: not listed" for name in sorted(hashes.keys() - listed.keys())]
    return tuple(problems)


def _listed(folder: Path) -> dict[str, Path]:
    """Everything below a folder but its card, by relative path; links to folders are not entered."""
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path != folder / CARD}

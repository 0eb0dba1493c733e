"""A model from elsewhere into ``LNSEGFM_HOME``: recognised, read without executing anything, checked, stored."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from lnsegfm.errors import ConfigError, DataError, LnSegFmError, ModelError, UnsafeFile
from lnsegfm.models.importing.import_options import ImportOptions
from lnsegfm.models.importing.model_source import ModelSource, SourceKind, narrow_to_weights, open_source
from lnsegfm.models.importing.recognise import recognise
from lnsegfm.models.importing.store import store
from lnsegfm.progress import Progress, Silent
from lnsegfm.registry.home import is_built_in, model_place
from lnsegfm.registry.model_card import ModelCard
from lnsegfm.registry.stored_model import Stored
from lnsegfm.storage import PARTIAL, sha256, staging_folder
from lnsegfm.unpacking import unpack

__all__ = ["ImportOptions", "install"]

UNPACKED = "unpacked"
LEFT_BEHIND_S = 24 * 3600
"""Age in seconds from which leftovers of a killed import are removed; an import under way is younger."""


def install(
    source: Path,
    name: str,
    options: ImportOptions = ImportOptions(),  # noqa: B008 - frozen
    *,
    card: ModelCard | None = None,
    progress: Progress | None = None,
) -> Stored:
    """Store a model under a name. After an error nothing of it is left behind.

    Args:
        source: A folder, an archive or a file of weights, in any form that `lnsegfm.models.importing` knows.
        name: What to call it.
        options: What the file does not say itself.
        card: What is known of the model; where it names a hash, the file must have it.
        progress: Where progress is reported.

    Raises:
        ConfigError: The name cannot be or is taken, or something has to be said besides the file.
        UnsafeFile: Reading the file would execute something or write outside its folder.
        ModelError: It is no model, or one that cannot be used; the message says why.
    """
    progress = progress or Silent()
    if is_built_in(name):
        raise ConfigError(f"Model {name}: the package brings a model of that name. Choose another name.")
    place = model_place(name)
    if place.exists() and not options.replace:
        raise _taken(name)
    if address := re.match(r"(https?):/+(.*)", str(source)):
        raise ConfigError(
            f"{address[1]}://{address[2]}: an address, not a file. Download it and import the file; models of "
            "lnsegfm models list are fetched by lnsegfm models pull NAME."
        )
    opened = open_source(source)
    _require_hash(opened, name, card, progress)
    with _staging(place) as staging:
        opened = _unpacked(opened, staging / UNPACKED, progress)
        try:
            progress.stage(f"Reading {source}")
            stored = store(
                opened, recognise(opened, options), name, staging / "model", options, card=card, progress=progress
            )
        except LnSegFmError as error:
            raise _as_seen(error, opened, staging / UNPACKED) from None
        except RecursionError:
            raise ModelError(f"{source}: its tables are nested without end. Nobody trained such a model.") from None
        stored.write(staging / "model")
        _move(staging / "model", place, staging / "replaced" if options.replace else None)
    return stored


def _require_hash(source: ModelSource, name: str, card: ModelCard | None, progress: Progress) -> None:
    if card is None or card.sha256 is None:
        return
    if not source.path.is_file():
        raise ModelError(
            f"{source.path}: the card of {name} names the hash of a file. Give that file, or another name."
        )
    progress.stage(f"Hashing {source.path}")
    found = sha256(source.path)
    if found != card.sha256:
        raise ModelError(
            f"{source.path}: its SHA-256 is {found}, but the card of {name} says {card.sha256}. "
            "Download it again, or import it under another name if you trust it."
        )


def _unpacked(source: ModelSource, to: Path, progress: Progress) -> ModelSource:
    if source.kind is not SourceKind.ARCHIVE:
        return source
    progress.stage(f"Unpacking {source.path}")
    unpack(source.path, to)
    return narrow_to_weights(replace(source, place=to, kind=SourceKind.FOLDER, unpacked=True))


def _as_seen(error: LnSegFmError, source: ModelSource, place: Path) -> LnSegFmError:
    """The error fit for a terminal, with places inside an archive named as the user knows them."""
    lines = [str(line).replace(f"{place}{os.sep}", f"{source.path}: ") for line in error.args]
    lines = [line.replace(str(place), str(source.path)) for line in lines]
    lines = ["".join(c if c.isprintable() or c == "\n" else "?" for c in line) for line in lines]
    kinds = (DataError, UnsafeFile, ConfigError, ModelError)
    kind = next((k for k in kinds if isinstance(error, k)), type(error))
    return kind(*lines)


@contextmanager
def _staging(place: Path) -> Iterator[Path]:
    """A folder beside the model's place, gone afterwards, and its parent with it where that is left empty."""
    for left in place.parent.glob(f"{PARTIAL}*"):
        if time.time() - left.stat().st_mtime > LEFT_BEHIND_S:
            shutil.rmtree(left, ignore_errors=True)
    try:
        with staging_folder(place) as staging:
            yield staging
    finally:
        with suppress(OSError):  # it holds other models
            place.parent.rmdir()


def _move(folder: Path, place: Path, replaced: Path | None) -> None:
    """Give a folder its place; what is there goes to ``replaced``, and comes back where that fails."""
    if replaced is None and place.exists():  # another import was faster
        raise _taken(place.name)
    old = replaced is not None and place.exists()
    if replaced is not None and old:
        place.rename(replaced)
    try:
        folder.rename(place)
    except OSError:
        if replaced is not None and old:
            replaced.rename(place)
        raise


def _taken(name: str) -> ConfigError:
    return ConfigError(f"Model {name}: there is one of that name. Choose another name, or say --replace.")

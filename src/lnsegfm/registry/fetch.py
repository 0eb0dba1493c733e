"""From a card to its file on this machine: from the cache, from where the card says, or from a mirror."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from lnsegfm.errors import ConfigError, Interrupted, ModelError, UnsafeFile
from lnsegfm.progress import Progress, Silent
from lnsegfm.registry.home import home
from lnsegfm.registry.model_card import (
    LOCAL_HOSTS,
    ByHandLocation,
    FileLocation,
    HttpsLocation,
    HuggingFaceLocation,
    ModelCard,
)
from lnsegfm.registry.recorded_hashes import RecordedFile, has_record, record_file, recorded_file
from lnsegfm.registry.stored_model import Stored
from lnsegfm.storage import LOCK, PARTIAL, content_hash, sha256, try_lock

HUGGING_FACE = "https://huggingface.co"


def fetch(
    card: ModelCard,
    *,
    mirror: str | None = None,
    offline: bool = False,
    accept_change: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Get the file of a model, checked against its card, or against what its first download recorded.

    A download goes below ``LNSEGFM_HOME/downloads`` and stays there; what is there and right is not downloaded again. A
    file on this machine is used in place. ``HF_ENDPOINT`` and ``HF_TOKEN`` count for Hugging Face;
    proxies and certificates are those of `requests` (``HTTPS_PROXY``, ``REQUESTS_CA_BUNDLE``). Where the card names no
    SHA-256, that of the first download is recorded (`lnsegfm.registry.recorded_hashes`).

    Args:
        card: The model.
        mirror: Base URL below which files are stored as NAME/FILENAME; replaces the card's own location. Without it
            ``LNSEGFM_MIRROR`` counts.
        offline: Open no connection.
        accept_change: Take a file that has changed since its hash was recorded, and record the new one.
        progress: Reported to every megabyte.

    Raises:
        UnsafeFile: The file's SHA-256 is not the card's, or not the recorded one. A download is removed.
        ModelError: There is no file, it cannot be had, or a person has to download it.
        ConfigError: A mirror that is no http address, another process that downloads the same, or a change to accept
            of a file whose hash the card names.
        Interrupted: Ctrl-C; the same call continues.
    """
    progress = progress or Silent()
    if accept_change and not has_record(card):
        raise ConfigError(
            f"--accept-change: the file of {card.name} is not one whose SHA-256 was recorded at a pull. Leave it out, "
            "or correct its card."
        )
    if isinstance(card.location, FileLocation):
        return _local(card, Path(card.location.path), progress)
    url, token = _source(card, mirror or os.environ.get("LNSEGFM_MIRROR"))
    place = download_place(card)
    wanted = _Wanted(card, None if accept_change else recorded_file(card))
    if place.is_file() and (offline or not accept_change):
        try:
            wanted.require(place, progress)
        except (UnsafeFile, ModelError):
            if offline:
                raise
        else:
            return _recorded(wanted, place, progress)
    if offline:
        raise ModelError(
            f"Model {card.name}: its file is not here ({place}), and offline nothing is downloaded. "
            "Download it once where there is a network, or copy it there."
        )
    from lnsegfm.registry.download import Download, download, shown

    request = Download(
        what=f"Model {card.name}", url=url, place=place, bytes=card.bytes, known=wanted.sha256 is not None, token=token
    )
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = try_lock(place.with_name(f"{PARTIAL}{place.name}{LOCK}"))
    if lock is None:
        raise ConfigError(f"Model {card.name}: another process downloads it just now. Wait for that one.")
    try:
        with lock:
            progress.stage(f"Downloading {card.name} from {shown(url)}")
            download(request, lambda path: wanted.require(path, progress, removed=True), progress)
    except KeyboardInterrupt:
        raise Interrupted("Interrupted. What arrived is kept; the same command continues.") from None
    return _recorded(wanted, place, progress)


def _recorded(wanted: _Wanted, place: Path, progress: Progress) -> Path:
    """Record the hash of a file that is the first of its model; and its place."""
    if wanted.sha256 is None and has_record(wanted.card):
        hashed = record_file(wanted.card, place).sha256
        progress.stage(f"SHA-256 {hashed} is recorded: its card names none, so every later pull is compared with it")
    return place


def verify_download(stored: Stored, progress: Progress | None = None) -> tuple[str, ...]:
    """Compare a stored model and what was downloaded for it with the hash of its card, or the recorded one.

    Args:
        stored: What its ``card.json`` says.
        progress: Where progress is reported.

    Returns:
        One line each for what differs; nothing where nobody knows a hash, or all is as it was.

    Raises:
        ModelError: The record cannot be read.
    """
    wanted = _Wanted(stored.card, recorded_file(stored.card))
    if wanted.sha256 is None:
        return ()
    problems = []
    recorded = wanted.recorded
    if recorded is not None and stored.source.file == recorded.file and stored.source.sha256 != recorded.sha256:
        problems.append(
            f"made of a file with SHA-256 {stored.source.sha256}, its first pull recorded {recorded.sha256}"
        )
    place = download_place(stored.card)
    if place.is_file():
        try:
            wanted.require(place, progress or Silent())
        except (UnsafeFile, ModelError):
            problems.append(f"{place}: changed")
    return tuple(problems)


def download_place(card: ModelCard) -> Path:
    """Where the download of a card is kept: two files, or two places, never share one."""
    location = card.location.as_json() if card.location else None
    key = card.sha256 or content_hash(location)
    return home() / "downloads" / f"{card.name}-{key[:12]}" / (card.filename or card.name)


def _source(card: ModelCard, mirror: str | None) -> tuple[str, str | None]:
    """URL and token of a card's file.

    Raises:
        ModelError: A person has to download it; or the card says nothing.
    """
    name = card.filename or (card.name if isinstance(card.location, HttpsLocation) else None)
    if mirror and name:
        return f"{_base(mirror, 'Mirror')}/{quote(card.name)}/{quote(name)}", None
    match card.location:
        case HttpsLocation(url=url):
            return url, None
        case HuggingFaceLocation(repo=repo, filename=path, revision=revision):
            base = _base(os.environ.get("HF_ENDPOINT") or HUGGING_FACE, "HF_ENDPOINT")
            parts = urlsplit(base)
            protected = parts.scheme == "https" or parts.hostname in LOCAL_HOSTS
            token = os.environ.get("HF_TOKEN", "").strip() if protected else ""
            return f"{base}/{repo}/resolve/{quote(revision, safe='')}/{quote(path)}", token or None
        case ByHandLocation(pages=pages, filename=name):
            raise ModelError(
                f"Model {card.name}: no program can download it. Download it by hand from {', '.join(pages)} "
                f"(there: {name or card.title}).\n"
                f"Then run: lnsegfm models import FILE --as {card.name}"
            )
    raise ModelError(
        f"Model {card.name}: its card has no address to download it from. "
        f"Where you have its file: lnsegfm models import FILE --as {card.name}"
    )


def _base(url: str, what: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"{what} {url}: not a base URL. Write https://host/folder.")
    return url.rstrip("/")


def _local(card: ModelCard, path: Path, progress: Progress) -> Path:
    if path.is_dir() and card.sha256 is None:
        return path
    if not path.is_file():
        raise ModelError(f"Model {card.name}: {path}: no such file. Correct the manifest, or connect the drive.")
    _Wanted(card, None).require(path, progress)
    return path


@dataclass(frozen=True)
class _Wanted:
    """What a file should be.

    Args:
        card: The card, whose size and hash count.
        recorded: What the first download recorded, where the card names no hash.
    """

    card: ModelCard
    recorded: RecordedFile | None

    @property
    def sha256(self) -> str | None:
        """The hash that the file should have, where anybody knows it."""
        return self.recorded.sha256 if self.recorded is not None else self.card.sha256

    def require(self, path: Path, progress: Progress, *, removed: bool = False) -> None:
        """Refuse another file.

        Args:
            path: The file.
            progress: Where progress is reported.
            removed: The file is removed where it is refused.
        """
        card, size = self.card, path.stat().st_size
        then = "The download was removed; ask" if removed else "Ask"
        then += " who keeps it, or correct the manifest."
        if card.bytes is not None and size != card.bytes:
            raise ModelError(f"Model {card.name}: its file has {size} bytes, its card says {card.bytes}. {then}")
        if self.sha256 is None:
            return
        progress.stage(f"Checking SHA-256 of {card.name}")
        actual = sha256(path)
        if actual == self.sha256:
            return
        if self.recorded is not None:
            was = "The download was removed; ask" if removed else "Ask"
            raise UnsafeFile(
                f"Model {card.name}: its file has changed: its SHA-256 is {actual}, and at the first pull on "
                f"{self.recorded.recorded_at} it was {self.sha256}. {was} its keeper why. "
                f"If you trust the new file: lnsegfm models pull {card.name} --accept-change"
            )
        raise UnsafeFile(
            f"Model {card.name}: SHA-256 of its file begins with {actual[:12]}, its card says {self.sha256[:12]}. "
            f"It is another file than the card's. {then}"
        )

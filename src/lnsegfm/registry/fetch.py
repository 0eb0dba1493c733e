"""From a card to its file on this machine: from the cache, from where the card says, or from a mirror."""

from __future__ import annotations

import os
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
from lnsegfm.storage import LOCK, PARTIAL, content_hash, sha256, try_lock

HUGGING_FACE = "https://huggingface.co"


def fetch(
    card: ModelCard, *, mirror: str | None = None, offline: bool = False, progress: Progress | None = None
) -> Path:
    """Get the file of a model, checked against its card.

    A download goes below ``LNSEGFM_HOME/downloads`` and stays there; what is there and right is not downloaded again. A
    file on this machine is used in place. ``HF_ENDPOINT`` and ``HF_TOKEN`` count for Hugging Face;
    proxies and certificates are those of `requests` (``HTTPS_PROXY``, ``REQUESTS_CA_BUNDLE``).

    Args:
        card: The model.
        mirror: Base URL below which files are stored as NAME/FILENAME; replaces the card's own location. Without it
            ``LNSEGFM_MIRROR`` counts.
        offline: Open no connection.
        progress: Reported to every megabyte.

    Raises:
        UnsafeFile: The file's SHA-256 is not the card's. A download is removed.
        ModelError: There is no file, it cannot be had, or a person has to download it.
        ConfigError: A mirror that is no http address, or another process that downloads the same.
        Interrupted: Ctrl-C; the same call continues.
    """
    progress = progress or Silent()
    if isinstance(card.location, FileLocation):
        return _local(card, Path(card.location.path), progress)
    url, token = _source(card, mirror or os.environ.get("LNSEGFM_MIRROR"))
    place = download_place(card)
    if place.is_file():
        try:
            _require_right(card, place, progress)
        except (UnsafeFile, ModelError):
            if offline:
                raise
        else:
            return place
    if offline:
        raise ModelError(
            f"Model {card.name}: its file is not here ({place}), and offline nothing is downloaded. "
            "Download it once where there is a network, or copy it there."
        )
    from lnsegfm.registry.download import Download, download, shown

    request = Download(
        what=f"Model {card.name}", url=url, place=place, bytes=card.bytes, known=card.sha256 is not None, token=token
    )
    removed = "The download was removed; ask who keeps it, or correct the manifest."
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = try_lock(place.with_name(f"{PARTIAL}{place.name}{LOCK}"))
    if lock is None:
        raise ConfigError(f"Model {card.name}: another process downloads it just now. Wait for that one.")
    try:
        with lock:
            progress.stage(f"Downloading {card.name} from {shown(url)}")
            download(request, lambda path: _require_right(card, path, progress, removed), progress)
    except KeyboardInterrupt:
        raise Interrupted("Interrupted. What arrived is kept; the same command continues.") from None
    return place


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
    _require_right(card, path, progress)
    return path


def _require_right(
    card: ModelCard, path: Path, progress: Progress, then: str = "Ask who keeps it, or correct the manifest."
) -> None:
    size = path.stat().st_size
    if card.bytes is not None and size != card.bytes:
        raise ModelError(f"Model {card.name}: its file has {size} bytes, its card says {card.bytes}. {then}")
    if card.sha256 is None:
        return
    progress.stage(f"Checking SHA-256 of {card.name}")
    actual = sha256(path)
    if actual != card.sha256:
        raise UnsafeFile(
            f"Model {card.name}: SHA-256 of its file begins with {actual[:12]}, its card says {card.sha256[:12]}. "
            f"It is another file than the card's. {then}"
        )

"""Download one file over https, so that a line that breaks costs little.

What has arrived is kept under a ``.partial-`` name next to the file's place and is not requested again: the next try,
or the next run, requests the rest by ``Range``, and starts over where the server has another file by now (``If-Range``)
or knows no ranges. `requests` does the talking, so ``HTTPS_PROXY``, ``NO_PROXY`` and ``REQUESTS_CA_BUNDLE`` count.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from lnsegfm.errors import DataError, LnSegFmError, ModelError
from lnsegfm.progress import Progress
from lnsegfm.registry.model_card import LOCAL_HOSTS
from lnsegfm.storage import PARTIAL, read_json, write_json

WAITS_S: tuple[float, ...] = (1, 2, 4, 8)  # between one try and the next
TIMEOUT_S = (15, 60)  # to connect, and between two pieces
PIECE = 1 << 16
LARGEST = 64 << 30
MB = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file to download.

    Args:
        what: What it is, at the start of every message.
        url: Its address. Redirects lead to https only, or stay on the host that a plain http address names.
        place: Where it goes.
        bytes: Its size, where that is known.
        known: Its content is checked afterwards, so that a part may be continued without the server's word that the
            file is still the same.
        token: A bearer token; requests takes it away where a redirect leads to another host.
    """

    what: str
    url: str
    place: Path
    bytes: int | None = None
    known: bool = False
    token: str | None = None

    @property
    def partial(self) -> Path:
        """What has arrived until now."""
        return self.place.with_name(PARTIAL + self.place.name)

    @property
    def validator(self) -> Path:
        """What the server calls the version of the file that is under way."""
        return self.place.with_name(f"{PARTIAL}{self.place.name}.json")

    def forget(self) -> None:
        """Remove what has arrived."""
        self.partial.unlink(missing_ok=True)
        self.validator.unlink(missing_ok=True)


class _Lost(Exception):
    """The line broke; it may be better in a moment."""


def download(request: Download, check: Callable[[Path], None], progress: Progress) -> None:
    """Download a file; it has its name when all of it is there and ``check`` says nothing.

    Args:
        request: The file.
        check: Raises when the content is not what it should be; the file is removed then.
        progress: Told of every megabyte.

    Raises:
        ModelError: The server has no such file or gives none, or the line broke several times. After the latter the
            part that arrived is kept, and the same call continues.
    """
    request.place.parent.mkdir(parents=True, exist_ok=True)
    with requests.Session() as session:
        session.mount("http://", _PlainHttp(request.url))
        for wait in (*WAITS_S, None):
            try:
                _one_try(request, session, progress)
                break
            except _Lost as lost:
                if wait is None:
                    raise ModelError(
                        f"{request.what}: {shown(request.url)}: {lost}, {len(WAITS_S) + 1} times; "
                        f"{_arrived(request) / MB:.1f} MB are here. The same command continues."
                    ) from None
                progress.stage(f"{lost}; trying again in {wait:g} s")
                time.sleep(wait)
    try:
        check(request.partial)
    except LnSegFmError:
        request.forget()
        raise
    with request.partial.open("rb+") as file:
        os.fsync(file.fileno())
    request.partial.replace(request.place)
    request.validator.unlink(missing_ok=True)


def shown(url: str) -> str:
    """A URL for people: without what may be secret in it (password, signature)."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class _PlainHttp(HTTPAdapter):
    """Plain http for the host that was asked for by plain http, and from this machine to itself; to no other."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._asked = urlsplit(url)

    def send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        to = urlsplit(request.url)
        same = (to.hostname, to.port) == (self._asked.hostname, self._asked.port)
        local = to.hostname in LOCAL_HOSTS and self._asked.hostname in LOCAL_HOSTS
        if self._asked.scheme != "http" or not (same or local):
            raise ModelError(f"{shown(request.url)}: it would come unprotected. Ask for a place with https.")
        return super().send(request, *args, **kwargs)


class _Bearer(requests.auth.AuthBase):
    """A token for the first host; as a header alone it would give way to one in a .netrc."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _one_try(request: Download, session: requests.Session, progress: Progress) -> None:
    begun = _arrived(request)
    headers = {"Accept-Encoding": "identity"}  # the file as it is stored there
    if begun:
        headers |= {"Range": f"bytes={begun}-"}
        if tag := _tag(request):
            headers |= {"If-Range": tag}
    with _get(request, session, headers) as response:
        if response.status_code == 416:  # all of it has arrived
            if _of(response.headers.get("Content-Range")) == (None, begun):
                return
            request.forget()
            raise _Lost("it has another file by now")
        _require_file(request, response)
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else 0
        if response.status_code == 206:
            first, whole = _of(response.headers.get("Content-Range"))
            was, now = _tag(request), _tag_of(response.headers)
            if first != begun or (was and now and was != now):
                request.forget()
                raise _Lost("it sent a part of another file")
            total = whole or (begun + total if total else 0)
        else:
            begun = 0
        _require_room(request, total, begun)
        write_json(request.validator, {"tag": _tag_of(response.headers)})
        _receive(request, response, begun, total, progress)


def _receive(request: Download, response: requests.Response, begun: int, total: int, progress: Progress) -> None:
    most = request.bytes or total or LARGEST
    arrived, reported = begun, 0
    with request.partial.open("ab" if begun else "wb") as file:
        for piece in _pieces(response):
            file.write(piece)
            arrived += len(piece)
            if arrived > most:
                request.forget()
                raise ModelError(
                    f"{request.what}: {shown(request.url)} sends more than {most} bytes. Ask who keeps it."
                )
            if arrived - reported >= MB:
                reported = arrived
                progress.advance(arrived // MB, -(-total // MB) or arrived // MB + 1, "MB")
    if arrived < total:
        raise _Lost("the line broke")
    progress.advance(-(-arrived // MB), -(-arrived // MB), "MB")


def _pieces(response: requests.Response) -> Iterator[bytes]:
    try:
        yield from response.raw.stream(PIECE, decode_content=False)
    except (HTTPError, OSError):
        raise _Lost("the line broke") from None


def _get(request: Download, session: requests.Session, headers: dict[str, str]) -> requests.Response:
    auth = _Bearer(request.token) if request.token else None
    try:
        return session.get(request.url, headers=headers, auth=auth, stream=True, timeout=TIMEOUT_S)
    except requests.exceptions.SSLError:
        raise ModelError(
            f"{request.what}: the certificate of {shown(request.url)} is not trusted. "
            "Behind a proxy that opens connections, name its certificate in REQUESTS_CA_BUNDLE."
        ) from None
    except requests.exceptions.ProxyError:
        raise _Lost("the proxy of HTTPS_PROXY does not let it through") from None
    except requests.exceptions.Timeout:
        raise _Lost("no answer in time") from None
    except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError):
        raise _Lost("no connection") from None
    except (requests.exceptions.RequestException, ValueError) as error:
        reason = re.sub(r"(?<!^)([A-Z])", r" \1", type(error).__name__).lower()
        raise ModelError(
            f"{request.what}: {shown(request.url)} cannot be requested ({reason}). Check the URL."
        ) from None


def _require_file(request: Download, response: requests.Response) -> None:
    """Refuse an answer that is no file."""
    status, place = response.status_code, shown(request.url)
    if status == 429 or status >= 500:
        raise _Lost(f"it answers {status}")
    if status in (401, 403, 407):
        raise ModelError(
            f"{request.what}: {place} refuses access without permission ({status}). Accept its terms there first; "
            "for Hugging Face set HF_TOKEN, for a mirror put user:password@ before its host."
        )
    if status in (404, 410):
        raise ModelError(f"{request.what}: {place}: there is no such file ({status}). Check the URL or the mirror.")
    if status not in (200, 206):
        raise ModelError(f"{request.what}: {place} answers {status}. Try later, or name a --mirror.")
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise ModelError(
            f"{request.what}: {place} answers with a web page, not with a file. Open it in a browser: it may ask you "
            "to sign in, or be a proxy's."
        )


def _require_room(request: Download, total: int, begun: int) -> None:
    """Refuse, before it is downloaded, a file of another size than it should have, or one that the disk cannot hold."""
    if request.bytes and total and total != request.bytes:
        request.forget()
        raise ModelError(
            f"{request.what}: {shown(request.url)} has a file of {total} bytes, its card says {request.bytes}. "
            "It is another file: check the mirror or the manifest."
        )
    free = shutil.disk_usage(request.place.parent).free
    if total - begun > free:
        raise ModelError(
            f"{request.what}: {total / MB:.0f} MB, and {free / MB:.0f} MB are free at {request.place.parent}. "
            "Make room, or name another disk in LNSEGFM_HOME."
        )


def _arrived(request: Download) -> int:
    """Bytes that have arrived and may be continued."""
    if not request.partial.is_file():
        return 0
    if not request.known and not _tag(request):
        request.forget()
        return 0
    return request.partial.stat().st_size


def _tag(request: Download) -> str | None:
    try:
        tag = read_json(request.validator)["tag"]
    except (DataError, KeyError, TypeError):
        return None
    return tag if isinstance(tag, str) else None


def _tag_of(headers: Any) -> str | None:
    """What the server will know this version of the file by: a strong ETag, or the time of its last change."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified")


def _of(content_range: str | None) -> tuple[int | None, int]:
    """First byte and size of the whole (0: not said), of ``bytes 5-9/10`` or ``bytes */10``."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", content_range or "")
    if not match:
        return None, 0
    first, size = match.groups()
    return (None if first is None else int(first)), (0 if size == "*" else int(size))

"""Files appear whole or not at all: everything is written next to its place and renamed.

The name of a file under way starts with ``.partial-``, so nothing that lists results ever takes it for one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnsegfm.errors import DataError, RunMismatch

if TYPE_CHECKING:
    from filelock import BaseFileLock

PARTIAL = ".partial-"
LOCK = ".lock"
"""Ending of files that are locks; their names start with ``PARTIAL``, too."""
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


class HeldLock:
    """A lock that this process holds; any of its threads may release it.

    Args:
        place: Its file.
        lock: The lock itself; None where the server has no locks.
    """

    def __init__(self, place: Path, lock: BaseFileLock | None) -> None:
        self._place, self._lock, self._released = place, lock, False

    @property
    def exclusive(self) -> bool:
        """Whether others are kept out."""
        return self._lock is not None

    def release(self) -> None:
        """Let others have it; its file goes."""
        if self._released:
            return
        self._released = True
        with suppress(OSError):  # Windows removes it itself
            self._place.unlink(missing_ok=True)  # whoever waits on this very file sees that it is gone, and tries anew
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> HeldLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def try_lock(place: Path, *, wait_s: float = 0) -> HeldLock | None:
    """Take a lock between processes, or find that another one has it.

    The lock is the operating system's on the file ``place``: it goes with the process, however that ends. On network
    drives it holds between machines where the server keeps locks (NFS 4, NFS 3 with lockd, SMB). Where the system has
    no such call, the file itself is the lock, and one that a killed process of another machine left has to be removed
    by hand; where the server refuses locks, nobody is kept out.

    Args:
        place: The lock's file, in a folder that exists; it is removed when the lock is released.
        wait_s: Seconds to wait for another one's release.

    Returns:
        The lock, to be released; None where another process, or another part of this one, has it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(place, timeout=wait_s, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        return None
    except NotImplementedError:
        return HeldLock(place, None)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return HeldLock(place, None)
    return HeldLock(place, lock)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes that ask for the same out of ``folder`` while the block lasts (`try_lock`); it is made.

    Raises:
        RunMismatch: Another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = try_lock(folder / f"{PARTIAL}folder{LOCK}")
    if held is None:
        raise RunMismatch(f"{folder}: another run writes there now. Wait for its end, or name another --out.")
    with held:
        yield


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a place next to ``path`` to write to; rename it to ``path`` when the block ends well.

    The file is flushed to disk before the rename. When the block raises, nothing is left behind. The place keeps the
    suffixes of ``path``, because readers and writers of images choose their format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f"{PARTIAL}{os.getpid()}-{secrets.token_hex(4)}-{path.name}"
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def staging_folder(place: Path) -> Iterator[Path]:
    """An empty folder beside ``place`` for work under way; it is gone when the block ends. The parent is made."""
    place.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{PARTIAL}{place.name}-", dir=place.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """A folder to fill, which is renamed to ``place`` when the block ends well; an empty folder of that name gives way.

    When the block raises, nothing is left behind.
    """
    with staging_folder(place) as staging:
        content = staging / "content"  # unlike the folder around it, with the permissions that folders usually get
        content.mkdir()
        yield content
        if place.is_dir():
            place.rmdir()  # not every system renames a folder onto an empty one
        content.rename(place)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, whole or not at all."""
    with atomic_write(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write ``content`` to ``path`` in UTF-8, whole or not at all."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON that every reader accepts: a number that is not finite becomes null."""
    write_text(path, json.dumps(_finite(content), indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: The file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))  # some editors write a mark first
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Check the path.") from None
    except RecursionError:
        raise DataError(f"{path}: not a JSON file that anyone would write (tables nested without end).") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not a JSON file ({error}).") from None
    except ValueError:
        raise DataError(f"{path}: not a JSON file that anyone would write (a number of thousands of digits).") from None


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(content: Any) -> str:
    """SHA-256 of a JSON-able value in its canonical form (sorted keys, no blanks)."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def clear_partials(folder: Path) -> None:
    """Remove what a killed process left half-written directly in ``folder``; locks stay."""
    if folder.is_dir():
        for partial in folder.glob(f"{PARTIAL}*"):
            if partial.suffix != LOCK:
                partial.unlink(missing_ok=True)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    if isinstance(value, float) and value - value != 0.0:
        return None
    if isinstance(value, Path):
        return str(value)
    return value

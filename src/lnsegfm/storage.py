"""Files appear whole or not at all: everything is written beside its place and renamed.

The name of a file under way starts with ``.partial-``, so nothing that lists results ever takes it for one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lnsegfm.errors import DataError, RunMismatch

PARTIAL = ".partial-"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes that ask for the same from writing to ``folder`` while the block lasts; it is made.

    The lock is the operating system's and lies on the folder itself: it goes with the process, however that ends.
    Where there are no such locks (Windows, some network drives), nobody is kept out.

    Raises:
        RunMismatch: Another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunMismatch(
                f"{folder}: another run writes there now. Wait for its end, or name another --out."
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a place beside ``path`` to write to; rename it to ``path`` when the block ends well.

    The file is flushed to disk before the rename. When the block raises, nothing is left behind. The place keeps the
    suffixes of ``path``, because readers and writers of images choose their format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f"{PARTIAL}{os.getpid()}-{path.name}"
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


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
        return json.loads(path.read_text(encoding="utf-8"))
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
    """Remove what a killed process left half-written directly in ``folder``."""
    if folder.is_dir():
        for partial in folder.glob(f"{PARTIAL}*"):
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

"""Zip archives of DICOM files, unpacked where they cannot do harm."""

from __future__ import annotations

import atexit
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from lnsegfm.imaging.dicom.dicom_errors import DicomError

MAX_UNPACKED = 32 << 30
"""Bytes that an archive may unpack to: about 60,000 slices."""
MAX_MEMBERS = 500_000
_CHUNK = 1 << 20


@contextmanager
def unpacked_tree(root: Path, *, max_unpacked: int = MAX_UNPACKED) -> Iterator[Path]:
    """Give the folder to look through: ``root`` itself, or the content of a zip in a temporary folder.

    The temporary folder, and with it every file that was found there, lives as long as the ``with`` block.

    Args:
        root: A folder, a file or a zip.
        max_unpacked: Bytes that a zip may unpack to.

    Raises:
        DicomError: A zip that is damaged or encrypted, unpacks to too much, or has members that would leave the
            folder (absolute names, "..") or are links.
    """
    if not is_zip(root):
        yield root
        return
    with tempfile.TemporaryDirectory(prefix="lnsegfm-zip-") as folder:
        unpack(root, Path(folder), max_unpacked=max_unpacked)
        yield Path(folder)


def unpacked_until_exit(root: Path) -> Path:
    """As ``unpacked_tree``, without a ``with`` block: the temporary folder lives until the process ends."""
    if not is_zip(root):
        return root
    folder = Path(tempfile.mkdtemp(prefix="lnsegfm-zip-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    unpack(root, folder)
    return folder


def is_zip(path: Path) -> bool:
    """Whether a file is a zip archive, by its content: it starts with a member, or is an empty archive."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    except OSError:
        return False


def unpack(path: Path, folder: Path, *, max_unpacked: int = MAX_UNPACKED) -> None:
    """Unpack a zip into ``folder``; nothing is written outside it, and nothing at all if one member is unsafe.

    Raises:
        DicomError: As ``unpacked_tree``.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
            places = [_place(path, m) for m in members]
            _check_size(path, members, folder, max_unpacked)
            for member, place in zip(members, places, strict=True):
                target = folder / place
                target.parent.mkdir(parents=True, exist_ok=True)
                # the central directory states the size; zipfile gives no byte more than it, and "x" overwrites nothing
                with archive.open(member) as source, target.open("xb") as out:
                    shutil.copyfileobj(source, out, _CHUNK)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        if isinstance(error, DicomError):
            raise
        raise DicomError(f"Zip {path.name} is damaged ({error}). Copy or make it again.") from None
    except RuntimeError:
        raise DicomError(f"Zip {path.name} is encrypted. Unpack it first.") from None
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise DicomError(f"Zip {path.name} cannot be unpacked ({why}). Unpack it first.") from None


def _place(path: Path, member: zipfile.ZipInfo) -> PurePosixPath:
    """Where a member goes, relative to the folder.

    Raises:
        DicomError: It would leave the folder, is a link or is encrypted.
    """
    name = member.filename.replace("\\", "/")
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name):
        raise DicomError(f"Zip {path.name} has a member that would be written outside its folder. Unpack it by hand.")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise DicomError(f"Zip {path.name} has a member that is a link or no file. Make it again with files only.")
    if member.flag_bits & 1:
        raise DicomError(f"Zip {path.name} is encrypted. Unpack it first.")
    return PurePosixPath(*parts)


def _check_size(path: Path, members: list[zipfile.ZipInfo], folder: Path, max_unpacked: int) -> None:
    total = sum(m.file_size for m in members)
    if len(members) > MAX_MEMBERS or total > max_unpacked:
        what = f"unpacks to {total / (1 << 30):.1f} GiB in {len(members)} files"
        most = f"{max_unpacked / (1 << 30):.1f} GiB and {MAX_MEMBERS} files"
        raise DicomError(f"Zip {path.name} {what}: more than {most}. Unpack it by hand.")
    if total > (free := shutil.disk_usage(folder).free):
        room = f"needs {total >> 20} MiB in the temporary folder, which has {free >> 20} MiB"
        raise DicomError(f"Zip {path.name} {room}. Set TMPDIR to a larger disk.")

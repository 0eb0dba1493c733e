"""Unpack a zip or a tar from a stranger: into one folder, plain files only, never more than was agreed to.

Nothing that an archive says of itself is believed: every name is checked before it is used, and bytes are counted while
they are unpacked. After a refusal nothing is left behind.
"""

from __future__ import annotations

import errno
import gzip
import shutil
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
from contextlib import closing
from pathlib import Path
from typing import IO, NoReturn, cast

from lnsegfm.errors import ConfigError, LnSegFmError, ModelError, UnsafeFile
from lnsegfm.storage import PARTIAL

GIB = 1 << 30
RATIO = 200
RATIO_COUNTS_FROM = 64 << 20
MEMBERS = 100_000
HEADER_BYTES = 1 << 20  # of one member of a tar
OVERHEAD_BYTES = 256 << 20  # of a whole tar
CHUNK = 1 << 20


def unpack(archive: Path, to: Path, *, limit_bytes: int = 64 * GIB) -> None:
    """Unpack a zip, a tar or a tar.gz into a folder that is new or empty.

    The folder has its content when all is unpacked, and not before. Times, owners and permissions are ignored.

    Args:
        archive: The file. What it is shows in its first bytes; its name does not count.
        to: The folder.
        limit_bytes: What all members together may unpack to.

    Raises:
        UnsafeFile: A member would lead out of the folder (absolute, a drive, ``..``, a backslash), is a link or a
            device, has the name of another one, or one that differs by case alone, lies below a file; or all together
            are larger than ``limit_bytes``, more than 100 000, or beyond 64 MiB more than 200 times the archive.
        ModelError: It is no such archive, or is encrypted, damaged, cut short or empty.
        ConfigError: The folder holds something.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"Folder {to}: there is something already. Name a new or an empty folder.")
    kind = _kind(archive)
    to.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=to.parent))
    try:
        tree = _Tree(archive, partial / "tree", limit_bytes)
        try:
            _unzip(tree) if kind == "zip" else _untar(tree, compressed=kind == "gzip")
        except LnSegFmError:
            raise
        except Exception as error:  # a damaged file, or one made to do harm, may raise anything
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # no space, no permission
                raise
            _damaged(archive)
        if not tree.files:
            raise ModelError(f"{archive}: it holds no file. Copy it again.")
        if to.exists():
            to.rmdir()  # not every system renames a folder onto an empty one
        tree.folder.rename(to)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _kind(archive: Path) -> str:
    if not archive.is_file():
        raise ModelError(f"{archive}: no such file. Check the path.")
    with archive.open("rb") as file:
        start = file.read(512)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if start.startswith(b"\x1f\x8b"):
        return "gzip"
    if start[257:262] == b"ustar":
        return "tar"
    raise ModelError(f"{archive}: {'not a zip or a tar' if start else 'it is empty'}. Give a .zip or a .tar.gz.")


def _damaged(archive: Path) -> NoReturn:
    raise ModelError(f"{archive}: damaged, cut short, or not what its first bytes say. Copy it again.") from None


class _Tree:
    """A folder that grows by one checked member at a time.

    Args:
        archive: Where the members come from.
        folder: The folder, which is made.
        limit_bytes: What all files together may hold.
    """

    def __init__(self, archive: Path, folder: Path, limit_bytes: int) -> None:
        self.archive = archive
        self.folder = folder
        self.unpacked = 0
        self.files: set[str] = set()
        self._folders: dict[str, str] = {}
        self._limit = limit_bytes
        self._packed = archive.stat().st_size
        self._members = 0
        folder.mkdir()

    def refuse(self, what: str) -> NoReturn:
        raise UnsafeFile(f"{self.archive}: {what}. Nothing was unpacked; ask its author for a plain archive.")

    def require_room_for(self, unpacked: int) -> None:
        """Refuse when so many bytes in all are too many."""
        if unpacked > self._limit:
            self.refuse(f"it unpacks to more than {self._limit} bytes")
        if unpacked > RATIO_COUNTS_FROM and unpacked > RATIO * self._packed:
            self.refuse(f"it unpacks to more than {RATIO} times its size, as what is made to fill a disk does")

    def add_folder(self, name: str) -> None:
        """Make the folder of a member."""
        parts = self._parts(name)
        self._claim(parts, is_file=False)
        self.folder.joinpath(*parts).mkdir(parents=True, exist_ok=True)

    def add_file(self, name: str) -> Path:
        """Give the place for a member that is a file."""
        parts = self._parts(name)
        if not parts:
            self.refuse(f"its member {name[:200]!r} has no name")
        self._claim(parts, is_file=True)
        place = self.folder.joinpath(*parts)
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def write(self, place: Path, source: IO[bytes]) -> int:
        """Write a member to its place, counting, and give its size."""
        before = self.unpacked
        with place.open("xb") as file:
            while chunk := source.read(CHUNK):
                self.unpacked += len(chunk)
                self.require_room_for(self.unpacked)
                file.write(chunk)
        return self.unpacked - before

    def _parts(self, name: str) -> list[str]:
        self._members += 1
        if self._members > MEMBERS:
            self.refuse(f"it holds more than {MEMBERS} members")
        member = f"its member {name[:200]!r}"
        if "\\" in name:
            self.refuse(f"{member} has a backslash, which leads to other folders on some systems")
        if name.startswith("/"):
            self.refuse(f"{member} is an absolute path")
        if ":" in name:
            self.refuse(f"{member} names a drive")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            self.refuse(f"{member} leads out of the folder")
        if not name.isprintable() or any(part.endswith((" ", ".")) for part in parts):
            self.refuse(f"{member} is not a name on every system")
        if len(name) > 1024 or any(len(part.encode()) > 255 for part in parts):
            self.refuse(f"{member} is too long a name")
        return parts

    def _claim(self, parts: list[str], *, is_file: bool) -> None:
        """Take each name once: for a file or a folder, in one spelling, as systems that ignore case need it."""
        for depth in range(1, len(parts) + 1):
            name = "/".join(parts[:depth])
            key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
            if depth < len(parts):
                if key in self.files:
                    self.refuse(f"its member {'/'.join(parts)!r} lies below a file")
            elif key in self.files or (is_file and key in self._folders):
                self.refuse(f"two of its members have the name {name!r}, or names that differ by case alone")
            elif is_file:
                self.files.add(key)
                return
            if self._folders.setdefault(key, name) != name:
                self.refuse(f"two of its folders differ by case alone: {self._folders[key]!r}, {name!r}")


def _unzip(tree: _Tree) -> None:
    with zipfile.ZipFile(tree.archive) as packed:
        files = []
        for member in packed.infolist():  # all names before the first byte
            if "\0" in member.orig_filename:
                tree.refuse(f"its member {member.orig_filename[:200]!r} has a name inside its name")
            if member.flag_bits & 0x41:
                raise ModelError(f"{tree.archive}: it is encrypted. Unpack it with its password and give the folder.")
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                tree.refuse(f"its member {member.filename[:200]!r} is a link or a device")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ModelError(f"{tree.archive}: it is packed in a rare way. Unpack it and give the folder.")
            if member.is_dir():
                tree.add_folder(member.filename)
            else:
                files.append((member, tree.add_file(member.filename)))
        tree.require_room_for(sum(member.file_size for member, _ in files))
        for member, place in files:
            with packed.open(member) as source:
                if tree.write(place, source) != member.file_size:
                    _damaged(tree.archive)


def _untar(tree: _Tree, *, compressed: bool) -> None:
    with tree.archive.open("rb") as file:
        counted = _Counted(tree, cast(IO[bytes], gzip.GzipFile(fileobj=file)) if compressed else file)
        with closing(tarfile.open(fileobj=cast(IO[bytes], counted), mode="r|", tarinfo=_StrictHeader)) as packed:
            while member := packed.next():
                if member.isdir():
                    tree.add_folder(member.name)
                elif not member.isreg() or member.issparse() or member.size < 0:
                    tree.refuse(f"its member {member.name[:200]!r} is a link, a device or a sparse file")
                else:
                    place = tree.add_file(member.name)
                    counted.in_header = False
                    if tree.write(place, cast(IO[bytes], packed.extractfile(member))) != member.size:
                        _damaged(tree.archive)
                counted.begin_header()
            while counted.read(CHUNK):  # to the end, where gzip keeps its checksum
                pass


class _StrictHeader(tarfile.TarInfo):
    """A header that is one: tarfile itself takes a damaged one, or none, for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictHeader:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):  # the end as it should be
                raise
            raise ValueError("damaged header") from error


class _Counted:
    """The bytes of a tar as they come, counted, so that headers and padding cannot fill memory or take forever."""

    def __init__(self, tree: _Tree, plain: IO[bytes]) -> None:
        self._tree = tree
        self._plain = plain
        self._read = 0
        self.begin_header()

    def begin_header(self) -> None:
        self._header_from = self._read
        self.in_header = True

    def read(self, size: int) -> bytes:
        chunk = self._plain.read(size)
        self._read += len(chunk)
        if self.in_header and self._read - self._header_from > HEADER_BYTES:
            self._tree.refuse(f"between two members, or after the last, it has more than {HEADER_BYTES} bytes")
        if self._read - self._tree.unpacked > OVERHEAD_BYTES:
            self._tree.refuse(f"its headers are larger than {OVERHEAD_BYTES} bytes")
        return chunk

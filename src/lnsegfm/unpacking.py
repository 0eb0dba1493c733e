"""Unpack a zip or a tar from a stranger: into one folder, plain files only, never more than was agreed to.

Nothing that an archive says of itself is trusted: every name is checked before it is used, and bytes are counted while
they are unpacked. After a refusal nothing is left behind.
"""

from __future__ import annotations

import errno
import gzip
import re
import shutil
import stat
import tarfile
import unicodedata
import zipfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn, cast

from lnsegfm.errors import ArchiveError, ConfigError, LnSegFmError, UnsafeFile
from lnsegfm.storage import new_folder

GIB = 1 << 30
HEADER_BYTES = 1 << 20  # of one member of a tar
OVERHEAD_BYTES = 256 << 20  # of a whole tar
CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class UnpackRules:
    """What an archive may hold, and how messages speak of it.

    Args:
        limit_bytes: What all members together may unpack to.
        members: Files and folders that it may hold.
        ratio: How many times its own size it may unpack to.
        ratio_from_bytes: The ratio counts once this many bytes are unpacked.
        portable_names: Names have to be names on every system, and differ by more than case. Otherwise a backslash
            parts folders, as in zips of some Windows tools, and only what leads out of the folder is refused.
        compressions: Methods of zip members that are unpacked (numbers as in ``zipfile``).
        may_be_empty: An archive without a file gives an empty folder instead of an error.
        name_members: Messages name members; names of a clinic's files can hold a patient's.
        remedy: What messages advise about an unsafe archive.
        disk_remedy: What they advise where the disk has no room.
    """

    limit_bytes: int = 64 * GIB
    members: int = 100_000
    ratio: int = 200
    ratio_from_bytes: int = 64 << 20
    portable_names: bool = True
    compressions: frozenset[int] = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
    may_be_empty: bool = False
    name_members: bool = True
    remedy: str = "ask its author for a plain archive"
    disk_remedy: str = "Make room there"


def unpack(archive: Path, to: Path, rules: UnpackRules | None = None, *, title: str | None = None) -> None:
    """Unpack a zip, a tar or a tar.gz into a folder that is new or empty.

    The folder has its content when all is unpacked, and not before. Times, owners and permissions are ignored.

    Args:
        archive: The file. What it is shows in its first bytes; its name does not count.
        to: The folder.
        rules: What it may hold; ``UnpackRules()`` unless given.
        title: What messages call the archive; its path unless given.

    Raises:
        UnsafeFile: A member would lead out of the folder (absolute, a drive, ``..``), is a link or a device, has the
            name of another one, or lies below a file; with ``portable_names`` also one with a backslash, or with a
            name that differs from another by case alone; or all together are more than the rules allow.
        ArchiveError: It is no such archive, or is encrypted, damaged, cut short or empty, or the disk has no room.
        ConfigError: The folder holds something.
    """
    rules, title = rules or UnpackRules(), title or str(archive)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"Folder {to}: there is something already. Name a new or an empty folder.")
    kind = _kind(archive, title)
    with new_folder(to) as folder:
        tree = _Tree(archive, folder, rules, title)
        try:
            _unzip(tree) if kind == "zip" else _untar(tree, compressed=kind == "gzip")
        except LnSegFmError:
            raise
        except Exception as error:  # a damaged file, or one made to do harm, may raise anything
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # no space, no permission
                raise
            tree.refuse_damaged()
        if not tree.files and not rules.may_be_empty:
            raise ArchiveError(f"{title}: it holds no file. Copy it again.")


def is_zip(path: Path) -> bool:
    """Whether a file is a zip archive, by its content: it starts with a member, or is an empty archive."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(4) in _ZIP_STARTS
    except OSError:
        return False


_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")


def _kind(archive: Path, title: str) -> str:
    if not archive.is_file():
        raise ArchiveError(f"{title}: no such file. Check the path.")
    with archive.open("rb") as file:
        start = file.read(512)
    if start.startswith(_ZIP_STARTS):
        return "zip"
    if start.startswith(b"\x1f\x8b"):
        return "gzip"
    if start[257:262] == b"ustar":
        return "tar"
    raise ArchiveError(f"{title}: {'not a zip or a tar' if start else 'it is empty'}. Give a .zip or a .tar.gz.")


class _Tree:
    """A folder that grows by one checked member at a time.

    Args:
        archive: Where the members come from.
        folder: The folder, empty.
        rules: What it may hold.
        title: What messages call the archive.
    """

    def __init__(self, archive: Path, folder: Path, rules: UnpackRules, title: str) -> None:
        self.archive = archive
        self.folder = folder
        self.rules = rules
        self.title = title
        self.unpacked = 0
        self.files: set[str] = set()
        self._folders: dict[str, str] = {}
        self._packed = archive.stat().st_size
        self._members = 0

    def refuse(self, what: str) -> NoReturn:
        raise UnsafeFile(f"{self.title}: {what}. Nothing was unpacked; {self.rules.remedy}.")

    def refuse_damaged(self) -> NoReturn:
        raise ArchiveError(
            f"{self.title}: damaged, cut short, or not what its first bytes say. Copy it again."
        ) from None

    def member(self, name: str) -> str:
        """What messages call a member."""
        return f"its member {name[:200]!r}" if self.rules.name_members else "one of its members"

    def require_room_for(self, unpacked: int) -> None:
        """Refuse when so many bytes in all are too many."""
        limit = self.rules.limit_bytes
        if unpacked > limit:
            shown = f"{limit // GIB} GiB" if limit % GIB == 0 else f"{limit} bytes"
            self.refuse(f"it unpacks to more than {shown}")
        if unpacked > self.rules.ratio_from_bytes and unpacked > self.rules.ratio * self._packed:
            self.refuse(
                f"it unpacks to more than {self.rules.ratio} times its size, as what is made to fill a disk does"
            )

    def require_disk_space_for(self, unpacked: int) -> None:
        """Refuse what the disk has no room for, where the size is known beforehand."""
        if unpacked > (free := shutil.disk_usage(self.folder).free):
            needs = f"it needs {unpacked >> 20} MiB where it is unpacked, and {free >> 20} MiB are free"
            raise ArchiveError(f"{self.title}: {needs}. {self.rules.disk_remedy}.")

    def add_folder(self, name: str) -> None:
        """Make the folder of a member."""
        parts = self._parts(name)
        self._claim(parts, is_file=False)
        self.folder.joinpath(*parts).mkdir(parents=True, exist_ok=True)

    def add_file(self, name: str) -> Path:
        """Give the place for a member that is a file."""
        parts = self._parts(name)
        if not parts:
            self.refuse(f"{self.member(name)} has no name")
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
        if self._members > self.rules.members:
            self.refuse(f"it holds more than {self.rules.members} members")
        member = self.member(name)
        if not self.rules.portable_names:
            name = name.replace("\\", "/")
        if "\\" in name:
            self.refuse(f"{member} has a backslash, which leads to other folders on some systems")
        if name.startswith("/"):
            self.refuse(f"{member} is an absolute path")
        if re.match("[A-Za-z]:", name) or (self.rules.portable_names and ":" in name):
            self.refuse(f"{member} names a drive")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            self.refuse(f"{member} leads out of the folder")
        if self.rules.portable_names:
            self._require_portable(name, parts, member)
        return parts

    def _require_portable(self, name: str, parts: list[str], member: str) -> None:
        if not name.isprintable() or any(part.endswith((" ", ".")) for part in parts):
            self.refuse(f"{member} is not a name on every system")
        if len(name) > 1024 or any(len(part.encode()) > 255 for part in parts):
            self.refuse(f"{member} is too long a name")

    def _claim(self, parts: list[str], *, is_file: bool) -> None:
        """Take each name once: for a file or a folder, in one spelling, as systems that ignore case need it."""
        for depth in range(1, len(parts) + 1):
            name = "/".join(parts[:depth])
            key = _case_folded(name) if self.rules.portable_names else name
            if depth < len(parts):
                if key in self.files:
                    self.refuse(f"{self.member('/'.join(parts))} lies below a file")
            elif key in self.files or (is_file and key in self._folders):
                which = f" {name!r}" if self.rules.name_members else ""
                self.refuse(f"two of its members have the name{which}, or names that differ by case alone")
            elif is_file:
                self.files.add(key)
                return
            if self._folders.setdefault(key, name) != name:
                self.refuse(f"two of its folders differ by case alone: {self._folders[key]!r}, {name!r}")


def _case_folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _unzip(tree: _Tree) -> None:
    with zipfile.ZipFile(tree.archive) as packed:
        files = []
        for member in packed.infolist():  # all names before the first byte
            _check_zip_member(tree, member)
            if member.is_dir() or (not tree.rules.portable_names and member.filename.endswith("\\")):
                tree.add_folder(member.filename)
            else:
                files.append((member, tree.add_file(member.filename)))
        total = sum(member.file_size for member, _ in files)
        tree.require_room_for(total)
        tree.require_disk_space_for(total)
        for member, place in files:
            with packed.open(member) as source:
                if tree.write(place, source) != member.file_size:
                    tree.refuse_damaged()


def _check_zip_member(tree: _Tree, member: zipfile.ZipInfo) -> None:
    if "\0" in member.orig_filename:
        tree.refuse(f"{tree.member(member.orig_filename)} has a name inside its name")
    if member.flag_bits & 0x41:
        raise ArchiveError(f"{tree.title}: it is encrypted. Unpack it with its password and give the folder.")
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        tree.refuse(f"{tree.member(member.filename)} is a link or a device")
    if member.compress_type not in tree.rules.compressions:
        raise ArchiveError(f"{tree.title}: it is packed in a rare way. Unpack it and give the folder.")


def _untar(tree: _Tree, *, compressed: bool) -> None:
    with tree.archive.open("rb") as file:
        counted = _CountedStream(tree, cast(IO[bytes], gzip.GzipFile(fileobj=file)) if compressed else file)
        with closing(tarfile.open(fileobj=cast(IO[bytes], counted), mode="r|", tarinfo=_StrictHeader)) as packed:
            while member := packed.next():
                if member.isdir():
                    tree.add_folder(member.name)
                elif not member.isreg() or member.issparse() or member.size < 0:
                    tree.refuse(f"{tree.member(member.name)} is a link, a device or a sparse file")
                else:
                    place = tree.add_file(member.name)
                    counted.in_header = False
                    if tree.write(place, cast(IO[bytes], packed.extractfile(member))) != member.size:
                        tree.refuse_damaged()
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


class _CountedStream:
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

"""Archives made to do harm, or harmed: refused, with nothing left in the folder and nothing outside it."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lnsegfm.errors import ArchiveError, LnSegFmError, UnsafeFile
from lnsegfm.unpacking import UnpackRules, unpack
from tests.test_unpacking import pack

MIB = 1 << 20
Make = Callable[[Path], object]
HOSTILE: dict[str, tuple[Make, type[LnSegFmError], str]] = {}


def hostile(kind: type[LnSegFmError], told: str) -> Callable[[Make], Make]:
    def add(make: Make) -> Make:
        HOSTILE[make.__name__.strip("_")] = (make, kind, told)
        return make

    return add


def zipped(path: Path, *names: str, content: bytes = b"x", before: str | None = "good") -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in (*([before] if before else []), *names):
            packed.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def tarred(path: Path, name: str, how: str = "w:gz", **fields: Any) -> None:
    with tarfile.open(path, how) as packed:  # type: ignore[call-overload]
        packed.addfile(tarfile.TarInfo("good"))
        entry = tarfile.TarInfo(name)
        for field, value in fields.items():
            setattr(entry, field, value)
        packed.addfile(entry)


def bad_names(how: Callable[[Path, str], None], form: str) -> None:
    names = {
        "absolute": ("/lnsegfm-escaped", "absolute"),
        "parent": ("../escaped", "leads out"),
        "parent_inside": ("a/../../escaped", "leads out"),
        "backslashes": ("..\\..\\escaped", "backslash"),
        "drive": ("C:/escaped", "drive"),
        "drive_relative": ("c:escaped", "drive"),
        "stream": ("good.txt:hidden", "drive"),
        "control": ("a\x1b[2Jb", "not a name"),
        "dot_at_the_end": ("a./b", "not a name"),
        "too_long": ("a" * 300, "too long"),
        "too_deep": ("a/" * 600 + "b", "too long"),
        "below_a_file": ("good/inner", "below a file"),
        "duplicate": ("good", "two of its members"),
        "duplicate_by_dots": ("./good", "two of its members"),
        "duplicate_by_case": ("GOOD", "two of its members"),
    }
    for what, (name, told) in names.items():
        HOSTILE[f"{form}_{what}"] = (lambda path, name=name: how(path, name), UnsafeFile, told)  # type: ignore[misc]


bad_names(zipped, "zip")
bad_names(tarred, "tar")


@hostile(UnsafeFile, "differ by case")
def folders_by_case(path: Path) -> None:
    zipped(path, "A/x", "a/y")


@hostile(UnsafeFile, "two of its members")
def names_by_unicode(path: Path) -> None:
    zipped(path, "\u00e9", "e\u0301")


@hostile(UnsafeFile, "two of its members")
def a_file_where_a_folder_is(path: Path) -> None:
    zipped(path, "a/b", "a")


@hostile(UnsafeFile, "a link or a device")
def zip_symlink(path: Path) -> None:
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(entry, "/etc/passwd")
        packed.writestr("link/x", "through it")


@hostile(UnsafeFile, "a link or a device")
def zip_device(path: Path) -> None:
    entry = zipfile.ZipInfo("null")
    entry.external_attr = (stat.S_IFCHR | 0o666) << 16
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(entry, "")


@hostile(UnsafeFile, "a name inside its name")
def zip_null_byte(path: Path) -> None:
    zipped(path, "harmlessX/../../x")
    path.write_bytes(path.read_bytes().replace(b"harmlessX", b"harmless\0"))


for _what, _type in {
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
    "device": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "unknown": b"Q",
}.items():
    HOSTILE[f"tar_{_what}"] = (
        lambda path, kind=_type: tarred(path, "link", type=kind, linkname="/etc/passwd"),  # type: ignore[misc]
        UnsafeFile,
        "a link, a device",
    )


@hostile(UnsafeFile, "a sparse file")
def tar_sparse(path: Path) -> None:
    tarred(path, "hole", pax_headers={"GNU.sparse.map": "0,0", "GNU.sparse.size": "99999999999"})


@hostile(UnsafeFile, "200 times its size")
def zip_bomb(path: Path) -> None:
    zipped(path, "bomb", content=bytes(70 * MIB), before=None)


@hostile(UnsafeFile, "200 times its size")
def tar_bomb(path: Path) -> None:
    with tarfile.open(path, "w:gz") as packed:
        entry = tarfile.TarInfo("bomb")
        entry.size = 70 * MIB
        packed.addfile(entry, io.BytesIO(bytes(entry.size)))


@hostile(ArchiveError, "damaged")
def zip_bomb_that_lies_about_its_size(path: Path) -> None:
    zipped(path, "bomb", content=bytes(10 * MIB), before=None)
    true, said = struct.pack("<I", 10 * MIB), struct.pack("<I", 10)
    assert path.read_bytes().count(true) == 2  # in the file's own header and in the directory
    path.write_bytes(path.read_bytes().replace(true, said))


@hostile(UnsafeFile, "between two members")
def tar_with_a_header_that_fills_the_memory(path: Path) -> None:
    tarred(path, "big", pax_headers={"comment": "x" * 40 * MIB})


@hostile(UnsafeFile, "after the last")
def tar_that_goes_on_after_its_end(path: Path) -> None:
    tarred(path, "a")
    with gzip.open(path, "ab", compresslevel=1) as file:
        file.write(bytes(40 * MIB))


@hostile(UnsafeFile, "more than 9 members")
def too_many_members(path: Path) -> None:
    zipped(path, *map(str, range(20)))


@hostile(ArchiveError, "encrypted")
def zip_encrypted(path: Path) -> None:
    zipped(path, "secret", before=None)
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


@hostile(ArchiveError, "rare way")
def zip_packed_by_lzma(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as packed:
        packed.writestr("a", b"x" * 100)


@hostile(ArchiveError, "damaged")
def zip_truncated(path: Path) -> None:
    cut(pack(path, {"a": bytes(range(256)) * 99, "b": b"x"}, "zip-stored"), -30)


@hostile(ArchiveError, "damaged")
def zip_with_a_wrong_checksum(path: Path) -> None:
    pack(path, {"a": b"content of it"}, "zip-stored")
    path.write_bytes(path.read_bytes().replace(b"content", b"contend"))


@hostile(ArchiveError, "damaged")
def tar_gz_truncated(path: Path) -> None:
    cut(pack(path, {"a": bytes(range(256)) * 99, "b": b"x"}, "tar.gz"), -20)


@hostile(ArchiveError, "damaged")
def tar_gz_without_its_checksum(path: Path) -> None:
    cut(pack(path, {"a": b"x"}, "tar.gz"), -8)


@hostile(ArchiveError, "damaged")
def tar_gz_with_a_wrong_checksum(path: Path) -> None:
    pack(path, {"a": b"x"}, "tar.gz")
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)


@hostile(ArchiveError, "damaged")
def tar_truncated_in_a_member(path: Path) -> None:
    cut(pack(path, {"a": b"x" * 5000}, "tar"), 3000)


@hostile(ArchiveError, "damaged")
def tar_truncated_between_members(path: Path) -> None:
    cut(pack(path, {"a": b"x" * 512, "b": b"y" * 512}, "tar"), 1024)


@hostile(ArchiveError, "damaged")
def tar_with_a_damaged_second_header(path: Path) -> None:
    pack(path, {"a": b"x" * 512, "b": b"y" * 512}, "tar")
    content = bytearray(path.read_bytes())
    content[1024 + 5] ^= 1
    path.write_bytes(content)


@hostile(ArchiveError, "not a zip or a tar")
def renamed_text(path: Path) -> None:
    path.write_text("<html>Sign in to download</html>" * 30)


@hostile(ArchiveError, "not a zip or a tar")
def wrong_magic(path: Path) -> None:
    pack(path, {"a": b"x"}, "zip")
    path.write_bytes(b"\x89PNG" + path.read_bytes())  # a zip for those who look at its end


@hostile(ArchiveError, "damaged")
def zip_magic_alone(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + bytes(100))


@hostile(ArchiveError, "damaged")
def gzip_that_is_no_tar(path: Path) -> None:
    path.write_bytes(gzip.compress(b"voxels" * 1000))


@hostile(ArchiveError, "it is empty")
def empty(path: Path) -> None:
    path.touch()


@hostile(ArchiveError, "holds no file")
def nothing_in_it(path: Path) -> None:
    pack(path, {}, "zip")


@hostile(ArchiveError, "holds no file")
def folders_alone(path: Path) -> None:
    pack(path, {}, "tar.gz", folders=("a", "b"))


@hostile(ArchiveError, "no such file")
def missing(path: Path) -> None:
    pass


def cut(path: Path, to: int) -> None:
    path.write_bytes(path.read_bytes()[:to])


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("empty_folder", [False, True], ids=["new", "empty"])
@pytest.mark.parametrize("what", sorted(HOSTILE))
def test_it_is_refused_and_nothing_is_left(tmp_path, what, empty_folder):
    make, kind, told = HOSTILE[what]
    deep = tmp_path / "a" / "b"  # so that what climbs out still lands below tmp_path
    deep.mkdir(parents=True)
    make(deep / "archive.zip")
    before = {path: path.is_dir() for path in tmp_path.rglob("*")}
    if empty_folder:
        (deep / "out").mkdir()
        before[deep / "out"] = True
    rules = UnpackRules(members=9) if what == "too_many_members" else None

    with pytest.raises(LnSegFmError) as error:
        unpack(deep / "archive.zip", deep / "out", rules)

    assert type(error.value) is kind
    assert told in str(error.value)
    assert str(error.value).startswith(f"{deep / 'archive.zip'}: ")
    assert str(error.value).isprintable()
    assert {path: path.is_dir() for path in tmp_path.rglob("*")} == before
    assert not Path("/lnsegfm-escaped").exists()

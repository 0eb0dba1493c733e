"""What is packed comes out, and nothing else does."""

from __future__ import annotations

import io
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsegfm.errors import ArchiveError, ConfigError
from lnsegfm.unpacking import UnpackRules, unpack

Tree = dict[str, bytes]
KINDS = ("zip", "zip-stored", "tar", "tar.gz", "tar-gnu")


def pack(path: Path, tree: Tree, kind: str, folders: tuple[str, ...] = ()) -> Path:
    if kind.startswith("zip"):
        how = zipfile.ZIP_STORED if kind == "zip-stored" else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", how) as packed:
            for name in folders:
                packed.writestr(f"{name}/", b"")
            for name, content in tree.items():
                packed.writestr(name, content)
        return path
    form = tarfile.GNU_FORMAT if kind == "tar-gnu" else tarfile.PAX_FORMAT
    with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w:", format=form) as packed:  # type: ignore[call-overload]
        for name in folders:
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE
            packed.addfile(entry)
        for name, content in tree.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    return path


def contents(folder: Path) -> Tree:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


PART = st.text("abcxyz0189_- éß", min_size=1, max_size=12).filter(lambda text: text == text.strip())


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Files below folders; names that one file system or another would take for one are left out."""
    paths = draw(st.lists(st.lists(PART, min_size=1, max_size=4), min_size=1, max_size=8))
    tree: Tree = {}
    taken: dict[str, str] = {}
    files: set[str] = set()
    for path in paths:
        names = ["/".join(path[: k + 1]) for k in range(len(path))]
        keys = [name.casefold() for name in names]
        if keys[-1] in taken or any(k in files or taken.get(k, n) != n for k, n in zip(keys, names, strict=True)):
            continue
        taken |= dict(zip(keys, names, strict=True))
        files.add(keys[-1])
        tree[names[-1]] = draw(st.binary(max_size=700)) * draw(st.sampled_from([1, 1, 40]))
    return tree


@settings(max_examples=60, deadline=None)
@given(tree=trees(), kind=st.sampled_from(KINDS))
def test_round_trip(tree, kind):
    with tempfile.TemporaryDirectory() as folder:
        unpack(pack(Path(folder) / "archive", tree, kind), Path(folder) / "out")
        assert contents(Path(folder) / "out") == tree
        assert {path.name for path in Path(folder).iterdir()} == {"archive", "out"}


@settings(max_examples=60, deadline=None)
@given(tree=trees(), kind=st.sampled_from(["zip", "tar", "tar.gz"]), where=st.floats(0, 1), data=st.binary(max_size=9))
def test_a_damaged_archive_gives_the_same_or_an_error_and_nothing(tree, kind, where, data):
    """Some bytes replaced, anywhere: headers, names, sizes, contents."""
    with tempfile.TemporaryDirectory() as folder:
        archive = pack(Path(folder) / "archive", tree, kind)
        content = bytearray(archive.read_bytes())
        start = int(where * len(content))
        content[start : start + len(data)] = data
        archive.write_bytes(content)
        try:
            unpack(archive, Path(folder) / "out")
        except (ArchiveError, ValueError):
            left = {"archive"}
        else:
            left = {"archive", "out"}
        assert {path.name for path in Path(folder).iterdir()} == left


def test_it_unpacks_into_an_empty_folder_too(tmp_path):
    archive = pack(tmp_path / "a", {"a/b": b"x"}, "zip")
    (tmp_path / "out").mkdir()
    unpack(archive, tmp_path / "out")
    assert contents(tmp_path / "out") == {"a/b": b"x"}


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    archive = pack(tmp_path / "a", {"b": b"x"}, "zip")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(ConfigError, match="something already"):
        unpack(archive, tmp_path / "out")
    assert contents(tmp_path / "out") == {"mine": b"mine"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", KINDS)
def test_folders_are_made_and_dots_and_repeated_folders_are_nothing(tmp_path, kind):
    archive = pack(tmp_path / "a", {"./a//b": b"x"}, kind, folders=("a", "empty", "a"))
    unpack(archive, tmp_path / "out")
    assert {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*")} == {"a", "a/b", "empty"}


def test_long_names_of_both_dialects(tmp_path):
    name = "/".join(["nnUNetTrainer__nnUNetPlans__3d_fullres"] * 5)
    for kind in KINDS:
        unpack(pack(tmp_path / "a", {name: b"x"}, kind), tmp_path / kind)
        assert contents(tmp_path / kind) == {name: b"x"}


def test_the_limit_counts_what_is_unpacked_exactly(tmp_path):
    for kind in KINDS:
        archive = pack(tmp_path / "a", {"a": b"x" * 600, "b": b"y" * 400}, kind)
        unpack(archive, tmp_path / kind, UnpackRules(limit_bytes=1000))
        with pytest.raises(ValueError, match="more than 999 bytes"):
            unpack(archive, tmp_path / f"{kind}-2", UnpackRules(limit_bytes=999))


def test_a_zip_that_says_it_is_too_large_is_refused_before_the_first_byte(tmp_path, monkeypatch):
    monkeypatch.setattr("lnsegfm.unpacking._Tree.write", lambda *_: pytest.fail("a byte was written"))
    with pytest.raises(ValueError, match="more than 999 bytes"):
        unpack(pack(tmp_path / "a", {"a": b"x" * 1000}, "zip"), tmp_path / "out", UnpackRules(limit_bytes=999))


def test_no_permission_of_the_archive_is_taken_over(tmp_path):
    with tarfile.open(tmp_path / "a", "w:gz") as packed:
        entry = tarfile.TarInfo("a")
        entry.mode = 0o6777
        packed.addfile(entry, io.BytesIO())
    unpack(tmp_path / "a", tmp_path / "out")
    assert (tmp_path / "out" / "a").stat().st_mode & 0o6111 == 0


def test_an_error_of_the_disk_is_no_damaged_archive(tmp_path, monkeypatch):
    archive = pack(tmp_path / "a", {"a": b"x"}, "zip")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lnsegfm.unpacking._Tree.write", full)
    with pytest.raises(OSError, match="No space"):
        unpack(archive, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_interrupted_it_leaves_nothing(tmp_path, monkeypatch):
    archive = pack(tmp_path / "a", {"a": b"x"}, "tar.gz")

    def stop(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("lnsegfm.unpacking._Tree.write", stop)
    with pytest.raises(KeyboardInterrupt):
        unpack(archive, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]

"""Whatever is wrong with the input: a line for each thing, exit code 2, and nothing in it changes."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lnsegfm.imaging.dicom.rtstruct_write import write_rtstruct
from lnsegfm.imaging.dicom.series import series_of
from tests.imaging.dicom.scanner import write_series

from .scenes import GRID, image, make, mask, patient

NAMES = ("--label", "node=1", "--label", "gland_left=2", "--label", "gland_right=3")


def state(root: Path) -> dict[str, str]:
    """What every file of a tree holds, and when it was changed."""
    return {
        str(path.relative_to(root)): f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_mtime_ns}"
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def header(place: int, content: bytes, folder: str = "images") -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        path = root / folder / "a.nii.gz"
        voxels = bytearray(gzip.decompress(path.read_bytes()))
        voxels[place : place + len(content)] = content
        path.write_bytes(gzip.compress(voxels))

    return spoil


def cut(root: Path) -> None:
    path = root / "images" / "a.nii.gz"
    path.write_bytes(path.read_bytes()[:2000])


def empty(root: Path) -> None:
    for path in root.rglob("*.nii.gz"):
        path.unlink()


BROKEN: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "no bytes": (lambda r: (r / "images" / "a.nii.gz").write_bytes(b""), 1, "unreadable"),
    "cut short": (cut, 1, "cut short"),
    "no image": (lambda r: (r / "images" / "a.nii.gz").write_text("Dear colleague,"), 1, "unreadable"),
    "no labels folder": (lambda r: shutil.rmtree(r / "labels"), 1, "no labels/"),
    "a label is missing": (lambda r: (r / "labels" / "a.nii.gz").unlink(), 1, "an image without a label"),
    "an image is missing": (lambda r: (r / "images" / "a.nii.gz").unlink(), 1, "a label without an image"),
    "no case": (empty, 1, "holds no images"),
    "spacing NaN": (header(80, struct.pack("<f", float("nan"))), 1, "spacing"),
    "spacing zero": (header(80, struct.pack("<3f", 0, 0, 0)), 1, "spacing"),
    "spacing negative": (header(80, struct.pack("<f", -3)), 1, "spacing"),
    "huge": (header(42, struct.pack("<3h", 32767, 32767, 32767)), 1, "cut short"),
    "huge label": (header(42, struct.pack("<3h", 32767, 32767, 32767), "labels"), 1, "cut short"),
    "NaN voxels": (lambda r: image(r, "a", np.full(GRID.shape, np.nan, np.float32)), 1, "NaN or infinite"),
    "broken description": (lambda r: (r / "dataset.json").write_text("{"), 1, "not a JSON file"),
    "broken subjects": (lambda r: (r / "subjects.csv").write_bytes(b"\xff\xfe\x00"), 1, "subjects.csv"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_datasets(name, lnsegfm_here, tmp_path):
    spoil, lines, said = BROKEN[name]
    folder = make(tmp_path / "data", 2)
    spoil(folder)
    before = state(folder)

    result = lnsegfm_here("data", "check", folder, *NAMES)

    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == lines, result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    assert state(folder) == before


def refused_only(root: Path) -> Path:
    sorted(write_series(root / "ct", patient(0), GRID))[7].unlink()
    return root


def no_dicom(root: Path) -> Path:
    root.mkdir()
    (root / "a.txt").write_text("Dear colleague,")
    return root


def escaping(root: Path) -> Path:
    root.mkdir()
    with zipfile.ZipFile(root / "x.zip", "w") as archive:
        archive.writestr("../../x.dcm", b"x")
    return root / "x.zip"


def no_zip(root: Path) -> Path:
    root.mkdir()
    (root / "x.zip").write_bytes(b"PK\x03\x04" + bytes(200))
    return root / "x.zip"


def structures_alone(root: Path) -> Path:
    write_series(root / "ct", patient(0), GRID)
    write_rtstruct(root / "rs.dcm", mask(), {"node": 1, "b": 2, "c": 3}, series_of(root / "ct"))
    shutil.rmtree(root / "ct")
    return root


@pytest.mark.parametrize("make_tree", [refused_only, no_dicom, escaping, no_zip, structures_alone, lambda r: r])
def test_broken_trees(make_tree, lnsegfm_here, tmp_path):
    root = make_tree(tmp_path / "Doe^Jane")
    before = state(tmp_path)

    result = lnsegfm_here("data", "check", root)

    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith("lnsegfm: ")
    assert state(tmp_path) == before


def test_nothing_in_the_source_changes(lnsegfm_here, tmp_path):
    folder = make(tmp_path / "data")
    image(folder, "b", patient(1) + 1024)
    before = state(folder)

    result = lnsegfm_here(
        *("data", "check", folder, *NAMES, "--html", tmp_path / "page.html"),
        *("--fix", "offset-1024", "--fix", "clip-hu", "--out", tmp_path / "new"),
    )

    assert result.returncode == 0
    assert state(folder) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "new", "page.html"]


@pytest.mark.parametrize("place", ["images/a.nii.gz", "page.html", ".", "images"])
def test_a_page_is_not_written_into_the_data(lnsegfm_here, tmp_path, place):
    folder = make(tmp_path / "data", 1)
    before = state(folder)

    result = lnsegfm_here("data", "check", folder, *NAMES, "--html", folder / place)

    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert "--html" in result.stderr
    assert state(folder) == before


def test_a_page_does_not_replace_the_zip_that_is_looked_at(lnsegfm_here, tmp_path):
    files = write_series(tmp_path / "ct", patient(0), GRID)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in files:
            archive.write(path, path.name)
    before = state(tmp_path)

    assert lnsegfm_here("data", "check", tmp_path / "x.zip", "--html", tmp_path / "x.zip").returncode == 2
    assert state(tmp_path) == before

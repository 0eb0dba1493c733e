from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.evaluation.probabilities import read_probabilities, write_probabilities
from lnsegfm.imaging.grid import Grid

GRID = Grid(shape=(2, 3, 4), spacing_mm=(1, 1, 1))
LABELS = LabelMap({"node": 1, "vessel": 2})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "case.npz"


@pytest.fixture
def right() -> np.ndarray:
    shares = np.random.default_rng(0).uniform(size=(3, *GRID.shape))
    return (shares / shares.sum(0)).astype(np.float32)


def test_what_is_written_is_read(file, right):
    write_probabilities(file, right)
    found = read_probabilities(file, LABELS, GRID)
    assert list(found) == ["node", "vessel"]
    np.testing.assert_array_equal(found["vessel"], right[2].astype(np.float16))
    assert [path.name for path in file.parent.iterdir()] == ["case.npz"]


def test_what_nnunet_writes_is_read(file, right):
    np.savez_compressed(file, probabilities=right)
    np.testing.assert_array_equal(read_probabilities(file, LABELS, GRID)["node"], right[1])


def test_another_grid_and_other_labels_are_refused(file, right):
    write_probabilities(file, right)
    turned = Grid(shape=(4, 3, 2), spacing_mm=(1, 1, 1))
    with pytest.raises(DataError, match=r"shape is 3x2x3x4, and 2 labels .* need 3x4x3x2\. Predict"):
        read_probabilities(file, LABELS, turned)
    with pytest.raises(DataError, match="1 labels with background"):
        read_probabilities(file, LabelMap({"node": 1}), GRID)


def test_no_file(file):
    with pytest.raises(DataError, match=r"no such file\. Predict with --probabilities"):
        read_probabilities(file, LABELS, GRID)


def cut(path: Path, right: np.ndarray) -> None:
    np.savez_compressed(path, probabilities=right)
    path.write_bytes(path.read_bytes()[:-40])


def damaged(path: Path, right: np.ndarray) -> None:
    np.savez(path, probabilities=right)
    content = bytearray(path.read_bytes())
    content[300] ^= 0xFF
    path.write_bytes(content)


def huge(path: Path, right: np.ndarray) -> None:
    """A header that promises the right shape in numbers of 8 bytes, and nothing behind it."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": right.shape})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("probabilities.npy", header.getvalue())


@pytest.mark.parametrize(
    "write",
    [
        lambda path, _: path.write_bytes(b"no zip"),
        lambda path, right: np.savez(path, softmax=right),
        lambda path, right: np.savez(path, probabilities=np.full(right.shape, None)),  # a pickle
        lambda path, right: np.savez(path, probabilities=(right * 255).astype(np.uint8)),
        lambda path, right: np.savez(path, probabilities=right * 3),
        lambda path, right: np.savez(path, probabilities=right - 1),
        lambda path, right: np.savez(path, probabilities=right * np.nan),
        cut,
        damaged,
        huge,
    ],
)
def test_what_is_none_is_refused_in_one_line(file, right, write):
    write(file, right)
    with pytest.raises(DataError, match=r"case\.npz: .*Predict again with --probabilities\.$") as caught:
        read_probabilities(file, LABELS, GRID)
    assert len(str(caught.value).splitlines()) == 1


def test_a_shape_that_fills_the_memory_is_refused_before_it_is_unpacked(file):
    header = io.BytesIO()
    shape = (3, 1 << 16, 1 << 16, 1 << 16)
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("probabilities.npy", header.getvalue())
    with pytest.raises(DataError, match="its shape is 3x65536x65536x65536"):
        read_probabilities(file, LABELS, GRID)

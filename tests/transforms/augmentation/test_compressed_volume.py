"""A part of a compressed file is the slice of the whole; a sample of it is that of the scan in memory, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsegfm.errors import DataError
from lnsegfm.transforms.augmentation.augmentation_parameters import AugmentationSettings, draw_sample_parameters
from lnsegfm.transforms.augmentation.compressed_volume import (
    CompressedVolume,
    StoredRows,
    open_array,
    write_compressed,
    write_rows,
)
from lnsegfm.transforms.augmentation.prepared_case import PreparedCase
from lnsegfm.transforms.augmentation.spatial_transforms import sample_patch

SHAPE = (40, 70, 133)
"""More than a block along each axis, and no multiple of one."""


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreparedCase, PreparedCase]:
    """A scan in memory and in files."""
    random = np.random.default_rng(0)
    image = random.standard_normal((2, *SHAPE)).astype(np.float32)
    labels = random.integers(-1, 3, (1, *SHAPE)).astype(np.int16)
    memory = PreparedCase.prepared("case", image, labels, {1: np.argwhere(labels == 1)})
    folder = tmp_path_factory.mktemp("prepared")
    for name, array in (("image", image), ("labels", labels)):
        write_compressed(folder / f"{name}.b2nd", array)
    files = replace(
        memory,
        image=CompressedVolume.of_file(folder / "image.b2nd", torch.float32),
        labels=CompressedVolume.of_file(folder / "labels.b2nd", torch.int16, channel=0),
    )
    return memory, files


spans = st.tuples(*(st.tuples(st.integers(0, n), st.integers(0, n)).map(sorted) for n in SHAPE))


@settings(max_examples=60, deadline=None)
@given(spans)
def test_a_part_is_the_slice_of_the_whole(
    scan: tuple[PreparedCase, PreparedCase], bounds: tuple[tuple[int, int], ...]
) -> None:
    memory, files = scan
    z, y, x = (slice(*each) for each in bounds)
    assert torch.equal(files.image.part(z, y, x), memory.image[:, z, y, x])
    assert torch.equal(files.labels.part(z, y, x), memory.labels[z, y, x])


@settings(max_examples=25, deadline=None)
@given(
    patch=st.sampled_from([(16, 24, 32), (48, 32, 40), (8, 80, 20), (64, 96, 160)]),
    seed=st.integers(0, 2**32),
    foreground=st.booleans(),
    masked=st.booleans(),
)
def test_a_sample_of_a_file_is_that_of_memory(
    scan: tuple[PreparedCase, PreparedCase], patch: tuple[int, int, int], seed: int, foreground: bool, masked: bool
) -> None:
    """Turned, scaled or plain, inside of the scan or beyond its borders."""
    memory, _ = scan
    wanted = AugmentationSettings(
        patch=patch, box=tuple(n + n // 3 for n in patch), angle=0.5, channels=2, masked=(1,) if masked else ()
    )
    draw = draw_sample_parameters(wanted, [memory], np.random.default_rng(seed), foreground=foreground)
    for parameters in (draw, replace(draw, angles=(0.3, -0.2, 0.1), scale=0.9)):
        one, other = (sample_patch(shot.image, shot.labels, parameters, wanted) for shot in scan)
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_equal_arrays_are_equal_files(tmp_path: Path) -> None:
    array = np.random.default_rng(1).standard_normal((1, 40, 40, 40)).astype(np.float16)
    for name in "ab":
        write_compressed(tmp_path / f"{name}.b2nd", array)
    assert (tmp_path / "a.b2nd").read_bytes() == (tmp_path / "b.b2nd").read_bytes()


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_rows_of_a_table(tmp_path: Path, count: int) -> None:
    rows = np.random.default_rng(2).integers(0, 500, (count, 4)).astype(np.uint16)
    write_rows(tmp_path / "rows.b2nd", rows)
    stored = StoredRows(tmp_path / "rows.b2nd", 0, count)
    assert len(stored) == count
    assert np.array_equal(stored, rows)
    for row in {0, count // 2, count - 1} & set(range(count)):
        assert np.array_equal(stored[row], rows[row])
        assert np.array_equal(StoredRows(stored.file, row, count - row), rows[row:])
    with pytest.raises(IndexError):
        stored[count]


def test_what_is_no_array_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        open_array(tmp_path / "none.b2nd")
    write_compressed(tmp_path / "cut.b2nd", np.random.default_rng(0).standard_normal((1, 40, 40, 40)))
    whole = (tmp_path / "cut.b2nd").read_bytes()
    (tmp_path / "cut.b2nd").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.b2nd"):
        CompressedVolume.of_file(tmp_path / "cut.b2nd", torch.float32).whole()
    (tmp_path / "text.b2nd").write_text("no array")
    with pytest.raises(DataError, match=r"text\.b2nd"):
        open_array(tmp_path / "text.b2nd")

"""Each fix does what it says, to what was found, and to nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.datasets.doctor import FIXES, diagnose, write_fixed_copy
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.imaging.files import read_grid, read_mask, read_volume, write_mask, write_volume
from tests.listening import OnAdvance

from .scenes import GRID, LABELS, doctored, image, kinds, label, make, mask, patient


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "data")


def fixed(folder: Path, *fixes: str) -> tuple[Path, list[dict]]:
    """Fix a copy; makes sure that the original stays as it was, and that only the files listed differ."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    dataset, out = open_dataset(folder, LABELS), folder.parent / "fixed"
    record = write_fixed_copy(dataset, diagnose(dataset), fixes, out)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert json.loads((out / "fixes.json").read_text()) == record
    listed = {entry["file"] for entry in record["done"]}
    for path, content in before.items():
        place = out / path.relative_to(folder)
        if place.is_file() and str(path.relative_to(folder)) not in listed and path.name != "dataset.json":
            assert place.read_bytes() == content
    return out, record["done"]


def test_nothing_to_fix_is_a_plain_copy(folder):
    (folder / "subjects.csv").write_text("case,subject\na,P1\n")

    out, done = fixed(folder, *FIXES)

    assert done == []
    assert sorted(p.name for p in out.rglob("*") if p.is_file()) == sorted(
        [*(f"{case}.nii.gz" for case in "abc") , *(f"{case}.nii.gz" for case in "abc"), "fixes.json", "subjects.csv"]
    )  # fmt: skip


def test_only_what_was_asked_for_is_fixed(folder):
    image(folder, "b", patient(1) + 1024)

    _, done = fixed(folder, "clip-hu", "drop-fragments")

    assert done == []


def test_an_offset_is_taken_off(folder):
    image(folder, "b", (patient(1) + 1024).astype(np.uint16))

    out, done = fixed(folder, "offset-1024")

    voxels, grid = read_volume(out / "images" / "b.nii.gz")
    assert [(entry["fix"], entry["case"], entry["file"]) for entry in done] == [("offset-1024", "b", "images/b.nii.gz")]
    assert voxels.dtype == np.int16
    assert np.array_equal(voxels, patient(1))
    assert grid == GRID
    assert kinds(doctored(out)) == []


def test_outliers_are_clipped(folder):
    voxels = patient(1)
    voxels[0, 0, 0], voxels[0, 0, 1], voxels[:, :4] = 16438, 4096, -3024
    image(folder, "b", voxels)

    out, done = fixed(folder, "clip-hu")

    assert np.array_equal(read_volume(out / "images" / "b.nii.gz")[0], voxels.clip(-1024, 3071))
    assert [entry["file"] for entry in done] == ["images/b.nii.gz"]


def test_numbers_that_are_none_become_air(folder):
    voxels = patient(1).astype(np.float32)
    voxels[3, :2, :2] = np.nan
    image(folder, "b", voxels)

    out, _ = fixed(folder, "nan-to-air")

    found = read_volume(out / "images" / "b.nii.gz")[0]
    assert np.all(found[3, :2, :2] == -1024)
    assert np.count_nonzero(found != voxels) == 4


def test_fragments_become_background(folder):
    voxels = mask()
    voxels[5, 30, 44] = voxels[9, 30, 20] = 2
    label(folder, "b", voxels)

    out, done = fixed(folder, "drop-fragments")

    assert np.array_equal(read_mask(out / "labels" / "b.nii.gz")[0], mask())
    assert [entry["what"] for entry in done] == ["label gland_left: voxels that became background: 2"]


def test_a_label_takes_its_images_header(folder):
    label(folder, "b", mask(), origin_mm=(1.0, 2.0, 3.0), direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1))

    out, _ = fixed(folder, "copy-header")

    found, grid = read_mask(out / "labels" / "b.nii.gz")
    assert np.array_equal(found, mask())
    assert grid.difference(GRID) is None
    assert kinds(doctored(out)) == []


def test_a_label_of_another_shape_is_not_fixed_by_a_header(folder):
    write_mask(folder / "labels" / "b.nii.gz", mask()[:30], type(GRID)((30, 64, 64), GRID.spacing_mm, GRID.origin_mm))

    out, done = fixed(folder, "copy-header")

    assert done == []
    assert read_grid(out / "labels" / "b.nii.gz").shape == (30, 64, 64)


def test_the_later_of_two_equal_scans_is_left_out(tmp_path):
    folder = tmp_path / "data"
    for name, seed in (("a", 0), ("b", 0), ("c", 2)):
        write_volume(folder / "imagesTr" / f"{name}_0000.nii.gz", patient(seed), GRID)
        write_mask(folder / "labelsTr" / f"{name}.nii.gz", mask(), GRID)
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, **LABELS.names}, "numTraining": 3,
                   "file_ending": ".nii.gz"}  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(description))
    (folder / "splits_final.json").write_text(json.dumps([{"train": ["a", "b"], "val": ["c"]}]))

    out, done = fixed(folder, "drop-duplicates")

    assert [(entry["fix"], entry["case"]) for entry in done] == [("drop-duplicates", "b")]
    assert [case.name for case in open_dataset(out).cases] == ["a", "c"]
    assert json.loads((out / "dataset.json").read_text()) == {**description, "numTraining": 2}
    assert not (out / "splits_final.json").exists()
    assert json.loads((out / "fixes.json").read_text())["not_copied"] == ["splits_final.json"]


def test_several_fixes_of_one_file(folder):
    voxels = patient(1).astype(np.float32) + 1024
    voxels[3, 0, 0] = np.nan
    image(folder, "b", voxels)
    speckled = mask()
    speckled[5, 30, 44] = 2
    label(folder, "b", speckled, origin_mm=(0.0, 0.0, 0.0))

    out, done = fixed(folder, *FIXES)

    assert {entry["fix"] for entry in done} == {"nan-to-air", "offset-1024", "drop-fragments", "copy-header"}
    assert {f.severity for f in doctored(out).findings} <= {"note"}


def test_a_broken_file_is_copied_as_it_is(folder):
    (folder / "images" / "a.nii.gz").write_text("no image")
    image(folder, "b", patient(1) + 1024)

    out, done = fixed(folder, "offset-1024")

    assert [entry["case"] for entry in done] == ["b"]
    assert (out / "images" / "a.nii.gz").read_text() == "no image"


@pytest.mark.parametrize("place", [".", "inside", "..", "../taken"])
def test_places_that_cannot_be(folder, place):
    dataset = open_dataset(folder, LABELS)
    (folder.parent / "taken").mkdir()
    (folder.parent / "taken" / "note.txt").write_text("mine")

    with pytest.raises(ConfigError, match="--out"):
        write_fixed_copy(dataset, diagnose(dataset), ["clip-hu"], folder / place)


def test_a_fix_that_is_none(folder):
    dataset = open_dataset(folder, LABELS)

    with pytest.raises(ConfigError, match="--fix heal: there is no such fix"):
        write_fixed_copy(dataset, diagnose(dataset), ["heal"], folder.parent / "out")


def test_files_outside_the_folder_are_not_copied(folder):
    outside = folder.parent / "outside.nii.gz"
    write_volume(outside, patient(7), GRID)
    entry = {"images": ["../outside.nii.gz"], "label": "labels/a.nii.gz"}
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, **LABELS.names}, "dataset": {"a": entry}}
    (folder / "dataset.json").write_text(json.dumps(description))
    dataset = open_dataset(folder)

    with pytest.raises(DataError, match="lies outside"):
        write_fixed_copy(dataset, diagnose(dataset), ["clip-hu"], folder.parent / "out")


@pytest.mark.parametrize("cases", [0, 1, 2])
def test_an_interrupted_fix_leaves_nothing(folder, cases):
    dataset, out = open_dataset(folder, LABELS), folder.parent / "out"

    def stop(done: int, *_: object) -> None:
        if done > cases:
            assert not out.exists()  # nor does anything look like a copy while it is made
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_fixed_copy(dataset, diagnose(dataset), ["clip-hu"], out, progress=OnAdvance(stop))

    assert [path.name for path in folder.parent.iterdir()] == ["data"]


def test_an_empty_folder_may_be_named(folder):
    dataset, out = open_dataset(folder, LABELS), folder.parent / "deep" / "out"
    out.mkdir(parents=True)

    write_fixed_copy(dataset, diagnose(dataset), ["clip-hu"], out)

    assert (out / "fixes.json").is_file()
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert out.stat().st_mode & 0o777 == folder.stat().st_mode & 0o777

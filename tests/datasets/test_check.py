from __future__ import annotations

import dataclasses
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lnsegfm.datasets.check import check, check_case, examine, require_usable
from lnsegfm.datasets.dataset import Dataset, open_dataset
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.imaging.files import write_mask, write_volume
from lnsegfm.imaging.grid import Grid
from tests.listening import OnAdvance

GRID = Grid((4, 5, 6), (2.0, 1.0, 1.0), (-10.0, -20.0, 30.0))
LABELS = LabelMap({"node": 1}, ignore=2)


def scan(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1000, GRID.shape).astype(np.int16)


def mask(*values: int) -> np.ndarray:
    voxels = np.zeros(GRID.shape, dtype=np.uint8)
    voxels[1, 1, : len(values)] = values
    return voxels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k, name in enumerate(("a", "b", "c")):
        write_volume(tmp_path / "images" / f"{name}.nii.gz", scan(k), GRID)
        write_mask(tmp_path / "labels" / f"{name}.nii.gz", mask(1, 2), GRID)
    return tmp_path


def opened(folder: Path) -> Dataset:
    return open_dataset(folder, None if (folder / "dataset.json").exists() else LABELS)


def only_line(folder: Path) -> str:
    """The one line said of the folder, after making sure that it says one and names the case."""
    problems = check(opened(folder))
    assert len(problems) == 1, [str(p) for p in problems]
    line = str(problems[0])
    assert "\n" not in line
    assert line.startswith(f"Case {problems[0].case}:")
    assert line.endswith(f"{problems[0].remedy}.")
    return line


def test_a_usable_dataset_has_no_findings(folder):
    dataset = opened(folder)
    seen = []

    assert check(dataset, progress=OnAdvance(lambda *state: seen.append(state))) == []
    assert check_case(dataset.cases[0], LABELS) == []
    require_usable(dataset)
    assert seen == [(1, 3, "a"), (2, 3, "b"), (3, 3, "c")]


@pytest.mark.parametrize("kept", [0.5, 0.95])
@pytest.mark.parametrize("inner", ["images", "labels"])
def test_a_file_cut_short(folder, inner, kept):
    path = folder / inner / "b.nii.gz"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])

    line = only_line(folder)

    assert line.startswith(f"Case b: {path}: ")
    assert "cut short" in line
    assert "Copy or export it again" in line


@pytest.mark.parametrize("inner", ["images", "labels"])
def test_a_file_that_is_no_image(folder, inner):
    (folder / inner / "b.nii.gz").write_text("Dear colleague,")

    line = only_line(folder)

    assert line.startswith(f"Case b: {folder / inner / 'b.nii.gz'}: unreadable")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"spacing_mm": (2.5, 1.0, 1.0)}, "spacing (2.5, 1, 1) against (2, 1, 1) mm (z, y, x; by 0.5 mm)"),
        ({"origin_mm": (-10.0, -20.0, 33.0)}, "origin (-10, -20, 33) against (-10, -20, 30) mm (x, y, z; by 3 mm)"),
        ({"direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}, "direction (-1, 0, 0, 0, -1, 0, 0, 0, 1) against (1, 0, 0"),
    ],
)
def test_a_label_whose_header_differs(folder, change, said):
    write_mask(folder / "labels" / "b.nii.gz", mask(1), dataclasses.replace(GRID, **change))

    line = only_line(folder)

    assert f"b.nii.gz: its geometry is not its image's: {said}" in line
    assert "Resample the label onto the image" in line


def test_a_label_of_another_shape(folder):
    smaller = dataclasses.replace(GRID, shape=(3, 5, 6))
    write_mask(folder / "labels" / "b.nii.gz", mask(1)[:3], smaller)

    assert "shape 3x5x6 against 4x5x6 voxels (z, y, x)" in only_line(folder)


def test_label_values_without_a_name(folder):
    write_mask(folder / "labels" / "b.nii.gz", mask(1, 2, 3, 255), GRID)

    line = only_line(folder)

    assert "label values 3, 255 are not among node=1, ignore=2" in line
    assert "--label NAME=VALUE" in line


def test_very_many_strange_values_stay_one_short_line(folder):
    write_mask(folder / "labels" / "b.nii.gz", np.arange(120, dtype=np.uint8).reshape(GRID.shape), GRID)

    line = only_line(folder)

    assert "3, 4, 5, 6, 7, 8, 9, 10, 11, 12, ... (117 in all)" in line


def test_label_values_that_are_no_whole_numbers(folder):
    write_volume(folder / "labels" / "b.nii.gz", mask(1).astype(np.float32) * 0.5, GRID)

    line = only_line(folder)

    assert "label values must be whole numbers, and it holds 0.5" in line
    assert "nearest neighbour" in line


@pytest.mark.parametrize("odd", [np.nan, np.inf])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_an_image_with_nan_or_infinity(folder, odd, suffix):
    voxels = scan(1).astype(np.float32)
    voxels[0, 0, :3] = odd
    (folder / "images" / "b.nii.gz").unlink()
    write_volume(folder / "images" / f"b{suffix}", voxels, GRID)

    line = only_line(folder)

    assert f"b{suffix}: 3 voxels are NaN or infinite" in line
    assert "Replace them" in line


def test_a_slice(folder):
    sitk.WriteImage(sitk.Image([6, 5], sitk.sitkInt16), str(folder / "images" / "b.nii.gz"))

    line = only_line(folder)

    assert "it is 2D (6x5)" in line
    assert "one 3D volume" in line


@pytest.mark.parametrize("inner", ["images", "labels"])
def test_four_axes_of_which_the_last_is_single_are_a_volume(folder, inner):
    path = folder / inner / "b.nii.gz"
    sitk.WriteImage(sitk.JoinSeries([sitk.ReadImage(str(path))]), str(path))

    assert check(opened(folder)) == []


@pytest.mark.parametrize("inner", ["images", "labels"])
def test_several_volumes_in_one_file(folder, inner):
    path = folder / inner / "b.nii.gz"
    sitk.WriteImage(sitk.JoinSeries([sitk.ReadImage(str(path))] * 2), str(path))

    line = only_line(folder)

    assert line.startswith(f"Case b: {path}: it is 4D (6x5x4x2)")
    assert "in a file of its own" in line


@pytest.mark.parametrize(("share", "problems"), [(0.05, 0), (0.3, 1)])
def test_a_label_that_is_off_by_a_share_of_a_voxel(folder, share, problems):
    origin = tuple(o + share * s for o, s in zip(GRID.origin_mm, GRID.spacing_mm[::-1], strict=True))
    write_mask(folder / "labels" / "b.nii.gz", mask(1), Grid(GRID.shape, GRID.spacing_mm, origin, GRID.direction))

    found = check(opened(folder))

    assert [p.kind for p in found] == ["label-geometry"] * problems


def test_two_transforms_that_disagree_are_reported(folder):
    path = folder / "images" / "b.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    shift = np.frombuffer(content[268:272], "<f4")[0] + 20
    content[268:272] = np.float32(shift).tobytes()
    path.write_bytes(gzip.compress(bytes(content)))
    sitk.WriteImage(sitk.ReadImage(str(folder / "labels" / "b.nii.gz")), str(folder / "labels" / "b.nii.gz"))

    notes = [note for case in examine(opened(folder)).cases for note in case.notes]

    assert len(notes) == 1
    assert notes[0].startswith("Case b: b.nii.gz: its qform and sform differ by 20.0 mm")


@pytest.mark.parametrize("values", [(), (2,)])
def test_an_empty_label(folder, values):
    write_mask(folder / "labels" / "b.nii.gz", mask(*values), GRID)

    line = only_line(folder)

    assert "b.nii.gz: the label is empty" in line
    assert "Annotate it, take the case out, or keep every such scan with --allow-empty" in line


def test_an_image_without_a_label(folder):
    (folder / "labels" / "b.nii.gz").unlink()

    line = only_line(folder)

    assert line.startswith(f"Case b: {folder / 'images' / 'b.nii.gz'}: an image without a label")


def test_a_label_without_an_image(folder):
    (folder / "images" / "b.nii.gz").unlink()

    line = only_line(folder)

    assert line.startswith(f"Case b: {folder / 'labels' / 'b.nii.gz'}: a label without an image")


def test_an_image_twice_under_one_name(folder):
    write_volume(folder / "images" / "b.nrrd", scan(1), GRID)

    line = only_line(folder)

    assert line.startswith("Case b: this name occurs 2 times: b.nii.gz, ")
    assert "b.nrrd" in line
    assert "Keep one image and one label" in line


def test_a_label_twice_under_one_name(folder):
    write_mask(folder / "labels" / "b.nrrd", mask(1), GRID)

    assert only_line(folder).startswith("Case b: this name occurs 2 times: b.nii.gz")


def test_one_image_under_two_names_whatever_the_format(folder):
    (folder / "images" / "b.nii.gz").unlink()
    write_volume(folder / "images" / "b.mha", scan(0).astype(np.float32), GRID)

    line = only_line(folder)

    assert line.startswith(f"Case b: {folder / 'images' / 'b.mha'}: the same image as case a (a.nii.gz)")
    assert "Keep one of the two" in line


def test_a_listed_file_that_is_not_there(folder):
    entry = {"images": ["images/a.nii.gz"], "label": "labels/gone.nii.gz"}
    (folder / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "CT"}, "labels": {"node": 1, "ignore": 2}, "dataset": {"a": entry}})
    )

    assert f"{folder / 'labels/gone.nii.gz'}: no such file" in only_line(folder)


@pytest.fixture
def two_channels(tmp_path: Path) -> Path:
    for k, name in enumerate(("a", "b")):
        for channel in range(2):
            write_volume(tmp_path / "images" / f"{name}_{channel:04d}.nii.gz", scan(10 * k + channel), GRID)
        write_mask(tmp_path / "labels" / f"{name}.nii.gz", mask(1), GRID)
    (tmp_path / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "CT", "1": "PET"}, "labels": {"background": 0, "node": 1}})
    )
    return tmp_path


def test_two_channels_are_fine(two_channels):
    assert check(opened(two_channels)) == []


@pytest.mark.parametrize(("channel", "named"), [(0, "_0000 (CT)"), (1, "_0001 (PET)")])
def test_a_missing_channel(two_channels, channel, named):
    (two_channels / "images" / f"b_{channel:04d}.nii.gz").unlink()

    line = only_line(two_channels)

    assert line.startswith("Case b:")
    assert f"channel {named} is missing" in line


def test_a_surplus_channel(two_channels):
    write_volume(two_channels / "images" / "b_0002.nii.gz", scan(99), GRID)

    assert "channel _0002 is not one of the dataset's 2" in only_line(two_channels)


def test_channels_with_different_geometry(two_channels):
    path = two_channels / "images" / "b_0001.nii.gz"
    write_volume(path, scan(11), dataclasses.replace(GRID, spacing_mm=(2.0, 1.0, 1.5)))

    line = only_line(two_channels)

    assert f"Case b: {path}: its geometry is not that of b_0000.nii.gz: spacing (2, 1, 1.5) against (2, 1, 1)" in line


def test_everything_is_told_at_once(folder):
    (folder / "images" / "a.nii.gz").write_text("no image")
    write_mask(folder / "labels" / "a.nii.gz", mask(), GRID)
    write_mask(folder / "labels" / "b.nii.gz", mask(3), dataclasses.replace(GRID, origin_mm=(0, 0, 0)))
    (folder / "labels" / "c.nii.gz").unlink()

    with pytest.raises(DataError) as error:
        require_usable(opened(folder))

    lines = str(error.value).splitlines()
    assert [line[:7] for line in lines] == ["Case a:", "Case a:", "Case b:", "Case b:", "Case c:"]


def test_what_was_found_is_told_too(folder):
    found = examine(opened(folder))

    assert [case.values for case in found.cases] == [(0, 1, 2)] * 3
    assert {case.grid.spacing_mm for case in found.cases if case.grid} == {(2.0, 1.0, 1.0)}


@pytest.mark.realdata
def test_real_scans_open_and_are_fine(tmp_path):
    root = Path(os.environ.get("LNSEGFM_DATA", Path(__file__).parents[2].parent / "shared" / "data")) / "openkbp"
    if not root.is_dir():
        pytest.skip(f"no real CTs at {root}")
    for inner, source in (("images", "images"), ("labels", "labels_oar")):
        (tmp_path / inner).mkdir()
        for path in sorted((root / source).glob("*.nii.gz"))[:5]:
            (tmp_path / inner / path.name).symlink_to(path)
    names = ["Brainstem", "SpinalCord", "RightParotid", "LeftParotid", "Mandible", "Larynx", "Esophagus"]

    dataset = open_dataset(tmp_path, LabelMap({name: value for value, name in enumerate(names, start=1)}))

    assert len(dataset.labelled) == 5
    assert check(dataset) == []

"""What passes the check of the data trains and gives evidence; what does not is refused in the same lines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lnsegfm.datasets.check import check, examine
from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.errors import DataError, LnSegFmError
from lnsegfm.grouped_lines import grouped_lines
from lnsegfm.imaging.files import read_mask, read_volume, write_mask, write_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.workflows.base_check import check_with_base
from lnsegfm.workflows.finetune import finetune
from lnsegfm.workflows.finetune_plan import plan
from tests.scenes import write_scenes
from tests.world import World

pytestmark = pytest.mark.usefixtures("one_thread")
Change = Callable[[np.ndarray, np.ndarray, Grid], tuple[np.ndarray, np.ndarray, Grid]]


def cut(depth: int, side: int) -> Change:
    def change(image: np.ndarray, mask: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray, Grid]:
        z, y, x = (int(np.median(axis)) for axis in np.nonzero(mask))
        lower = [max(0, c - n // 2) for c, n in zip((z, y, x), (depth, side, side), strict=True)]
        part = tuple(slice(low, low + n) for low, n in zip(lower, (depth, side, side), strict=True))
        image, mask = (np.ascontiguousarray(array[part]) for array in (image, mask))
        return image, mask, dataclasses.replace(grid, shape=mask.shape)

    return change


def spaced(*factors: float) -> Change:
    def change(image: np.ndarray, mask: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray, Grid]:
        spacing = tuple(mm * factor for mm, factor in zip(grid.spacing_mm, factors, strict=True))
        return image, mask, dataclasses.replace(grid, spacing_mm=spacing)

    return change


SETS: dict[str, Change] = {
    "as it is": lambda image, mask, grid: (image, mask, grid),
    "two slices": cut(2, 16),
    "a few voxels": cut(3, 3),
    "one slice": cut(1, 16),
    "one column": cut(8, 1),
    "thick slices": spaced(20, 1, 1),
    "voxels of a tenth of a millimetre": spaced(0.05, 0.05, 0.05),
    "a constant image": lambda image, mask, grid: (np.full_like(image, 40), mask, grid),
    "zeros throughout": lambda image, mask, grid: (np.zeros_like(image), mask, grid),
    "a node throughout": lambda image, mask, grid: (image, np.ones_like(mask), grid),
    "one voxel of a node": lambda image, mask, grid: (image, np.eye(1, mask.size, mask.size // 2, dtype=mask.dtype)
                                                      .reshape(mask.shape), grid),
    "no node": lambda image, mask, grid: (image, mask * 0, grid),
    "huge numbers": lambda image, mask, grid: (image * np.float32(1e30), mask, grid),
    "not finite": lambda image, mask, grid: (np.where(mask > 0, np.nan, image), mask, grid),
}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(
    "whole", [pytest.param(True, id="every scan", marks=pytest.mark.long), pytest.param(False, id="the last scan")]
)
def test_what_passes_the_check_completes_and_what_does_not_is_refused_alike(name, whole, world: World, tmp_path: Path):
    folder = write_scenes(tmp_path / "data", 2, seed=300)
    images, labels = (sorted((folder / part).glob("*.nii.gz")) for part in ("imagesTr", "labelsTr"))
    for image_file, label_file in list(zip(images, labels, strict=True))[0 if whole else 1 :]:
        (image, grid), (mask, _) = read_volume(image_file), read_volume(label_file)
        image, mask, grid = SETS[name](image.astype(np.float32), mask.astype(np.uint8), grid)
        write_volume(image_file, image.astype(np.float32), grid)
        write_mask(label_file, mask.astype(np.uint8), grid)
    problems = list(map(str, check(open_dataset(folder))))
    for draw in (0, 1) if not whole else (0,):
        recipe = world.recipe("head", shots=1, iterations=1, draw=draw)
        if problems:
            with pytest.raises(DataError) as refused:
                plan(folder, world.base, recipe)
            assert str(refused.value).splitlines() == grouped_lines(problems)  # as data check prints them
            continue
        run = finetune(plan(folder, world.base, recipe), tmp_path / f"run{draw}", device="cpu", workers=0)
        assert run.evidence is not None


def listing(folder: Path, **changes: object) -> None:
    described = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(described | changes))


def vessel_in(*cases: int) -> Callable[[Path], None]:
    """A second label, in some cases only."""

    def change(folder: Path) -> None:
        listing(folder, labels={"background": 0, "node": 1, "vessel": 2})
        for case in cases:
            mask, grid = read_mask(file := folder / "labelsTr" / f"case_{case}.nii.gz")
            mask[2:5, 2:6, 2:6] = 2
            write_mask(file, mask, grid)

    return change


def channels(*cases: int, names: tuple[str, ...] = ("CT", "PET")) -> Callable[[Path], None]:
    """A second channel, of some cases only."""

    def change(folder: Path) -> None:
        listing(folder, channel_names={str(k): name for k, name in enumerate(names)})
        for case in cases:
            image, grid = read_volume(folder / "imagesTr" / f"case_{case}_0000.nii.gz")
            write_volume(folder / "imagesTr" / f"case_{case}_0001.nii.gz", image.astype(np.float32) * 0.1, grid)

    return change


def float_labels(factor: float, offset: float = 0) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for file in (folder / "labelsTr").iterdir():
            mask, grid = read_mask(file)
            write_volume(file, (mask * factor + offset).astype(np.float32), grid)

    return change


def patients(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        rows = [f"case_{case},{name}" for case, name in enumerate(names)]
        (folder / "subjects.csv").write_text("\n".join(["case,subject", *rows]) + "\n")

    return change


def unlabelled(*rows: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        vessel_in(0)(folder)
        (folder / "unlabelled.csv").write_text("\n".join(["case,label", *rows]) + "\n")

    return change


def alone(folder: Path) -> None:
    for case in (1, 2):
        (folder / "imagesTr" / f"case_{case}_0000.nii.gz").unlink()
        (folder / "labelsTr" / f"case_{case}.nii.gz").unlink()


@dataclasses.dataclass(frozen=True)
class Several:
    """A data set of three cases, changed, and what becomes of it: so many lines of refusal, or held-out cases."""

    change: Callable[[Path], None]
    refused: int = 0
    held_out: int = 2
    settings: dict[str, object] = dataclasses.field(default_factory=dict)


FIRST_SHOT = {"shots": ("case_0",)}
SEVERAL = {
    "a label that only a held-out case has": Several(vessel_in(2), settings=FIRST_SHOT),
    "a label that only the shot has": Several(vessel_in(0), settings=FIRST_SHOT),
    "a label that no case has": Several(vessel_in(), settings=FIRST_SHOT),
    "a label that is not annotated in the shot": Several(unlabelled("case_1,vessel"), settings={"shots": ("case_1",)}),
    "a label said to be unlabelled that is there": Several(unlabelled("case_0,vessel"), refused=1),
    "two channels for a base of one": Several(channels(0, 1, 2), settings=FIRST_SHOT),
    "a channel that one case lacks": Several(channels(0, 1), refused=1),
    "a channel that nobody named": Several(channels(0, names=("CT",)), refused=1),
    "all scans are shots": Several(vessel_in(0, 1), held_out=0, settings={"shots": 3}),
    "no number of shots": Several(vessel_in(0, 1), held_out=0, settings={"shots": None}),
    "one scan in all": Several(alone, held_out=0),
    "labels as floats": Several(float_labels(1.0)),
    "labels as floats, a hair from whole numbers": Several(float_labels(1.0, 2e-4)),
    "labels as probabilities": Several(float_labels(0.5), refused=3),
    "one patient throughout": Several(patients("a", "a", "a"), held_out=0, settings=FIRST_SHOT),
    "two scans of one patient": Several(patients("a", "b", "a"), held_out=1, settings=FIRST_SHOT),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_several_labels_channels_and_scans_of_a_patient(name, world: World, tmp_path: Path):
    several = SEVERAL[name]
    folder = write_scenes(tmp_path / "data", 3, seed=300)
    several.change(folder)
    before = files(tmp_path)
    checked = examine(open_dataset(folder))
    found = [each for each in check_with_base(folder, world.base, checked) if each.severity == "error"]
    problems = [*map(str, checked.problems), *map(str, found)]
    assert len(problems) == several.refused
    assert all("\n" not in line for line in problems)
    recipe = world.recipe("head", **{"shots": 1, "iterations": 1} | several.settings)
    if several.refused:
        with pytest.raises(LnSegFmError) as refused:
            finetune(plan(folder, world.base, recipe), tmp_path / "run", device="cpu", workers=0)
        assert str(refused.value).splitlines() == grouped_lines(problems)  # as data check prints them
        assert files(tmp_path) == before
        return
    planned = plan(folder, world.base, recipe)
    assert len(planned.split.held_out) == several.held_out
    patient = planned.data.subjects
    assert not {patient.get(case, case) for case in planned.split.shots} & {
        patient.get(case, case) for case in planned.split.held_out
    }
    run = finetune(planned, tmp_path / "run", device="cpu", workers=0)
    assert (run.evidence.comparison is not None) == bool(several.held_out)
    assert (run.folder / "run.json").is_file()


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("name", [name for name, several in SEVERAL.items() if several.refused])
def test_a_refused_command_leaves_nothing_written(name, world: World, tmp_path: Path, lnsegfm_here):
    folder = write_scenes(tmp_path / "data", 3, seed=300)
    SEVERAL[name].change(folder)
    before = files(tmp_path)
    done = lnsegfm_here("finetune", folder, "--model", world.base, "--out", tmp_path / "run", "--shots", "1")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert files(tmp_path) == before

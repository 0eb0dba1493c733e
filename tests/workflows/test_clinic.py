"""From DICOM to an adapted model and back to DICOM: the commands of ``docs/clinic.md``, as they stand there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

from lnsegfm.evaluation.components import components
from lnsegfm.imaging.dicom.rtstruct_write import write_rtstruct
from lnsegfm.imaging.dicom.series import series_of
from lnsegfm.imaging.files import read_mask
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.scanner import write_series
from tests.scenes import SHAPE, scene
from tests.world import World

PAGE = Path(__file__).parents[2] / "docs" / "clinic.md"
# the base calls it node; the head of a label that it does not know predicts nothing after three steps
QUICK = {
    "finetune": (
        "--iterations",
        "3",
        "--no-mirroring",
        "--device",
        "cpu",
        "--workers",
        "0",
        "--map",
        "node=lymph_node",
    ),
    "predict": ("--no-mirroring", "--step", "1", "--device", "cpu"),
}


def commands() -> list[list[str]]:
    lines = re.findall(r"^    lnsegfm (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(lines) == 7
    return [shlex.split(line) for line in lines]


def walk(run, monkeypatch: pytest.MonkeyPatch, folder: Path, shots: int | None) -> None:
    """Run every command of the page in a folder that holds ``export``, ``new`` and ``base``."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LNSEGFM_HOME", str(folder / "home"))
    for words in commands():
        if "--shots" in words:
            at = words.index("--shots")
            words[at : at + 2] = [] if shots is None else ["--shots", str(shots)]
        done = run(*words, *QUICK.get(words[0], ()))
        assert done.returncode == 0, (words, done.stderr)
        assert "Traceback" not in done.stderr


def draw_patient(folder: Path, seed: int) -> None:
    """A patient's export: a series on an oblique grid of its own, and each node as a structure."""
    image, mask = scene(seed, contrast=50.0)
    angle = np.radians(3.0 * (seed % 5))
    turned = (1, 0, 0, 0, np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle))
    grid = Grid(SHAPE, (2.0, 1.0, 1.5), (-12.5, 4.0, 100.0), tuple(map(float, turned)))
    order = np.random.default_rng(seed).permutation(SHAPE[0]).tolist()
    write_series(folder / "a", image, grid, order=order, PatientID=f"P{seed}", PatientName="Doe^Jo")
    pieces = components(mask == 1)
    nodes = np.zeros(mask.shape, np.int32)
    nodes.flat[pieces.voxels] = pieces.ids
    names = {number: f"ln_{number}" for number in range(1, len(pieces) + 1)}
    write_rtstruct(folder / "b", mask, {"node": 1}, series_of(folder / "a"), instances=nodes, names=names)
    data = pydicom.dcmread(folder / "b")
    data.Manufacturer, data.ManufacturerModelName = "Planner", "Planner"
    for roi in data.StructureSetROISequence:
        roi.ROIGenerationAlgorithm = "MANUAL"
    data.save_as(folder / "b")


def test_every_command_of_the_page_on_made_up_series(lnsegfm_here, world: World, monkeypatch, tmp_path):
    for seed in (100, 101, 102):
        draw_patient(tmp_path / "export" / str(seed), seed)
    draw_patient(tmp_path / "new", 103)
    shutil.copytree(world.base, tmp_path / "base")

    walk(lnsegfm_here, monkeypatch, tmp_path, shots=2)

    masks = sorted(path.name for path in (tmp_path / "masks").glob("*.nii.gz"))
    assert masks == sorted(path.name for path in (tmp_path / "contoured" / "labelsTr").glob("*"))
    reference, grid = read_mask(tmp_path / "contoured" / "labelsTr" / masks[0])
    assert np.array_equal(reference, scene(103)[1])
    assert grid.difference(series_of(tmp_path / "new" / "a").grid) is None
    assert len(json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())["cases"]) == 1
    for kind in ("rtstruct", "seg"):
        assert len(list((tmp_path / "masks").glob(f"*.{kind}.dcm"))) == 1


@pytest.mark.long
@pytest.mark.realdata
def test_every_command_of_the_page_on_a_real_patient(lnsegfm_here, world: World, real_data, monkeypatch, tmp_path):
    for name in ("export", "new"):
        (tmp_path / name).symlink_to(real_data / "lung4d_113")
    shutil.copytree(world.base, tmp_path / "base")
    file = next((tmp_path / "base").rglob("plans.json"))
    plans = json.loads(file.read_text())
    for configuration in plans["configurations"].values():
        configuration["spacing"] = [6.0, 4.0, 4.0]  # few tiles: the way is tested, not the network
    file.write_text(json.dumps(plans))

    walk(lnsegfm_here, monkeypatch, tmp_path, shots=None)

    case = next((tmp_path / "clinic" / "labelsTr").iterdir()).name
    reference, grid = read_mask(tmp_path / "clinic" / "labelsTr" / case)
    assert int(reference.sum()) == 2239
    assert len(components(reference == 1)) == 3
    mask, _ = read_mask(tmp_path / "masks" / case)
    assert mask.shape == grid.shape
    source = pydicom.dcmread(next((real_data / "lung4d_113" / "ct").iterdir()), stop_before_pixels=True)
    for kind in ("rtstruct", "seg"):
        name = case.replace(".nii.gz", f".{kind}.dcm")
        export = pydicom.dcmread(tmp_path / "masks" / name, stop_before_pixels=True)
        assert (export.PatientID, export.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)
    assert json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())["cases"]

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer

import lnsegfm.cli.main as program
from lnsegfm.cli.data_check_command import check
from lnsegfm.imaging.files import write_mask, write_volume
from lnsegfm.imaging.grid import Grid


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k, name in enumerate(("a", "b")):
        grid = Grid((4, 5, 6), (2.0 + k, 1.0, 1.0))
        voxels = np.random.default_rng(k).integers(-1000, 1000, grid.shape).astype(np.int16)
        write_volume(tmp_path / "images" / f"{name}.nii.gz", voxels, grid)
        mask = np.zeros(grid.shape, np.uint8)
        mask[1:3, 1:4, 1:4] = 1
        write_mask(tmp_path / "labels" / f"{name}.nii.gz", mask, grid)
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys):
    def run(*args: str) -> tuple[int, str, str]:
        app = typer.Typer(pretty_exceptions_enable=False)
        app.command()(check)
        monkeypatch.setattr(program, "app", lambda: app(list(args)))
        code = 0
        try:
            program.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return (code, *capsys.readouterr())

    return run


def test_no_findings(run, folder):
    code, out, err = run(str(folder), "--label", "node=1")

    assert (code, err) == (0, "")
    assert "2 x 1 x 1 to 3 x 1 x 1" in out
    assert "label node=1" in out
    assert "in 2 of 2 cases" in out
    assert out.splitlines()[-1] == "2 cases, no errors and no warnings."


def test_every_problem_is_a_line_and_the_exit_code_is_2(run, folder):
    (folder / "images" / "a.nii.gz").write_text("no image")
    (folder / "labels" / "b.nii.gz").unlink()

    code, out, err = run(str(folder), "--label", "node=1")

    assert (code, out) == (2, "")
    assert [line[:16] for line in err.splitlines()] == ["lnsegfm: Case a:", "lnsegfm: Case b:"]


def test_a_folder_that_is_no_dataset(run, tmp_path):
    code, _, err = run(str(tmp_path))

    assert code == 2
    assert len(err.splitlines()) == 1


def test_json(run, folder):
    (folder / "images" / "a.nii.gz").write_text("no image")

    code, out, _ = run(str(folder), "--label", "node=1", "--json")

    found = json.loads(out)
    assert code == 2
    assert found["cases"] == 2
    assert found["spacing_mm"]["largest"] == [3.0, 1.0, 1.0]
    assert [p["case"] for p in found["problems"]] == ["a"]

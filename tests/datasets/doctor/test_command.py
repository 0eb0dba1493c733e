from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from lnsegfm.imaging.files import read_volume, write_volume
from tests.imaging.dicom.scanner import write_series

from .scenes import GRID, image, label, make, mask, patient

NAMES = ("--label", "node=1", "--label", "gland_left=2", "--label", "gland_right=3")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "data")


def test_warnings_are_a_table_and_the_exit_code_is_0(lnsegfm_here, folder):
    image(folder, "b", patient(1) + 1024)

    result = lnsegfm_here("data", "check", folder, *NAMES)

    assert (result.returncode, result.stderr) == (0, "")
    assert "hu-offset" in result.stdout
    assert "offset-1024)" in result.stdout
    assert result.stdout.splitlines()[-1] == "3 cases, no errors, 1 warning, 0 notes."


def test_of_many_of_a_kind_a_few_are_shown(lnsegfm_here, tmp_path):
    folder = make(tmp_path / "data", 8)
    for k, case in enumerate("abcdefgh"):
        image(folder, case, patient(k) + 1024)

    result = lnsegfm_here("data", "check", folder, *NAMES)

    assert result.stdout.count("these are stored values") == 4
    assert "4 more of this kind" in result.stdout
    assert "8 warnings" in result.stdout


def test_json_has_every_finding(lnsegfm_here, folder):
    image(folder, "b", patient(1) + 1024)
    (folder / "labels" / "c.nii.gz").unlink()

    result = lnsegfm_here("data", "check", folder, *NAMES, "--json")

    found = json.loads(result.stdout)
    assert result.returncode == 2
    assert [(f["kind"], f["severity"], f["case"]) for f in found["findings"]] == [
        ("no-label", "error", "c"),
        ("hu-offset", "warning", "b"),
    ]
    assert [p["case"] for p in found["problems"]] == ["c"]


def test_a_fixed_copy_and_a_page(lnsegfm_here, folder, tmp_path):
    image(folder, "b", patient(1) + 1024)
    out, page = tmp_path / "new", tmp_path / "page.html"

    result = lnsegfm_here("data", "check", folder, *NAMES, "--fix", "offset-1024", "--out", out, "--html", page)

    assert result.returncode == 0
    assert (read_volume(out / "images" / "b.nii.gz")[0] == patient(1)).all()
    assert "1 fix" in result.stdout
    assert "hu-offset" in page.read_text()
    assert lnsegfm_here("data", "check", out, *NAMES).stdout.splitlines()[-1] == "3 cases, no errors and no warnings."


@pytest.mark.parametrize("options", [("--fix", "clip-hu"), ("--out", "new"), ("--fix", "heal", "--out", "new")])
def test_fixes_that_cannot_be(lnsegfm_here, folder, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    result = lnsegfm_here("data", "check", folder, *NAMES, *options)

    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_a_zip_of_dicom(lnsegfm_here, tmp_path):
    files = write_series(tmp_path / "ct", patient(0), GRID, SeriesInstanceUID="1.2.3")
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
        for path in files:
            archive.write(path, path.name)

    result = lnsegfm_here("data", "check", tmp_path / "scan.zip")

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == "1 series, no errors and no warnings."

    refused = lnsegfm_here("data", "check", tmp_path / "scan.zip", "--fix", "clip-hu", "--out", tmp_path / "new")
    assert refused.returncode == 2
    assert "DICOM is not fixed" in refused.stderr


def test_a_broken_series_is_an_error(lnsegfm_here, tmp_path):
    sorted(write_series(tmp_path / "ct", patient(0), GRID))[7].unlink()

    result = lnsegfm_here("data", "check", tmp_path)

    assert result.returncode == 2
    assert result.stderr.startswith("lnsegfm: ")


def test_names_cannot_move_the_cursor(lnsegfm_here, folder):
    write_volume(folder / "images" / "x\x1b[2Jy.nii.gz", patient(5), GRID)
    label(folder, "x\x1b[2Jy", mask())

    result = lnsegfm_here("data", "check", folder, *NAMES)

    assert result.returncode == 2
    assert "\x1b" not in result.stdout + result.stderr


def test_80_columns_are_enough(lnsegfm, tmp_path):
    uid = "1.3.6.1.4.1.14519.5.2.1.6834.5010.339023390306606021995936229543"
    write_series(tmp_path / "ct", patient(0), GRID, SeriesInstanceUID=uid, RescaleIntercept=0)

    result = lnsegfm("data", "check", tmp_path, COLUMNS="80")

    assert result.returncode == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    cells = [line.split("│")[3].strip() for line in result.stdout.splitlines() if line.count("│") == 5]
    assert uid in "".join(cells)  # folded, and not cut

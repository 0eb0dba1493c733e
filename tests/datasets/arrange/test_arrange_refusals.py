"""Every refusal: the table of ``docs/arrange.md`` is the table of these tests."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lnsegfm.imaging.files import write_mask
from lnsegfm.imaging.grid import Grid
from tests.datasets.arrange.layouts import GRID, PATIENTS, files

PAGE = Path(__file__).parents[3] / "docs" / "arrange.md"
ROW = re.compile(r"^\| `(?P<kind>[\w-]+)` \| (?P<what>[^|]+) \| `(?P<line>[^`]+)` \| (?P<do>[^|]+) \|$", re.MULTILINE)
LINES = {match["kind"]: match["line"] for match in ROW.finditer(PAGE.read_text(encoding="utf-8"))}
NAMED = ("--label", "node=1", "--label", "vessel=2")


def together(*layouts: tuple[str, ...], structures: bool = False) -> Callable[[Path], None]:
    return lambda root: [files(*layout, structures=structures)(root) for layout in layouts] and None


def both_ways(root: Path) -> None:
    files("{p}/ct", "{p}/mask")(root)
    for patient in PATIENTS[1:]:
        (root / patient / "mask.nii.gz").rename(root / patient / "Cord.nii.gz")
        (root / patient / "seg").mkdir()
        (root / patient / "Cord.nii.gz").rename(root / patient / "seg" / "Cord.nii.gz")
        write_mask(root / patient / "seg" / "Heart.nii.gz", np.ones(GRID.shape, np.uint8), GRID)


def spoilt(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        files("{p}/ct", "{p}/mask")(root)
        change(root / "P1")

    return build


def full_mask(folder: Path, value: int, grid: Grid) -> None:
    write_mask(folder / "mask.nii.gz", np.full(grid.shape, value, np.uint8), grid)


def lacking(root: Path) -> None:
    together(("images/{p}_0000", "labels/{p}"), ("images/{p}_0001", "labels/{p}"))(root)
    (root / "images" / "P1_0001.nii.gz").unlink()


def bad_names(root: Path) -> None:
    files("{p}/ct", "{p}/mask")(root)
    (root / "names.txt").write_text("nothing\n")


def full(root: Path) -> None:
    files("{p}/ct", "{p}/mask")(root)
    (root.parent / "out").mkdir()
    (root.parent / "out" / "thesis.doc").touch()


PATIENT = files("{p}/ct", "{p}/mask")
REFUSED: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "nothing": (lambda root: root.mkdir(), ()),
    "names-say-nothing": (files("{p}/1", "{p}/2"), ()),
    "no-masks": (files("{p}/ct"), ()),
    "two-masks": (together(("images/{p}", "labels_oar/{p}"), ("images/{p}", "labels_ptv/{p}")), NAMED),
    "two-images": (together(("{p}/ct_pre", "{p}/mask"), ("{p}/ct_post", "{p}/mask")), NAMED),
    "map-and-structures": (both_ways, ()),
    "unnamed-values": (PATIENT, ()),
    "unknown-structure": (files("{p}/ct", "{p}/s/Cord", "{p}/s/Parotid_L", structures=True), ("--label", "Heart=1")),
    "unnamed-channels": (together(("images/{p}_0000", "labels/{p}"), ("images/{p}_0001", "labels/{p}")), NAMED),
    "pattern-fits-nothing": (PATIENT, ("--labels", "*/seg.nii.gz")),
    "pattern-outside": (PATIENT, ("--images", "../ct.nii.gz")),
    "no-out": (PATIENT, NAMED),
    "out-within": (PATIENT, NAMED),
    "out-holds-other": (full, NAMED),
    "unnamed-label-file": (bad_names, ("--label-file", "SOURCE/names.txt")),
    "case-cut-short": (spoilt(lambda p: (p / "ct.nii.gz").write_bytes(b"")), NAMED),
    "case-other-grid": (spoilt(lambda p: full_mask(p, 1, replace(GRID, origin_mm=(-4.4, 2.0, 7.0)))), NAMED),
    "case-other-value": (spoilt(lambda p: full_mask(p, 9, GRID)), NAMED),
    "case-lacks-channel": (lacking, (*NAMED, "--channels", "CT,PET")),
}  # fmt: skip


def test_every_refusal_of_the_page_is_tested_and_every_tested_one_is_on_the_page():
    assert set(LINES) == set(REFUSED)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refusal_is_one_line_with_what_to_do(kind, tmp_path, lnsegfm_here):
    build, options = REFUSED[kind]
    source, out = tmp_path / "in", tmp_path / "out"
    build(source)
    out = source / "out" if kind == "out-within" else out
    told = lnsegfm_here(
        "data", "arrange", source, *(word.replace("SOURCE", str(source)) for word in options),
        *(() if kind == "no-out" else ("--out", out)),
    )  # fmt: skip
    lines = [line for line in told.stderr.splitlines() if line.startswith("lnsegfm:") and "note:" not in line]
    assert len(lines) == 1, told.stderr
    assert re.search(".*".join(re.escape(part) for part in LINES[kind].split("...")), lines[0]), lines[0]
    assert "Traceback" not in told.stderr
    assert lines[0].endswith(".")
    assert told.returncode == (1 if kind.startswith("case-") else 2)
    if not kind.startswith(("case-", "out-")):
        assert not out.exists()


def test_a_conversion_of_such_a_folder_names_the_command(tmp_path, lnsegfm_here):
    PATIENT(tmp_path / "in")
    told = lnsegfm_here("data", "convert", "dicom", tmp_path / "in", "--roi", "LN*=ln", "--out", tmp_path / "out")
    assert told.returncode == 2
    assert f"or: lnsegfm data arrange {tmp_path / 'in'} --out {tmp_path / 'in_arranged'}." in told.stderr

"""The doctor's page: self-contained, harmless, and holding what was found."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.datasets.doctor import CaseArrays, DiagnosedCase, Diagnosis, Finding, diagnose
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.imaging.files import write_mask, write_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.report.doctor_page import write_doctor_page
from lnsegfm.report.pictures import Scene, draw_place
from tests.listening import OnAdvance

from .parsed import Page

EVIL = '<script>alert("1")</script>'
GRID = Grid((8, 16, 16), (3.0, 3.0, 3.0))


def looked(case: str, mask: bool = True) -> DiagnosedCase:
    image = np.full(GRID.shape, -1000, np.int16)
    image[2:6, 3:12, 3:12] = 40
    return DiagnosedCase(case, GRID, lambda: CaseArrays(GRID, image, image == 40 if mask else None))


def broken(case: str) -> DiagnosedCase:
    def read() -> CaseArrays:
        raise DataError("gone")

    return DiagnosedCase(case, None, read)


@pytest.fixture
def page(tmp_path: Path) -> Page:
    findings = (
        Finding("file", "error", "c", Path("images/c.nii.gz"), "it is cut short", "Copy it again"),
        Finding(
            "hu-offset", "warning", EVIL, Path(EVIL.replace("/", "")), f"air at -1 {EVIL}", EVIL, fix="offset-1024"
        ),
        Finding("label-missing", "note", "", None, "label x occurs in 1 of 3", "Nothing"),
    )
    diagnosis = Diagnosis(Path("clinic"), findings, (looked("a"), looked(EVIL), broken("c")), {"cases": 3, "odd": EVIL})
    write_doctor_page(tmp_path / "page.html", diagnosis)
    return Page(tmp_path / "page.html")


def test_it_needs_nothing_else_and_runs_its_own_script_only(page):
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    script = re.search(r"<script>(.*)</script>", page.source, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()

    assert page.source.lstrip().startswith("<!doctype html>")
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert page.source.count("<script") == 1
    assert not re.search(r"""(?:src|href)="(?!data:|#)""", page.source)
    assert "Not for clinical use" in page.text


def test_names_and_words_are_escaped(page):
    assert EVIL not in page.source
    assert page.text.count(EVIL) >= 5


def test_findings_can_be_sorted_by_severity_and_lead_to_their_case(page):
    cells = [cell["data-v"] for cell in page.all("td") if "data-v" in cell]

    assert cells[:1] == ["0"]
    assert cells[5:6] == ["1"]
    assert cells[10:11] == ["2"]
    anchors = {d["id"] for d in page.all("div") if d.get("id", "").startswith("case-")}
    assert {a["href"] for a in page.all("a")} == {"#case-1", "#case-2"}
    assert anchors == {"#case-1"[1:], "case-2", "case-3"}


def test_every_case_has_its_picture_or_says_why_not(page):
    views = [svg for svg in page.all("svg") if svg.get("class", "").startswith("view")]

    assert len(views) == 2 * 3
    assert page.source.count("<image ") == 6
    assert page.text.count("No picture: it cannot be read.") == 1
    assert len([p for p in page.all("path") if p.get("class") == "c reference"]) == 6 + 1  # and the legend


def test_the_verdict_is_the_worst_finding(page, tmp_path):
    assert "Not fit to train on" in page.text
    assert "1 error, 1 warning, 1 note in 3 cases" in page.text
    assert "--fix offset-1024" in page.text

    write_doctor_page(tmp_path / "clean.html", Diagnosis(Path("clinic"), (), (looked("a", mask=False),), {}))
    assert "No errors or warnings" in Page(tmp_path / "clean.html").text


def test_of_a_dataset_on_disk(tmp_path):
    for k in range(2):
        voxels = np.random.default_rng(k).integers(-1000, 1000, GRID.shape).astype(np.int16)
        write_volume(tmp_path / "data" / "images" / f"{k}.nii.gz", voxels, GRID)
        mask = np.zeros(GRID.shape, np.uint8)
        mask[1:4, 2:9, 2:9] = 1
        mask[6, 14, 14] = 2
        write_mask(tmp_path / "data" / "labels" / f"{k}.nii.gz", mask, GRID)
    dataset, told = open_dataset(tmp_path / "data", LabelMap({"node": 1}, ignore=2)), []

    write_doctor_page(tmp_path / "page.html", diagnose(dataset), progress=OnAdvance(lambda *state: told.append(state)))

    assert told == [(1, 2, "0"), (2, 2, "1")]
    assert (tmp_path / "page.html").stat().st_size < 200_000


def test_a_page_of_dicom_names_no_file_and_no_folder(tmp_path):
    root = tmp_path / "DOE^JANE"
    rs, seg, cut = root / "RS.4711.DOE.dcm", root / "SEG.4711.DOE.dcm", "CT.4711.DOE.dcm"
    findings = (
        Finding("series", "error", cut, None, f"File {cut} is cut short or damaged (EOFError)", "Copy it again"),
        Finding("series", "error", "1.2.3", None, f"File {cut} of series 1.2.3 cannot be decoded (x)", "Export it"),
        Finding("structure", "error", "1.2.3", rs, f"{rs}: two structures have number 2", "Export it again"),
        Finding("segmentation", "error", "", seg, f"Segmentation {seg.name}: unknown type", "Export it again"),
        Finding("no-series", "error", "", root / "RS.0815.ROE.dcm", "no series", "Add it"),
    )
    facts = {"cases": 1, "structures": {str(rs): ["LN"]}, "segmentations": {str(seg): ["Liver"]}, "others": {}}
    diagnosis = Diagnosis(root, findings, (looked("1.2.3"),), facts, dicom=True)

    write_doctor_page(tmp_path / "page.html", diagnosis)

    page = Page(tmp_path / "page.html")
    for word in ("DOE", "ROE", "JANE", "4711", "0815", str(tmp_path)):
        assert word not in page.source
    assert "A file is cut short or damaged (EOFError)" in page.text
    assert "A file of series 1.2.3 cannot be decoded (x)" in page.text
    assert "structure set 1: LN" in page.text
    assert "segmentation 1: Segmentation the file: unknown type" in page.text
    assert "5 errors, 0 warnings, 0 notes in 1 series" in page.text
    assert "Data check: DICOM" in page.text
    assert "others" not in page.text
    assert diagnosis.findings[0].case == cut  # the terminal and --json still say which file


def test_a_page_of_a_dataset_names_its_files(page):
    assert "c.nii.gz: it is cut short" in page.text
    assert "Data check: clinic" in page.text


def test_a_picture_says_where_it_lies(page):
    assert page.text.count("Through voxel z 4 of 8, y 8 of 16, x 8 of 16") == 2


def test_spacings_are_one_line(tmp_path):
    spacing = {"order": "z, y, x", "smallest": [2.0, 1.0, 1.0], "largest": [3.0, 1.0, 1.0]}
    write_doctor_page(tmp_path / "a.html", Diagnosis(Path("x"), (), (), {"spacing_mm": spacing}))
    assert "2 x 1 x 1 to 3 x 1 x 1" in Page(tmp_path / "a.html").text
    write_doctor_page(
        tmp_path / "a.html", Diagnosis(Path("x"), (), (), {"spacing_mm": spacing | {"largest": spacing["smallest"]}})
    )
    assert "2 x 1 x 1 to" not in Page(tmp_path / "a.html").text
    write_doctor_page(
        tmp_path / "a.html", Diagnosis(Path("x"), (), (), {"spacing_mm": spacing | {"largest": [], "smallest": []}})
    )
    assert "spacing" not in Page(tmp_path / "a.html").text


def test_pictures_show_whole_slices_in_few_pixels(tmp_path):
    grid = Grid((40, 600, 300), (3.0, 0.5, 1.0))
    mask = np.zeros(grid.shape, bool)
    mask[20, 10:14, 10:14] = True
    drawn = draw_place(Scene(grid, np.zeros(grid.shape, np.int16), {"reference": mask}), (20, 12, 12), whole=True)

    boxes = [list(map(float, box.split())) for box in re.findall(r'viewBox="([^"]+)"', drawn)]
    assert boxes == [[0, 0, 300, 300], [0, 0, 300, 120], [0, 0, 300, 120]]
    for coded in re.findall(r"base64,([^\"]+)", drawn):
        assert max(Image.open(io.BytesIO(base64.b64decode(coded))).size) <= 256

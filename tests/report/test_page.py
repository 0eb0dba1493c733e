from __future__ import annotations

import base64
import io
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lnsegfm.errors import DataError
from lnsegfm.imaging.files import write_mask
from lnsegfm.imaging.grid import Grid
from lnsegfm.report.page import write_page

from .scores import compare, nodes, scan

EVIL = '<script>alert("1")</script>'
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(HTMLParser):
    """What a page holds: tags with their attributes, and the text outside of style."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text, self.inside = "", ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        self.inside = tag

    def handle_data(self, data):
        self.text += data if self.inside != "style" else ""

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]


def write(path: Path, **changes) -> Page:
    content = {
        "title": "A run",
        "facts": {"Method": "dgst"},
        "comparison": None,
        "cases": (),
        "losses": None,
        "provenance": {},
    }
    write_page(path, **{**content, **changes})
    return Page(path)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    cases = [scan(folder, "good", 1), scan(folder, EVIL, 5), scan(folder, "fair", 3)]
    return write(
        folder / "report.html",
        title="A run & its <base>",
        facts={"Method": EVIL},
        comparison=compare(cases),
        cases=cases,
        losses=[1.0, math.nan, 0.5, -0.25],
        provenance={"versions": {"torch": "2"}, "held out": [EVIL, "good"]},
    )


def test_verdict_banner_and_facts_come_before_the_cases(page):
    order = ["Research software. Not for clinical use.", "With only 3 held-out cases", "torch"]
    places = [page.text.index(words) for words in order]

    assert places == sorted(places)
    assert "@bottom-center" in page.source


def test_names_from_strangers_files_stay_text(page):
    assert page.all("script") == []
    assert page.text.count(EVIL) >= 4
    assert page.source.isascii() or 'charset="utf-8"' in page.source


def test_nothing_is_fetched_from_anywhere(page):
    addresses = [attrs[name] for _, attrs in page.tags for name in ("src", "href", "srcset", "data") if name in attrs]

    assert addresses
    assert [a for a in addresses if not a.startswith("data:")] == []
    assert not re.search(r"url\(|@import|https?://", page.source)
    assert "default-src 'none'" in page.all("meta")[2]["content"]


def test_worst_adapted_case_is_first_and_has_its_worst_slice_too(page):
    assert re.findall(r"<h3>(.*?)</h3>", page.source) == [
        "Training loss",
        "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;",
        "fair",
        "good",
    ]
    assert len(page.all("img")) == 3  # the slices are alike here, so the worst case needs no second one


def test_pictures_are_whole_described_and_small(page):
    for image in page.all("img"):
        png = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"), validate=True)
        Image.open(io.BytesIO(png)).verify()
        assert "axial slice" in image["alt"]
    assert len(page.source) < 300_000


def test_every_table_head_has_a_scope(page):
    assert page.all("th")
    assert [attrs for attrs in page.all("th") if attrs.get("scope") not in ("row", "col")] == []


def test_numbers_are_those_of_the_comparison(page):
    # 8 voxels wide, shifted by 5, 3 and 1: Dice 3/8, 5/8 and 7/8; the base found nothing
    for said in ("0.375", "0.625", "0.875", "+0.625", "0.00 (−100 %)"):
        assert said in page.text
    assert "-100 %" not in page.text
    assert [c["cx"] for c in page.all("circle")][1::2] == ["37.5%", "62.5%", "87.5%"]


def test_a_loss_that_is_no_number_is_said(page):
    assert "1 iterations had a loss that is not a finite number" in page.text
    assert len(page.all("polyline")) == 1


def test_no_held_out_case_is_said_plainly(tmp_path):
    page = write(tmp_path / "report.html")

    assert "No evidence" in page.text
    assert "every labelled scan was used for training" in page.text
    assert "better" in page.text
    assert page.all("img") == page.all("polyline") == []


def test_no_case_with_both_dice_is_said_plainly(tmp_path):
    page = write(tmp_path / "report.html", comparison=nodes([math.nan], [0.5]))

    assert "No evidence" in page.text
    assert "n/a" in page.text


def test_a_base_that_is_better_is_said_in_the_first_lines(tmp_path):
    page = write(tmp_path / "report.html", comparison=nodes([0.5, 0.6, 0.7], [0.4, 0.5, 0.5]))

    assert "Keep the base" in page.text
    assert "verdict bad" in page.source


def test_only_the_worst_cases_are_drawn_and_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("lnsegfm.report.page.MOST_PICTURES", 1)
    cases = [scan(tmp_path, "good", 1), scan(tmp_path, "bad", 5)]
    page = write(tmp_path / "report.html", comparison=compare(cases), cases=cases)

    assert len(page.all("img")) == 1
    assert "Pictures of the 1 worst of 2 cases" in page.text


def test_a_mask_on_another_grid_is_named_and_nothing_is_left(tmp_path):
    case = scan(tmp_path, "case", 1)
    write_mask(case.adapted, np.zeros((12, 60, 50), np.uint8), Grid((12, 60, 50), (3.0, 2.0, 2.5)))

    with pytest.raises(DataError, match=r"scan1_adapted.nii.gz: not on the grid"):
        write(tmp_path / "report.html", cases=[case])
    assert not (tmp_path / "report.html").exists()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium found")
def test_a_browser_opens_it_without_a_word(page, tmp_path):
    (tmp_path / "report.html").write_text(page.source, encoding="utf-8")
    off = [f"--disable-{what}" for what in ("background-networking", "component-update", "sync", "quic", "gpu")]
    own = [f"--user-data-dir={tmp_path / 'profile'}", "--no-first-run", "--no-sandbox", "--enable-logging=stderr"]
    result = subprocess.run(
        [BROWSER, "--headless", *off, *own, "--dump-dom", (tmp_path / "report.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert "Case by case" in result.stdout
    assert [line for line in result.stderr.splitlines() if "CONSOLE" in line] == []

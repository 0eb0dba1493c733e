from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lnsegfm.evaluation.flags import Flag
from lnsegfm.report.page import write_evaluation_page, write_page

from .browser import CHROMIUM, Browser
from .scores import ORIGIN_MM, box, compare, score, shifted, write_scan

pytestmark = pytest.mark.skipif(CHROMIUM is None or os.name != "posix", reason="no Chromium found")

PDFTOTEXT = shutil.which("pdftotext")
CASES = "[...document.querySelectorAll('details.case')]"
HEADS = "[...document.querySelectorAll('#cases thead th')]"
SHAPE_MM, STEP_MM = (48.0, 120.0, 100.0), (3.0, 2.0, 2.0)  # of the scans, z y x


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def pages(folder) -> dict[str, str]:
    scans = {f"case {shift}": shifted(folder, f"scan{shift}", shift) for shift in (1, 5, 3)}
    scans["nothing"] = write_scan(folder, "nothing", {})
    lost = {"reference": [box(4, 20, 10), box(10, 40, 30, (3, 6, 6))], "adapted": [box(10, 40, 30, (3, 4, 3))]}
    scans["lost"] = write_scan(folder, "lost", lost)
    flags = {"case 3": [Flag("case 3", "border", "It touches the border.", 3.0, 0.0)]}
    write_evaluation_page(folder / "one.html", score(scans, "adapted"), title="One model", flags=flags)
    write_page(
        folder / "two.html",
        title="Two models",
        facts={},
        comparison=compare(scans),
        losses=[3.0, 2.0, 1.0],
        flags=flags,
    )
    return {name: (folder / f"{name}.html").as_uri() for name in ("one", "two")}


@pytest.fixture(scope="module")
def started(folder) -> Iterator[Browser]:
    with Browser(folder / "profile") as browser:
        yield browser


@pytest.fixture
def browser(started, pages) -> Browser:
    started.open(pages["one"])
    return started


@pytest.mark.parametrize("name", ["one", "two"])
def test_it_opens_from_a_file_without_a_word_and_asks_for_nothing(started, pages, name):
    started.open(pages[name])
    started.run(f"{CASES}.forEach(c => {{ c.open = true }})")
    started.screenshot()

    assert started.complaints == []
    assert started.requests[0] == pages[name]
    assert [url[:40] for url in started.requests[1:] if not url.startswith("data:")] == []
    assert started.run("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert started.run("document.getElementById('tools').hidden") is False  # the script ran


def test_a_script_that_is_not_the_pages_own_does_not_run(browser, folder):
    source = (folder / "one.html").read_text(encoding="utf-8")
    evil = "<script>document.title = 'taken'</script><img src='https://example.org/x.png' onerror='alert(1)'>"
    (folder / "evil.html").write_text(source.replace("<main>", f"<main>{evil}"), encoding="utf-8")
    browser.open((folder / "evil.html").as_uri())

    assert browser.run("document.title") == "One model"
    refused = [complaint for complaint in browser.complaints if "Content Security Policy" in complaint]
    assert any("script" in complaint for complaint in refused)
    assert any("example.org" in complaint for complaint in refused)


def column(browser: Browser, number: int) -> list[str]:
    return list(
        browser.run(f"[...document.querySelectorAll('#cases tbody tr')].map(r => r.cells[{number}].innerText.trim())")
    )


def test_a_click_on_a_heading_sorts_and_what_is_undefined_stays_last(browser):
    assert column(browser, 1) == ["0.155", "0.375", "0.625", "0.875", "n/a"]  # worst first

    sorts = []
    for _ in range(2):
        browser.click(f"{HEADS}[1].querySelector('button')")
        sorts.append((browser.run(f"{HEADS}[1].getAttribute('aria-sort')"), column(browser, 1)))

    assert sorts[0] == ("ascending", ["0.155", "0.375", "0.625", "0.875", "n/a"])
    assert sorts[1] == ("descending", ["0.875", "0.625", "0.375", "0.155", "n/a"])
    assert browser.run(f"{HEADS}.filter(h => h.getAttribute('aria-sort') !== 'none').length") == 1


@pytest.mark.parametrize("key", ["Enter", " "])
def test_the_keyboard_sorts_too_and_numbers_as_numbers(browser, key):
    hd95 = next(i for i, title in enumerate(browser.run(f"{HEADS}.map(h => h.innerText)")) if "HD95" in title)
    browser.run(f"{HEADS}[{hd95}].querySelector('button').focus()")
    browser.press(key)
    values = column(browser, hd95)
    numbers = [float(v) for v in values if v != "n/a"]

    assert len(numbers) == 4
    assert max(numbers) >= 10 > min(numbers)  # as text, 10 would come before 2
    assert numbers == sorted(numbers)
    assert values[-1] == "n/a"


def test_names_sort_as_people_count(browser):
    browser.click(f"{HEADS}[0].querySelector('button')")

    assert column(browser, 0) == ["case 1", "case 3", "case 5", "lost", "nothing"]


def opened(browser: Browser) -> list[bool]:
    return list(browser.run(f"{CASES}.map(c => c.open)"))


def test_a_case_opens_by_click(browser):
    assert opened(browser) == [True, False, False, False, False]
    assert browser.run(f"{CASES}[1].querySelector('svg.view').checkVisibility()") is False

    browser.click(f"{CASES}[1].querySelector('summary')")

    assert opened(browser) == [True, True, False, False, False]
    assert browser.run(f"{CASES}[1].querySelector('svg.view').checkVisibility()") is True


def test_the_keyboard_steps_through_cases_and_opens_them(browser):
    for key in "jjj":
        browser.press(key)
    assert browser.run("document.activeElement.innerText").startswith("case 3")
    assert 0 <= browser.box("document.activeElement")[1] < 860  # in view
    browser.press("o")
    assert opened(browser) == [True, False, True, False, False]
    browser.press("o")
    browser.press("k")
    browser.press("Enter")
    assert opened(browser) == [True, True, False, False, False]
    browser.press("ArrowDown")
    browser.press("ArrowDown")
    browser.press(" ")
    assert opened(browser) == [True, True, False, True, False]


def test_a_name_in_the_table_opens_its_case(browser):
    browser.click("[...document.querySelectorAll('#cases a')].find(a => a.innerText === 'case 1')")

    assert opened(browser) == [True, False, False, True, False]
    assert 0 <= browser.box("document.activeElement")[1] < 860


def test_the_keys_are_told(browser):
    browser.press("?")
    assert browser.run("document.getElementById('keys').open") is True
    assert "contours" in browser.run("document.getElementById('keys').innerText")
    browser.click("document.querySelector('#keys button')")
    assert browser.run("document.getElementById('keys').open") is False


def place_in_view(plane: str, centre_mm: tuple[float, float, float]) -> tuple[float, float]:
    """Where a point (LPS) is in the views of these scans, whose axes are the patient's: (right, down) in mm."""
    z, y, x = (c - origin + step / 2 for c, origin, step in zip(centre_mm[::-1], ORIGIN_MM[::-1], STEP_MM, strict=True))
    return {"axial": (x, y), "coronal": (x, SHAPE_MM[0] - z), "sagittal": (y, SHAPE_MM[0] - z)}[plane]


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_picture_shows_the_node_that_its_caption_names(browser, plane):
    figure = f"{CASES}[0].querySelector('figure')"
    caption = browser.run(f"{figure}.querySelector('figcaption').innerText").replace("\N{MINUS SIGN}", "-")
    assert caption.startswith("false negative: node 1")
    centre = tuple(map(float, re.search(r"centre \((.*?)\)", caption)[1].split(",")))
    assert centre == (-23.0, -11.0, -83.5)  # 10.5 to 17.5, 20 to 29 and 4 to 7 voxels of 2, 2 and 3 mm

    view = f"{figure}.querySelector('svg[data-plane={plane}]')"
    left, top, width, height = map(float, browser.run(f"{view}.getAttribute('viewBox')").split())
    right, down = place_in_view(plane, centre)
    x, y, wide, high = browser.box(view)
    on_screen = (x + (right - left) * wide / width, y + (down - top) * high / height)
    assert wide / width == pytest.approx(high / height, rel=0.02)  # true to scale

    for outline in ("path.reference", "path.mark"):
        a, b, w, h = browser.box(f"{view}.querySelector('{outline}')")
        assert a < on_screen[0] < a + w
        assert b < on_screen[1] < b + h
        assert (a + w / 2, b + h / 2) == pytest.approx(on_screen, abs=1.5)

    browser.run(f"{figure}.scrollIntoView({{block: 'center'}})")
    x, y, wide, high = browser.box(f"{view}.querySelector('path.reference')")
    image = browser.screenshot()
    yellow = np.abs(image - (0xF0, 0xE4, 0x42)).max(axis=-1) < 24
    middle_x, middle_y = round(x + wide / 2), round(y + high / 2)
    for edge in (round(x), round(x + wide)):
        assert yellow[middle_y, edge - 2 : edge + 3].any()
    for edge in (round(y), round(y + high)):
        assert yellow[edge - 2 : edge + 3, middle_x].any()
    assert not yellow[middle_y, middle_x]


def test_contours_can_be_hidden(browser):
    figure = f"{CASES}[0].querySelector('figure')"
    browser.run(f"{figure}.scrollIntoView({{block: 'center'}})")
    x, y, wide, high = map(round, browser.box(f"{figure}.querySelector('svg')"))

    def yellow() -> int:
        part = browser.screenshot()[y : y + high, x : x + wide]
        return int((np.abs(part - (0xF0, 0xE4, 0x42)).max(axis=-1) < 24).sum())

    assert yellow() > 50
    browser.press("c")
    assert yellow() == 0
    assert browser.run("document.getElementById('contours').getAttribute('aria-pressed')") == "false"
    browser.press("c")
    assert yellow() > 50


def test_it_fits_a_narrow_screen(started, pages):
    for name in pages:
        started.open(pages[name], width=390, height=800)
        assert started.run("document.documentElement.scrollWidth") <= 390


def test_what_was_closed_is_closed_again_after_printing(browser):
    browser.run("window.dispatchEvent(new Event('beforeprint'))")
    assert opened(browser) == [True] * 5
    browser.run("window.dispatchEvent(new Event('afterprint'))")
    assert opened(browser) == [True, False, False, False, False]


def test_paper_has_every_case_and_the_banner(browser):
    pdf = browser.pdf()

    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 1 + len(opened(browser))  # each case begins a page
    assert opened(browser) == [True, False, False, False, False]  # as it was
    if PDFTOTEXT is not None:
        told = subprocess.run([PDFTOTEXT, "-", "-"], input=pdf, capture_output=True, check=True).stdout.decode()
        sheets = told.rstrip("\f").split("\f")
        assert [sheet for sheet in sheets if "Research software. Not for clinical use." not in sheet] == []
        assert told.count("short axis") >= 5  # captions of cases that are closed on the screen
    browser.ask("Emulation.setEmulatedMedia", media="print")
    assert browser.run("document.querySelector('.banner').checkVisibility()")
    assert browser.run(f"{CASES}[1].querySelector('svg.view').checkVisibility({{contentVisibilityAuto: true}})")
    assert not browser.run("document.getElementById('tools').checkVisibility()")
    browser.ask("Emulation.setEmulatedMedia", media="")

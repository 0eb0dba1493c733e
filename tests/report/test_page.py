from __future__ import annotations

import base64
import hashlib
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lnsegfm.errors import DataError
from lnsegfm.evaluation.flags import Flag
from lnsegfm.evaluation.froc import FrocCounts
from lnsegfm.evaluation.scoring import Scoring
from lnsegfm.imaging.files import write_mask
from lnsegfm.imaging.grid import Grid
from lnsegfm.report.page import write_evaluation_page, write_page
from tests.listening import OnAdvance

from .parsed import Page
from .scores import box, compare, evaluation, nodes, score, shifted, write_scan

EVIL = '<script>alert("1")</script>'
LABELS_ONLY = Scoring()


def write(path: Path, **changes) -> Page:
    content = {"title": "A run", "facts": {"Method": "dgst"}, "comparison": None, "losses": None, "provenance": {}}
    write_page(path, **{**content, **changes})
    return Page(path)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    return {name: shifted(folder, f"scan{shift}", shift) for name, shift in (("good", 1), (EVIL, 5), ("fair", 3))}


@pytest.fixture(scope="module")
def page(scans, tmp_path_factory):
    return write(
        tmp_path_factory.mktemp("report") / "report.html",
        title="A run & its <base>",
        facts={"Method": EVIL},
        comparison=compare(scans),
        losses=[1.0, math.nan, 0.5, -0.25],
        provenance={"versions": {"torch": "2"}, "held out": [EVIL, "good"]},
        flags={EVIL: [Flag(EVIL, "border", f"{EVIL} at -3 mm", 1.0, 0.0)]},
    )


@pytest.fixture(scope="module")
def one(scans, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_evaluation_page(path, score(scans, "adapted"), title="Masks", flags={"good": [], EVIL: []})
    return Page(path)


def test_verdict_banner_and_facts_come_before_the_cases(page):
    order = ["Research software. Not for clinical use.", "With only 3", "Nodes by size", "torch"]
    places = [page.text.index(words) for words in order]

    assert places == sorted(places)
    assert "@bottom-center" in page.source


def test_names_from_strangers_files_stay_text(page, one):
    for shown in (page, one):
        assert len(shown.all("script")) == 1  # its own
        assert shown.text.count(EVIL) >= 2
    assert page.text.count(EVIL) == 5  # fact, flag, table, case, provenance
    assert page.source.isascii() or 'charset="utf-8"' in page.source


def test_nothing_is_fetched_from_anywhere(page, one):
    for shown in (page, one):
        names = ("src", "href", "srcset", "data", "xlink:href")
        addresses = [attrs[name] for _, attrs in shown.tags for name in names if name in attrs]
        assert addresses
        assert [a for a in addresses if not a.startswith(("data:", "#case-"))] == []
        assert not re.search(r"url\(|@import|https?://", shown.source)


def test_only_the_pages_own_script_may_run(page):
    policy = next(attrs["content"] for attrs in page.all("meta") if "Policy" in attrs.get("http-equiv", ""))
    script = re.search(r"<script>(.*)</script>", page.source, re.DOTALL)

    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        f"script-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


def test_worst_adapted_case_is_first_and_open(page):
    names = re.findall(r"<summary><h3>(.*?)</h3>", page.source)

    assert names == ["&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;", "fair", "good"]
    assert ["open" in attrs for attrs in page.all("details")] == [True, False, False]


def test_pictures_are_described_and_small(page):
    views = [attrs for attrs in page.all("svg") if attrs.get("role") == "img" and "data-plane" in attrs]

    assert [v["data-plane"] for v in views] == ["axial", "coronal", "sagittal"] * 3
    assert all("slice" in v["aria-label"] and v["aria-label"].startswith("Case ") for v in views)
    assert len(page.source) < 260_000


def test_a_caption_says_which_node_and_what_the_base_made_of_it(page):
    # 4 x 10 x 8 voxels of 3 x 2 x 2 mm, the first at (-50 + 20, -60 + 40, -100 + 12) mm
    said = "3.84 ml, slice [5-8] of 16, centre \\(−23.0, −11.0, −83.5\\) mm, IoU 0.23; base: false negative"

    assert re.fullmatch(f"true positive: node 1, short axis [0-9.]+ mm, {said}", page.captions[0])


def test_every_table_head_has_a_scope(page, one):
    for shown in (page, one):
        assert shown.all("th")
        assert [attrs for attrs in shown.all("th") if attrs.get("scope") not in ("row", "col", "rowgroup")] == []


def test_numbers_are_those_of_the_comparison(page):
    # 8 voxels wide, shifted by 5, 3 and 1: Dice 3/8, 5/8 and 7/8; the base found nothing
    for said in ("0.375", "0.625", "0.875", "+0.625"):
        assert said in page.text
    dots = [c["cx"] for c in page.all("circle")]
    assert dots == ["0.0%", "37.5%", "0.0%", "62.5%", "0.0%", "87.5%"]


def test_flags_are_shown_at_the_case_and_in_the_table(page, one):
    assert f"Review this case (border): {EVIL} at −3 mm" in page.text
    assert page.classes("p").count("review") == 1
    assert page.classes("span").count("tag") == 1
    assert "border</td>" in page.source
    assert "Review this case (" not in one.text
    assert '<th scope="col" title="reasons to review this case">Flags' in one.source


def test_one_models_page_says_what_it_can_and_cannot_show(one):
    assert "Dice 0.625 (95 % interval" in one.text
    assert "3 of 3 nodes found, 0 false positives" in one.text
    assert "3 subjects" in one.text
    assert "another scanner" in one.text
    for heading in ("Metric", "Median", "SD", "NSD at 1 mm", "HD95 mm", "Sensitivity", "False positives per scan"):
        assert heading in one.text


def test_the_plots_are_there_with_their_numbers(page, one):
    for shown, titles in ((page, 3), (one, 3)):
        plots = [attrs for attrs in shown.all("img") if attrs["src"].startswith("data:image/svg+xml;base64,")]
        assert len(plots) == titles
        assert all(re.search(r"\d\.\d\d", attrs["alt"]) for attrs in plots)


def test_kept_probabilities_give_a_froc(scans, tmp_path):
    scored = score({"good": scans["good"]}, "adapted")
    case = scored.cases[0]
    counts = FrocCounts((0.2, 0.8), 1, (0.0, 0.5), ((1, 0), (1, 0)), ((3, 0), (3, 1)))
    label = replace(case.labels["lymph_node"], froc=counts)
    path = tmp_path / "report.html"
    write_evaluation_page(path, replace(scored, cases=(replace(case, labels={"lymph_node": label}),)), title="t")

    said = (
        "at probability 0.8 sensitivity 0.00, 0 false positives per scan; "
        "at probability 0.2 sensitivity 1.00, 3 false positives per scan"
    )
    assert [image["alt"] for image in Page(path).all("img") if said in image["alt"]]


def test_a_loss_that_is_no_number_is_said(page):
    assert "1 iterations had a loss that is not a finite number" in page.text
    assert len(page.all("polyline")) == 1


def test_no_held_out_case_is_said_plainly(tmp_path):
    page = write(tmp_path / "report.html")

    assert "No evidence" in page.text
    assert "every labelled scan was used for training" in page.text
    assert page.all("img") == page.all("polyline") == page.all("details") == []


def test_no_case_with_both_dice_is_said_plainly(tmp_path):
    page = write(tmp_path / "report.html", comparison=nodes([math.nan], [0.5]))

    assert "No evidence" in page.text
    assert "n/a" in page.text


def test_a_base_that_is_better_is_said_in_the_first_lines(tmp_path):
    page = write(tmp_path / "report.html", comparison=nodes([0.5, 0.6, 0.7], [0.4, 0.5, 0.5]))

    assert "Keep the base" in page.text
    assert "verdict bad" in page.source


def test_two_models_with_names_of_their_own(tmp_path):
    comparison = replace(nodes([0.5, 0.6, 0.7, 0.6], [0.3, 0.4, 0.5, 0.3]), names=("old & new", "<new>"))
    page = write(tmp_path / "report.html", comparison=comparison)

    assert "Old & new is better" in page.text
    assert "Dice <new>" in page.text
    assert "Keep" not in page.text


def test_what_was_forgotten_has_its_own_part(tmp_path):
    page = write(tmp_path / "report.html", source_data=nodes([0.8, 0.9, 0.7], [0.4, 0.5, 0.2]))

    assert "the adapted model has forgotten" in page.text
    assert page.text.index("No evidence") < page.text.index("What was forgotten")


def test_cases_without_known_files_have_numbers_and_no_pictures(tmp_path):
    path = tmp_path / "report.html"
    write_evaluation_page(path, evaluation({"node": [0.2, math.nan], "larynx": [0.6, 0.9]}), title="t")
    page = Page(path)

    assert page.pictures == []
    assert "No picture: the files of this case are not known." in page.text
    assert "mean over labels" in page.text
    assert "Flags" not in re.findall(r"<th[^>]*>(.*?)</th>", page.source)  # none were raised or ruled out


def test_false_negatives_come_before_false_positives_before_true_ones_and_each_kind_is_bounded(tmp_path):
    lost = [box(2, 5, 3 + 9 * i, (3, 3 + i, 3 + i)) for i in range(5)]
    added = [box(2, 25, 3 + 9 * i, (3, 3 + i, 3 + i)) for i in range(4)]
    found = [box(2, 45, 3 + 9 * i, (3, 4, 4)) for i in range(3)]
    files = write_scan(tmp_path, "a", {"reference": lost + found, "adapted": added + found})
    path = tmp_path / "report.html"
    write_evaluation_page(path, score({"a": files}, "adapted"), title="t")
    page = Page(path)

    assert page.pictures == ["false-negative"] * 3 + ["false-positive"] * 2 + ["true-positive"]
    assert [re.search(r"([\d.]+) ml", caption)[1] for caption in page.captions[:5]] == [
        "1.76",
        "1.30",
        "0.90",
        "1.30",
        "0.90",
    ]
    assert page.captions[3].startswith("false positive: node")
    states = re.findall(
        r'<td class="l nowrap" data-v="(\w+ \w+)[^"]*">(?:true positive|false negative|false positive)', page.source
    )
    assert tuple(map(states.count, ("false negative", "true positive", "false positive"))) == (5, 3, 4)


def test_a_merged_node_is_called_so(tmp_path):
    two, bridge = [box(2, 10, 5, (3, 6, 6)), box(2, 10, 14, (3, 4, 4))], box(2, 10, 5, (3, 4, 13))
    files = write_scan(tmp_path, "a", {"reference": two, "adapted": [bridge]})
    path = tmp_path / "report.html"
    write_evaluation_page(path, score({"a": files}, "adapted"), title="t")

    assert Page(path).pictures == ["merged", "true-positive"]


def test_a_label_that_is_no_node_is_shown_where_most_differs(tmp_path):
    places = {"reference": [box(4, 20, 10)], "adapted": [box(4, 20, 10, (5, 10, 8)), box(9, 20, 20, (1, 12, 9))]}
    places["ignored"] = [box(12, 10, 10, (1, 30, 30))]
    places["adapted"].append(box(12, 10, 10, (1, 30, 30)))  # the most, but nobody annotated it
    files = write_scan(tmp_path, "a", places)
    path = tmp_path / "report.html"
    write_evaluation_page(path, score({"a": files}, "adapted", scoring=LABELS_ONLY), title="t")

    assert Page(path).captions == ["lymph_node: axial slice 10 of 16, with the largest disagreement (4.3 cm²)"]


def test_without_scans_the_masks_are_drawn_on_black(scans, tmp_path):
    path = tmp_path / "report.html"
    write_evaluation_page(path, score({"good": scans["good"]}, "adapted", images=False), title="t")
    page = Page(path)

    assert "view bare" in page.classes("svg")
    assert page.all("image") == []
    assert "masks are drawn filled on black" in page.text


def test_pictures_stop_and_it_is_said(scans, tmp_path, monkeypatch):
    monkeypatch.setattr("lnsegfm.report.page.MOST_PICTURES", 1)
    page = write(tmp_path / "report.html", comparison=compare(scans))

    assert len(page.pictures) == 1
    assert "The page stops after 1 pictures" in page.text
    assert page.text.count("No picture: the page stops after 1,") == 2


def test_nothing_to_find_and_nothing_found_has_no_picture(tmp_path):
    path = tmp_path / "report.html"
    write_evaluation_page(path, score({"a": write_scan(tmp_path, "a", {})}, "adapted"), title="t")

    assert "Nothing to find, and nothing found: no picture." in Page(path).text


def test_a_mask_on_another_grid_is_named_and_nothing_is_left(tmp_path):
    scans = {"case": shifted(tmp_path, "scan", 1)}
    scored = score(scans, "adapted")
    write_mask(scans["case"]["adapted"], np.zeros((16, 60, 50), np.uint8), Grid((16, 60, 50), (3.0, 2.0, 2.5)))

    with pytest.raises(DataError, match=r"scan_adapted.nii.gz: not on the grid"):
        write_evaluation_page(tmp_path / "report.html", scored, title="t")
    assert list(tmp_path.glob("*html*")) == []


def test_a_scan_that_is_gone_is_named(tmp_path):
    scans = {"case": shifted(tmp_path, "scan", 1)}
    scored = score(scans, "adapted")
    scans["case"]["image"].unlink()

    with pytest.raises(DataError, match=r"scan_image.nii.gz: no such file"):
        write_evaluation_page(tmp_path / "report.html", scored, title="t")


def test_progress_is_told_case_by_case(scans, tmp_path):
    told = []
    write(tmp_path / "report.html", comparison=compare(scans), progress=OnAdvance(lambda *step: told.append(step)))

    assert told == [(1, 3, EVIL), (2, 3, "fair"), (3, 3, "good")]


def test_the_same_figures_give_the_same_page(scans, tmp_path):
    pages = [write(tmp_path / f"{i}.html", comparison=compare(scans)).source for i in range(2)]

    assert pages[0] == pages[1]

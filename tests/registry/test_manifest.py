from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lnsegfm.errors import ModelError, UnknownName
from lnsegfm.registry.manifest import FORMAT, cards, find_card, read_manifest
from lnsegfm.registry.model_card import ModelCard

RELEASE = ("ln-nnunet", "ln-resencm", "ln-resencl", "ln-resencxl", "ln-swinunetr", "ln-swinunetrv2")
CARD = {"name": "mine", "title": "Mine", "architecture": "nnunet", "task": "nodes", "licence": "CC0"}


def write(path: Path, *models: Any, **fields: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"format": FORMAT, "models": list(models)} | fields))
    return path


def test_the_six_models_of_the_release_are_shipped():
    shipped = cards()
    assert tuple(name for name in shipped if name.startswith("ln-")) == RELEASE
    for card in (shipped[name] for name in RELEASE):
        assert (card.labels, card.spacing_mm, card.sha256, card.bytes) == (None, None, None, None)
        assert card.licence.startswith("none stated")
        assert card.citation is not None
        assert "2503.00748" in card.citation
        assert card.location is not None
        assert card.location.kind == "by-hand"


@pytest.mark.parametrize(
    ("name", "dice", "seconds", "memory"),
    [
        ("ln-nnunet", 81.72, 53.8, 7.9),
        ("ln-resencm", 81.44, 74.5, 8.6),
        ("ln-resencl", 83.55, 203.2, 22.6),
        ("ln-swinunetr", 80.52, 126.9, 15.9),
        ("ln-swinunetrv2", 80.97, 131.4, 14.5),
    ],
)
def test_their_figures_are_those_of_the_release(name, dice, seconds, memory):
    figures = {figure.what.partition(",")[0]: figure for figure in cards()[name].figures}
    assert figures["Dice"].value == dice
    assert figures["time per 250 iterations"].value == seconds
    assert figures["VRAM"].value == memory
    assert all("2503.00748" in figure.source for figure in figures.values())


def test_of_the_xl_no_figure_was_found():
    assert cards()["ln-resencxl"].figures == ()


UNDER_LICENCE = {301, 303, 304, 305, 409, 481, 485, 507, 509, 514, 710, 713, 716, 803, 855, 856, 857, 920, 925}
"""Task ids of TotalSegmentator's models that want a licence number of their authors."""


def totalsegmentators() -> dict[int, ModelCard]:
    found = {name: card for name, card in cards().items() if name.startswith("totalseg-")}
    return {int(re.search(r"/Dataset(\d+)_", card.location.url)[1]): card for card in found.values()}


def test_totalsegmentators_open_tasks():
    found = totalsegmentators()
    assert {291, 292, 293, 294, 295, 297, 298, 299, 258, 150, 260, 315, 8, 775, 776, 777, 778, 779, 351, 115} <= set(
        found
    )
    assert not UNDER_LICENCE & set(found)
    releases = "https://github.com/wasserth/TotalSegmentator/releases/download/v2"
    for number, card in found.items():
        assert card.location.url.startswith(releases)
        assert card.filename.startswith(f"Dataset{number:03d}_")
        assert card.title == f"TotalSegmentator, task id {number}"
        assert card.licence.startswith("Apache-2.0;")
        assert "10.1148/ryai.230024" in card.citation
        assert (card.sha256, card.bytes, card.axes) == (None, None, "RAS")


@pytest.mark.parametrize(
    ("number", "labels", "first", "last"),
    [
        (291, 24, "spleen", "kidney_cyst_right"),
        (292, 26, "sacrum", "vertebrae_C1"),
        (293, 18, "heart", "iliac_vena_right"),
        (294, 23, "humerus_left", "skull"),
        (295, 26, "rib_left_1", "costal_cartilages"),
        (297, 117, "spleen", "costal_cartilages"),
        (850, 29, "spleen", "iliac_vena_right"),
        (775, 19, "eye_left", "hard_palate"),
    ],
)
def test_their_labels_by_name(number, labels, first, last):
    named = totalsegmentators()[number].labels
    assert list(named.values()) == list(range(1, labels + 1))
    assert (next(iter(named)), list(named)[-1]) == (first, last)


def test_the_parts_of_total_are_the_117_of_its_coarse_model():
    found = totalsegmentators()
    parts = [name for number in range(291, 296) for name in found[number].labels]
    assert parts == list(found[297].labels) == list(found[298].labels)


def test_every_card_that_can_be_fetched_says_where_from_and_under_which_terms():
    for card in cards().values():
        assert card.licence
        assert card.sources
        assert card.location.kind in ("by-hand", "https", "huggingface")
        assert card.filename or card.location.kind == "by-hand"


def test_own_and_named_manifests_come_after_and_win(home, tmp_path):
    write(home / "manifests" / "a.json", CARD, CARD | {"name": "ln-nnunet", "title": "Ours"})
    write(home / "manifests" / "b.json", CARD | {"title": "Later"})
    write(home / "manifests" / ".partial-1-c.json", CARD | {"colour": 1})
    assert (next(iter(cards())), tuple(cards())[-1]) == ("ln-nnunet", "mine")
    assert (cards()["ln-nnunet"].title, cards()["mine"].title) == ("Ours", "Later")

    extra = write(tmp_path / "extra.json", CARD | {"title": "Last"})
    assert cards(extra)["mine"].title == "Last"


def test_a_relative_path_counts_from_the_manifest(tmp_path, monkeypatch):
    write(tmp_path / "drive" / "m.json", CARD | {"location": {"kind": "file", "path": "models/a.zip"}})
    monkeypatch.chdir(tmp_path)
    location = read_manifest(Path("drive/m.json"))["mine"].location
    assert location is not None
    assert location.kind == "file"
    assert Path(location.path) == tmp_path / "drive" / "models" / "a.zip"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("no json", "not a JSON file"),
        ("[]", "not a manifest"),
        ('{"format": "lnsegfm.models/1"}', "not a manifest"),
        ('{"format": "lnsegfm.models/2", "models": []}', "lnsegfm.models/2"),
        ('{"format": "lnsegfm.models/1", "models": [], "run": "x"}', "field 'run': no such field"),
        ('{"format": "lnsegfm.models/1", "models": [3]}', "card 1: the whole"),
        (json.dumps({"format": FORMAT, "models": [CARD, CARD]}), "card mine: the name is taken twice"),
        (json.dumps({"format": FORMAT, "models": [CARD | {"run": "x"}]}), "card mine: field run: no such field"),
        (json.dumps({"format": FORMAT, "models": [CARD | {"name": "a\x1b[2J"}]}), "card 1: field name"),
    ],
)
def test_a_wrong_manifest_is_named(tmp_path, content, told):
    path = tmp_path / "m.json"
    path.write_text(content)
    with pytest.raises(ModelError) as error:
        cards(path)
    assert str(error.value).startswith(f"{path}: ")
    assert told in str(error.value)
    assert str(error.value).isprintable()


def test_all_faults_of_all_cards_are_told_at_once(tmp_path):
    path = write(tmp_path / "m.json", CARD | {"task": ""}, CARD | {"name": "b", "bytes": -1, "sha256": "x"})
    with pytest.raises(ModelError) as error:
        cards(path)
    assert [line.partition(": field ")[2].partition(":")[0] for line in str(error.value).splitlines()] == [
        "task",
        "sha256",
        "bytes",
    ]


def test_missing_manifest(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        cards(tmp_path / "none.json")


def test_find_card():
    assert find_card("ln-resencl").architecture == "resenc-l"
    with pytest.raises(UnknownName, match="ln-resencm or ln-resencl"):
        find_card("ln-resencs")
    with pytest.raises(UnknownName, match="lnsegfm models list"):
        find_card("x")

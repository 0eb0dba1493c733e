from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lnsegfm.errors import ModelError, UnknownName
from lnsegfm.registry.manifest import FORMAT, cards, find_card, read_manifest

RELEASE = ("ln-nnunet", "ln-resencm", "ln-resencl", "ln-resencxl", "ln-swinunetr", "ln-swinunetrv2")
CARD = {"name": "mine", "title": "Mine", "architecture": "nnunet", "task": "nodes", "licence": "CC0"}


def write(path: Path, *models: Any, **fields: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"format": FORMAT, "models": list(models)} | fields))
    return path


def test_the_six_models_of_the_release_are_shipped():
    shipped = cards()
    assert tuple(shipped) == RELEASE
    for card in shipped.values():
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


def test_own_and_named_manifests_come_after_and_win(home, tmp_path):
    write(home / "manifests" / "a.json", CARD, CARD | {"name": "ln-nnunet", "title": "Ours"})
    write(home / "manifests" / "b.json", CARD | {"title": "Later"})
    write(home / "manifests" / ".partial-1-c.json", CARD | {"colour": 1})
    assert tuple(cards()) == (*RELEASE, "mine")
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
    with pytest.raises(UnknownName, match="ln-swinunetrv2"):
        find_card("ln-resencs")

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsegfm.errors import ModelError
from lnsegfm.registry.model_card import FileLocation, HttpsLocation, HuggingFaceLocation, ModelCard, read
from tests.registry.conftest import make_card

FULL: dict[str, Any] = {
    "name": "base",
    "title": "A base",
    "architecture": "resenc-l",
    "task": "lymph nodes on CT",
    "labels": {"background": 0, "lymph_node": 1},
    "channels": ["CT"],
    "spacing_mm": [3, 1.0, 1.0],
    "figures": [{"what": "Dice", "value": 81.7, "unit": "%", "source": "a paper"}],
    "licence": "CC-BY-4.0",
    "citation": "Somebody",
    "sources": ["https://example.org/paper"],
    "location": {"kind": "huggingface", "repo": "lab/base", "filename": "models/base.zip", "revision": "0a1b"},
    "sha256": "0" * 64,
    "bytes": 5,
}


def test_a_card_survives_json():
    card = read(ModelCard, FULL, "here")
    assert read(ModelCard, card.as_json(), "there") == card
    assert card.spacing_mm == (3.0, 1.0, 1.0)
    assert card.filename == "base.zip"


def test_what_is_not_known_is_none_or_empty():
    card = read(ModelCard, {k: FULL[k] for k in ("name", "title", "architecture", "task", "licence")}, "here")
    unknown = (card.labels, card.channels, card.spacing_mm, card.location, card.sha256, card.bytes, card.filename)
    assert unknown == (None,) * 7
    assert (card.figures, card.sources) == ((), ())


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"colour": "red"}, "field colour: no such field is known"),
        ({"a\nb\x1b": "red"}, "no such field is known"),
        ({"labels": {"\r": 1}}, "field labels"),
        ({"name": "../base"}, "field name: '../base' cannot be"),
        ({"name": "Base"}, "field name"),
        ({"architecture": "unet"}, "field architecture"),
        ({"title": ""}, "field title"),
        ({"title": "a\x1b[2Jb"}, "field title"),
        ({"task": "a\u202eb"}, "field task"),
        ({"licence": "a\nb"}, "field licence"),
        ({"labels": {"node": "1"}}, "field labels.node"),
        ({"labels": {"node": -1}}, "field labels.node"),
        ({"channels": []}, "field channels"),
        ({"spacing_mm": [3, 1]}, "field spacing_mm"),
        ({"spacing_mm": [3, 1, 0]}, "field spacing_mm.2"),
        ({"spacing_mm": [3, 1, "1"]}, "field spacing_mm.2"),
        ({"spacing_mm": [3, 1, float("inf")]}, "field spacing_mm.2"),
        ({"figures": [{"what": "Dice", "value": 1.0, "unit": "%"}]}, "field figures.0.source: it is missing"),
        ({"figures": [{"what": "D", "value": float("nan"), "unit": "%", "source": "s"}]}, "field figures.0.value"),
        ({"sha256": "0" * 63}, "field sha256"),
        ({"sha256": "A" * 64}, "field sha256"),
        ({"bytes": 0}, "field bytes"),
        ({"bytes": 1.5}, "field bytes"),
        ({"sources": ["http://example.org"]}, "field sources.0"),
        ({"sources": ["javascript:alert(1)"]}, "field sources.0"),
        ({"location": {"kind": "ftp", "url": "ftp://a/b"}}, "field location"),
        ({"location": {"kind": "https", "url": "http://example.org/a.zip"}}, "field location.url"),
        ({"location": {"kind": "https", "url": "file:///etc/passwd"}}, "field location.url"),
        ({"location": {"kind": "https", "url": "https://me:secret@example.org/a.zip"}}, "field location.url"),
        ({"location": {"kind": "https", "url": "https://[bad"}}, "field location.url"),
        ({"location": {"kind": "https", "url": "https://a/b", "run": "x"}}, "field location.run: no such field"),
        ({"location": {"kind": "huggingface", "repo": "a/b", "filename": "../c"}}, "field location.filename"),
        ({"location": {"kind": "huggingface", "repo": "../b", "filename": "c"}}, "field location.repo"),
        ({"location": {"kind": "by-hand", "pages": []}}, "field location.pages"),
        ({"location": {"kind": "by-hand", "pages": ["https://a/b"], "filename": "a/b"}}, "field location.filename"),
    ],
)
def test_a_wrong_card_is_one_line_that_names_the_field(fields, told):
    with pytest.raises(ModelError) as error:
        read(ModelCard, FULL | fields, "m.json: card base")
    lines = str(error.value).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("m.json: card base: ")
    assert told in lines[0]
    assert lines[0].isprintable()


def test_every_fault_has_its_line():
    with pytest.raises(ModelError) as error:
        read(ModelCard, {"name": "A", "title": 3}, "m.json")
    assert len(str(error.value).splitlines()) == 5


def test_a_card_does_not_change():
    with pytest.raises(ValueError, match="frozen"):
        make_card().name = "other"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://a.org/b/c.zip?download=1", "c.zip"),
        ("https://a.org/b%20c.zip", "b c.zip"),
        ("https://a.org/", None),
        ("https://a.org/a%2F..%2F..%2Fb", "b"),
        ("https://a.org/..%5Cb", None),
        ("https://a.org/b/%2e%2e", None),
        ("https://a.org/a%0Ab", None),
    ],
)
def test_a_url_names_a_plain_file_or_none(url, name):
    assert make_card(location=HttpsLocation(url=url)).filename == name


def test_names_of_other_places():
    assert make_card(location=FileLocation(path="/data/base.zip")).filename == "base.zip"
    assert make_card(location=HuggingFaceLocation(repo="a/b", filename="c/d.zip")).filename == "d.zip"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(field=st.sampled_from(sorted(FULL)), content=JSON)
def test_whatever_a_file_says_it_is_a_card_or_a_model_error(field, content):
    try:
        card = read(ModelCard, FULL | {field: content}, "m.json")
    except ModelError as error:
        lines = str(error).splitlines()
    else:
        assert read(ModelCard, card.as_json(), "m.json") == card
        lines = []
    assert all(line.startswith("m.json: ") for line in lines)

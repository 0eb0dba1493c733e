"""Where a download comes from: redirects, Hugging Face, mirrors; and who is told a secret."""

from __future__ import annotations

import pytest
import requests

from lnsegfm.errors import ConfigError, ModelError, UnsafeFile
from lnsegfm.registry.download import _PlainHttp
from lnsegfm.registry.fetch import fetch
from lnsegfm.registry.model_card import ByHandLocation, HuggingFaceLocation
from tests.registry.conftest import CONTENT, Told, card_at, left, make_card


def test_to_another_place(site, elsewhere, url):
    elsewhere.files["/x"] = CONTENT
    site.redirects["/m/base.zip"] = f"{elsewhere.url}/x"
    path = fetch(card_at(url, CONTENT))
    assert (path.name, path.read_bytes()) == ("base.zip", CONTENT)


@pytest.mark.parametrize("to", ["http://example.invalid/base.zip", "file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_not_to_an_unprotected_one(site, url, home, to):
    site.redirects["/m/base.zip"] = to
    with pytest.raises(ModelError):
        fetch(card_at(url, CONTENT))
    assert len(site.asked) == 1
    assert left(home) == []


def test_from_https_to_http_never_and_from_http_to_the_same_host_alone():
    local = requests.Request("GET", "http://127.0.0.1:9/x").prepare()
    mirror = requests.Request("GET", "http://mirror.invalid:8080/y").prepare()
    for asked, request in (
        ("https://example.org/x", local),
        ("https://mirror.invalid:8080/x", mirror),
        ("http://mirror.invalid/x", mirror),
        ("http://mirror.invalid:8080/x", local),
        ("http://127.0.0.1/x", mirror),
    ):
        with pytest.raises(ModelError, match="unprotected"):
            _PlainHttp(asked).send(request)
    with pytest.raises(requests.exceptions.ConnectionError):  # it went out
        _PlainHttp("http://localhost/x").send(local)


def test_round_in_circles(site, url):
    site.redirects["/m/base.zip"] = url
    with pytest.raises(ModelError, match="too many redirects"):
        fetch(card_at(url, CONTENT))


PLACE = HuggingFaceLocation(repo="lab/base", filename="sub dir/base.zip", revision="refs/pr/1")


@pytest.fixture
def hub(site, monkeypatch):
    site.files["/lab/base/resolve/refs%2Fpr%2F1/sub%20dir/base.zip"] = CONTENT
    monkeypatch.setenv("HF_ENDPOINT", f"{site.url}/")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    return site


def test_endpoint_revision_and_token(hub):
    path = fetch(make_card(location=PLACE))
    assert (path.name, path.read_bytes()) == ("base.zip", CONTENT)
    assert hub.asked[0]["Authorization"] == "Bearer hf_secret"


def test_its_own_address(monkeypatch):
    from lnsegfm.registry.fetch import _source

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    card = make_card(location=HuggingFaceLocation(repo="lab/base", filename="base.zip", revision="0a1b"))
    assert _source(card, None) == ("https://huggingface.co/lab/base/resolve/0a1b/base.zip", "hf_secret")
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.hospital.invalid")  # named by the user, but no place for a token
    assert _source(card, None)[1] is None


def test_the_token_stays_with_its_host(hub, elsewhere):
    elsewhere.files["/cdn"] = CONTENT
    hub.redirects["/lab/base/resolve/refs%2Fpr%2F1/sub%20dir/base.zip"] = f"{elsewhere.url}/cdn"
    fetch(make_card(location=PLACE))
    assert hub.asked[0]["Authorization"] == "Bearer hf_secret"
    assert "Authorization" not in elsewhere.asked[0]


def test_a_token_goes_before_a_netrc(hub, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    fetch(make_card(location=PLACE))
    assert hub.asked[0]["Authorization"] == "Bearer hf_secret"


def test_no_token_goes_to_other_places(hub, url):
    fetch(card_at(url, CONTENT))
    fetch(make_card(location=PLACE), mirror=mirror_of(hub))
    assert all("Authorization" not in headers for headers in hub.asked)


def test_no_token_no_header(hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    fetch(make_card(location=PLACE))
    assert "Authorization" not in hub.asked[0]


def mirror_of(site) -> str:
    site.files["/mirror/base/base.zip"] = CONTENT
    return f"{site.url}/mirror/"


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_it_is_asked_in_place_of_the_card(site, how, monkeypatch):
    mirror = mirror_of(site)
    if how == "variable":
        monkeypatch.setenv("LNSEGFM_MIRROR", mirror)
    card = card_at("https://example.invalid/models/base.zip?x=1", CONTENT)
    path = fetch(card, mirror=mirror if how == "argument" else None)
    assert path.read_bytes() == CONTENT
    assert [headers["path"] for headers in site.asked] == ["/mirror/base/base.zip"]


def test_it_is_believed_no_more_than_others(site, home):
    mirror = mirror_of(site)
    with pytest.raises(UnsafeFile):
        fetch(card_at("https://example.invalid/base.zip", b"else", bytes=None), mirror=mirror)
    assert left(home) == []


def test_it_may_hold_what_is_else_downloaded_by_hand(site):
    card = make_card(location=ByHandLocation(pages=("https://example.invalid/",), filename="base.zip"))
    assert fetch(card, mirror=mirror_of(site)).read_bytes() == CONTENT


@pytest.mark.parametrize("mirror", ["ftp://a/b", "/models", "https://", "https://[x", "https://a/?q=1", "https://a:b/"])
def test_what_is_no_mirror(mirror):
    with pytest.raises(ConfigError, match="not a base URL"):
        fetch(card_at("https://example.invalid/base.zip"), mirror=mirror)


def test_a_password_is_used_and_not_told(site, url):
    told = Told()
    mirror = mirror_of(site).replace("http://", "http://me:secret@")
    fetch(card_at(url, CONTENT), mirror=mirror, progress=told)
    assert site.asked[0]["Authorization"].startswith("Basic ")
    with pytest.raises(ModelError) as error:
        fetch(card_at(url, b"x", name="none"), mirror=mirror, progress=told)
    assert "secret" not in str(error.value) + "".join(told.stages)

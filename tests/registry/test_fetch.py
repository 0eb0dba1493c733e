"""From a card to its file: a real server on this machine, on good days and on bad ones."""

from __future__ import annotations

import hashlib

import pytest

from lnsegfm.errors import ConfigError, ModelError, UnsafeFile
from lnsegfm.registry.fetch import download_place, fetch
from lnsegfm.registry.model_card import ByHandLocation, FileLocation
from lnsegfm.storage import PARTIAL
from tests.registry.conftest import CONTENT, Told, card_at, left, make_card


def test_it_arrives_under_its_name(site, url, home):
    path = fetch(card_at(url, CONTENT))
    assert path.read_bytes() == CONTENT
    assert path.name == "base.zip"
    assert home / "downloads" in path.parents
    assert left(home) == ["base.zip"]
    assert site.wanted == [None]


def test_a_card_without_a_hash_is_fetched_too(url, home):
    assert fetch(card_at(url)).read_bytes() == CONTENT
    assert left(home) == ["base.zip"]


def test_progress_says_where_from_and_how_far(site, url):
    site.files["/m/base.zip"] = bytes(3_500_000)
    told = Told()
    fetch(card_at(url, bytes(3_500_000)), progress=told)
    assert told.stages == [f"Downloading base from {url}", "Checking SHA-256 of base"]
    assert told.steps == [(1, 4, "MB"), (2, 4, "MB"), (3, 4, "MB"), (4, 4, "MB")]


def test_what_is_there_is_not_asked_for_again(site, url):
    card = card_at(url, CONTENT)
    first = fetch(card)
    assert fetch(card) == first
    assert fetch(card, offline=True) == first
    assert len(site.asked) == 1


def test_what_is_there_but_wrong_is_fetched_anew(site, url):
    card = card_at(url, CONTENT)
    path = fetch(card)
    path.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(UnsafeFile, match="SHA-256"):
        fetch(card, offline=True)
    assert fetch(card).read_bytes() == CONTENT
    assert len(site.asked) == 2


def test_offline_opens_no_connection(site, url, home):
    with pytest.raises(ModelError, match="offline") as error:
        fetch(card_at(url, CONTENT), offline=True)
    assert str(download_place(card_at(url, CONTENT))) in str(error.value)
    assert site.asked == []
    assert not home.exists()


def test_other_files_of_the_same_name_never_share_a_place(url):
    places = {
        download_place(card)
        for card in (
            card_at(url),
            card_at(f"{url}x"),
            card_at(url, CONTENT),
            card_at(url, b"other"),
            make_card("other", location=card_at(url).location),
        )
    }
    assert len(places) == 5


def test_another_file_is_removed_and_both_hashes_are_told(site, url, home):
    card = card_at(url, b"another", bytes=None)
    with pytest.raises(UnsafeFile, match="removed") as error:
        fetch(card)
    assert hashlib.sha256(CONTENT).hexdigest()[:12] in str(error.value)
    assert hashlib.sha256(b"another").hexdigest()[:12] in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert left(home) == []


def test_another_size_is_refused_before_it_is_downloaded(site, url, home):
    with pytest.raises(ModelError, match=f"{len(CONTENT)} bytes, its card says 7"):
        fetch(card_at(url, bytes=7))
    assert left(home) == []


@pytest.mark.parametrize(("status", "told"), [(404, "no such file"), (410, "no such file"), (403, "HF_TOKEN")])
def test_no_file_is_told_at_once(site, url, home, status, told):
    site.statuses = [status]
    with pytest.raises(ModelError, match=told) as error:
        fetch(card_at(url, CONTENT))
    assert url in str(error.value)
    assert len(site.asked) == 1
    assert left(home) == []


def test_a_length_that_promises_more_is_a_broken_line(site, url):
    site.headers, site.ranges = {"Content-Length": str(len(CONTENT) + 5)}, False
    with pytest.raises(ModelError, match="the line broke"):
        fetch(card_at(url))


def test_a_length_that_promises_less_is_another_file(site, url, home):
    site.headers = {"Content-Length": str(len(CONTENT) - 5)}
    with pytest.raises(UnsafeFile, match="SHA-256"):
        fetch(card_at(url, CONTENT, bytes=None))
    with pytest.raises(ModelError, match="bytes"):
        fetch(card_at(url, CONTENT))
    assert left(home) == []


def test_without_a_length_no_more_than_the_card_says_is_taken(site, url, home):
    site.headers = {"Content-Length": None}
    assert fetch(card_at(url, CONTENT)).read_bytes() == CONTENT
    with pytest.raises(ModelError, match="sends more than 1000 bytes"):
        fetch(card_at(url, bytes=1000))
    assert left(home) == ["base.zip"]


def test_a_web_page_is_no_model(site, url, home):
    site.headers = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(ModelError, match="web page"):
        fetch(card_at(url))
    assert left(home) == []


def test_a_file_that_the_disk_cannot_hold(site, url, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(ModelError, match="LNSEGFM_HOME"):
        fetch(card_at(url, CONTENT))


def test_a_packed_transfer_is_not_unpacked(site, url):
    """The file as it lies there: a server may call a tar.gz a tar that is packed for the way."""
    site.headers = {"Content-Encoding": "gzip"}
    assert fetch(card_at(url, CONTENT)).read_bytes() == CONTENT
    assert site.asked[0]["Accept-Encoding"] == "identity"


def test_while_another_process_downloads(site, url):
    from filelock import FileLock

    place = download_place(card_at(url, CONTENT))
    place.parent.mkdir(parents=True)
    with FileLock(place.with_name(f"{PARTIAL}base.zip.lock")), pytest.raises(ConfigError, match="another process"):
        fetch(card_at(url, CONTENT))


def test_a_person_has_to(home):
    card = make_card(location=ByHandLocation(pages=("https://a.org/x", "https://b.org/y")))
    with pytest.raises(ModelError) as error:
        fetch(card)
    first, second = str(error.value).splitlines()
    assert "https://a.org/x, https://b.org/y" in first
    assert "A base" in first
    assert second == "Then run: lnsegfm models import FILE --as base"
    assert not home.exists()


def test_the_card_does_not_say_where():
    with pytest.raises(ModelError, match="no address to download it from"):
        fetch(make_card())


def test_a_file_is_used_where_it_lies(tmp_path, home):
    (tmp_path / "base.zip").write_bytes(CONTENT)
    location = FileLocation(path=str(tmp_path / "base.zip"))
    right = hashlib.sha256(CONTENT).hexdigest()
    assert fetch(make_card(location=location, sha256=right), offline=True) == tmp_path / "base.zip"
    with pytest.raises(UnsafeFile):
        fetch(make_card(location=location, sha256="0" * 64))
    with pytest.raises(ModelError, match="its card says 5"):
        fetch(make_card(location=location, bytes=5))
    assert (tmp_path / "base.zip").exists()
    assert not home.exists()


def test_a_folder_is_one_too_unless_a_hash_is_wanted(tmp_path):
    location = FileLocation(path=str(tmp_path))
    assert fetch(make_card(location=location)) == tmp_path
    with pytest.raises(ModelError):
        fetch(make_card(location=location, sha256="0" * 64))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        fetch(make_card(location=FileLocation(path=str(tmp_path / "none.zip"))))

"""A card names no hash: that of the first download is recorded and compared at every later one."""

from __future__ import annotations

import hashlib
import json

import pytest

from lnsegfm.errors import ConfigError, ModelError, UnsafeFile
from lnsegfm.registry.fetch import download_place, fetch, verify_download
from lnsegfm.registry.model_card import FileLocation, HuggingFaceLocation
from lnsegfm.registry.recorded_hashes import record_place, recorded_file
from lnsegfm.registry.stored_model import read_stored
from tests.registry.conftest import CONTENT, HALF, Told, card_at, left, make_card

CHANGED = CONTENT[:-1] + b"?"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def forget(home):
    """Remove the download, as a person does for room; the record stays."""

    def forget(card):
        download_place(card).unlink()

    return forget


def test_the_first_pull_records_and_tells_it(url, home):
    card, told = card_at(url), Told()
    fetch(card, progress=told)
    recorded = recorded_file(card)
    assert recorded is not None
    assert (recorded.sha256, recorded.bytes, recorded.model) == (digest(CONTENT), len(CONTENT), "base")
    assert [line for line in told.stages if digest(CONTENT) in line and "recorded" in line]
    assert record_place(card).is_relative_to(home)


def test_the_same_file_again_is_taken_and_nothing_is_told(url, forget):
    card, told = card_at(url), Told()
    fetch(card)
    before = record_place(card).read_bytes()
    forget(card)
    fetch(card, progress=told)
    assert not [line for line in told.stages if "is recorded" in line]
    assert record_place(card).read_bytes() == before


def test_a_changed_file_is_refused_with_both_hashes_and_the_remedy_works(site, url, forget, home):
    card = card_at(url)
    fetch(card)
    forget(card)
    site.files["/m/base.zip"], site.etag = CHANGED, '"v2"'
    with pytest.raises(UnsafeFile) as error:
        fetch(card)
    told = str(error.value)
    assert digest(CONTENT) in told
    assert digest(CHANGED) in told
    assert told.endswith("lnsegfm models pull base --accept-change")
    assert len(told.splitlines()) == 1
    assert left(home) == []
    with pytest.raises(UnsafeFile):  # a refusal records nothing
        fetch(card)

    assert fetch(card, accept_change=True).read_bytes() == CHANGED
    assert recorded_file(card).sha256 == digest(CHANGED)
    forget(card)
    site.files["/m/base.zip"] = CONTENT
    with pytest.raises(UnsafeFile, match=digest(CHANGED)):
        fetch(card)


def test_a_change_is_accepted_though_the_old_file_is_in_the_cache(site, url):
    card = card_at(url)
    fetch(card)
    site.files["/m/base.zip"], site.etag = CHANGED, '"v2"'
    assert fetch(card).read_bytes() == CONTENT
    assert fetch(card, accept_change=True).read_bytes() == CHANGED


def test_a_mirror_holds_the_same_file(site, elsewhere, url, forget):
    card = card_at(url)
    fetch(card)
    forget(card)
    elsewhere.files["/base/base.zip"] = CHANGED
    with pytest.raises(UnsafeFile, match=digest(CONTENT)):
        fetch(card, mirror=elsewhere.url)
    elsewhere.files["/base/base.zip"] = CONTENT
    assert fetch(card, mirror=elsewhere.url).read_bytes() == CONTENT
    assert len(site.asked) == 1


def test_a_line_that_breaks_records_the_whole_file(site, url):
    site.drops = [HALF]
    fetch(card_at(url))
    assert site.wanted == [None, f"bytes={HALF}-"]
    assert recorded_file(card_at(url)).sha256 == digest(CONTENT)


def test_a_part_of_a_file_that_changed_meanwhile_is_never_joined(site, url, forget):
    """With a record a part is continued without the server's word; the hash of the whole tells."""
    card = card_at(url)
    fetch(card)
    forget(card)
    site.etag, site.drops = None, [HALF, 0, 0, 0, 0]
    site.statuses = []
    with pytest.raises(ModelError):
        fetch(card)
    site.drops, site.files["/m/base.zip"] = [], bytes(HALF) + CONTENT[HALF:]
    assert fetch(card).read_bytes() == CONTENT  # the first half arrived before


def test_offline_takes_what_was_downloaded_and_refuses_what_changed(site, url):
    card = card_at(url)
    path = fetch(card)
    assert fetch(card, offline=True) == path
    path.write_bytes(CHANGED)
    with pytest.raises(UnsafeFile, match=digest(CHANGED)) as error:
        fetch(card, offline=True)
    assert "removed" not in str(error.value)
    assert path.exists()
    assert fetch(card).read_bytes() == CONTENT  # with a network it comes anew
    assert len(site.asked) == 2


def test_a_download_of_before_the_records_is_recorded_as_it_is(url):
    card = card_at(url)
    fetch(card)
    record_place(card).unlink()
    fetch(card, offline=True)
    assert recorded_file(card).sha256 == digest(CONTENT)


def test_a_published_hash_counts_and_is_not_recorded(url, home):
    card = card_at(url, CONTENT)
    fetch(card)
    assert recorded_file(card) is None
    assert not (home / "recorded").exists()
    with pytest.raises(ConfigError, match="--accept-change"):
        fetch(card, accept_change=True)


def test_a_hash_that_is_published_later_counts(site, url):
    fetch(card_at(url))
    site.files["/m/base.zip"] = CHANGED
    assert fetch(card_at(url, CHANGED)).read_bytes() == CHANGED


def test_files_of_ones_own_are_not_recorded(tmp_path, home):
    (tmp_path / "base.zip").write_bytes(CONTENT)
    card = make_card(location=FileLocation(path=str(tmp_path / "base.zip")))
    fetch(card)
    assert not home.exists()


def test_two_places_two_records(url):
    other = make_card(location=HuggingFaceLocation(repo="lab/base", filename="base.zip"))
    places = {record_place(card) for card in (card_at(url), card_at(f"{url}x"), other, card_at(url, name="b"))}
    assert len(places) == 4


@pytest.mark.parametrize("content", ["{", "{}", '{"format": "lnsegfm.recorded/1", "sha256": "0"}'])
def test_a_damaged_record_is_no_reason_to_trust(site, url, content, forget):
    card = card_at(url)
    fetch(card)
    forget(card)
    record_place(card).write_text(content)
    with pytest.raises(ModelError, match=record_place(card).name):
        fetch(card)
    record_place(card).unlink()
    fetch(card)


def test_verify_compares_the_download_and_the_models_own_source(url, store):
    card = card_at(url)
    path = fetch(card)
    right = read_stored(store("base", card, digest(CONTENT)))
    assert verify_download(right) == ()
    path.write_bytes(CHANGED)
    assert verify_download(right) == (f"{path}: changed",)
    path.unlink()
    assert verify_download(right) == ()
    other = read_stored(store("other", make_card("other", location=card.location)))
    assert verify_download(other) == ()  # another name has a record of its own
    content = json.loads(record_place(card).read_text()) | {"sha256": "c" * 64}
    record_place(card).write_text(json.dumps(content))
    assert verify_download(right) == (
        f"made of a file with SHA-256 {digest(CONTENT)}, its first pull recorded {'c' * 64}",
    )

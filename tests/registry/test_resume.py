"""Lines that break, servers that are busy: what arrived is not asked for again, and never mixed."""

from __future__ import annotations

import pytest

from lnsegfm.errors import Interrupted, ModelError
from lnsegfm.registry.download import PIECE
from lnsegfm.registry.fetch import download_place, fetch
from lnsegfm.storage import PARTIAL
from tests.registry.conftest import CONTENT, HALF, Told, card_at, left


@pytest.mark.parametrize("known", [True, False], ids=["hash", "no-hash"])
def test_a_dropped_line_costs_only_what_was_under_way(site, url, home, known):
    site.drops = [HALF]
    told = Told()
    path = fetch(card_at(url, CONTENT if known else None), progress=told)
    assert path.read_bytes() == CONTENT
    assert site.wanted == [None, f"bytes={HALF}-"]
    assert site.asked[1]["If-Range"] == '"v1"'
    assert any("trying again" in stage for stage in told.stages)
    assert left(home) == ["base.zip"]


def test_a_server_without_ranges_starts_anew(site, url):
    site.ranges, site.drops = False, [HALF]
    assert fetch(card_at(url, CONTENT)).read_bytes() == CONTENT
    assert site.wanted == [None, f"bytes={HALF}-"]


def test_a_file_that_changed_meanwhile_starts_anew(site, url):
    site.drops = [HALF, 0, 0, 0, 0]
    with pytest.raises(ModelError):
        fetch(card_at(url))
    site.files["/m/base.zip"], site.etag = CONTENT[::-1], '"v2"'
    assert fetch(card_at(url)).read_bytes() == CONTENT[::-1]


def test_so_it_does_where_the_server_gives_the_part_nevertheless(site, url):
    site.drops = [HALF, 0, 0, 0, 0]
    with pytest.raises(ModelError):
        fetch(card_at(url))
    site.files["/m/base.zip"], site.etag = CONTENT[::-1], '"v1"'
    site.headers = {"ETag": '"v2"'}
    assert fetch(card_at(url)).read_bytes() == CONTENT[::-1]


def test_another_part_than_was_asked_for_is_thrown_away(site, url):
    site.drops, site.headers = [HALF], {"Content-Range": f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}"}
    assert fetch(card_at(url, CONTENT)).read_bytes() == CONTENT
    assert site.wanted == [None, f"bytes={HALF}-", None]


def test_without_a_version_and_without_a_hash_nothing_is_continued(site, url):
    site.etag, site.drops = None, [HALF]
    assert fetch(card_at(url)).read_bytes() == CONTENT
    assert site.wanted == [None, None]


def test_with_a_hash_no_version_is_needed(site, url):
    site.etag, site.drops = None, [HALF]
    assert fetch(card_at(url, CONTENT)).read_bytes() == CONTENT
    assert site.wanted == [None, f"bytes={HALF}-"]
    assert "If-Range" not in site.asked[1]


def test_a_weak_etag_gives_way_to_the_time_of_the_change(site, url):
    site.etag, site.modified, site.drops = 'W/"v1"', "Tue, 01 Jul 2025 10:00:00 GMT", [HALF]
    assert fetch(card_at(url)).read_bytes() == CONTENT
    assert site.asked[1]["If-Range"] == site.modified


def test_after_several_tries_one_line_says_that_the_command_continues(site, url, home):
    card = card_at(url, CONTENT)
    site.drops = [PIECE, 1, 0, 0, 0]
    with pytest.raises(ModelError, match="The same command continues") as error:
        fetch(card)
    assert len(str(error.value).splitlines()) == 1
    assert len(site.asked) == 5
    assert f"{PARTIAL}base.zip" in left(home)

    assert fetch(card).read_bytes() == CONTENT
    assert site.wanted[-1] == f"bytes={PIECE + 1}-"
    assert left(home) == ["base.zip"]


def test_killed_after_the_last_byte_nothing_is_fetched_again(site, url):
    card = card_at(url, CONTENT)
    place = download_place(card)
    place.parent.mkdir(parents=True)
    place.with_name(f"{PARTIAL}base.zip").write_bytes(CONTENT)
    assert fetch(card).read_bytes() == CONTENT
    assert site.wanted == [f"bytes={len(CONTENT)}-"]


def test_the_size_of_the_whole_counts_where_a_part_has_no_length(site, url):
    card = card_at(url, CONTENT, bytes=None)
    place = download_place(card)
    place.parent.mkdir(parents=True)
    place.with_name(f"{PARTIAL}base.zip").write_bytes(CONTENT[:HALF])
    site.headers, site.drops = {"Content-Length": None}, [PIECE]
    assert fetch(card).read_bytes() == CONTENT
    assert site.wanted == [f"bytes={HALF}-", f"bytes={HALF + PIECE}-"]


def test_more_than_the_file_has_starts_anew(site, url):
    card = card_at(url, CONTENT)
    place = download_place(card)
    place.parent.mkdir(parents=True)
    place.with_name(f"{PARTIAL}base.zip").write_bytes(CONTENT + b"more")
    assert fetch(card).read_bytes() == CONTENT
    assert len(site.asked) == 2


def test_ctrl_c_keeps_what_arrived(site, url):
    class Impatient(Told):
        def stage(self, text: str) -> None:
            if "trying again" in text:
                raise KeyboardInterrupt

    site.drops = [HALF]
    with pytest.raises(Interrupted, match="the same command continues"):
        fetch(card_at(url, CONTENT), progress=Impatient())
    assert fetch(card_at(url, CONTENT)).read_bytes() == CONTENT
    assert site.wanted == [None, f"bytes={HALF}-"]


def test_a_busy_server_is_asked_again(site, url):
    site.statuses = [503, 429, 500]
    assert fetch(card_at(url, CONTENT)).read_bytes() == CONTENT
    assert len(site.asked) == 4


def test_a_server_that_is_not_there(quick, home):
    with pytest.raises(ModelError, match="no connection, 5 times"):
        fetch(card_at("http://127.0.0.1:9/base.zip", CONTENT))
    assert left(home) == []

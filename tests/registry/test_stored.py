from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lnsegfm.errors import ModelError
from lnsegfm.registry.stored_model import hash_files, read_stored, stored_in, verify


def test_what_is_written_is_read(store):
    folder = store()
    stored = read_stored(folder)
    assert stored.card.name == "base"
    assert stored.source.form == "an nnU-Net zip"
    assert str(stored.installed_at) == "2025-01-02"
    assert sorted(stored.files) == ["fold_0/checkpoint_final.pth", "plans.json"]
    before = (folder / "card.json").read_bytes()
    stored.write(folder)
    assert (folder / "card.json").read_bytes() == before


def test_an_untouched_model_verifies(store):
    assert verify(store()) == ()


def test_verify_names_every_change(store, tmp_path):
    folder: Path = store()
    (folder / "plans.json").write_text("{ }")
    (folder / "fold_0" / "checkpoint_final.pth").unlink()
    (folder / "fold_0" / "other.pth").write_bytes(b"more")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x").write_text("x")
    (folder / "fold_1").symlink_to(tmp_path / "outside")
    assert verify(folder) == (
        "fold_0/checkpoint_final.pth: missing",
        "fold_1: not a plain file",
        "plans.json: changed",
        "fold_0/other.pth: not listed",
    )


def test_a_link_to_the_same_bytes_is_no_plain_file(store, tmp_path):
    folder = store()
    weights = folder / "fold_0" / "checkpoint_final.pth"
    weights.rename(tmp_path / "moved.pth")
    weights.symlink_to(tmp_path / "moved.pth")
    assert verify(folder) == ("fold_0/checkpoint_final.pth: not a plain file",)


def test_one_bit_is_enough(store):
    folder = store()
    weights = folder / "fold_0" / "checkpoint_final.pth"
    stamp = weights.stat().st_mtime_ns
    content = bytearray(weights.read_bytes())
    content[3] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(stamp, stamp))
    assert verify(folder) == ("fold_0/checkpoint_final.pth: changed",)


def test_hash_files_skips_the_card_at_the_top_alone(tmp_path):
    for path in ("card.json", "a/card.json", "b"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(path)
    assert list(hash_files(tmp_path)) == ["a/card.json", "b"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"format": "lnsegfm.model/9"}, "format 'lnsegfm.model/9'"),
        ({"colour": 1}, "field colour"),
        ({"files": {"../x": "0" * 64}}, "field files"),
        ({"files": {"/x": "0" * 64}}, "field files"),
        ({"files": {"card.json": "0" * 64}}, "field files"),
        ({"files": {}}, "field files"),
        ({"parts": "encoder"}, "covers"),
        ({"covers": ["encoder."]}, "covers"),
        ({"parts": "half"}, "field parts"),
        ({"weights_sha256": []}, "field weights_sha256"),
        ({"installed_at": "yesterday"}, "field installed_at"),
        ({"card": {}}, "field card.name"),
    ],
)
def test_a_wrong_card_json_is_named(store, fields, told):
    folder = store()
    path = folder / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    for reader in (read_stored, verify):
        with pytest.raises(ModelError) as error:
            reader(folder)
        assert str(error.value).startswith(f"{path}: ")
        assert told in str(error.value)


@pytest.mark.parametrize("content", [None, "", "[]", "{", "\xff"])
def test_a_card_json_that_is_none(store, content):
    path = store() / "card.json"
    path.unlink()
    if content is not None:
        path.write_text(content, encoding="latin-1")
    with pytest.raises(ModelError, match=r"card\.json"):
        read_stored(path.parent)


@pytest.mark.parametrize("content", [None, "not JSON", "[]", '{"format": "theirs/1"}', '{"name": "a dataset card"}'])
def test_somebody_elses_card_is_none_of_ours(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "card.json").write_text(content)
    assert stored_in(tmp_path) is None


def test_a_spoilt_card_of_ours_is_told(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text('{"format": "lnsegfm.model/2"}')
    with pytest.raises(ModelError, match=r"is not lnsegfm\.model/1"):
        stored_in(tmp_path)

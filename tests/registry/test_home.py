from __future__ import annotations

from pathlib import Path

import pytest

from lnsegfm.errors import ConfigError
from lnsegfm.registry.home import built_in, home, installed, model_place


def test_the_variable_names_the_place(tmp_path, monkeypatch):
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "elsewhere"))
    assert home() == tmp_path / "elsewhere"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LNSEGFM_HOME", "near")
    assert home() == tmp_path / "near"
    monkeypatch.setenv("LNSEGFM_HOME", "~/far")
    assert home() == Path.home() / "far"


def test_without_it_the_platform_does(tmp_path, monkeypatch):
    pytest.importorskip("platformdirs")
    monkeypatch.delenv("LNSEGFM_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert home().name == "lnsegfm"
    assert home().is_absolute()


@pytest.mark.parametrize("name", ["a", "ln-resencl", "totalsegmentator.297", "0", "a" * 64])
def test_plain_names_have_a_place(home, name):
    assert model_place(name) == home / "models" / name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../a", "a/b", "a\\b", "A", "a b", "a.", "-a", "a:b", "a\n", "é", "a" * 65, "/a", ".partial-a"],
)
def test_other_names_are_refused(name):
    with pytest.raises(ConfigError, match="not a plain name"):
        model_place(name)


def test_installed_is_what_has_a_card(home, store):
    assert installed() == built_in() == ("phantom-neck",)
    store("b")
    store("a")
    (home / "models" / "empty").mkdir()
    (home / "models" / ".partial-1-c").mkdir()
    (home / "models" / ".partial-1-c" / "card.json").write_text("{}")
    assert installed() == ("a", "b", "phantom-neck")

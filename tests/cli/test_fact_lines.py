"""Facts of a model at any width: no address is cut."""

from __future__ import annotations

import pytest

from lnsegfm.cli.fact_lines import fact_lines
from lnsegfm.cli.models_list_command import show
from lnsegfm.registry.manifest import cards


def test_names_stand_once_and_long_words_on_their_own_line():
    address = f"https://example.org/{'x' * 60}"
    facts = [("name", "a"), ("reported", "b: 1"), ("reported", "c: 2"), ("where", f"see {address} for more")]
    assert fact_lines(facts, 60) == [
        "name                  a",
        "reported              b: 1",
        "                      c: 2",
        "where                 see",
        f"  {address}",
        "                      for more",
    ]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_models_show_never_cuts_an_address(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", str(width))
    known = cards()
    monkeypatch.setattr("lnsegfm.registry.manifest.cards", lambda _: known)  # the files are read once
    for name, card in known.items():
        show(name)
        lines = capsys.readouterr().out.splitlines()
        for address in card.sources:
            assert any(address in line for line in lines), (name, address)
        assert all(len(line) <= width or len(line.split()) == 1 for line in lines)

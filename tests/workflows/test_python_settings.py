"""Settings from Python: by name, lists for cases, and wrong ones refused in a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lnsegfm
from lnsegfm.errors import ConfigError
from lnsegfm.workflows import pretrain as pretraining


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `pretrain` would be run with."""
    calls: list[Any] = []
    monkeypatch.setattr(pretraining, "pretrain", lambda data, out, training, **_: calls.append((data, out, training)))
    return calls


def test_pretrain_takes_settings_by_name(asked: list[Any]):
    lnsegfm.pretrain("atlas", "base", preset="small", iterations=100, cases=["b", "a"], plans="plans.json")
    settings = lnsegfm.PretrainSettings(preset="small", iterations=100, cases=("b", "a"), plans=Path("plans.json"))
    assert asked == [(Path("atlas"), Path("base"), settings)]
    lnsegfm.pretrain("atlas", "base", lnsegfm.PretrainSettings(seed=3), iterations=7)
    lnsegfm.pretrain("atlas", "base")
    assert [call[2] for call in asked[1:]] == [
        lnsegfm.PretrainSettings(seed=3, iterations=7),
        lnsegfm.PretrainSettings(),
    ]


def test_settings_that_there_are_not_are_refused_with_the_nearest(asked: list[Any], tmp_path: Path):
    with pytest.raises(ConfigError, match=r"^Setting iteration: not known\. Near it: iterations"):
        lnsegfm.pretrain("atlas", "base", iteration=100)
    with pytest.raises(ConfigError, match=r"^Setting shot: not known\. Near it: shots"):
        lnsegfm.finetune("clinic", "base", tmp_path / "run", shot=5)
    assert asked == []


def test_named_cases_are_checked_as_on_the_command_line():
    with pytest.raises(ConfigError, match="named twice"):
        lnsegfm.Recipe(shots=["a", "a"])  # type: ignore[arg-type]
    assert lnsegfm.Recipe(shots=["b", "a"]).shots == ("a", "b")  # type: ignore[arg-type]


def test_an_evaluation_prints_as_a_line():
    mask = np.zeros((6, 6, 6), np.uint8)
    mask[2:4, 2:4, 2:4] = 1
    grid = lnsegfm.Grid(shape=(6, 6, 6), spacing_mm=(1.0, 1.0, 1.0))
    scored = lnsegfm.evaluate([mask] * 2, [mask, np.roll(mask, 1, 0)], labels={"node": 1}, grid=grid)
    assert repr(scored) == "Evaluation(2 cases: node Dice 0.750)"

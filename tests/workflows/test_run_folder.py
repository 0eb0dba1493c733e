"""What a folder says of the run that it holds, when another one is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lnsegfm.errors import RunMismatch
from lnsegfm.workflows.run_folder import claim

RECIPE = {"iterations": 400, "lr": 0.01, "shots": 5, "mirror": "auto", "exclude": ()}


def resolved(identity: str = "one", base: str = "b", **changed: Any) -> dict[str, Any]:
    return {"identity": identity, "recipe": RECIPE | changed, "base": {"sha256": base}}


def refusal(out: Path, **changed: Any) -> str:
    with pytest.raises(RunMismatch) as error:
        claim(out, resolved("other", **changed))
    return str(error.value)


def test_the_same_run_is_recognised(tmp_path):
    claim(tmp_path / "run", resolved())
    claim(tmp_path / "run", resolved())


def test_only_settings_that_both_state_are_said_to_differ(tmp_path):
    out = tmp_path / "run"
    claim(out, resolved())
    older = json.loads((out / "recipe.json").read_text())
    del older["recipe"]["mirror"], older["recipe"]["exclude"]
    (out / "recipe.json").write_text(json.dumps(older))
    assert refusal(out, shots=6) == f"{out}: it holds another run (shots 5, not 6). Choose another --out."
    assert refusal(out, base="c") == f"{out}: it holds another run (another base). Choose another --out."
    assert refusal(out) == f"{out}: it holds another run (other data). Choose another --out."


def test_more_iterations_on_a_finished_run_start_from_its_model(tmp_path):
    out = tmp_path / "my run"
    claim(out, resolved())
    assert refusal(out, iterations=800).endswith("(iterations 400, not 800). Choose another --out.")
    (out / "run.json").write_text("{}")
    assert refusal(out, iterations=800) == (
        f"{out}: it holds another run (iterations 400, not 800), which is finished. To train it further, start from it "
        f"with lnsegfm finetune --model '{out}' and another --out; to train anew, choose another --out."
    )
    assert refusal(out, iterations=800, shots=6).endswith("Choose another --out.")

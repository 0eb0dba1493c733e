from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from .command_lines import Stopped, commands


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Reads a command line and gives what it asks the library for, and the record that its run would keep."""
    import lnsegfm.cli.finetune_command as command
    import lnsegfm.workflows.finetune as tuning
    import lnsegfm.workflows.finetune_plan as planning
    import lnsegfm.workflows.pretrain as pretraining

    monkeypatch.chdir(tmp_path)
    Path("recipe.toml").write_text('method = "full"\nlr = 0.02\nlr_grid = [0.02, 0.05]\nwarm_up = 5\n')
    seen: dict[str, Any] = {}

    def note(*given: Any, **named: Any) -> Any:
        seen.update({str(k): v for k, v in enumerate(given)} | {k: v for k, v in named.items() if k != "progress"})
        return "planned"

    def end(*given: Any, **named: Any) -> None:
        note(*given, **named)
        raise Stopped

    def adapt(_: Any, __: Path, **named: Any) -> None:
        end(**named)

    monkeypatch.setattr(planning, "plan", note)
    monkeypatch.setattr(command, "announce", lambda *_: None)
    monkeypatch.setattr(tuning, "finetune", adapt)
    monkeypatch.setattr(pretraining, "pretrain", end)

    def read(line: Sequence[str]) -> dict[str, Any]:
        seen.clear()
        with pytest.raises(Stopped):
            commands()[line[1]].main(list(line[2:]), standalone_mode=False)
        return dict(seen)

    return read

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "openkbp.py"


@pytest.mark.long
@pytest.mark.realdata
def test_the_tutorial_runs_on_real_ct(real_data, tmp_path):
    """The way alone, with too few steps to learn anything."""
    words = [EXAMPLE, real_data / "openkbp", tmp_path, "--base-iterations", 3, "--iterations", 3, "--methods", "dgst"]
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["methods"]["dgst"]["validation"]["after"]["Larynx"]["n"] == 4
    assert (tmp_path / "run-dgst" / "report.html").is_file()

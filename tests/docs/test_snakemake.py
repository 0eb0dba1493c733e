"""The example for Snakemake does what it says, with the real program."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scenes import scene, write_image, write_scenes

PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"
SHORT = {
    "--out base/": "--out base/ --iterations 2 --device cpu",
    "--out run/": "--out run/ --iterations 2 --lr 0.001 --shots 2 --no-mirroring --device cpu",
    "--out masks/": "--out masks/ --no-mirroring --device cpu",
}


@pytest.mark.services
def test_from_an_atlas_to_the_report(tmp_path: Path) -> None:
    program = shutil.which("snakemake")
    if program is None:
        pytest.skip("not installed: snakemake")
    found = re.search(r"```text\n(PARTS = .*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    rules = found[1]
    for words, shorter in SHORT.items():
        assert words in rules
        rules = rules.replace(words, shorter)
    (tmp_path / "Snakefile").write_text(rules)
    write_scenes(tmp_path / "atlas", 4)
    write_scenes(tmp_path / "clinic", 4, seed=100, contrast=50.0)
    for case in range(4):
        write_image(tmp_path / "scans" / f"case_{case}.nii.gz", scene(100 + case)[0])
    (tmp_path / "scans" / "broken.nii.gz").write_bytes(b"no scan")

    here = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [program, "--cores", "8"]
    done = subprocess.run(command, cwd=tmp_path, env=here, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert len(list((tmp_path / "masks").glob("case_*.nii.gz"))) == 4
    assert sorted(each.name for each in (tmp_path / "done").iterdir()) == sorted(
        f"{what}-{part}" for what in ("read", "prepare", "predict") for part in range(1, 5)
    )
    again = subprocess.run(command, cwd=tmp_path, env=here, capture_output=True, text=True, timeout=60, check=False)
    assert "Nothing to be done" in again.stderr

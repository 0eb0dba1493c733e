"""The job by ``lnsegfm finetune``, and what of it stock nnU-Net does not do."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.whole.setting import Prepared, Setting, bare
from benchmarks.whole.watch import Watched, watched


def run(setting: Setting, prepared: Prepared, place: Path, seed: int) -> tuple[dict[str, Any], Path]:
    """Adapt and evaluate, as on a machine where nothing was done before; gives the figures and the folder of masks."""
    shutil.rmtree(place, ignore_errors=True)
    environment = {"LNSEGFM_HOME": str(place / "home")}  # no scan is there prepared
    words = ["finetune", prepared.data, "--model", prepared.base, "--out", place / "run", "--method", "full"]
    words += ["--shots", setting.shots, "--iterations", setting.iterations, "--lr", setting.lr, "--seed", seed]
    words += ["--mirroring" if setting.mirroring else "--no-mirroring", "--device", "cpu"]
    done = watched([sys.executable, "-m", "lnsegfm", *words], bare(environment), place / "log.txt")
    return figures(done), place / "run" / "predictions" / "adapted"


def figures(done: Watched) -> dict[str, Any]:
    """Seconds of each stage, by what the command announces."""
    starts = {
        "training": first(done, "Training: "),
        "held-out evaluation": first(done, "Predicting ", "adapted model"),
        "the base on the same scans": first(done, "Predicting ", "the base"),
        "report": first(done, "Drawing the report"),
    }
    names, times = ["check and preprocess", *starts], [0.0, *starts.values(), done.seconds]
    stages = {name: times[i + 1] - times[i] for i, name in enumerate(names)}
    beyond = stages["the base on the same scans"] + stages["report"]
    return {
        "seconds": done.seconds,
        "seconds_alike": done.seconds - beyond,
        "stages": stages,
        "peak_mib": done.peak_mib,
        "processes": done.processes,
    }


def first(done: Watched, beginning: str, holding: str = "") -> float:
    """The second of the first line that begins so and holds this."""
    for second, line in done.lines:
        if line.startswith(beginning) and holding in line:
            return second
    raise RuntimeError(f"lnsegfm finetune: it never said {beginning}...{holding}. Its words have changed.")

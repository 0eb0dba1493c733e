"""A study on a Ray of two nodes: ``python -m tests.study.study_on_ray FOLDER STUDY.toml`` in a namespace of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from lnsegfm.study.run_study import run_study
from lnsegfm.study.study_file import read_study
from tests.jobs.ray_cluster import HEAD, RayCluster


def studied(out: Path, file: Path) -> dict[str, Any]:
    """Run the study on a cluster that is there for it; says which runs are done and which failed."""
    cluster = RayCluster()
    try:
        outcome = run_study(read_study(file), out, on=f"ray:{HEAD}", device="cpu", workers=0)
        return outcome.to_json()
    finally:
        cluster.stop()


if __name__ == "__main__":
    print(json.dumps(studied(Path(sys.argv[1]), Path(sys.argv[2]))), flush=True)

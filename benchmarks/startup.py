"""How long commands take before they work, and what threads that spin cost where cores are shared.

    python -m benchmarks.startup --out results/startup_cpu.json

Start-up: each command in a process of its own, ours and nnU-Net's in turn. A command that is given nothing to do shows
what loading costs: `predict` is asked for a model that is not there, nnU-Net's for its help, which loads all of it.

Threads: a forward pass with and without a neighbour that keeps one core busy, under both settings of
`OMP_WAIT_POLICY`; `lnsegfm` sets `PASSIVE`. Twice as many threads as cores is what a library starts that does not know
a container's quota.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from lnsegfm.storage import write_json

OURS = [sys.executable, "-m", "lnsegfm"]
COMMANDS: dict[str, list[str]] = {
    "python alone": [sys.executable, "-c", "pass"],
    "import torch": [sys.executable, "-c", "import torch"],
    "lnsegfm --help": [*OURS, "--help"],
    "lnsegfm predict --help": [*OURS, "predict", "--help"],
    "lnsegfm methods": [*OURS, "methods"],
    "lnsegfm: all that predict loads": [sys.executable, "-c", "import lnsegfm.prediction.predict_cases"],
    "lnsegfm: all that finetune loads": [sys.executable, "-c", "import lnsegfm.workflows.finetune"],
    "nnUNetv2_predict --help": [
        sys.executable,
        "-c",
        "import sys; sys.argv=['nnUNetv2_predict','--help'];"
        "from nnunetv2.inference.predict_from_raw_data import predict_entry_point; predict_entry_point()",
    ],
    "nnUNetv2_train --help": [
        sys.executable,
        "-c",
        "import sys; sys.argv=['nnUNetv2_train','--help'];"
        "from nnunetv2.run.run_training import run_training_entry; run_training_entry()",
    ],
    "nnUNetv2_preprocess --help": [
        sys.executable,
        "-c",
        "import sys; sys.argv=['nnUNetv2_preprocess','--help'];"
        "from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import preprocess_entry; preprocess_entry()",
    ],
}
FORWARD = """
import statistics, time, torch
torch.manual_seed(0)
layers = []
for i, o in ((1, 16), (16, 16), (16, 16), (16, 16)):
    layers += [torch.nn.Conv3d(i, o, 3, padding=1), torch.nn.InstanceNorm3d(o), torch.nn.LeakyReLU()]
network, taken = torch.nn.Sequential(*layers), []
with torch.inference_mode():
    for _ in range(12):
        started = time.perf_counter()
        network(torch.zeros(1, 1, 48, 48, 48))
        taken.append(time.perf_counter() - started)
print(statistics.median(taken[2:]))
"""
BUSY = "while True: pass"


def start_up(repeats: int) -> dict[str, dict[str, Any]]:
    """Seconds of each command, in turn."""
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats + 1):
        for name, command in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
            taken[name].append(time.perf_counter() - started)
    # the first round brings the files into memory
    return {
        name: {"median_s": round(statistics.median(each[1:]), 3), "fastest_s": round(min(each[1:]), 3)}
        for name, each in taken.items()
    }


def threads(repeats: int) -> list[dict[str, Any]]:
    """Milliseconds of a forward pass by wait policy, neighbours and threads."""
    cores = os.cpu_count() or 1
    rows = []
    for neighbours in (0, 1):
        for policy in ("ACTIVE", "PASSIVE"):
            for count in sorted({1, cores, 2 * cores}):
                busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(neighbours)]
                try:
                    given = os.environ | {"OMP_WAIT_POLICY": policy, "OMP_NUM_THREADS": str(count)}
                    found = [_forward(given) for _ in range(repeats)]
                finally:
                    for each in busy:
                        each.kill()
                        each.wait()
                rows.append(
                    {
                        "wait_policy": policy,
                        "threads": count,
                        "busy_neighbours": neighbours,
                        "forward_ms": round(1e3 * statistics.median(found), 1),
                    }
                )
    return rows


def _forward(environment: dict[str, str]) -> float:
    made = subprocess.run([sys.executable, "-c", FORWARD], env=environment, capture_output=True, text=True, check=True)
    return float(made.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    found = {
        "machine": machine(),
        "repeats": chosen.repeats,
        "start_up": start_up(chosen.repeats),
        "threads": threads(3),
    }
    for name, seconds in found["start_up"].items():
        print(f"{name:36} {seconds['median_s']:7.2f} s")
    for row in found["threads"]:
        print(
            f"{row['wait_policy']:8} {row['threads']:2} threads, {row['busy_neighbours']} busy neighbours: "
            f"{row['forward_ms']:8.1f} ms"
        )
    if chosen.out is not None:
        write_json(chosen.out, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The tutorial's run on real CT: a base for the head and neck, adapted to the larynx from five scans.

    python examples/openkbp.py DATA OUT

DATA is a folder with ``cases.json``, ``images/`` and ``labels_oar/`` made from the OpenKBP challenge
(https://github.com/ababier/open-kbp, MIT licence): CTs in HU and organ masks as NIfTI. Every step is an ``lnsegfm``
command; the script names the cases, runs the commands, and collects their numbers and times in OUT/summary.json.
A second start goes on where the first was stopped. Research only: low-resolution CT (about 4 mm), a handful of cases.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ORGANS = ("Brainstem", "SpinalCord", "RightParotid", "LeftParotid", "Mandible", "Larynx", "Esophagus")
"""Values 1 to 7 of the masks."""
OF_BASE = ("Brainstem", "SpinalCord", "RightParotid", "LeftParotid", "Mandible")
ONE_PAROTID = "Parotid=RightParotid+LeftParotid"
SHOTS, CLINIC = 5, 11
SIDES = {
    "auto": ["--mirror", "auto"],
    "all": ["--mirror", "all"],
    "swap": ["--mirror", "swap"],
    "merged": ["--merge", ONE_PAROTID],
}
"""Ways to train a base on organs that come in pairs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--base-iterations", type=int, default=6000)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--methods", nargs="+", default=["dgst"])
    parser.add_argument("--sides", nargs="+", default=["auto"], choices=SIDES, help="bases to train; auto is adapted")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of the bases; the first is adapted")
    arguments = parser.parse_args()
    tutorial = Tutorial(arguments.data, arguments.out)
    tutorial.arrange()
    for seed in arguments.seeds:
        for sides in arguments.sides:
            tutorial.base(sides, seed, arguments.base_iterations)
    for method in arguments.methods:
        tutorial.adapt(method, arguments.iterations, arguments.seeds[0])
    tutorial.write_summary()


class Tutorial:
    """The commands, their times and their results.

    Args:
        data: The data.
        out: Folder of everything that is made.
    """

    def __init__(self, data: Path, out: Path) -> None:
        self.data, self.out = data, out
        self.dataset = out / "dataset"
        self.summary: dict[str, Any] = {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores", "seconds": {}, "bases": {}, "methods": {}
        }  # fmt: skip

    def arrange(self) -> None:
        """A dataset of everything, and three lists of cases: of the base, of the clinic, of the last judgement."""
        cases = json.loads((self.data / "cases.json").read_text())
        train = [case["case"] for case in cases if case["split"] == "train"]
        larynx = {case["case"] for case in cases if "Larynx" in case["oar_voxels"]}
        clinic = [case for case in train if case in larynx][:CLINIC]
        self._list("base.txt", [case for case in train if case not in clinic])
        self._list("clinic.txt", clinic)
        self._list("validation.txt", [case["case"] for case in cases if case["split"] == "validation"])
        labels = [word for value, name in enumerate(ORGANS, 1) for word in ("--label", f"{name}={value}")]
        folders = ["--images", "images", "--labels", "labels_oar"]
        self._run("arrange", "data", "arrange", self.data, *folders, *labels, "--link", "--out", self.dataset)

    def base(self, sides: str, seed: int, iterations: int) -> None:
        """Train a base and score it on the validation cases, side by side and with the parotids as one."""
        name = f"base-{sides}-{seed}"
        kept = "Brainstem,SpinalCord,Parotid,Mandible" if sides == "merged" else ",".join(OF_BASE)
        labels = ["--keep-labels", kept, *SIDES[sides]]
        training = ["--preset", "tiny", "--patch-size", 32, 48, 48, "--iterations", iterations, "--seed", seed]
        chosen = ["--cases", self.out / "base.txt"]
        base = self.out / name
        self._run(name, "pretrain", self.dataset, *chosen, *labels, *training, "--out", base)
        masks = self._predicted(name, base)
        four = ["--keep-labels", "Brainstem,SpinalCord,Parotid,Mandible", "--merge", ONE_PAROTID]
        one = self._scores(f"{name}-one-parotid", masks, four)
        both = None if sides == "merged" else self._scores(name, masks, ["--keep-labels", ",".join(OF_BASE)])
        training_record = read(base / "run.json")["training"]
        self.summary["bases"][name] = {"training": training_record, "validation": both, "one_parotid": one}

    def adapt(self, method: str, iterations: int, seed: int) -> None:
        """Adapt the base to the larynx from five scans, and score the model with and without its postprocessing."""
        run, base = self.out / f"run-{method}", self.out / f"base-auto-{seed}"
        chosen = ["--cases", self.out / "clinic.txt", "--keep-labels", "Larynx", "--shots", SHOTS]
        # Wider than the base's own patch: one has to show what is *not* larynx as well.
        training = ["--method", method, "--iterations", iterations, "--patch-size", 48, 64, 64]
        training += ["--lr", 0.001] if method == "full" else []
        words = [*chosen, *training, "--postprocessing", "shots", "--out", run]
        self._run(f"run-{method}", "finetune", self.dataset, "--model", base, *words)
        record = read(run / "run.json")
        self.summary["methods"][method] = {
            "lr": record["recipe"]["lr"],
            "training": record["training"],
            "adapter": record["adapter"],
            "moves": record["trainable"],
            "postprocessing": record["postprocessing"],
            "held_out": record["result"],
            "validation": {
                "before": self._larynx(f"{method}-raw", run, ["--no-postprocessing"]),
                "after": self._larynx(method, run, []),
            },
        }

    def write_summary(self) -> None:
        """Everything that was measured."""
        file = self.out / "summary.json"
        file.write_text(json.dumps(self.summary, indent=2) + "\n")
        print(f"Numbers: {file}")

    def _larynx(self, name: str, run: Path, options: Sequence[object]) -> dict[str, Any]:
        return self._scores(name, self._predicted(name, run, options), ["--keep-labels", "Larynx"])

    def _predicted(self, name: str, model: Path, options: Sequence[object] = ()) -> Path:
        masks = self.out / f"masks-{name}"
        chosen = ["--cases", self.out / "validation.txt"]
        self._run(f"masks-{name}", "predict", model, self.dataset, *chosen, *options, "--out", masks)
        return masks

    def _scores(self, name: str, masks: Path, labels: Sequence[object]) -> dict[str, Any]:
        report, chosen = self.out / f"evaluation-{name}", ["--cases", self.out / "validation.txt"]
        self._run(f"evaluation-{name}", "evaluate", masks, self.dataset, *chosen, *labels, "--out", report)
        summary: dict[str, Any] = read(report / "evaluation.json")["summary"]
        return summary

    def _list(self, name: str, cases: Sequence[str]) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / name).write_text("".join(f"{case}\n" for case in cases))

    def _run(self, name: str, *words: object) -> None:
        """Run a command as a user would, showing it."""
        command = ["lnsegfm", *map(str, words)]
        print(f"$ {shlex.join(command)}", flush=True)
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", *command], check=True)
        self.summary["seconds"][name] = round(time.perf_counter() - start, 1)


def read(file: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(file.read_text())
    return record


if __name__ == "__main__":
    main()

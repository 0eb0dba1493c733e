"""The tutorial's run on real CT: a base for four head-and-neck organs, adapted to the larynx from five scans.

    python examples/openkbp.py DATA OUT

DATA is a folder with ``cases.json``, ``images/`` and ``labels_oar/`` made from the OpenKBP challenge
(https://github.com/ababier/open-kbp, MIT licence): CTs in HU and organ masks as NIfTI. Every step is an ``lnsegfm``
command; the script lays out the folders, runs the commands, and collects their numbers in OUT/summary.json.
Research only: low-resolution CT (about 4 mm), one structure, a handful of cases.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk

# The parotids become one label: training mirrors the scans, which makes right of left.
ORGANS = {"Brainstem": 1, "SpinalCord": 2, "Parotid": 3, "Mandible": 4}
TO_ORGANS = {1: 1, 2: 2, 3: 3, 4: 3, 5: 4}
LARYNX = 6
SHOTS, HELD_OUT = 5, 6
FAST = ["--no-mirroring"]  # an eighth of the work at prediction


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--base-iterations", type=int, default=5000)
    parser.add_argument("--iterations", type=int, default=500)
    parser.add_argument("--methods", nargs="+", default=["dgst"])
    # Much wider than the tiny base's own 32 32 32: a patch has to show what is *not* larynx as well.
    parser.add_argument("--patch-size", nargs=3, type=int, default=[48, 64, 64], metavar=("Z", "Y", "X"))
    arguments = parser.parse_args()
    data, out = arguments.data, arguments.out

    cases = json.loads((data / "cases.json").read_text())
    train = [c["case"] for c in cases if c["split"] == "train"]
    with_larynx = [c["case"] for c in cases if "Larynx" in c["oar_voxels"]]
    validation = [c["case"] for c in cases if c["split"] == "validation" and c["case"] in with_larynx]
    lay_out(data, out / "organs", train, TO_ORGANS, ORGANS)
    clinic = [c for c in train if c in with_larynx][: SHOTS + HELD_OUT]
    lay_out(data, out / "larynx", clinic, {LARYNX: 1}, {"Larynx": 1})
    lay_out(data, out / "larynx-validation", validation, {LARYNX: 1}, {"Larynx": 1})

    organs, base = out / "organs", out / "base"
    preset = ["--preset", "tiny", "--iterations", arguments.base_iterations, *FAST]
    lnsegfm("pretrain", organs, "--out", base, *preset, "--held-out", 6)
    summary = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "base": result(base / "run.json", "summary"),
        "base_training": read(base / "run.json")["training"],
        "methods": {},
    }
    for method in arguments.methods:
        run, masks = out / f"run-{method}", out / f"masks-{method}"
        lr = ["--lr", 0.001] if method == "full" else []
        options = ["--shots", SHOTS, "--iterations", arguments.iterations, "--patch-size", *arguments.patch_size, *lr]
        lnsegfm("finetune", out / "larynx", "--model", base, "--method", method, *options, *FAST, "--out", run)
        lnsegfm("predict", run, out / "larynx-validation" / "images", *FAST, "--out", masks)
        report = out / f"evaluation-{method}"
        lnsegfm("evaluate", masks, out / "larynx-validation", "--out", report)
        record = read(run / "run.json")
        summary["methods"][method] = {
            "lr": record["recipe"]["lr"],
            "training": record["training"],
            "adapter": record["adapter"],
            "moves": record["trainable"],
            "held_out_of_train": record["result"],
            "validation": read(report / "evaluation.json")["summary"],
        }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(f"Numbers: {out / 'summary.json'}")


def lay_out(data: Path, folder: Path, cases: list[str], values: dict[int, int], labels: dict[str, int]) -> None:
    """Link the images and write masks with only the wanted structures."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "labels.json").write_text(json.dumps(labels))
    for case in cases:
        image, label = folder / "images" / f"{case}.nii.gz", folder / "labels" / f"{case}.nii.gz"
        if not image.exists():
            image.symlink_to((data / "images" / f"{case}.nii.gz").resolve())
        if not label.exists():
            write_mask(data, case, values, label)


def write_mask(data: Path, case: str, values: Mapping[int, int], label: Path) -> None:
    """Write a case's organs with other numbers; an organ without one is left out."""
    organs = sitk.ReadImage(str(data / "labels_oar" / f"{case}.nii.gz"))
    found = sitk.GetArrayFromImage(organs)
    mask = np.zeros_like(found, dtype=np.uint8)
    for old, new in values.items():
        mask[found == old] = new
    wanted = sitk.GetImageFromArray(mask)
    wanted.CopyInformation(organs)
    sitk.WriteImage(wanted, str(label), True)


def lnsegfm(*words: object) -> None:
    """Run a command as a user would, showing it."""
    command = ["lnsegfm", *map(str, words)]
    print(f"$ {shlex.join(command)}", flush=True)
    subprocess.run([sys.executable, "-m", *command], check=True)


def read(file: Path) -> dict:
    return json.loads(file.read_text())


def result(file: Path, part: str) -> dict:
    return read(file)["result"][part]


if __name__ == "__main__":
    main()

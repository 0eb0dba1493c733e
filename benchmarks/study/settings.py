"""The data: what a base is trained on, what it is adapted to, which cases are held out. Every folder is made here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from benchmarks.study.organ_masks import LARYNX, ORGANS, TO_ORGANS, write_mask

TO_LARYNX = {LARYNX: 1}
POOL, HELD_OUT, SOURCE = 12, 10, 5
"""Cases that shots are drawn from, cases that are scored, and cases of the base's own task that are scored."""


@dataclass(frozen=True)
class Setting:
    """One adaptation.

    Args:
        name: Name of its folder and of its results.
        title: What it is, in a line.
        base: Name of the base's folder.
        source: Folder of the base's own task, held out from base and shots.
        same_labels: The base knows the labels; otherwise its own head is put back to see what was forgotten.
        iterations: Optimizer steps of every run; a fresh head needs more.
    """

    name: str
    title: str
    base: str
    source: str
    same_labels: bool = True
    iterations: int = 120


SETTINGS = {
    s.name: s
    for s in (
        Setting("neck-far", "phantoms: neck, venous phase -> neck, other scanner", "phantom-base", "phantom-source"),
        Setting("chest", "phantoms: neck -> chest", "phantom-base", "phantom-source"),
        Setting("larynx", "OpenKBP CT: four organs -> larynx", "organ-base", "organ-source", False, 400),
        Setting("scanner", "OpenKBP CT: four organs -> the same on degraded scans", "organ-base", "organ-source"),
    )
}


def phantoms(work: Path) -> None:
    """Phantoms of the base's domain and of the two others, and the base."""
    make: list[tuple[str, int, int, list[str]]] = [
        ("phantom-train", 28, 0, []),
        ("phantom-source", SOURCE, 200, []),
        ("neck-far", POOL, 0, ["--domain", "far"]),
        ("neck-far-held-out", HELD_OUT, 100, ["--domain", "far"]),
        ("chest", POOL, 0, ["--site", "chest"]),
        ("chest-held-out", HELD_OUT, 100, ["--site", "chest"]),
    ]
    for name, cases, first, options in make:
        _lnsegfm("data", "phantom", work / name, "--cases", cases, "--first", first, *options)
    training = ["--preset", "tiny", "--iterations", 1600, "--held-out", 4, "--no-mirroring"]
    _lnsegfm("pretrain", work / "phantom-train", "--out", work / "phantom-base", *training)


def openkbp(data: Path, work: Path) -> None:
    """OpenKBP's CTs as a base's training set, two sets of shots, and held-out cases; and the base.

    All 10 held-out cases have every structure; 4 are of the challenge's validation part. Neither they nor the 12 cases
    that shots are drawn from are among the 30 of the base.
    """
    cases = json.loads((data / "cases.json").read_text())
    larynx = {c["case"] for c in cases if "Larynx" in c["oar_voxels"]}
    train = sorted(c["case"] for c in cases if c["split"] == "train")
    with_larynx = [case for case in train if case in larynx]
    validation = sorted(c["case"] for c in cases if c["split"] == "validation" and c["case"] in larynx)
    pool = with_larynx[-POOL:]
    held_out = sorted([*validation, *with_larynx[: HELD_OUT - len(validation)]])
    base = [case for case in train if case not in pool and case not in held_out]
    _lay_out(data, work / "organ-train", base, TO_ORGANS, ORGANS)
    _lay_out(data, work / "organ-source", held_out[:SOURCE], TO_ORGANS, ORGANS)
    for suffix, names in (("", pool), ("-held-out", held_out)):
        _lay_out(data, work / f"larynx{suffix}", names, TO_LARYNX, {"Larynx": 1})
        _lay_out(data, work / f"scanner{suffix}", names, TO_ORGANS, ORGANS, another_scanner)
    _lnsegfm("pretrain", work / "organ-train", "--out", work / "organ-base", "--preset", "tiny", "--iterations", 12000)


def another_scanner(image: sitk.Image, seed: int) -> sitk.Image:
    """A scan as another scanner would give it, on the same grid, so that its labels still hold.

    Slices of 10 mm (a running mean), an in-plane point spread of 9 mm FWHM, HU' = 0.8 HU + 60, and noise of 80 HU
    with a correlation length of about a voxel.
    """
    voxels = np.clip(sitk.GetArrayFromImage(image).astype(np.float32), -1024, 3071)
    x, y, z = image.GetSpacing()
    voxels = ndimage.uniform_filter1d(voxels, max(1, round(10 / z)), axis=0, mode="nearest")
    voxels = ndimage.gaussian_filter(voxels, (0, 9 / 2.355 / y, 9 / 2.355 / x), mode="nearest")
    noise = ndimage.gaussian_filter(np.random.default_rng([7, seed]).normal(size=voxels.shape), 0.6)
    changed = sitk.GetImageFromArray((0.8 * voxels + 60 + 80 * noise / noise.std()).astype(np.int16))
    changed.CopyInformation(image)
    return changed


def _lay_out(
    data: Path,
    folder: Path,
    cases: list[str],
    values: Mapping[int, int],
    labels: Mapping[str, int],
    change: Callable[[sitk.Image, int], sitk.Image] | None = None,
) -> None:
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "labels.json").write_text(json.dumps(labels))
    for case in cases:
        name = f"{case}.nii.gz"
        if not (folder / "images" / name).exists():
            image = sitk.ReadImage(str(data / "images" / name))
            sitk.WriteImage(change(image, int(case[-3:])) if change else image, str(folder / "images" / name), True)
        if not (folder / "labels" / name).exists():
            write_mask(data, case, values, folder / "labels" / name)


def _lnsegfm(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "lnsegfm", *map(str, words)], check=True)

"""Time and memory of evaluating one whole-body case in full, beside MONAI's metrics on the same masks.

    python -m benchmarks.evaluation --out results/evaluation_cpu.json

The case is made up: 512x512x300 voxels of 0.98x0.98x1.5 mm, a reference of 60 ellipsoid nodes, and a prediction in
which six are missing, five are false positives and the others moved, grown or shrunk. Every round measures each side
in a process of its own (Linux). Ours is `evaluate_case`: two compressed files read, overlap, surfaces, nodes measured
and matched. MONAI's is the same reading, then Dice, surface Dice (with and without sub-voxels), HD95 and average
surface distance. It has no measurements of nodes.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lnsegfm.imaging.files import read_mask, write_mask
from lnsegfm.imaging.grid import Grid
from lnsegfm.storage import write_json

GRID = Grid((300, 512, 512), (1.5, 0.98, 0.98))
NODES, FALSE_NEGATIVES, FALSE_POSITIVES = 60, 6, 5
TOLERANCE_MM = 1.0
SECONDS, MIB = 20.0, 4096.0
"""What evaluating such a case may take on two cores."""


def made_up_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and its reference as boolean masks on ``GRID``."""
    rng = np.random.default_rng(seed)
    prediction, reference = (np.zeros(GRID.shape, dtype=bool) for _ in range(2))
    places = _places(rng, NODES + FALSE_POSITIVES)
    for number, centre in enumerate(places[:NODES]):
        axes, turned = rng.uniform(2.5, 10.0, 3), _rotation(rng)
        _draw(reference, centre, axes, turned)
        if number >= FALSE_NEGATIVES:
            _draw(prediction, centre + rng.normal(0, 0.8, 3), axes * rng.uniform(0.85, 1.15, 3), turned)
    for centre in places[NODES:]:
        _draw(prediction, centre, rng.uniform(2.5, 6.0, 3), _rotation(rng))
    return prediction, reference


def _places(rng: np.random.Generator, number: int) -> np.ndarray:
    """Centres (z, y, x) in mm that keep 24 mm from one another."""
    chosen: list[np.ndarray] = []
    while len(chosen) < number:
        place = rng.uniform(0.15, 0.85, 3) * GRID.shape * GRID.spacing_mm
        if all(np.linalg.norm(place - other) > 24 for other in chosen):
            chosen.append(place)
    return np.array(chosen)


def _rotation(rng: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(3, 3)))[0]


def _draw(mask: np.ndarray, centre: np.ndarray, semi_axes: np.ndarray, rotation: np.ndarray) -> None:
    reach, spacing = semi_axes.max(), np.array(GRID.spacing_mm)
    low = np.maximum(np.floor((centre - reach) / spacing), 0).astype(int)
    high = np.minimum(np.ceil((centre + reach) / spacing) + 1, GRID.shape).astype(int)
    part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    place = (np.stack(np.mgrid[part], axis=-1) * spacing - centre) @ rotation / semi_axes
    mask[part] |= np.sum(place**2, axis=-1) <= 1.0


def ours(prediction: Path, reference: Path) -> dict[str, Any]:
    from lnsegfm.datasets.labels import LabelMap
    from lnsegfm.evaluation.scoring import Scoring, evaluate_case

    before, start = peak_mib(), time.perf_counter()
    label = "lymph_node"
    case = evaluate_case(
        "case", prediction, reference, LabelMap({label: 1}), scoring=Scoring(TOLERANCE_MM, node_labels=(label,))
    )
    spent, score = time.perf_counter() - start, case.labels[label]
    if score.nodes is None:
        raise RuntimeError("Nodes were not measured.")
    return {
        "seconds": spent,
        "peak_mib": peak_mib(),
        "before_mib": before,
        "figures": {name: getattr(score, name) for name in ("dice", "nsd", "hd95_mm", "assd_mm")},
        "nodes": {"reference": len(score.nodes.reference), "prediction": len(score.nodes.prediction)},
    }


def our_surfaces(prediction: Path, reference: Path) -> dict[str, Any]:
    from lnsegfm.evaluation.surface import surface_distances

    before = peak_mib()
    predicted, referred = (read_mask(path)[0] == 1 for path in (prediction, reference))
    start = time.perf_counter()
    distances = surface_distances(predicted, referred, GRID)
    figures = {"nsd": distances.nsd(TOLERANCE_MM), "hd95_mm": distances.hd95_mm, "assd_mm": distances.assd_mm}
    spent = time.perf_counter() - start
    return {"seconds": spent, "peak_mib": peak_mib(), "before_mib": before, "figures": figures}


def monai(prediction: Path, reference: Path) -> dict[str, Any]:
    import torch
    from monai.metrics import DiceMetric, compute_average_surface_distance, compute_hausdorff_distance
    from monai.metrics import compute_surface_dice as surface_dice

    before, start = peak_mib(), time.perf_counter()
    masks = [torch.from_numpy(read_mask(path)[0] == 1)[None, None] for path in (prediction, reference)]
    read = time.perf_counter() - start
    given = {"include_background": True, "spacing": list(GRID.spacing_mm)}
    parts: dict[str, Callable[[], Any]] = {
        "dice": lambda: DiceMetric(include_background=True)(*masks),
        "nsd_subvoxels": lambda: surface_dice(*masks, [TOLERANCE_MM], use_subvoxels=True, **given),
        "nsd_voxels": lambda: surface_dice(*masks, [TOLERANCE_MM], use_subvoxels=False, **given),
        "hd95_mm": lambda: compute_hausdorff_distance(*masks, percentile=95, **given),
        "assd_mm": lambda: compute_average_surface_distance(*masks, symmetric=True, **given),
    }
    figures, seconds = {}, {"read": read}
    for name, part in parts.items():
        begun = time.perf_counter()
        figures[name] = float(part())
        seconds[name] = time.perf_counter() - begun
    return {
        "seconds": sum(seconds.values()),
        "peak_mib": peak_mib(),
        "before_mib": before,
        "figures": figures,
        "seconds_of_parts": seconds,
    }


SIDES: dict[str, Callable[[Path, Path], dict[str, Any]]] = {"ours": ours, "our_surfaces": our_surfaces, "monai": monai}


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("VmHWM: /proc/self/status does not tell it. Measure memory on Linux.")


def measured(side: str, prediction: Path, reference: Path) -> dict[str, Any]:
    """One round of one side, in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(SIDES[side], (prediction, reference))


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Median and range of seconds, largest memory; figures must be the same in every round."""
    if any(one["figures"] != rounds[0]["figures"] for one in rounds):
        raise RuntimeError("Figures differ from round to round.")
    seconds = [one["seconds"] for one in rounds]
    told: dict[str, Any] = {
        "seconds_median": _rounded(statistics.median(seconds)),
        "seconds_range": [_rounded(min(seconds)), _rounded(max(seconds))],
        "peak_mib": round(max(one["peak_mib"] for one in rounds)),
        "imports_mib": round(max(one["before_mib"] for one in rounds)),
        "figures": {name: None if math.isnan(v) else round(v, 5) for name, v in rounds[0]["figures"].items()},
    }
    if "nodes" in rounds[0]:
        told["nodes"] = rounds[0]["nodes"]
    if "seconds_of_parts" in rounds[0]:
        told["seconds_of_parts_median"] = {
            part: _rounded(statistics.median(one["seconds_of_parts"][part] for one in rounds))
            for part in rounds[0]["seconds_of_parts"]
        }
    return told


def _rounded(seconds: float) -> float:
    return round(seconds, 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/evaluation_cpu.json"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    chosen = parser.parse_args()
    from benchmarks.machine import machine

    with TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.nii.gz" for name in ("prediction", "reference")]
        for path, mask in zip(paths, made_up_case(chosen.seed), strict=True):
            write_mask(path, mask.astype(np.uint8), GRID)
        rounds: dict[str, list[dict[str, Any]]] = {side: [] for side in chosen.sides}
        for turn in range(chosen.repeats):
            first = turn % len(chosen.sides)
            for side in chosen.sides[first:] + chosen.sides[:first]:
                rounds[side].append(measured(side, *paths))
                print(
                    f"{side}: {rounds[side][-1]['seconds']:.2f} s, {rounds[side][-1]['peak_mib']:.0f} MiB", flush=True
                )
    result = {
        "machine": machine(),
        "case": {
            "shape": GRID.shape,
            "spacing_mm": GRID.spacing_mm,
            "nodes_in_reference": NODES,
            "seed": chosen.seed,
            "tolerance_mm": TOLERANCE_MM,
        },
        "repeats": chosen.repeats,
        **{side: summary(of_side) for side, of_side in rounds.items()},
        "required_of_ours": {"seconds": SECONDS, "peak_mib": MIB},
    }
    write_json(chosen.out, result)
    whole = result.get("ours")
    return int(whole is not None and (whole["seconds_median"] > SECONDS or whole["peak_mib"] > MIB))


if __name__ == "__main__":
    sys.exit(main())

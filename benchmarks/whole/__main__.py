"""The whole way of a few-shot job: plan, preprocess, adapt a base, predict and score the scans held out.

    python -m benchmarks.whole --out results/whole_cpu.json --seeds 3
    python -m benchmarks.whole --try-flags --out flags.json     # which settings serve nnU-Net best, on a reduced job

Three arms in turn, in an order that rotates from seed to seed: nnU-Net 2.8.1 with its defaults, with the settings that
serve it best here, and ``lnsegfm finetune``. Same scans, base, plans, iterations, learning rate and mirroring; Dice is
counted by neither side. An arm of a seed that is done is kept below --work and not done again, so that the same command
continues a benchmark that was stopped; what is there belongs to these settings and to nobody else's code: use --fresh
after a change of ours.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.whole import ours, stock
from benchmarks.whole.flags import BEST_FLAGS, CANDIDATES, DEFAULT_FLAGS
from benchmarks.whole.floor import floor
from benchmarks.whole.setting import Prepared, Setting, prepare
from benchmarks.whole.summary import BEST, DEFAULTS, OURS, dice_of, summarise, table
from lnsegfm.storage import read_json, write_json

SMALL = (48, 64, 64)
"""Voxels of a scan where flags are tried."""
Arm = Callable[[Path, int], tuple[dict[str, Any], Path]]


def main() -> int:
    chosen = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the arm under way ends with us
    setting = Setting(
        held_out=chosen.held_out,
        shape=tuple(chosen.shape),
        iterations=chosen.iterations,
        mirroring=chosen.mirroring,
        preset=chosen.preset,
        base_cases=chosen.base_cases,
        base_iterations=chosen.base_iterations,
        cores=chosen.cores,
    )
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: setting.cores])
    if chosen.try_flags:
        setting = replace(setting, iterations=40, epochs=1, held_out=1, shape=SMALL)
    work = chosen.work / setting.identity
    print(f"Work: {work}", flush=True)
    prepared = prepare(setting, work)
    arms = candidates(setting, prepared) if chosen.try_flags else the_arms(setting, prepared)
    arms = {name: arm for name, arm in arms.items() if not chosen.arms or name in chosen.arms}
    for name in chosen.fresh:
        for file in work.glob(f"runs/{slug(name)}-*.json"):
            file.unlink()
    runs = measure(arms, chosen.seeds, work, prepared)
    ground = kept(work / "runs" / "floor.json", lambda: floor(setting, prepared, work / "floor"))
    summary = summarise(runs)
    result = {
        "machine": machine(),
        "setting": asdict(setting) | {"seeds": chosen.seeds},
        "best_flags": BEST_FLAGS.to_json(),
        "floor": ground,
        **summary,
        "runs": runs,
    }
    write_json(chosen.out, result)
    print(table(summary, ground))
    return 0


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/whole_cpu.json"))
    parser.add_argument("--seeds", type=int, default=3, help="repeats of nnU-Net, which takes no seed")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "lnsegfm-whole")
    parser.add_argument("--arms", nargs="+", default=[], choices=(DEFAULTS, BEST, OURS))
    parser.add_argument("--fresh", nargs="*", default=[], choices=(DEFAULTS, BEST, OURS), help="arms to do again")
    parser.add_argument("--held-out", type=int, default=Setting.held_out)
    parser.add_argument("--shape", type=int, nargs=3, default=Setting.shape, metavar=("Z", "Y", "X"))
    parser.add_argument("--iterations", type=int, default=Setting.iterations)
    parser.add_argument("--mirroring", action=argparse.BooleanOptionalAction, default=Setting.mirroring)
    parser.add_argument("--preset", choices=("tiny", "small"), default=Setting.preset)
    parser.add_argument("--base-cases", type=int, default=Setting.base_cases)
    parser.add_argument("--base-iterations", type=int, default=Setting.base_iterations)
    parser.add_argument("--cores", type=int, default=Setting.cores)
    parser.add_argument("--try-flags", action="store_true")
    return parser.parse_args()


def the_arms(setting: Setting, prepared: Prepared) -> dict[str, Arm]:
    return {
        DEFAULTS: lambda place, _: stock.run(setting, prepared, DEFAULT_FLAGS, place),
        BEST: lambda place, _: stock.run(setting, prepared, BEST_FLAGS, place),
        OURS: lambda place, seed: ours.run(setting, prepared, place, seed),
    }


def candidates(setting: Setting, prepared: Prepared) -> dict[str, Arm]:
    def arm(flags: stock.Flags) -> Arm:
        return lambda place, _: stock.run(setting, prepared, flags, place)

    return {name: arm(flags) for name, flags in CANDIDATES.items()}


def measure(arms: dict[str, Arm], seeds: int, work: Path, prepared: Prepared) -> dict[str, list[dict[str, Any]]]:
    """Every arm at every seed, those that are there already not again."""
    names = list(arms)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for seed in range(seeds):
        for name in names[seed % len(names) :] + names[: seed % len(names)]:

            def one(name: str = name, seed: int = seed) -> dict[str, Any]:
                place = work / f"{slug(name)}-{seed}"
                load = round(os.getloadavg()[0], 2)
                found, masks = arms[name](place, seed)
                dice = dice_of(masks, prepared.data / "labelsTr", prepared.split.held_out)
                for folder in ("raw", "preprocessed", "results", "run", "home"):
                    shutil.rmtree(place / folder, ignore_errors=True)  # logs stay
                return {"seed": seed, **found, "dice": dice, "load_average_before": load}

            found = kept(work / "runs" / f"{slug(name)}-{seed}.json", one)
            runs[name].append(found)
            stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in found["stages"].items())
            print(f"{name}, seed {seed}: {found['seconds']:.1f} s ({stages}), {found['peak_mib']:.0f} MiB", flush=True)
    return runs


def kept(file: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a file holds; made and written where it is not there."""
    if not file.is_file():
        write_json(file, make())
    found: dict[str, Any] = read_json(file)
    return found


def slug(name: str) -> str:
    return name.replace(",", "").replace(" ", "-")


if __name__ == "__main__":
    sys.exit(main())

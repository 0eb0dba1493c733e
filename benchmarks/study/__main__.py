"""Methods of adaptation compared under one protocol: same shots, batches, steps, augmentation and held-out cases.

    python -m benchmarks.study prepare WORK [--openkbp DATA]   # data and bases: half an hour on one core
    python -m benchmarks.study run WORK neck-far --what methods --shots 5 --draws 3
    python -m benchmarks.study tables       # tables and plot of docs/comparison.md from results/study

A run is a file below results/study; one that is there is not done again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import machine
from benchmarks.study.arms import ARMS, METHODS, SERIOUS, VARIANTS, Arm
from benchmarks.study.settings import SETTINGS, openkbp, phantoms

RESULTS = Path(__file__).parents[2] / "results" / "study"
CHOSEN_ON = 5
"""Shots on which learning rates are chosen."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare")
    prepare.add_argument("work", type=Path)
    prepare.add_argument("--openkbp", type=Path)
    run = commands.add_parser("run")
    run.add_argument("work", type=Path)
    run.add_argument("setting", choices=SETTINGS)
    run.add_argument("--what", default="serious", help="methods, variants, serious, or arms by name, with commas")
    run.add_argument("--shots", type=int, nargs="+", default=[5])
    run.add_argument("--draws", type=int, default=3)
    run.add_argument("--first-draw", type=int, default=0)
    run.add_argument("--results", type=Path, default=RESULTS)
    tables = commands.add_parser("tables")
    tables.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.command == "prepare":
        phantoms(arguments.work)
        if arguments.openkbp:
            openkbp(arguments.openkbp, arguments.work)
    elif arguments.command == "run":
        measure(arguments)
    else:
        from benchmarks.study.tables import write_tables

        write_tables(arguments.results)


def measure(arguments: argparse.Namespace) -> None:
    """Run what is not there yet, draw by draw, so that a study that is stopped has whole draws."""
    from benchmarks.study.training import Bench

    torch.set_num_threads(1)
    place = arguments.results / arguments.setting
    place.mkdir(parents=True, exist_ok=True)
    setting = SETTINGS[arguments.setting]
    bench = Bench(setting, arguments.work, setting.iterations)
    for shots in arguments.shots:
        for draw in range(arguments.first_draw, arguments.draws):
            for arm in chosen(arguments.what):
                learns = bool(arm.rates)
                if not learns and (shots, draw) != (arguments.shots[0], 0):
                    continue  # the same whatever the shots
                file = place / f"{arm.name.replace(' ', '_').replace(',', '')}-s{shots}-d{draw}.json"
                if file.is_file():
                    continue
                lr = rate_of(bench, place, arm) if learns else None
                record = bench.run(arm, shots, draw, lr)
                write(file, {"format": "lnsegfm.study/1", **record, "machine": machine()})
                print(
                    f"{arguments.setting} {arm.name}, {shots} shots, draw {draw}, lr {lr}: "
                    f"Dice {record['mean_dice']:.3f}, source {record['mean_source_dice']:.3f}",
                    flush=True,
                )


def chosen(what: str) -> list[Arm]:
    """The arms that are meant."""
    groups: dict[str, Any] = {
        "methods": METHODS,
        "variants": VARIANTS,
        "serious": tuple(ARMS[name] for name in SERIOUS),
    }
    return [*groups[what]] if what in groups else [ARMS[name.strip()] for name in what.split(",")]


def rate_of(bench: Any, place: Path, arm: Arm) -> float:
    """The learning rate of an arm in a setting, chosen once on shots alone."""
    name = arm.rates_of or arm.name
    file = place / f"lr-{name.replace(' ', '_')}.json"
    if not file.is_file():
        write(file, {"format": "lnsegfm.study-lr/1", **bench.choose(ARMS[name], CHOSEN_ON)})
    return float(json.loads(file.read_text())["lr"])


def write(file: Path, content: dict[str, Any]) -> None:
    """Write a result whole or not at all."""
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(file)


if __name__ == "__main__":
    main()

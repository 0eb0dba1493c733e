"""Train the base that the package brings, `phantom-neck`, measure it on phantoms that it has not seen, and write it.

    python benchmarks/phantom_neck.py --work phantom-neck/                  # 10 minutes on two cores
    python benchmarks/phantom_neck.py --work phantom-neck/ --measure-only   # the shipped model's figures, again

Phantoms of the neck (`lnsegfm data phantom`), a small U-Net (`lnsegfm pretrain --preset tiny`), and the seeds below: on
one machine and one set of versions the result is the same to the byte. Weights are rounded to half precision before
anything is measured, so that the figures are those of the file that is shipped. A run that was stopped continues.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.datasets.phantom import preset, write_dataset
from lnsegfm.evaluation.domain_ranges import TRAINING_DOMAIN
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.models.model_folder import CHECKPOINT, read_model, write_model
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.progress import Progress
from lnsegfm.registry.home import BUILT_IN, CARD
from lnsegfm.registry.model_card import Figure, ModelCard
from lnsegfm.registry.stored_model import Source, Stored, hash_files
from lnsegfm.storage import read_json, write_bytes, write_json
from lnsegfm.weights.checkpoint import read_checkpoint
from lnsegfm.weights.state import aliases
from lnsegfm.workflows.held_out_comparison import predict_masks, score_masks
from lnsegfm.workflows.pretrain import pretrain
from lnsegfm.workflows.pretrain_plan import PretrainSettings
from machine import machine

NAME = "phantom-neck"
TRAINING = PretrainSettings(preset="tiny", iterations=4000, seed=1, mirroring=False)
CASES, SEED = 48, 1000
HELD_OUT, HELD_OUT_SEED = 12, 2000
DOMAINS = ("base", "near", "far")
MEASURED = "benchmarks/phantom_neck.py of this project"


class Stages(Progress):
    """Tells of each piece of work on standard error."""

    def stage(self, text: str) -> None:
        """Print it."""
        print(text, file=sys.stderr, flush=True)


def phantoms(work: Path, name: str, domain: str, cases: int, seed: int) -> Path:
    """A data set of phantoms; one that is complete is kept."""
    folder = work / name
    write_dataset(folder, cases=cases, domain=preset(domain), seed=seed, progress=Stages())
    return folder


def train(work: Path, device: str) -> Path:
    """The folder of the trained model, in single precision."""
    data = phantoms(work, "training", "base", CASES, SEED)
    return pretrain(data, work / "base", TRAINING, device=device, progress=Stages()).model


def write_rounded(trained: Path, out: Path) -> None:
    """Write a model with its weights in half precision; `read_model` gives them in single precision again."""
    fold = read_checkpoint(trained / "fold_0" / CHECKPOINT)
    rounded = {name: tensor.half() for name, tensor in fold.weights.items()}
    weights = {name: rounded[first] for name, first in aliases(fold.weights).items()}  # shared tensors are stored once
    write_model(out, replace(fold, weights=weights))
    write_bytes(out / TRAINING_DOMAIN, (trained / TRAINING_DOMAIN).read_bytes())


def measure(model_folder: Path, work: Path, device: str) -> dict[str, Evaluation]:
    """The model on phantoms of each domain that it has not seen."""
    model = read_model(model_folder)
    options = PredictOptions(device=device, mirroring=True)
    found = {}
    for domain in DOMAINS:
        data = open_dataset(phantoms(work, f"held-out-{domain}", domain, HELD_OUT, HELD_OUT_SEED))
        masks = predict_masks(
            model,
            NAME,
            data.cases,
            work / f"masks-{domain}-{model.first.weights_sha256[:12]}",
            options=options,
            progress=Stages(),
        )
        found[domain] = score_masks(data.cases, masks, data.labels, model)
    return found


def figures(evaluations: dict[str, Evaluation]) -> tuple[Figure, ...]:
    """Mean Dice on each domain, and how many scans trained and measured it."""
    scans = Figure(
        what="phantoms of the domain base that it was trained on", value=CASES, unit="scans", source=MEASURED
    )
    dice = (
        Figure(
            what=f"mean Dice of lymph_node, {HELD_OUT} phantoms of the domain {domain} held out",
            value=round(evaluation.summary()["lymph_node"]["dice"].mean, 3),
            unit="Dice",
            source=MEASURED,
        )
        for domain, evaluation in evaluations.items()
    )
    return (scans, *dice)


def card(spacing_mm: list[float], measured: tuple[Figure, ...]) -> ModelCard:
    """What is known of the model."""
    z, y, x = spacing_mm
    return ModelCard(
        name=NAME,
        title="A small base for first steps, trained on analytic phantoms; not for clinical use",
        architecture="nnunet",
        task="lymph nodes of computed neck phantoms, of no patient",
        labels={"lymph_node": 1},
        channels=("CT",),
        spacing_mm=(z, y, x),
        figures=measured,
        licence="Apache-2.0; trained on analytic phantoms that this project computes, no patient's data are in it",
        citation=None,
        sources=("https://github.com/MIC-DKFZ/nnUNet",),
    )


def write_card(folder: Path, measured: tuple[Figure, ...]) -> None:
    """Write ``card.json``: hashes of all files, and the figures."""
    model = read_model(folder)
    file = folder / "fold_0" / CHECKPOINT
    hashes = hash_files(folder)
    spacing = model.plans["configurations"][model.configuration]["spacing"]
    Stored(
        card=card(spacing, measured),
        source=Source(
            file=CHECKPOINT,
            sha256=hashes[f"fold_0/{CHECKPOINT}"],
            bytes=file.stat().st_size,
            form=f"trained by {MEASURED}",
        ),
        files=hashes,
        weights_sha256=tuple(fold.weights_sha256 for fold in model.folds),
        installed_at=datetime.now(UTC).date(),
    ).write(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for phantoms, training and masks")
    parser.add_argument("--out", type=Path, default=BUILT_IN / NAME, help="the model's folder; the package's own")
    parser.add_argument("--measure-only", action="store_true", help="measure the model at --out, and write no model")
    parser.add_argument("--results", type=Path, help="a JSON file for figures and machine")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if not arguments.measure_only:
        (arguments.out / CARD).unlink(missing_ok=True)  # it comes last: with it the model is whole
        write_rounded(train(arguments.work, arguments.device), arguments.out)
    measured = figures(measure(arguments.out, arguments.work, arguments.device))
    if not arguments.measure_only:
        write_card(arguments.out, measured)
    for figure in measured:
        print(f"{figure.what}: {figure.value:g}")
    if arguments.results:
        content: dict[str, Any] = {
            "model": NAME,
            "weights_sha256": read_model(arguments.out).first.weights_sha256,
            "figures": [figure.as_json() for figure in measured],
            "training": read_json(arguments.work / "base" / "recipe.json")["recipe"],
            "machine": machine(arguments.device),
        }
        write_json(arguments.results, content)
    return 0


if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    sys.exit(main())

"""From labelled scans to an adapted model, and the evidence of whether it helped."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lnsegfm.datasets.check import require_usable
from lnsegfm.datasets.dataset import Case, Dataset, open_dataset
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.datasets.shots import Split, draw_shots
from lnsegfm.errors import ConfigError
from lnsegfm.messages import counted
from lnsegfm.methods.method import Method, TrainableCounts
from lnsegfm.methods.table import METHODS
from lnsegfm.models.adapter_files import ORIGIN, holds_adapter
from lnsegfm.models.fingerprint import fingerprint
from lnsegfm.models.model_folder import Model, read_model
from lnsegfm.models.plans import adapted_plans, dataset_json, dataset_name, given_plans, in_image_order
from lnsegfm.models.training_domain import write_training_domain
from lnsegfm.nnunet.environment import choose_device, seed_everything
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.notebook import HtmlTable, notebook_html
from lnsegfm.progress import Progress, Silent
from lnsegfm.recipe import AUTO, Recipe
from lnsegfm.report.notebook_tables import means_table
from lnsegfm.storage import content_hash, read_json, sha256, write_json
from lnsegfm.training.precision import require_precision
from lnsegfm.training.schedule import Schedule
from lnsegfm.training.train_model import train_model
from lnsegfm.training.train_process import FACTORS
from lnsegfm.weights.adapter import Adapter, size_of
from lnsegfm.weights.checkpoint import Checkpoint
from lnsegfm.weights.factors import read_factors
from lnsegfm.weights.state import aliases, raw
from lnsegfm.weights.transfer import Transfer, transfer
from lnsegfm.workflows.held_out_comparison import HeldOutComparison, compare_held_out, open_source_data
from lnsegfm.workflows.lr_search import LrSearch, choose_lr
from lnsegfm.workflows.run_folder import claim
from lnsegfm.workflows.run_record import record_run, versions


@dataclass(frozen=True)
class FinetunePlan:
    """Everything that a run is about to do; made before anything is written.

    Args:
        recipe: The settings.
        method: The method they name.
        data: The labelled scans.
        split: Which of them train and which are held out.
        base: The model to start from.
        start: Plans, description and network weights that training starts from.
        transfer: What became of the base's weights.
        trainable: What the method trains, counted.
        identity: Hash of recipe, data and base.
        source_data: Labelled scans on which the base must not become worse, where the user names some.
    """

    recipe: Recipe
    method: Method
    data: Dataset
    split: Split
    base: Model
    start: Checkpoint
    transfer: Transfer
    trainable: TrainableCounts
    identity: str
    source_data: Dataset | None = None

    def cases(self, names: tuple[str, ...]) -> list[Case]:
        """The cases of these names, in this order."""
        by_name = {case.name: case for case in self.data.cases}
        return [by_name[name] for name in names]

    def to_json(self) -> dict[str, Any]:
        """The resolved recipe, as ``--dry-run`` shows it and ``recipe.json`` keeps it."""
        configuration = self.start.plans["configurations"][self.start.configuration]
        return {
            "format": "lnsegfm.recipe/1",
            "identity": self.identity,
            "recipe": self.recipe.to_json() | {"settings": self.method.settings()},
            "base": self._base(),
            "data": {"folder": str(self.data.root), "labels": self.data.labels.to_dataset_json()},
            "labels_from": self.data.labels_from,
            "shots": list(self.split.shots),
            "held_out": list(self.split.held_out),
            "spacing_mm": in_image_order(self.start.plans, configuration["spacing"]),
            "patch_size": in_image_order(self.start.plans, configuration["patch_size"]),
            "batch_size": configuration["batch_size"],
            "architecture": configuration.get("architecture", {}).get("network_class_name"),
            "transfer": self.transfer.to_json(),
            "trainable": vars(self.trainable),
        }

    def _base(self) -> dict[str, Any]:
        """Where the base lies, its hash, and the terms under which it, or what it was adapted from, may be used."""
        base: dict[str, Any] = {"folder": str(self.base.folder), "sha256": self.base.first.weights_sha256}
        if self.base.stored is not None:
            card = self.base.stored.card
            return base | {"name": card.name, "licence": card.licence, "citation": card.citation}
        terms: dict[str, Any] = {}
        for file in (self.base.folder.parent / "run.json", self.base.folder / ORIGIN):
            if file.is_file():
                terms |= read_json(file).get("base", {})
        return base | {key: terms[key] for key in ("licence", "citation") if terms.get(key)}


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        folder: Its folder.
        model: The adapted model's folder, which stock nnU-Net loads.
        record: What ``run.json`` holds.
        evidence: What cases that were not trained on show.
    """

    folder: Path
    model: Path
    record: Mapping[str, Any]
    evidence: HeldOutComparison

    def _repr_html_(self) -> str:
        training, compared = self.record["training"], self.evidence.comparison
        facts = {
            "method": self.record["recipe"]["method"],
            "shots": len(self.record["shots"]),
            "iterations": training["iterations"],
            "model": self.model,
            "report": self.folder / "report.html",
        }
        tables = [HtmlTable.of_facts(facts)]
        if compared is not None:
            tables.insert(0, means_table(compared))
        return notebook_html(f"Run {self.folder.name}: {self.evidence.verdict}", tables)


def plan(
    data: Path,
    model: Path,
    recipe: Recipe,
    *,
    labels: LabelMap | None = None,
    plans: Path | None = None,
    source_data: Path | None = None,
    progress: Progress | None = None,
) -> FinetunePlan:
    """Check data, base and settings, and settle what will be done. Nothing is written.

    Args:
        data: Labelled scans: an nnU-Net raw dataset, or a folder with ``images/`` and ``labels/``.
        model: The base's folder, a run's, or the name of an imported model.
        recipe: The settings.
        labels: What the masks' numbers mean, where the data do not say it themselves.
        plans: nnU-Net plans to adapt into instead of the base's own; the recipe then holds their hash.
        source_data: Labelled scans of the base's own task: what is lost there is shown. No part of the run's identity.
        progress: Told how far it is.

    Raises:
        DataError: Cases that cannot be used; all of them are listed.
        ModelError: The base cannot be read, or does not fit the data.
        ConfigError: A setting that cannot be.
    """
    progress = progress or Silent()
    method = METHODS[recipe.method](**recipe.settings)
    base = read_model(model, whole=False).with_labels(recipe.label_names)
    recipe = replace(recipe, plans=sha256(plans) if plans is not None else None)
    dataset = open_dataset(data, labels, default_labels=None if base.covers else base.labels)
    _require_mapped(recipe, dataset)
    progress.stage(f"Checking {counted(len(dataset.cases), 'case')}")
    require_usable(dataset, progress=progress)
    split = draw_shots([case.name for case in dataset.labelled], recipe.shots, recipe.draw, dataset.subjects)
    kept = open_source_data(source_data, base, progress) if source_data is not None else None
    start, report, trainable = _start(base, dataset, split, recipe, method, plans, progress)
    identity = content_hash(
        {
            "recipe": recipe.identity() | {"settings": method.settings()},
            "data": dataset.content_hash(),
            "base": base.first.weights_sha256,
        }
    )
    return FinetunePlan(recipe, method, dataset, split, base, start, report, trainable, identity, kept)


def finetune(
    planned: FinetunePlan,
    out: Path,
    *,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Run:
    """Adapt a model; the same call continues a run that was stopped.

    Args:
        planned: What to do.
        out: The run's folder.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        workers: Processes that make batches; None takes none on a CPU and a few beside a GPU.
        progress: Told how far it is.

    Raises:
        RunMismatch: ``out`` holds another run.
        ConfigError: The method does not train what it declares (`lnsegfm.methods.sanity_check`), or the loss is not
            finite.
        Interrupted: Asked to stop (`Progress.stoppable`); the state is saved. So it is on a `KeyboardInterrupt`.
    """
    progress = progress or Silent()
    device = choose_device(device)
    require_precision(planned.recipe.precision, device)
    resolved = planned.to_json()
    claim(out, resolved)
    write_json(out / "splits.json", {"shots": planned.split.shots, "held_out": planned.split.held_out})
    schedule, choice = _schedule(planned, out, device=device, workers=workers, progress=progress)
    course = train_model(
        planned.start,
        planned.method,
        planned.cases(planned.split.shots),
        schedule,
        out,
        device=device,
        workers=workers,
        progress=progress,
    )
    write_training_domain(
        planned.start,
        planned.cases(planned.split.shots) if planned.method.learns else [],
        planned.data.labels,
        out / "model",
        progress,
        base=planned.base,
        renamed=planned.recipe.label_names,
    )
    adapted = read_model(out / "model")
    adapter = _write_adapter(planned, adapted, out)
    evidence = compare_held_out(
        planned.cases(planned.split.held_out),
        planned.data,
        planned.base,
        adapted,
        out,
        source_data=planned.source_data,
        device=device,
        mirroring=planned.recipe.mirroring,
        progress=progress,
    )
    record = record_run(
        out, resolved, course, adapter, evidence, device=device, lr=schedule.lr, lr_choice=choice, progress=progress
    )
    shutil.rmtree(out / "work", ignore_errors=True)
    return Run(out, out / "model", record, evidence)


def _schedule(
    planned: FinetunePlan, out: Path, *, device: str, workers: int | None, progress: Progress
) -> tuple[Schedule, Mapping[str, Any] | None]:
    """The schedule, with the rate that was chosen and the figures of the choice where the recipe asks for one."""
    recipe = planned.recipe
    schedule = Schedule(
        lr=recipe.rate,
        iterations=recipe.iterations,
        seed=recipe.seed,
        warm_up=recipe.warm_up,
        time_limit_s=recipe.time_limit_s,
        early_stop=recipe.early_stop,
        precision=recipe.precision,
    )
    if recipe.lr != AUTO or not planned.method.learns:
        return schedule, None
    question = LrSearch(
        start=planned.start,
        method=planned.method,
        cases=planned.cases(planned.split.shots),
        labels=planned.data.labels,
        schedule=schedule,
        rates=recipe.lr_grid or (),
        mirroring=recipe.mirroring,
    )
    choice = choose_lr(question, out, device=device, workers=workers, progress=progress)
    return replace(schedule, lr=choice["lr"]), choice


def _require_mapped(recipe: Recipe, data: Dataset) -> None:
    for theirs, ours in recipe.label_names.items():
        if ours not in data.labels.names:
            known = ", ".join(data.labels.names)
            raise ConfigError(f"--map {theirs}={ours}: the data have no label {ours}. They have: {known}.")


def _start(
    base: Model,
    data: Dataset,
    split: Split,
    recipe: Recipe,
    method: Method,
    own_plans: Path | None,
    progress: Progress,
) -> tuple[Checkpoint, Transfer, TrainableCounts]:
    """The base's weights in a network for the data's labels."""
    sizes: Any = {"patch_size": recipe.patch_size, "batch_size": recipe.batch_size}
    name, configuration = dataset_name(data), base.configuration
    if own_plans is not None:
        plans, configuration = given_plans(own_plans, name, **sizes)
    else:
        intensities = None
        if len(data.channels) != base.channels:
            shots = [case for case in data.cases if case.name in split.shots]
            intensities = fingerprint(shots, progress)["foreground_intensity_properties_per_channel"]
        plans = adapted_plans(base, name, channels=data.channels, intensities=intensities, **sizes)
    checkpoint = replace(
        base.first,
        plans=plans,
        configuration=configuration,
        dataset_json=dataset_json(data, len(split.shots)),
    )
    seed_everything(recipe.seed)
    network = build_network(checkpoint, deep_supervision=True)
    report = transfer(
        base.first.weights,
        network,
        base_labels=["background", *base.label_names],
        labels=["background", *data.labels.names],
        base_channels=base.channels,
        channels=len(data.channels),
        covers=base.covers,
        minimum=recipe.min_transfer,
    )
    if method.starts_fresh:
        seed_everything(recipe.seed, 1)  # by the seed alone it would be what a base of the same seed began with
        network = build_network(checkpoint, deep_supervision=True)
    if not method.learns and not set(base.label_names) & set(data.labels.names):
        raise ConfigError(f"Method {method.name}: the base knows none of the labels ({data.labels}). Use another.")
    weights = {key: tensor.detach() for key, tensor in network.state_dict().items()}
    trainable = method.trainable(network)
    if method.learns:
        copied = deepcopy(network)
        method.optimizer(copied, lr=recipe.rate)  # refuses here, before anything is written, what it cannot move
    return replace(checkpoint, weights=weights), report, trainable


def _write_adapter(planned: FinetunePlan, adapted: Model, out: Path) -> dict[str, int]:
    """Write the adapter; one that is there already stays, for what its weights are made of may be gone."""
    entries = _moved_entries(planned, adapted)
    if holds_adapter(out, planned.base.first, adapted.first):
        return {"bytes": size_of(out), "entries": entries}
    card = {
        "method": planned.recipe.method,
        "settings": planned.method.settings(),
        "base": {key: told for key, told in planned._base().items() if key != "folder"},
        "configuration": adapted.configuration,
        "trainer_name": adapted.first.trainer_name,
        "mirroring_axes": adapted.first.mirroring_axes,
        "plans": adapted.plans,
        "dataset_json": adapted.dataset_json,
        "versions": versions(),
    }
    made = out / FACTORS
    factors = read_factors(made) if made.is_file() else {}
    adapter = Adapter.between(planned.base.first.weights, adapted.first.weights, card, factors)
    return {"bytes": adapter.save(out), "entries": entries}


def _moved_entries(planned: FinetunePlan, adapted: Model) -> int:
    """Entries in which the model differs from what training started from, each tensor counted once, new ones whole."""
    before, after = planned.start.weights, adapted.first.weights
    names = sorted(set(aliases(after).values()))
    return sum(
        int((raw(before[name]) != raw(after[name])).any(dim=1).sum()) if name in before else after[name].numel()
        for name in names
    )

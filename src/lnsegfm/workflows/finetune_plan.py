"""What a fine-tuning is about to do: data, base and settings checked, the base's weights in the network to train."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lnsegfm.datasets.check import DatasetCheck, require_usable
from lnsegfm.datasets.dataset import Dataset, open_dataset
from lnsegfm.datasets.label_tables import BACKGROUND
from lnsegfm.datasets.labels import LabelMap, require_same_spelling
from lnsegfm.datasets.shots import Split, require_labelled
from lnsegfm.datasets.sided_labels import name_sides
from lnsegfm.datasets.stored_axes import commonest_axes, oblique_words, stored_axes, turned_words
from lnsegfm.errors import ConfigError, TransferError
from lnsegfm.messages import counted
from lnsegfm.methods.method import Method, TrainableCounts
from lnsegfm.methods.table import METHODS
from lnsegfm.models.adapter_files import ORIGIN
from lnsegfm.models.fingerprint import fingerprint
from lnsegfm.models.model_folder import Model, ModelChoice, read_model
from lnsegfm.models.plans import adapted_plans, dataset_json, dataset_name, given_plans, require_adaptable
from lnsegfm.models.trained_scans import TrainedScans
from lnsegfm.nnunet.environment import seed_everything
from lnsegfm.nnunet.mirroring import SWAP, MirrorChoice, mirrored_sides, settle_mirroring
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.nnunet.plan_axes import with_axes
from lnsegfm.progress import Progress, Silent
from lnsegfm.recipe import Recipe
from lnsegfm.report.asked_options import AskedOptions, as_text, option_labels
from lnsegfm.storage import content_hash, read_json, sha256
from lnsegfm.weights.checkpoint import Checkpoint
from lnsegfm.weights.state import load_weights
from lnsegfm.weights.transfer import Transfer, transfer
from lnsegfm.workflows.held_out_comparison import known_absence, open_source_data
from lnsegfm.workflows.known_cases import KnownCases, not_learned, training_on
from lnsegfm.workflows.training_run import TrainingPlan


@dataclass(frozen=True, kw_only=True)
class FinetunePlan(TrainingPlan):
    """What a fine-tuning is about to do.

    Args:
        method: The method that the recipe names.
        data: The labelled scans.
        split: Which of them are trained on and which are held out.
        start: Plans, description and network weights that training starts from.
        identity: Hash of recipe, data and base.
        recipe: The settings.
        base: The model to start from.
        transfer: What became of the base's weights.
        trainable: What the method trains, counted.
        source_data: Labelled scans of the base's own task, on which forgetting is measured; None where none are given.
        further: What the training of each further fold starts from; none where one fold is adapted.
        mirror: Along which axes it is mirrored and why, in words; "" where labels name no side.
        orientation: On which axes the model is trained and why, in words.
        known: What the base saw of the cases that it is compared on.
        before: Scans that trained the base, as far as its weights are part of the result.
        scan_hashes: The hash of each scan.
        absence: What is known of labels that references lack.
        asked: What was asked for besides the recipe.
    """

    recipe: Recipe
    base: Model
    transfer: Transfer
    trainable: TrainableCounts
    source_data: Dataset | None = None
    further: tuple[Checkpoint, ...] = ()
    orientation: str = ""
    mirror: str = ""
    known: KnownCases = KnownCases()  # noqa: RUF009 - frozen
    before: TrainedScans = TrainedScans()  # noqa: RUF009 - frozen
    scan_hashes: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The resolved recipe, as ``--dry-run`` shows it and ``recipe.json`` keeps it."""
        configuration = self.start.plans["configurations"][self.start.configuration]
        return {
            "format": "lnsegfm.recipe/1",
            "identity": self.identity,
            "recipe": self.recipe.to_json() | {"settings": self.method.settings()},
            "base": self.base_terms(),
            "data": {
                "folder": str(self.data.root),
                **self.data.labels.to_record(),
                **({"allow_empty": True} if self.data.allow_empty else {}),
            },
            "labels_from": self.data.labels_from,
            "shots": list(self.split.shots),
            "held_out": list(self.split.held_out),
            "known_to_base": self.known.to_json(),
            "asked": self.asked.to_json(),
            **self.sizes,
            "axes": self.axes,
            "architecture": configuration.get("architecture", {}).get("network_class_name"),
            "transfer": self.transfer.to_json(),
            "trainable": vars(self.trainable),
            **({"folds": 1 + len(self.further)} if self.further else {}),
        }

    def base_terms(self) -> dict[str, Any]:
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


def plan(
    data: Path,
    model: Path,
    recipe: Recipe,
    *,
    labels: LabelMap | None = None,
    allow_empty: bool = False,
    plans: Path | None = None,
    source_data: Path | None = None,
    choice: ModelChoice = ModelChoice(),  # noqa: B008 - frozen
    recipe_file: Path | None = None,
    checked: DatasetCheck | None = None,
    progress: Progress | None = None,
) -> FinetunePlan:
    """Check data, base and settings, and settle what will be done. Nothing is written.

    Args:
        data: Labelled scans: an nnU-Net raw dataset, or a folder with ``images/`` and ``labels/``.
        model: The base's folder, a run's, or the name of an imported model.
        recipe: The settings.
        labels: What the masks' numbers mean, where the data do not say it themselves.
        allow_empty: Keep scans whose label is empty: they hold nothing.
        plans: nnU-Net plans to adapt into instead of the base's own; the recipe then holds their hash.
        source_data: Labelled scans of the base's own task: what is lost there is shown. No part of the run's identity.
        choice: Which model, where ``model`` holds several.
        recipe_file: The file that the recipe was read from: of its command line alone.
        checked: The check of the data, where it was made already.
        progress: Where progress is reported.

    Raises:
        DataError: Cases that cannot be used; all of them are listed.
        ModelError: The base cannot be read, or does not fit the data.
        ConfigError: A setting that cannot be.
    """
    progress = progress or Silent()
    method = METHODS[recipe.method](**recipe.settings)
    base = read_model(model, whole=False, choice=choice).with_labels(recipe.label_names)
    base = base.with_axes(recipe.model_axes)
    require_adaptable(base)
    for note in base.notes:
        progress.stage(f"Base: {note}")
    folds = base.folds if recipe.folds is not None else base.folds[:1]
    recipe = replace(
        recipe, plans=sha256(plans) if plans is not None else None, folds=recipe.folds if len(folds) > 1 else None
    )
    dataset = open_dataset(
        data, labels, default_labels=None if base.covers else base.mask_labels, allow_empty=allow_empty
    )
    dataset = recipe.label_choice.on(dataset)
    dataset = dataset.with_cases(recipe.choice.usable(dict.fromkeys(case.name for case in dataset.cases)))
    _require_mapped(recipe, dataset, base)
    progress.stage(f"Checking {counted(len(dataset.cases), 'case')}")
    checked = require_usable(dataset, progress=progress, checked=checked, absent=recipe.absent)
    absence = known_absence(dataset, checked, recipe.absent)
    split = recipe.choice.split([case.name for case in dataset.labelled], dataset.subjects)
    before = base.trained_scans
    known = KnownCases(bool(before), before.among(checked.scan_hashes, dataset.subjects).within(split.held_out))
    split = split.not_holding_out(known.held_out.cases)
    if method.learns:
        require_labelled(split, checked.empty)
        for line in not_learned(split, checked, dataset):
            progress.stage(line)
    source = None
    if source_data is not None:
        source, hashes = open_source_data(source_data, base, progress, allow_empty=allow_empty)
        known = replace(known, source_data=before.among(hashes, source.subjects))
    for line in known.lines():
        progress.stage(line)
    before = TrainedScans() if method.starts_fresh else before
    trained = before.after(training_on(split, checked, dataset) if method.learns else None)
    axes, orientation, turned = _axes(base, dataset)
    base = base.with_axes(axes)
    if confused := mirrored_sides(base.plans, base.first.mirroring_axes, base.label_names):
        progress.stage(f"Base: {confused}")
    starts = []
    for number in range(len(folds)):
        member, own = replace(base, folds=(base.folds[number],)), replace(recipe, seed=recipe.seed + number)
        starts.append(_start(member, dataset, split, own, method, axes, plans, trained, progress))
    start, report, trainable = starts[0]
    if start.mirroring_axes and name_sides(dataset.labels.outputs) and (oblique := oblique_words(dataset.labelled)):
        progress.stage(oblique)
    mirrored = start.mirroring_axes != base.first.mirroring_axes or SWAP in start.plans
    identity = content_hash(
        {
            "recipe": recipe.identity() | {"settings": method.settings()},
            "data": dataset.content_hash(),
            "base": base.first.weights_sha256 if len(starts) == 1 else list(base.weights_sha256),
        }
        | ({"axes": axes} if turned else {})
        | ({"mirrored": start.mirroring_axes, "swap": start.plans.get(SWAP)} if mirrored else {})
    )
    return FinetunePlan(
        recipe=recipe,
        method=method,
        data=dataset,
        split=split,
        base=base,
        start=start,
        transfer=report,
        trainable=trainable,
        identity=identity,
        source_data=source,
        further=tuple(further for further, _, _ in starts[1:]),
        orientation=orientation,
        mirror=_mirroring(recipe, base, dataset, start.plans).words,
        known=known,
        before=before,
        scan_hashes=checked.scan_hashes,
        absence=absence,
        asked=AskedOptions(
            model=str(model),
            labels=option_labels(labels),
            allow_empty=allow_empty,
            plans=as_text(plans),
            source_data=as_text(source_data),
            configuration=choice.configuration,
            recipe_file=as_text(recipe_file),
        ),
    )


def _axes(base: Model, data: Dataset) -> tuple[str, str, bool]:
    """The axes to train on, why in words, and whether a scan is turned: the base's, else the commonest of the scans."""
    stored, known = stored_axes(data.cases), base.trained_axes
    axes = known.codes or commonest_axes(stored)
    if known.codes is not None:
        words = f"Orientation {axes}, by {known.source}"
    else:
        words = (
            f"Orientation {axes}: nothing says on which axes the base was trained, so it is taken as most of the scans "
            "are stored. State it with --model-axes"
        )
    turned = turned_words(stored, axes)
    return axes, f"{words}; {turned}" if turned else words, bool(turned)


def _mirroring(recipe: Recipe, base: Model, data: Dataset, plans: Mapping[str, Any]) -> MirrorChoice:
    exchanged = {SWAP: base.plans[SWAP]} if SWAP in base.plans else {}
    return settle_mirroring(recipe.mirror, base.first.mirroring_axes, {**plans, **exchanged}, data.labels.outputs)


def _require_mapped(recipe: Recipe, data: Dataset, base: Model) -> None:
    for theirs, ours in recipe.label_names.items():
        if ours not in data.labels.names:
            known = ", ".join(data.labels.names)
            raise ConfigError(f"--map {theirs}={ours}: the data have no label {ours}. They have: {known}.")
    require_same_spelling(base.label_names, data.labels.names, "the base calls it")


def _base_outputs(base: Model, labels: LabelMap) -> tuple[str, ...]:
    """Names of the base's outputs; those of regions are probabilities of another kind, and match none of classes."""
    if base.covers:
        return (BACKGROUND,)
    if bool(base.labels.regions) == bool(labels.regions):
        return base.labels.outputs
    return tuple(f"{name} of the base" for name in base.labels.outputs)


def _start(
    base: Model,
    data: Dataset,
    split: Split,
    recipe: Recipe,
    method: Method,
    axes: str,
    own_plans: Path | None,
    trained: TrainedScans,
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
            intensities = fingerprint(shots, progress, axes)["foreground_intensity_properties_per_channel"]
        plans = adapted_plans(base, name, channels=data.channels, intensities=intensities, **sizes)
    plans = with_axes(plans, axes, data.file_ending)
    mirroring = _mirroring(recipe, base, data, plans)
    checkpoint = replace(
        base.first,
        plans=trained.in_plans(mirroring.in_plans(plans)),
        mirroring_axes=mirroring.axes,
        configuration=configuration,
        dataset_json=dataset_json(data, len(split.shots)),
    )
    seed_everything(recipe.seed)
    network = build_network(checkpoint, deep_supervision=True)
    try:
        report = transfer(
            base.first.weights,
            network,
            base_labels=_base_outputs(base, data.labels),
            labels=data.labels.outputs,
            base_channels=base.channels,
            channels=len(data.channels),
            covers=base.covers,
            minimum=recipe.min_transfer,
        )
    except TransferError:
        if not base.covers:  # a base whose weights are not its own plans' fits nothing: that is then what is wrong
            own = build_network(base.first, deep_supervision=True)
            load_weights(own, base.first.weights, f"Model {base.folder}")
        raise
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

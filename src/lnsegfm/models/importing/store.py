"""A recognised model becomes the folder of a stored one: nnU-Net's files, safetensors beside them, and its card."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.datasets.nnunet_layout import channel_names, file_ending
from lnsegfm.errors import ModelError
from lnsegfm.models.importing.import_options import ImportOptions
from lnsegfm.models.importing.model_source import ModelSource
from lnsegfm.models.importing.normalise import normalise_fold
from lnsegfm.models.importing.recognised import RecognisedModel
from lnsegfm.models.importing.safetensors_io import write_tensors
from lnsegfm.models.model_layout import CHECKPOINT, PREVIOUS_STAGE
from lnsegfm.models.postprocessing_files import write_postprocessing
from lnsegfm.networks.architectures import ARCHITECTURES, PLAIN, RESENC, STU_NET, SWIN
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.plan_axes import axes_of_plans, with_axes
from lnsegfm.nnunet.plan_configuration import resolve_configuration
from lnsegfm.progress import Progress
from lnsegfm.registry.model_card import ModelCard, read
from lnsegfm.registry.stored_model import Source as StoredSource
from lnsegfm.registry.stored_model import Stored, hash_files
from lnsegfm.storage import content_hash, sha256, write_json
from lnsegfm.weights.checkpoint import Checkpoint, write_checkpoint

WEIGHTS = "weights.safetensors"
NO_LICENCE = "none stated; ask the authors before use beyond research"
OTHER = "other"
SHOWN = 8


def store(
    source: ModelSource,
    found: RecognisedModel,
    name: str,
    folder: Path,
    options: ImportOptions,
    *,
    card: ModelCard | None,
    progress: Progress,
) -> Stored:
    """Write a model's folder; ``card.json`` comes last.

    Args:
        source: What it is made of.
        found: As what that was recognised.
        name: What the model is called.
        folder: Where to write.
        options: What the user said.
        card: What is known of the model.
        progress: Where progress is reported.

    Raises:
        ModelError: A fold cannot be used, or folds differ in plans.
    """
    if found.axes is None and card is not None and card.axes is not None:
        found = replace(found, axes=card.axes)
    first, hashes, notes = _write_folds(source, found, folder, options, progress)
    if found.previous is not None:
        before = ImportOptions(axes=options.axes)
        _write_folds(source, replace(found.previous, axes=found.axes), folder / PREVIOUS_STAGE, before, progress)
    described, said = _card(source, found, first, name, options, card)
    return Stored(
        card=described,
        source=source_of(source, found, sentence(found, first)),
        parts=found.parts,
        covers=found.covers,
        notes=tuple(_line(note) for note in (*notes, *said)),
        files=hash_files(folder),
        weights_sha256=hashes,
        installed_at=datetime.now(UTC).date(),
    )


def _write_folds(
    source: ModelSource,
    found: RecognisedModel,
    folder: Path,
    options: ImportOptions,
    progress: Progress,
) -> tuple[Checkpoint, tuple[str, ...], list[str]]:
    """Write nnU-Net's files of a model; gives its first fold without weights, hashes and notes."""
    hashes: list[str] = []
    notes = list(found.notes)
    first: Checkpoint | None = None
    for done, fold in enumerate(found.folds):
        progress.advance(done, len(found.folds), f"fold {fold.name}")
        as_read = fold.read()
        checkpoint, said = normalise_fold(as_read.checkpoint, fold.file, found.covers, options.patch_size)
        checkpoint, orientation = _with_axes(checkpoint, found, options.axes)
        notes += [note for note in (*as_read.notes, *said) if note not in notes]
        place = folder / f"fold_{fold.name}"
        write_checkpoint(place / CHECKPOINT, checkpoint)
        write_tensors(place / WEIGHTS, checkpoint.weights)
        hashes.append(checkpoint.weights_sha256)
        if first is None:
            first = replace(checkpoint, weights={})
            progress.stage(f"Recognised: {sentence(found, first)}")
            progress.stage(orientation)
        elif checkpoint.plans != first.plans:
            raise ModelError(f"{fold.file}: its network is not that of the other folds. Choose folds with --fold.")
    progress.advance(len(found.folds), len(found.folds))
    if first is None:
        raise ModelError(f"{source.path}: it has no folds. Copy the whole model.")
    write_json(folder / "plans.json", first.plans)
    write_json(folder / "dataset.json", first.dataset_json)
    write_postprocessing(folder, found.postprocessing)
    if found.postprocessing:
        covered = LabelMap.of_model(first.dataset_json).covered
        notes += [f"Postprocessing: {line}." for line in found.postprocessing.lines(covered)]
    return first, tuple(hashes), notes


def _with_axes(fold: Checkpoint, found: RecognisedModel, given: str | None) -> tuple[Checkpoint, str]:
    """A fold whose plans state the axes that it was trained on, as far as somebody says them; and who, in words."""
    axes, source = axes_of_plans(fold.plans)
    if given is not None:
        axes, source = given, "--axes"
    elif axes is None and found.axes is not None:
        axes, source = found.axes, f"its origin, {found.form}"
    if axes is None:
        return fold, (
            "Orientation: nothing says on which axes it was trained; scans go to it as they are stored. Where you know "
            "it, import it again with --axes RAS or LPS"
        )
    plans = with_axes(fold.plans, axes, file_ending(fold.dataset_json))
    return replace(fold, plans=plans), f"Orientation {axes}, by {source}: scans are turned to it, and masks back"


def sentence(found: RecognisedModel, fold: Checkpoint) -> str:
    """What was recognised, in a line."""
    channels = channel_names(fold.dataset_json)
    masks = None if found.covers else LabelMap.of_masks(fold.dataset_json)
    labels = [] if masks is None else [f"{name}={'+'.join(map(str, v))}" for name, v in masks.covered.items()]
    words = labels[:SHOWN]
    words += [f"{len(labels) - SHOWN} more"] if len(labels) > SHOWN else []
    kind = "regions" if masks is not None and masks.regions else "labels"
    folds = f", {len(found.folds)} folds" if len(found.folds) > 1 else ""
    network = _architecture(fold)["network_class_name"].rpartition(".")[2]
    return _line(
        f"{found.form}, {fold.configuration}, {network}, "
        f"{len(channels)} channel{'s' * (len(channels) > 1)}, "
        f"{f'{kind} ' + ' '.join(words) if found.parts == 'all' else f'{found.parts} only'}{folds}"
    )


def source_of(source: ModelSource, found: RecognisedModel, form: str) -> StoredSource:
    """Name, hash and size of what a model is made of: the file or archive itself; of a folder, the files that count."""
    path = source.path
    if path.is_file():
        return StoredSource(file=_line(path.name), sha256=sha256(path), bytes=path.stat().st_size, form=form)
    stages = (found, found.previous) if found.previous is not None else (found,)
    parts = [file for stage in stages for file in (*stage.files, *(fold.file for fold in stage.folds))]
    files = {_place(file, path): file for file in parts}
    table = {name: sha256(file) for name, file in files.items()}
    size = sum(file.stat().st_size for file in files.values())
    return StoredSource(file=_line(path.resolve().name), sha256=content_hash(table), bytes=size, form=form)


def _values(labels: LabelMap) -> dict[str, int | list[int]]:
    """The value of each label in a mask, of a region those that it covers."""
    return {name: values[0] if len(values) == 1 else list(values) for name, values in labels.covered.items()}


def _place(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.name


def _card(
    source: ModelSource,
    found: RecognisedModel,
    fold: Checkpoint,
    name: str,
    options: ImportOptions,
    given: ModelCard | None,
) -> tuple[ModelCard, tuple[str, ...]]:
    """What is known of the model by its card, by its file and by what the user said, the last counting; and its notes.

    Of what the network is the file's word counts, of where it comes from the card's.
    """
    known = given or found.card
    said = known.as_json() if known is not None else {}
    file = {
        "architecture": architecture_name(fold),
        "labels": None if found.covers else _values(LabelMap.of_masks(fold.dataset_json)),
        "channels": _channels(fold.dataset_json),
        "spacing_mm": _spacing(fold),
    }
    if file["architecture"] == OTHER:
        file["architecture"] = said.get("architecture", OTHER)
    fields: dict[str, Any] = {
        "title": f"{name}, imported from {_line(source.path.resolve().name)}",
        "task": "not said",
        "licence": NO_LICENCE,
        "citation": found.citation,
    }
    fields |= {key: value for key, value in said.items() if value not in (None, [])}
    fields |= {key: value for key in ("licence", "citation") if (value := getattr(options, key)) is not None}
    differing = [key for key, value in file.items() if value is not None and said.get(key) not in (None, value)]
    notes = tuple(f"Its card says {key} {said[key]}, its file {file[key]}: the file's counts." for key in differing)
    return read(ModelCard, {**fields, **file, "name": name}, f"{source.path}: card"), notes


def architecture_name(fold: Checkpoint) -> str:
    """Which of the architectures a fold is, as far as its plans tell; ``other`` where they do not."""
    named = _architecture(fold)
    network, arguments = named["network_class_name"], named["arch_kwargs"]
    if network.rpartition(".")[2] == PLAIN.rpartition(".")[2]:
        return "nnunet"
    if network == SWIN:
        return "swinunetr-v2" if arguments.get("use_v2") else "swinunetr"
    if network == STU_NET:
        sizes = (arguments["features_per_stage"], set(arguments["n_blocks_per_stage"]))
        named_so = (card for card in ARCHITECTURES.values() if card.network == STU_NET)
        return next((c.name for c in named_so if sizes == (list(c.stage_features(6)), {c.blocks})), OTHER)
    if network.rpartition(".")[2] != RESENC.rpartition(".")[2]:
        return OTHER
    planned = re.search(r"ResEncUNet(M|L|XL)Plans", str(fold.plans.get("plans_name")))
    if planned:
        return f"resenc-{planned[1].lower()}"
    from lnsegfm.models.importing.forms.nnssl_encoder import FEATURES, STRIDES

    fixed = ARCHITECTURES["resenc-l"].build_plan(FEATURES, STRIDES)["arch_kwargs"]
    same = all(arguments.get(key) == fixed[key] for key in ("features_per_stage", "n_blocks_per_stage", "strides"))
    return "resenc-l" if same else OTHER


def _architecture(fold: Checkpoint) -> Mapping[str, Any]:
    with nnunet_environment():
        return dict(resolve_configuration(fold.plans, fold.configuration)["architecture"])


def _channels(dataset_json: Mapping[str, Any]) -> list[str]:
    return [name.strip() or "image" for name in channel_names(dataset_json)]


def _spacing(fold: Checkpoint) -> list[float] | None:
    """(z, y, x), whatever order the plans turn the axes to; of slices with their median distance."""
    with nnunet_environment():
        spacing = list(resolve_configuration(fold.plans, fold.configuration)["spacing"])
    if len(spacing) == 2:
        trained_at = fold.plans.get("original_median_spacing_after_transp")
        if not isinstance(trained_at, list) or len(trained_at) != 3:
            return None
        spacing = [trained_at[0], *spacing]
    order = fold.plans.get("transpose_backward") or [0, 1, 2]
    return [float(spacing[axis]) for axis in order]


def _line(text: str) -> str:
    """A text that may be printed: on one line, without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:2000] or "?"

"""Adapter files: described, and applied to their base.

An adapter comes with the plans of its model. They are checked as those of a model folder are, before anything is built
or written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lnsegfm.datasets.nnunet_layout import file_ending
from lnsegfm.errors import ConfigError, DataError, LnSegFmError, ModelError, RunMismatch, TransferError
from lnsegfm.evaluation.postprocessing import Postprocessing
from lnsegfm.models.model_folder import Model, read_model, write_model
from lnsegfm.models.model_layout import CHECKPOINT, member_folders
from lnsegfm.models.plans import in_image_order
from lnsegfm.models.postprocessing_files import listed_rules, write_postprocessing
from lnsegfm.models.trained_scans import TrainedScans
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.nnunet.trusted_imports import require_known_imports
from lnsegfm.progress import Progress, Silent
from lnsegfm.storage import new_folder, read_json, write_json
from lnsegfm.weights.adapter import Adapter, files_of
from lnsegfm.weights.adapter_groups import adapter_groups
from lnsegfm.weights.checkpoint import Checkpoint, write_checkpoint
from lnsegfm.weights.state import load_weights

ORIGIN = "origin.json"
TERMS = ("name", "licence", "citation")


@dataclass(frozen=True)
class AdapterDescription:
    """An adapter and the model that it makes.

    Args:
        place: Where it was read.
        adapter: The adapter.
        model: The model, without weights: those take the base.
        terms: Name, licence and citation of the base, as far as they are known.
    """

    place: Path
    adapter: Adapter
    model: Model
    terms: Mapping[str, str]

    @property
    def method(self) -> str:
        """Name of the method that made it."""
        return str(self.adapter.card["method"])

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings of the method."""
        settings: Mapping[str, Any] = self.adapter.card["settings"]
        return settings


@dataclass(frozen=True)
class AppliedAdapter:
    """A model made of base and adapter.

    Args:
        out: Its folder.
        described: The adapter.
        written: Whether it was written now; it may have been there.
    """

    out: Path
    described: AdapterDescription
    written: bool


def read_adapter(place: Path) -> AdapterDescription:
    """Read an adapter and the description of its model. Nothing in it is executed, nothing is built.

    Args:
        place: The folder of a run or of ``adapter.safetensors`` and ``adapter.json``, or one of the two files.

    Raises:
        ModelError: A file is missing or damaged, or the plans in it are not nnU-Net's or want what is no network.
    """
    adapter = Adapter.load(place)
    card, file = adapter.card, files_of(place)[1]
    with description_errors(file):
        axes = card["mirroring_axes"]
        checkpoint = Checkpoint(
            weights={},
            configuration=_of(str, card["configuration"]),
            plans=_of(dict, card["plans"]),
            dataset_json=_of(dict, card["dataset_json"]),
            trainer_name=_of(str, card["trainer_name"]),
            mirroring_axes=None if axes is None else tuple(_of(int, axis) for axis in axes),
        )
        if checkpoint.configuration not in checkpoint.plans["configurations"]:
            raise KeyError(checkpoint.configuration)
        for configuration in checkpoint.plans["configurations"].values():
            require_known_imports(configuration, file)
        rules = listed_rules(card.get("postprocessing", []), file)
        described = (checkpoint.plans, checkpoint.dataset_json)
        model = Model(place, (checkpoint,), *described, postprocessing=rules)
        if not model.channels or not model.mask_labels:
            raise KeyError("channel_names")
        _ = model.trained_scans  # read here, so that nothing is written of a record that cannot be
        file_ending(checkpoint.dataset_json)
        TrainedScans.of_plans(checkpoint.plans)
        _of(str, card["method"]), _of(dict, card["settings"])
        terms = _of(dict, card.get("base", {}))
        return AdapterDescription(place, adapter, model, {key: _of(str, terms[key]) for key in TERMS if terms.get(key)})


@contextmanager
def description_errors(file: Path) -> Iterator[None]:
    """Turn any error about a file's content into a `ModelError` of one line that names the file."""
    try:
        yield
    except ModelError:
        raise
    except DataError as error:
        raise ModelError(f"{file}: {' '.join(str(error).split())}") from None
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())[:80]
        raise ModelError(f"{file}: not the description of a model ({reason}). Copy the adapter again.") from None


def apply_adapter(base: Path, place: Path, out: Path, *, progress: Progress | None = None) -> AppliedAdapter:
    """Write the model that an adapter makes of its base, as a folder that stock nnU-Net loads.

    The folder appears whole or not at all; where it is already, nothing is done.

    Args:
        base: The base's folder, a run's, or the name of an imported model.
        place: As for `read_adapter`.
        out: The model's folder.
        progress: Where progress is reported.

    Raises:
        ModelError: The adapter or the base cannot be read; the weights do not fit the network of the plans.
        TransferError: The adapter belongs to another base, or is damaged.
        RunMismatch: ``out`` holds something else.
        ConfigError: ``out`` is a file.
    """
    progress = progress or Silent()
    progress.stage(f"Reading {place}")
    described = read_adapter(place)
    further = tuple(read_adapter(member) for member in member_folders(place))
    there = holds_adapted_model((described, *further), out)
    progress.stage(f"Reading {base}")
    start = read_model(base, whole=False)
    bases = [require_base(one, start, base) for one in (described, *further)]
    described = replace(described, terms={**described.terms, **licence_terms(start)})
    if there:
        return AppliedAdapter(out, described, written=False)
    folds = []
    for one, fold in zip((described, *further), bases, strict=True):
        adapted = replace(one.model.first, weights=one.adapter.apply(fold.weights))
        load_weights(build_network(adapted, deep_supervision=True), adapted.weights)
        folds.append(adapted)
    progress.stage(f"Writing {out}")
    with new_folder(out) as folder:
        for number, adapted in enumerate(folds[1:], 1):
            write_checkpoint(folder / f"fold_{number}" / CHECKPOINT, adapted)
        write_model(folder, folds[0])
        write_json(folder / ORIGIN, origin_record(described))
        write_postprocessing(folder, described.model.postprocessing)
    return AppliedAdapter(out, described, written=True)


def holds_adapted_model(adapters: Sequence[AdapterDescription], out: Path) -> bool:
    """Whether a folder holds the model that adapters make, one a fold; False where it may be written.

    Raises:
        RunMismatch: It holds something else.
        ConfigError: It is a file.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: it is a file. Name a folder.")
    if not out.is_dir() or not any(out.iterdir()):
        return False
    try:
        there = read_model(out)
        same = (
            there.folder == out
            and there.plans == adapters[0].model.plans
            and there.dataset_json == adapters[0].model.dataset_json
            and there.weights_sha256 == tuple(one.adapter.model_sha256 for one in adapters)
        )
    except LnSegFmError:
        same = False
    if not same:
        raise RunMismatch(f"{out}: it is not empty and holds something else. Choose another --out.")
    return True


def require_base(described: AdapterDescription, base: Model, given: Path) -> Checkpoint:
    """The fold of a base that an adapter was made from.

    Raises:
        TransferError: Naming both by hash, and by name where they have one.
    """
    theirs = described.adapter.base_sha256
    fold = fold_with(base, theirs)
    if fold is None:
        name = f"{described.terms['name']}, " if "name" in described.terms else ""
        raise TransferError(
            f"Adapter {described.place}: it belongs to the base {name}hash {theirs[:12]}, "
            f"and {given} has the hash {base.first.weights_sha256[:12]}. Give the base it was made from."
        )
    return fold


def fold_with(base: Model, sha256: str) -> Checkpoint | None:
    """The fold of a base with a hash; None where none has it."""
    return next((fold for fold in base.folds if fold.weights_sha256 == sha256), None)


def licence_terms(model: Model) -> dict[str, str]:
    """Name, licence and citation of an imported model; nothing for any other."""
    if model.stored is None:
        return {}
    description = {key: getattr(model.stored.card, key) for key in TERMS}
    return {key: text for key, text in description.items() if text}


def origin_record(described: AdapterDescription) -> dict[str, Any]:
    """Base and adapter of a model, for its ``origin.json``: nnU-Net's own files have no place for terms."""
    return {
        "format": "lnsegfm.origin/1",
        "base": {**described.terms, "sha256": described.adapter.base_sha256},
        "method": described.method,
        "settings": described.settings,
        "model_sha256": described.adapter.model_sha256,
        "versions": described.adapter.card.get("versions"),
    }


def describe_adapter(place: Path, base: Path | None = None, *, progress: Progress | None = None) -> dict[str, Any]:
    """The description of an adapter as plain values.

    Args:
        place: As for `read_adapter`.
        base: A base to hold it against: a folder, or the name of an imported model.
        progress: Where progress is reported.

    Raises:
        ModelError: The adapter or the base cannot be read.
        TransferError: The adapter fits the base and is damaged.
    """
    progress = progress or Silent()
    described = read_adapter(place)
    adapter, model, file = described.adapter, described.model, files_of(place)[1]
    description: dict[str, Any] = {
        "adapter": str(place),
        "method": described.method,
        "settings": described.settings,
        "base": {**described.terms, "sha256": adapter.base_sha256},
        "model_sha256": adapter.model_sha256,
        "labels": dict(model.mask_labels.names),
        "channels": list(model.channel_names),
        "axes": model.axes,
        "postprocessing": list(model.postprocessing.lines(model.labels.covered)),
        "configuration": model.configuration,
    }
    with description_errors(file):
        configuration = model.plans["configurations"][model.configuration]
        description |= {
            "spacing_mm": [float(axis) for axis in in_image_order(model.plans, configuration["spacing"])],
            "patch_size": [int(axis) for axis in in_image_order(model.plans, configuration["patch_size"])],
            "architecture": str(configuration.get("architecture", {}).get("network_class_name") or "not named"),
            "versions": {key: str(value) for key, value in _of(dict, adapter.card.get("versions", {})).items()},
        }
    description["bytes"] = {part.suffix.lstrip("."): part.stat().st_size for part in files_of(place)}
    fold = None
    if base is not None:
        progress.stage(f"Reading {base}")
        start = read_model(base, whole=False)
        fold = fold_with(start, adapter.base_sha256)
        description["given_base"] = {
            "base": str(base),
            "sha256": (fold or start.first).weights_sha256,
            "fits": fold is not None,
        }
    weights = fold.weights if fold is not None else None
    with description_errors(file):
        description["module_groups"] = [group.to_json() for group in adapter_groups(adapter, weights)]
    return description


def keep_postprocessing(folder: Path, postprocessing: Postprocessing) -> None:
    """Write rules of postprocessing into the adapter of a folder; an adapter has none until then."""
    file = files_of(folder)[1]
    card = read_json(file)
    kept = {key: value for key, value in card.items() if key != "postprocessing"}
    rules = {"postprocessing": postprocessing.to_json()} if postprocessing else {}
    if card != kept | rules:
        write_json(file, kept | rules)


def holds_adapter(folder: Path, base: Checkpoint, model: Checkpoint) -> bool:
    """Whether a folder holds the adapter that makes a model of a base."""
    try:
        adapter = Adapter.load(folder)
        return adapter.model_sha256 == model.weights_sha256 and bool(adapter.apply(base.weights))
    except ModelError:
        return False


def _of(kind: type[Any], value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r:.40} is no {kind.__name__}")
    return value

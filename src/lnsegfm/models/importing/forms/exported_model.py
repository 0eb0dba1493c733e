"""What ``lnsegfm models export --to safetensors`` writes: weights, and ``model.json`` beside them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.models.importing.import_options import ImportOptions
from lnsegfm.models.importing.model_source import DESCRIPTION, ModelSource, SourceKind
from lnsegfm.models.importing.recognised import FoldAsRead, NotThisForm, RecognisedFold, RecognisedModel
from lnsegfm.models.importing.safetensors_io import read_tensors
from lnsegfm.models.importing.validate_plans import read_table
from lnsegfm.models.postprocessing_files import listed_rules
from lnsegfm.registry.model_card import FileName, ModelCard, Record, Sha256, Text
from lnsegfm.registry.model_card import read as read_record
from lnsegfm.registry.stored_model import Parts
from lnsegfm.weights.checkpoint import Checkpoint

TAKES = frozenset({"folds"})
FORMAT = "lnsegfm.export/1"


class ExportedFold(Record):
    """The weights of one fold.

    Args:
        file: Their safetensors file, beside ``model.json``.
        sha256: Their hash (`lnsegfm.weights.state.weights_hash`).
    """

    file: FileName
    sha256: Sha256


class ExportedModel(Record):
    """What ``model.json`` says.

    Args:
        format: Which fields there are.
        configuration: Name of the configuration in the plans.
        trainer_name: The trainer that builds the network.
        mirroring_axes: Axes along which prediction may mirror; None where it may not.
        plans: nnU-Net plans.
        dataset_json: nnU-Net's description of the data set.
        parts: ``all``, ``encoder`` or ``backbone``.
        covers: First parts of the names of an encoder's or a backbone's weights.
        folds: Each fold's weights, by its name.
        card: What is known of the model.
        postprocessing: The rules that its masks are postprocessed by.
    """

    format: Literal["lnsegfm.export/1"] = "lnsegfm.export/1"
    configuration: Text
    trainer_name: Text
    mirroring_axes: tuple[int, ...] | None
    plans: dict[str, Any]
    dataset_json: dict[str, Any]
    parts: Parts
    covers: tuple[Text, ...] = ()
    folds: Annotated[dict[Annotated[str, Field(pattern=r"^(\d+|all)$")], ExportedFold], Field(min_length=1)]
    card: ModelCard | None = None
    postprocessing: tuple[dict[str, Any], ...] = ()


def read(source: ModelSource, options: ImportOptions) -> RecognisedModel:
    """Recognise an export: its folder, its ``model.json`` or its safetensors file.

    Raises:
        NotThis: There is no ``model.json`` of this program.
        ConfigError: A fold that is not there.
        ModelError: ``model.json`` is not what it should be.
    """
    folder = source.place if source.kind is SourceKind.FOLDER else source.place.parent
    file = folder / DESCRIPTION
    if source.kind not in (SourceKind.FOLDER, SourceKind.TENSORS) or not file.is_file() or options.plans is not None:
        raise NotThisForm
    content = read_table(file)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise NotThisForm(f"{DESCRIPTION} beside it is not of format {FORMAT}")
    exported = read_record(ExportedModel, content, str(file))
    missing = [name for name in options.folds if name not in exported.folds]
    if missing:
        raise ConfigError(f"--fold {' '.join(missing)}: {file} has only {', '.join(exported.folds)}.")
    chosen = options.folds or tuple(exported.folds)
    folds = [(name, folder / exported.folds[name].file, exported.folds[name].sha256) for name in chosen]
    return RecognisedModel(
        form="safetensors exported by lnsegfm",
        folds=tuple(
            RecognisedFold(name, place, partial(_read, place, sha256, exported)) for name, place, sha256 in folds
        ),
        files=(file,),
        covers=exported.covers,
        backbone=exported.parts == "backbone",
        card=exported.card,
        postprocessing=listed_rules(exported.postprocessing, file),
    )


def _read(place: Path, sha256: str, exported: ExportedModel) -> FoldAsRead:
    weights, _ = read_tensors(place)
    checkpoint = Checkpoint(
        weights=weights,
        configuration=exported.configuration,
        plans=exported.plans,
        dataset_json=exported.dataset_json,
        trainer_name=exported.trainer_name,
        mirroring_axes=exported.mirroring_axes,
    )
    if checkpoint.weights_sha256 != sha256:
        raise ModelError(f"{place}: its weights are not those that {DESCRIPTION} beside it names. Copy both again.")
    return FoldAsRead(checkpoint)

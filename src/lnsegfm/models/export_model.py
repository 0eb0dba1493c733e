"""Export of a model: a folder or a zip for stock nnU-Net, or safetensors and JSON for anything else.

The same model gives the same bytes.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.evaluation.postprocessing import Postprocessing
from lnsegfm.models.importing.forms.exported_model import ExportedFold, ExportedModel
from lnsegfm.models.importing.model_source import DESCRIPTION
from lnsegfm.models.importing.safetensors_io import write_tensors
from lnsegfm.models.importing.validate_plans import CONFIGURATION_NAME, as_plain_json
from lnsegfm.models.model_folder import CHECKPOINT, Model, ModelChoice, read_model
from lnsegfm.models.postprocessing_files import PICKLE, write_postprocessing
from lnsegfm.nnunet.lookup import knows_trainer
from lnsegfm.nnunet.plan_axes import RAS
from lnsegfm.progress import Progress, Silent
from lnsegfm.storage import atomic_write, new_folder, staging_folder, write_json
from lnsegfm.weights.checkpoint import Checkpoint, write_checkpoint


class ExportFormat(StrEnum):
    """What a model is exported as."""

    NNUNET_ZIP = "nnunet-zip"
    """For ``nnUNetv2_install_pretrained_model_from_zip``."""
    SAFETENSORS = "safetensors"
    """A folder with ``*.safetensors`` and ``model.json``, which ``lnsegfm models import`` takes back."""
    FOLDER = "folder"
    """nnU-Net's model folder, for ``nnUNetv2_predict_from_modelfolder``."""


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Args:
        out: Where.
        predict: nnU-Net's commands that use it, one each; none for safetensors.
        notes: What has to be known, one line each.
    """

    out: Path
    predict: tuple[str, ...]
    notes: tuple[str, ...]


def export_model(
    model: Path,
    to: str,
    out: Path,
    *,
    choice: ModelChoice = ModelChoice(),  # noqa: B008 - frozen
    progress: Progress | None = None,
) -> ExportResult:
    """Write a model in another form.

    Args:
        model: The folder of a run or of a model, or the name of an imported one.
        to: As what: one of `ExportFormat`.
        out: A folder or a zip that is not there yet.
        choice: Which model and folds, where there are several.
        progress: Where progress is reported.

    Raises:
        ConfigError: An unknown target, or there is something at ``out``.
        ModelError: It is no model; or an encoder, which nnU-Net cannot predict with.
    """
    progress = progress or Silent()
    if to not in set(ExportFormat):
        raise ConfigError(f"--to {to}: not known. Use {', '.join(ExportFormat)}.")
    if out.exists():
        raise ConfigError(f"--out {out}: there is something already. Name what is not there yet.")
    progress.stage(f"Reading {model}")
    read = read_model(model, whole=to != ExportFormat.SAFETENSORS, choice=choice)
    read = read.with_axes(read.axes)
    folds = dict(zip(read.fold_names, read.folds, strict=True))
    progress.stage(f"Writing {out}")
    if to == ExportFormat.SAFETENSORS:
        with new_folder(out) as folder:
            _write_safetensors(folder, read, folds)
        return ExportResult(out, (), read.notes)
    if to == ExportFormat.FOLDER:
        with new_folder(out) as folder:
            _write_folder(folder, read, folds)
        chosen = " ".join(folds)
        return ExportResult(
            out,
            (f"nnUNetv2_predict_from_modelfolder -i IN -o OUT -m {out} -f {chosen}", *_apply_command(read, str(out))),
            _notes(read),
        )
    if out.suffix.lower() != ".zip":
        raise ConfigError(f"--out {out}: nnunet-zip writes a zip. Name a file that ends in .zip.")
    for stage in _stages(read):
        if not re.fullmatch(CONFIGURATION_NAME, stage.configuration, flags=re.ASCII):
            raise ModelError(f"Model {model}: configuration {stage.configuration!r}: no folder could have that name.")
    with staging_folder(out) as work:
        for stage in _stages(read):
            inner = "{dataset}/{trainer}__{plans}__{configuration}".format(**_names(stage))
            _write_folder(work / inner, stage, dict(zip(stage.fold_names, stage.folds, strict=True)))
        _write_zip(out, work)
    predict = _predict_commands(read)
    return ExportResult(out, (f"nnUNetv2_install_pretrained_model_from_zip {out}", *predict), _notes(read))


def _stages(model: Model) -> tuple[Model, ...]:
    """The stages of a cascade, the first first; any other model alone."""
    return (*_stages(model.previous), model) if model.previous is not None else (model,)


def _names(model: Model) -> dict[str, str]:
    return {part: name_of(model, part) for part in ("dataset", "trainer", "plans")} | {
        "configuration": model.configuration
    }


def _predict_commands(model: Model) -> Iterator[str]:
    """nnU-Net's commands, one for each stage: the later one takes the masks of the one before."""
    stages = _stages(model)
    for number, stage in enumerate(stages):
        before = f" -prev_stage_predictions OUT{number - 1}" if number else ""
        out = f"OUT{number}" if number < len(stages) - 1 else "OUT"
        words = "-d {dataset} -c {configuration} -tr {trainer} -p {plans}".format(**_names(stage))
        yield f"nnUNetv2_predict -i IN -o {out} {words} -f {' '.join(stage.fold_names)} -chk {CHECKPOINT}{before}"
    place = "$nnUNet_results/{dataset}/{trainer}__{plans}__{configuration}".format(**_names(model))
    yield from _apply_command(model, place)


def _apply_command(model: Model, place: str) -> Iterator[str]:
    """nnU-Net's command that applies the model's rules, as far as it has them."""
    if model.postprocessing.in_stock:
        yield (
            f"nnUNetv2_apply_postprocessing -i OUT -o OUT_PP -pp_pkl_file {place}/{PICKLE} "
            f"-plans_json {place}/plans.json -dataset_json {place}/dataset.json"
        )


def name_of(model: Model, part: str) -> str:
    """The name of data set, trainer or plans as nnU-Net's folders spell it, from what the model says.

    A name that would lead out of its folder, or that nnU-Net would not understand, becomes one that it does.
    """
    said = {
        "dataset": model.plans.get("dataset_name"),
        "trainer": model.first.trainer_name,
        "plans": model.plans.get("plans_name") or "nnUNetPlans",
    }
    text = str(said[part] or "")
    if part == "dataset":
        word = re.sub(r"\W|^Dataset\d{3}_", "", text, flags=re.ASCII) or "Model"
        return text if re.fullmatch(r"Dataset\d{3}_\w+", text, flags=re.ASCII) else f"Dataset001_{word}"
    return re.sub(r"[^A-Za-z0-9_-]", "", text).replace("__", "_") or "nnUNet"


def _write_folder(folder: Path, model: Model, folds: dict[str, Checkpoint]) -> None:
    write_json(folder / "plans.json", model.plans)
    write_json(folder / "dataset.json", model.dataset_json)
    write_postprocessing(folder, model.postprocessing)
    for name, fold in folds.items():
        write_checkpoint(folder / f"fold_{name}" / CHECKPOINT, fold)


def _write_safetensors(folder: Path, model: Model, folds: dict[str, Checkpoint]) -> None:
    files = {name: "model.safetensors" if len(folds) == 1 else f"fold_{name}.safetensors" for name in folds}
    for name, fold in folds.items():
        write_tensors(folder / files[name], fold.weights)
    exported = ExportedModel(
        configuration=model.configuration,
        trainer_name=model.first.trainer_name,
        mirroring_axes=model.first.mirroring_axes,
        plans=as_plain_json(model.plans, f"{model.folder}: plans.json"),
        dataset_json=as_plain_json(model.dataset_json, f"{model.folder}: dataset.json"),
        parts=model.parts,
        covers=model.covers,
        folds={name: ExportedFold(file=files[name], sha256=fold.weights_sha256) for name, fold in folds.items()},
        card=model.stored.card if model.stored is not None else None,
        postprocessing=tuple(model.postprocessing.to_json()),
    )
    write_json(folder / DESCRIPTION, exported.as_json())


def _write_zip(out: Path, folder: Path) -> None:
    with atomic_write(out) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            member = zipfile.ZipInfo(file.relative_to(folder).as_posix())  # of 1980, whatever the time
            member.external_attr = 0o644 << 16
            member.create_system = 3  # as Unix, wherever it is written
            member.file_size = file.stat().st_size  # beyond 2 GB it tells the format to make room for the size
            with file.open("rb") as source, archive.open(member, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)


def _notes(model: Model) -> tuple[str, ...]:
    notes = list(model.notes)
    if model.axes not in (None, RAS):
        notes.append(
            f"Stock nnU-Net turns no scan to {model.axes}, the axes that it was trained on: give it scans stored so, "
            "or predict here."
        )
    if model.mask_labels != model.labels:
        notes.append(f"Stock tools write {model.labels} into masks; predicted here they hold {model.mask_labels}.")
    notes += [
        f"Stock nnU-Net has no rule of a smallest volume: {Postprocessing((rule,)).lines(model.labels.covered)[0]} "
        "only here."
        for rule in model.postprocessing.rules
        if rule not in model.postprocessing.in_stock
    ]
    if model.previous_configuration is not None:
        where = model.previous.folder if model.previous is not None else "the one it was trained with"
        before = model.previous_configuration
        notes.append(f"It takes the masks of {before} ({where}): only nnunet-zip has both stages in it.")
    if model.network_class.startswith("lnsegfm."):
        name = model.network_class.rpartition(".")[2]
        notes.append(f"Its network is lnsegfm's {name}: nnU-Net predicts with it wherever lnsegfm is installed.")
    if not knows_trainer(model.first.trainer_name):
        notes.append(
            f"Its trainer {model.first.trainer_name} is none of nnU-Net's: name its folder in nnUNet_extTrainer."
        )
    return tuple(notes)

"""The main job from Python: what the commands do, as functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import ConfigError
from lnsegfm.methods.method import Method
from lnsegfm.methods.table import load_method
from lnsegfm.models.model_folder import ModelChoice, read_model, read_models
from lnsegfm.nnunet.environment import kept_randomness
from lnsegfm.notebook_progress import default_progress
from lnsegfm.prediction import predict_cases as predicting
from lnsegfm.prediction.case_names import Names, one_of
from lnsegfm.prediction.inputs import find_inputs
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.writers.writer_table import formats_named, refers_to_dicom
from lnsegfm.progress import Progress
from lnsegfm.recipe import DEFAULT_METHOD, Recipe, recipe_of
from lnsegfm.spelling import nearest
from lnsegfm.workflows import finetune as tuning
from lnsegfm.workflows import pretrain as pretraining
from lnsegfm.workflows.data_in_memory import keep_data
from lnsegfm.workflows.finetune_plan import plan
from lnsegfm.workflows.pretrain import PretrainRun
from lnsegfm.workflows.pretrain_plan import PretrainSettings

PathLike = str | Path


def finetune(
    data: PathLike | Sequence[Any] | Mapping[str, Any],
    model: PathLike,
    out: PathLike,
    *,
    method: Method | str = DEFAULT_METHOD,
    labels: dict[str, int] | None = None,
    allow_empty: bool = False,
    plans: PathLike | None = None,
    source_data: PathLike | None = None,
    choice: ModelChoice | None = None,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
    **recipe: Any,
) -> tuning.Run:
    """Adapt a model to labelled scans; the same call continues a run that was stopped.

    Args:
        data: An nnU-Net raw dataset, or a folder with ``images/`` and ``labels/``. Or labelled scans in memory: a list
            of pairs (image, label), or a table of them by case name; each a path, a SimpleITK, nibabel or torchio
            image, or an array with its grid, of several channels a list of images. They are kept in ``out/data``, so
            that the run can be continued, and found again by the hash of their voxels.
        model: The base: a model folder, the folder of a run, or the name of an imported model.
        out: Folder of the run.
        method: How to adapt: a method, or the name of one, which then has the settings of its packaged recipe.
        labels: Name to value, where the data do not name their labels.
        allow_empty: Keep scans whose label is empty: they hold nothing.
        plans: nnU-Net plans to adapt into instead of the base's own.
        source_data: Labelled scans of the base's own task, on which forgetting is measured.
        choice: Which model, where ``model`` is a folder of several.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        workers: Processes that make batches; the result does not depend on it.
        progress: Reported to; a bar in a notebook, nothing elsewhere unless given.
        recipe: Fields of `lnsegfm.Recipe`: ``shots`` (a number, or a list of names), ``draw``,
            ``iterations``, ``lr`` (a number or ``"auto"``),
            ``warm_up``, ``seed``, ...; what is not given is the method's packaged recipe's.

    Raises:
        LnSegFmError: Data, base or settings that cannot be used; its text says what to do.
        KeyboardInterrupt: It arrived; the state is saved where training had begun.
    """
    progress = progress or default_progress()
    if isinstance(method, str):
        method = load_method(method, recipe_of(method).texts())
    if unknown := [name for name in recipe if name not in Recipe.__dataclass_fields__]:
        raise ConfigError(f"Setting {unknown[0]}: not known. {nearest(unknown[0], Recipe.__dataclass_fields__)}")
    settled = Recipe(method=method.name, settings=method.settings(), **recipe)
    named = LabelMap.from_dataset_json(labels) if labels else None
    own = Path(plans) if plans is not None else None
    kept = Path(source_data) if source_data is not None else None
    if isinstance(data, str | Path):
        folder = Path(data)
    else:
        base = read_model(Path(model), whole=False, choice=choice or ModelChoice())
        folder = keep_data(data, Path(out), base.channel_names)
    with kept_randomness():
        planned = plan(
            folder,
            Path(model),
            settled,
            labels=named,
            allow_empty=allow_empty,
            plans=own,
            source_data=kept,
            choice=choice or ModelChoice(),
            progress=progress,
        )
        return tuning.finetune(planned, Path(out), device=device, workers=workers, progress=progress)


def pretrain(
    data: PathLike,
    out: PathLike,
    training: PretrainSettings | None = None,
    *,
    labels: dict[str, int] | LabelMap | None = None,
    allow_empty: bool = False,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> PretrainRun:
    """Train a base model; the same call continues one that was stopped.

    Args:
        data: Labelled scans: an nnU-Net raw dataset, or a folder with ``images/`` and ``labels/``.
        out: The run's folder.
        training: How; the defaults of `lnsegfm.PretrainSettings` unless given.
        labels: Name to value, where the data do not name their labels.
        allow_empty: Keep scans whose label is empty: they hold nothing.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        workers: Processes that make batches; the result does not depend on it.
        progress: Reported to; a bar in a notebook, nothing elsewhere unless given.
        settings: Fields of `lnsegfm.PretrainSettings` that differ from ``training``: ``preset``, ``iterations``, ...

    Raises:
        LnSegFmError: Data or settings that cannot be used; its text says what to do.
        KeyboardInterrupt: It arrived; the state is saved.
    """
    named = LabelMap.from_dataset_json(labels) if isinstance(labels, dict) else labels
    progress = progress or default_progress()
    with kept_randomness():
        return pretraining.pretrain(
            Path(data),
            Path(out),
            (training or PretrainSettings()).with_fields(**settings),
            labels=named,
            allow_empty=allow_empty,
            device=device,
            workers=workers,
            progress=progress,
        )


def predict(
    model: PathLike | Sequence[PathLike],
    scans: PathLike,
    out: PathLike,
    *,
    choice: ModelChoice | None = None,
    options: PredictOptions | None = None,
    progress: Progress | None = None,
    **fields: Any,
) -> predicting.Predictions:
    """Predict a scan, a folder of scans, DICOM or a list of these; masks that are there already are left alone.

    Args:
        model: A model folder, the folder of a run, or the name of an imported model; or several of these, whose
            probabilities are averaged.
        scans: An image; a folder of images or a dataset with one; a DICOM file, folder, tree or zip; or a CSV with the
            column ``path``.
        out: Folder of the masks, each named as its case.
        choice: Which configuration, folds and previous stage of a cascade, where there are several.
        options: How, and what is written besides; the defaults unless given.
        progress: Reported to; a bar in a notebook, nothing elsewhere unless given.
        fields: Fields of `PredictOptions` that differ from ``options``: ``device``, ``mirroring``, ``nodes``, ...

    Raises:
        LnSegFmError: A model or a folder that cannot be used. A scan that cannot be is in ``failed`` of the result.
    """
    options, progress = (options or PredictOptions()).with_fields(**fields), progress or default_progress()
    dicom = refers_to_dicom(formats_named(options.formats, "formats"))
    naming, place = one_of(Names, options.names, "names"), Path(out)
    models = [model] if isinstance(model, str | Path) else model
    loaded = read_models([Path(each) for each in models], choice or ModelChoice())
    for note in loaded.notes:
        progress.stage(f"Model: {note}")
    with find_inputs(
        Path(scans),
        loaded.channels,
        names=naming,
        straighten=options.straighten,
        resample_uneven=options.resample_uneven,
        out=place,
        dicom=dicom,
        series=options.series,
        choice=options.choice,
    ) as inputs:
        if inputs.note:
            progress.stage(inputs.note)
        return predicting.predict_cases(loaded, inputs, place, options, summary=True, tell_time=True, progress=progress)

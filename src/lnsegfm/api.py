"""The main job from Python: what the commands do, as functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.methods.method import Method
from lnsegfm.methods.table import load_method
from lnsegfm.models.model_folder import read_model
from lnsegfm.nnunet.environment import choose_device
from lnsegfm.prediction import predict_cases as predicting
from lnsegfm.prediction.case_names import Names, one_of
from lnsegfm.prediction.inputs import find_inputs
from lnsegfm.prediction.memory_budget import bytes_of
from lnsegfm.prediction.writers.dicom_exports import Exports, Format
from lnsegfm.progress import Progress
from lnsegfm.recipe import DEFAULT_METHOD, Recipe, recipe_of
from lnsegfm.workflows import finetune as tuning

PathLike = str | Path


def finetune(
    data: PathLike,
    model: PathLike,
    out: PathLike,
    *,
    method: Method | str = DEFAULT_METHOD,
    labels: dict[str, int] | None = None,
    plans: PathLike | None = None,
    remember: PathLike | None = None,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
    **recipe: Any,
) -> tuning.Run:
    """Adapt a model to labelled scans; the same call continues a run that was stopped.

    Args:
        data: An nnU-Net raw dataset, or a folder with ``images/`` and ``labels/``.
        model: The base: a model folder, the folder of a run, or the name of an imported model.
        out: Folder of the run.
        method: How to adapt: a method, or the name of one, which then has the settings of its packaged recipe.
        labels: Name to value, where the data do not name their labels.
        plans: nnU-Net plans to adapt into instead of the base's own.
        remember: Labelled scans of the base's own task, on which forgetting is measured.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        workers: Processes that make batches; the result does not depend on it.
        progress: Told how far it is.
        recipe: Fields of `lnsegfm.Recipe`: ``shots``, ``draw``, ``iterations``, ``lr`` (a number or ``"auto"``),
            ``warm_up``, ``seed``, ...; what is not given is the method's packaged recipe's.

    Raises:
        LnSegFmError: Data, base or settings that cannot be used; its text says what to do.
    """
    if isinstance(method, str):
        method = load_method(method, recipe_of(method).texts())
    settled = Recipe(method=method.name, settings=method.settings(), **recipe)
    named = LabelMap.from_dataset_json(labels) if labels else None
    own = Path(plans) if plans is not None else None
    kept = Path(remember) if remember is not None else None
    planned = tuning.plan(Path(data), Path(model), settled, labels=named, plans=own, remember=kept, progress=progress)
    return tuning.finetune(planned, Path(out), device=device, workers=workers, progress=progress)


def predict(
    model: PathLike,
    scans: PathLike,
    out: PathLike,
    *,
    device: str = "auto",
    mirroring: bool = True,
    step: float = 0.5,
    fast: str | None = None,
    exact: bool = False,
    air: bool = True,
    memory: float | None = None,
    overwrite: bool = False,
    flags: bool = True,
    nodes: bool = False,
    probabilities: bool = False,
    formats: Sequence[str] = ("nifti",),
    per_node: bool = False,
    names: str = "code",
    straighten: bool = False,
    progress: Progress | None = None,
) -> predicting.Predictions:
    """Predict a scan, a folder of scans, DICOM or a list of these; masks that are there already are left alone.

    Args:
        model: A model folder, or the folder of a run.
        scans: An image; a folder of images; a DICOM file, folder, tree or zip; or a CSV with the column ``path``.
        out: Folder of the masks, each named as its case.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        mirroring: Average over mirrored copies, as nnU-Net does.
        step: Distance of tiles as a share of the patch.
        fast: ``no-mirroring``, ``wide-steps`` or ``coarse-first`` instead of these two; ``lnsegfm presets`` finds what
            that costs a model.
        exact: Round as nnU-Net does, for its very masks.
        air: Ask the network once for all tiles of nothing but air; the masks are the same.
        memory: GB to keep to.
        overwrite: Predict also what is there already.
        flags: Look for reasons to look at a mask, in ``flags.json`` and ``flags`` of the result.
        nodes: Measure the nodes of each mask, in ``CASE.nodes.csv`` and ``CASE.nodes.json``.
        probabilities: Keep the labels' probabilities, in ``CASE.npz``.
        formats: For scans from DICOM also ``rtstruct`` and ``seg``.
        per_node: A structure or segment for each node.
        names: What masks of DICOM series are called: ``code``, ``series`` or ``patient``.
        straighten: Resample sheared series (gantry tilt) instead of refusing them.
        progress: Told how far it is.

    Raises:
        LnSegFmError: A model or a folder that cannot be used. A scan that cannot be is in ``failed`` of the result.
    """
    kinds = tuple(one_of(Format, kind, "formats") for kind in ([formats] if isinstance(formats, str) else formats))
    naming, place = one_of(Names, names, "names"), Path(out)
    device, limit = choose_device(device), bytes_of(memory)
    loaded = read_model(Path(model))
    dicom = kinds != (Format.NIFTI,)
    with find_inputs(
        Path(scans), loaded.channels, names=naming, straighten=straighten, out=place, dicom=dicom
    ) as inputs:
        return predicting.predict_cases(
            loaded,
            inputs.cases,
            place,
            device=device,
            mirroring=mirroring,
            step=step,
            fast=fast,
            exact=exact,
            air=air,
            memory=limit,
            overwrite=overwrite,
            flags=flags,
            nodes=nodes,
            probabilities=probabilities,
            exports=Exports(place, loaded.labels, inputs, kinds, per_node, predicting.model_title(loaded)),
            progress=progress,
        )

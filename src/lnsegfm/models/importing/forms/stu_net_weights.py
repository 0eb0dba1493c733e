"""STU-Net's weights without plans, such as its published models without their pickles.

Strides leave no mark in the weights; the published models, which were trained on TotalSegmentator's scans at 1.5 mm in
patches of 128 voxels, halve each axis at each stage.
"""

from __future__ import annotations

from typing import Any

from lnsegfm.errors import ConfigError
from lnsegfm.models.importing.forms.bare_weights import PLANS, require_labels, unnamed_outputs, weights_of
from lnsegfm.models.importing.import_options import ImportOptions
from lnsegfm.models.importing.model_source import ModelSource
from lnsegfm.models.importing.recognised import FoldAsRead, NotThisForm, RecognisedFold, RecognisedModel
from lnsegfm.models.importing.stu_plans import stu_architecture
from lnsegfm.models.importing.synthesise_plans import CT, input_channels, require_window, synthesise_plans
from lnsegfm.models.importing.validate_plans import synthesise_dataset_json
from lnsegfm.models.plans import CONFIGURATION
from lnsegfm.networks.architectures import require_patch
from lnsegfm.networks.stu_net import arguments_of, is_stu_net
from lnsegfm.nnunet.lookup import STOCK_TRAINER
from lnsegfm.weights.checkpoint import Checkpoint

TAKES = frozenset({"labels", "channels", "spacing_mm", "window_hu", "patch_size"})
PATCH = (128, 128, 128)
EXAMPLE = "The published models of TotalSegmentator's structures were trained at --spacing 1.5 1.5 1.5."
STRIDES_NOTE = (
    "Its strides leave no mark in its weights: each axis is halved at each stage, as in the published models."
)


def read(source: ModelSource, options: ImportOptions) -> RecognisedModel:
    """Recognise weights of a STU-Net for which there are no plans.

    Raises:
        NotThisForm: They are none, or there are plans.
        ConfigError: Spacing, intensities or labels are not said.
    """
    weights = weights_of(source)
    if not is_stu_net(weights):
        raise NotThisForm
    if options.plans is not None or source.beside(*PLANS) is not None:
        raise NotThisForm
    where, found = str(source.path), arguments_of(weights)
    architecture = stu_architecture(weights, [[1, 1, 1]] + [[2, 2, 2]] * (len(found["features_per_stage"]) - 1))
    if options.labels is None:
        raise ConfigError(unnamed_outputs(source.path, weights, by_label_alone=True))
    require_labels(options.labels, source.path, weights)
    channels = input_channels(options, found["input_channels"], CT, where)
    patch = options.patch_size or PATCH
    require_patch(patch, architecture["arch_kwargs"]["strides"])
    if options.spacing_mm is None:
        raise ConfigError(
            f"{where}: STU-Net's weights without plans do not say which voxel spacing they were trained on. Give "
            f"--spacing Z Y X. {EXAMPLE}"
        )
    plans = synthesise_plans(
        "Dataset001_STUNet",
        architecture,
        spacing_mm=options.spacing_mm,
        patch_size=patch,
        channels=channels,
        window_hu=options.window_hu,
    )
    schemes: Any = plans["configurations"][CONFIGURATION]["normalization_schemes"]
    require_window(
        options, schemes, where, "Give --window LOW HIGH, or --plans with the plans of its training (docs/models.md)."
    )
    checkpoint = Checkpoint(
        weights, CONFIGURATION, plans, synthesise_dataset_json(channels, options.labels), STOCK_TRAINER, (0, 1, 2)
    )
    return RecognisedModel(
        form="STU-Net weights",
        folds=(RecognisedFold("0", source.place, lambda: FoldAsRead(checkpoint)),),
        notes=(STRIDES_NOTE,),
    )

"""The predictor of a model: of one stage, of both stages of a cascade, or of several models that are averaged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lnsegfm.errors import ModelError
from lnsegfm.inference.speed_presets import InferenceSetting
from lnsegfm.models.model import Model
from lnsegfm.prediction.cascade_predictor import CascadePredictor
from lnsegfm.prediction.ensemble_predictor import EnsemblePredictor
from lnsegfm.prediction.mask_values import MaskValues
from lnsegfm.prediction.postprocessed_masks import PostprocessedMasks
from lnsegfm.prediction.predictor import Predictor
from lnsegfm.prediction.scan_predictor import ScanPredictor


def ready(model: Model, setting: InferenceSetting, **settings: Any) -> ScanPredictor:
    """A predictor with a setting; masks are postprocessed and hold the values of the data that the model trained on.

    Args:
        model: The model.
        setting: What its masks depend on.
        settings: What they do not: ``device``, ``watch``, ``air``, ``memory`` of `Predictor`.

    Raises:
        ConfigError: The setting is not for this model.
        ModelError: The previous stage of a cascade is missing; a network cannot be built.
    """
    hashed = bool(settings.get("watch")) and bool(model.trained_scans)
    labels, predictor = model.mask_labels, _by_outputs(model, setting, **settings, hashed=hashed)
    if rules := model.mask_postprocessing:
        predictor = PostprocessedMasks(predictor, rules)
    return predictor if labels == model.labels else MaskValues(predictor, labels)


def _by_outputs(model: Model, setting: InferenceSetting, **settings: Any) -> ScanPredictor:
    """A predictor whose masks hold the numbers of the network's outputs."""
    if model.companions:
        alone = (replace(model, companions=()), *model.companions)
        return EnsemblePredictor([_by_outputs(one, setting, **settings) for one in alone], model.labels)
    on = {name: getattr(setting, name) for name in ("mirroring", "step", "exact", "coarse")} | settings
    before = model.previous_configuration
    if before is None:
        return Predictor(model, **on)
    if model.previous is None:
        raise ModelError(
            f"Model {model.folder}: configuration {model.configuration} takes the masks of {before}, and "
            "no model of that is next to it. Give it with --previous-stage FOLDER."
        )
    first = _by_outputs(model.previous, replace(setting, coarse=None), **{**settings, "watch": False})
    return CascadePredictor(first, Predictor(model, **{**on, "coarse": None}), setting.coarse)

"""What the configs of an Auto3DSeg algorithm folder say of its model: read as data, never evaluated.

MONAI's Auto3DSeg writes a folder an algorithm and fold: ``segresnet_0/model/model.pt`` or
``swinunetr_0/model_fold0/best_metric_model.pt`` beside ``configs/hyper_parameters.yaml``, and in many releases
``network.yaml`` and ``transforms_infer.yaml``. Its SegResNet takes CT as sigmoid(2x - 1) of x = (HU - low) / (high -
low), unclipped, and other images by their mean and standard deviation
(https://github.com/Project-MONAI/research-contributions/tree/main/auto3dseg).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lnsegfm.datasets.label_tables import BACKGROUND
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError, ModelError
from lnsegfm.models.importing.config_files import config_files, read_config
from lnsegfm.models.importing.import_options import ImportOptions
from lnsegfm.models.importing.model_source import HYPER_PARAMETERS, ModelSource, SourceKind, configs_of_algorithm
from lnsegfm.models.importing.monai_bundle import MonaiBundle
from lnsegfm.models.importing.monai_config import (
    argument_of,
    axes_code,
    intensities,
    resolve,
    targets,
    three_z_y_x,
    whole_z_y_x,
)
from lnsegfm.models.importing.monai_network_config import network_of
from lnsegfm.models.importing.synthesise_plans import CT

FURTHER = ("network", "transforms_infer")
OF_RANGE = ("range", "ct")
OF_SCAN = ("meanstd", "mri")
ASSUMED_HU = (-250.0, 250.0)
"""The bounds that Auto3DSeg's SegResNet takes where its config has none."""


def read_algorithm(source: ModelSource) -> MonaiBundle | None:
    """What the configs of an algorithm folder say; None where the weights lie in none.

    Raises:
        ModelError: A config is not YAML, or says that the model is one that cannot be read.
    """
    folder = configs_of_algorithm(source.place)
    if folder is None or source.kind not in (SourceKind.CHECKPOINT, SourceKind.TENSORS):
        return None
    config = read_config(folder, *HYPER_PARAMETERS)
    for stem in FURTHER:
        config |= read_config(folder, stem)
    inner = config.get("training")
    config = {**inner, **config} if isinstance(inner, dict) else config
    if resolve(config, config.get("sigmoid")) is True or str(config.get("softmax")).casefold() == "false":
        raise ModelError(
            f"{source.path}: its config takes each output by a sigmoid, so its labels overlap and none is background. "
            "Take a model whose outputs are background and labels."
        )
    network = network_of(config, source.path)
    if config.get("custom_transforms"):
        raise ModelError(f"{source.path}: its config names transforms of its own (custom_transforms), which are code.")
    channels = _channels(config)
    window, squashed, unreadable = _intensities(config, of_ct=channels in ((), (CT,)))
    chain = list(targets(resolve(config, config.get("transforms_infer"))))
    axes = "RAS" if config.get("orientation_ras") is True else argument_of(config, chain, "Orientationd", "axcodes")
    said = ImportOptions(
        labels=_labels(config),
        channels=channels,
        spacing_mm=_spacing(config, chain),
        window_hu=window,
        patch_size=whole_z_y_x(resolve(config, config.get("roi_size", config.get("patch_size")))),
        network=(network or {}) | ({"intensities": "sigmoid"} if squashed else {}),
    )
    return MonaiBundle(
        said=said,
        axes=axes_code(axes, source.path) if axes else None,
        unreadable=unreadable,
        citation=None,
        kind="Auto3DSeg folder",
        files=config_files(folder, *HYPER_PARAMETERS, *FURTHER),
    )


def _channels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The channel's name where there is one: the modality, which Auto3DSeg knows by how it begins."""
    modality = resolve(config, config.get("modality"))
    if resolve(config, config.get("input_channels")) != 1 or not isinstance(modality, str):
        return ()
    name = modality.strip()
    return (CT,) if name.casefold().startswith("ct") else (name.upper(),) if re.fullmatch(r"[\w -]+", name) else ()


def _labels(config: Mapping[str, Any]) -> LabelMap | None:
    names, number = config.get("class_names"), resolve(config, config.get("output_classes"))
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        return None
    words = [name.strip() for name in names]
    words = words[1:] if words and words[0].casefold() == BACKGROUND else words
    if len(set(words)) != len(words) or number != len(words) + 1:
        return None
    try:
        return LabelMap({name: value for value, name in enumerate(words, 1)})
    except DataError:
        return None


def _spacing(config: Mapping[str, Any], chain: list[Mapping[str, Any]]) -> tuple[float, float, float] | None:
    """The spacing that scans are resampled to; None where they are not."""
    if "resample_resolution" in config:
        resampled = resolve(config, config.get("resample")) is True
        return three_z_y_x(resolve(config, config["resample_resolution"])) if resampled else None
    in_chain = three_z_y_x(argument_of(config, chain, "Spacingd", "pixdim"))
    return in_chain or three_z_y_x(resolve(config, config.get("resample_to_spacing")))


def _intensities(config: Mapping[str, Any], *, of_ct: bool) -> tuple[tuple[float, float] | None, bool, tuple[str, ...]]:
    """Window, whether a sigmoid follows it, and the transforms that plans cannot state."""
    mode = resolve(config, config.get("normalize_mode"))
    if mode is None:
        chain = list(targets(resolve(config, config.get("transforms_infer"))))
        window, unreadable = intensities(chain, of_ct=of_ct)
        return window, False, unreadable
    if mode in OF_RANGE and of_ct:
        bounds = resolve(config, config.get("intensity_bounds"))
        if bounds is None:
            return ASSUMED_HU, True, ()
        if isinstance(bounds, list) and len(bounds) == 2 and all(isinstance(each, (int, float)) for each in bounds):
            return (float(bounds[0]), float(bounds[1])), True, ()
    if mode in OF_SCAN and not of_ct:
        return None, False, ()
    return None, False, (f"normalize_mode {mode}",)

"""Encoders of nnssl's self-supervised pretraining, which say in an adaptation plan what they are.

https://github.com/MIC-DKFZ/nnssl. Only encoder and stem are taken, as nnU-Net's own way of fine-tuning them does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lnsegfm.errors import ConfigError, LnSegFmError, ModelError
from lnsegfm.models.importing.import_options import ImportOptions
from lnsegfm.models.importing.model_source import ModelSource, SourceKind
from lnsegfm.models.importing.recognised import FoldAsRead, NotThisForm, RecognisedFold, RecognisedModel
from lnsegfm.models.importing.synthesise_plans import input_channels, require_window, synthesise_plans
from lnsegfm.models.importing.validate_plans import MALFORMED, as_plain_json, read_table, synthesise_dataset_json
from lnsegfm.models.plans import CONFIGURATION
from lnsegfm.networks.architectures import ARCHITECTURES, PLAIN, RESENC
from lnsegfm.nnunet.lookup import STOCK_TRAINER
from lnsegfm.weights.checkpoint import Checkpoint
from lnsegfm.weights.state_dict_names import state_dict_in

TAKES = frozenset({"channels", "spacing_mm", "window_hu", "patch_size", "configuration"})
PLAN = "nnssl_adaptation_plan"
FILE = "adaptation_plan.json"
ENCODER = "encoder."
FEATURES = (32, 64, 128, 256, 320, 320)
STRIDES = ((1, 1, 1),) + ((2, 2, 2),) * 5
CLASSES = {"ResidualEncoderUNet": RESENC, "PlainConvUNet": PLAIN}
IMPORTED = ("conv_op", "norm_op", "dropout_op", "nonlin")
WINDOW = "Give --window LOW HIGH, in HU: the lowest and highest intensity that it was trained on."


def read(source: ModelSource, options: ImportOptions) -> RecognisedModel:
    """Recognise a checkpoint with an adaptation plan, inside it or beside it.

    Raises:
        NotThis: There is no adaptation plan.
        ModelError: The plan is not nnssl's, or is of an architecture without an encoder that can be used here.
        ConfigError: Spacing or intensities are not said.
    """
    if source.kind is not SourceKind.CHECKPOINT:
        raise NotThisForm
    content = source.content
    if not isinstance(content, Mapping):
        raise NotThisForm
    beside = source.beside(FILE)
    if PLAN not in content and beside is None:
        raise NotThisForm
    weights = state_dict_in(content.get("network_weights"), backbone=False)  # its plan names the prefixes
    if weights is None:
        raise NotThisForm("it has an adaptation plan, but no network_weights")
    said = content[PLAN] if PLAN in content or beside is None else read_table(beside)
    plan = as_plain_json(said, f"{source.path}: adaptation plan")
    try:
        checkpoint, notes = _encoder(source, options, weights, plan)
    except MALFORMED as error:
        if isinstance(error, LnSegFmError):
            raise
        raise ModelError(f"{source.path}: its adaptation plan is not nnssl's ({error!r}). Copy it again.") from None
    return RecognisedModel(
        form="nnssl checkpoint with its adaptation plan, self-supervised encoder",
        folds=(RecognisedFold("0", source.place, lambda: FoldAsRead(checkpoint)),),
        files=(beside,) if beside is not None and PLAN not in content else (),
        covers=(ENCODER,),
        notes=notes,
        citation=" ".join(_texts(content.get("citations")))[:2000].strip() or None,
    )


def _encoder(
    source: ModelSource, options: ImportOptions, weights: Mapping[str, Tensor], plan: Mapping[str, Any]
) -> tuple[Checkpoint, tuple[str, ...]]:
    where = str(source.path)
    architecture = _architecture(plan["architecture_plans"], where)
    pretrained = plan["pretrain_plan"]
    settings = _settings(pretrained["configurations"], options, where)
    axes = tuple(int(axis) for axis in pretrained.get("transpose_forward") or (0, 1, 2))
    if sorted(axes) != [0, 1, 2]:
        raise ModelError(f"{where}: its adaptation plan turns axes by {axes}, which cannot be. Copy it again.")
    channels = input_channels(options, int(plan["pretrain_num_input_channels"]), "image", where)
    schemes = [str(name) for name in settings.get("normalization_schemes") or ["ZScoreNormalization"]]
    schemes = schemes * len(channels) if len(schemes) == 1 else schemes
    require_window(options, schemes, where, WINDOW)
    spacing, patch = settings.get("spacing"), plan.get("recommended_downstream_patchsize") or settings.get("patch_size")
    spacing_mm = options.spacing_mm or (None if spacing is None else _turned_back(spacing, axes))
    if spacing_mm is None:
        raise ConfigError(
            f"{where}: it was trained on scans at whatever spacing they had, and plans need one. "
            "Give --spacing Z Y X, in mm: that of the scans it will be adapted to."
        )
    plans = synthesise_plans(
        "Dataset001_nnssl",
        architecture,
        spacing_mm=spacing_mm,
        patch_size=options.patch_size or _turned_back(patch or (160, 160, 160), axes),
        channels=channels,
        schemes=schemes,
        window_hu=options.window_hu,
        axes=axes,
    )
    kept = _renamed(weights, str(plan["key_to_encoder"]), str(plan["key_to_stem"]), architecture["network_class_name"])
    if not kept:
        raise ModelError(
            f"{where}: none of its weights begins with {plan['key_to_encoder']}, as its plan says they do."
        )
    left = len(weights) - len(kept)
    notes = ["It is a pretrained encoder: the rest of the network starts fresh when it is adapted."]
    notes += [f"{left} tensors of its pretraining's decoder and tasks were not taken."] if left else []
    if options.spacing_mm is not None and spacing is not None:
        notes.append(f"Its plan says a spacing of {spacing}; the one that was given counts.")
    checkpoint = Checkpoint(
        weights=kept,
        configuration=CONFIGURATION,
        plans=plans,
        dataset_json=synthesise_dataset_json(channels, None),
        trainer_name=STOCK_TRAINER,
        mirroring_axes=(0, 1, 2),
    )
    return checkpoint, tuple(notes)


def _architecture(named: Mapping[str, Any], where: str) -> dict[str, Any]:
    name, arguments = str(named["arch_class_name"]), named.get("arch_kwargs")
    if name == "ResEncL":  # nnssl's own ResEnc-L, whatever the data
        return ARCHITECTURES["resenc-l"].build_plan(FEATURES, STRIDES)
    if name not in CLASSES or not isinstance(arguments, Mapping):
        raise ModelError(
            f"{where}: its architecture {name} is none that can be adapted here. Use a checkpoint of ResEncL, or of "
            f"{' or '.join(CLASSES)} with its arguments."
        )
    imported = named.get("arch_kwargs_requiring_import") or [key for key in IMPORTED if key in arguments]
    return {
        "network_class_name": CLASSES[name],
        "arch_kwargs": dict(arguments),
        "_kw_requires_import": [str(key) for key in imported],
    }


def _settings(configurations: Mapping[str, Any], options: ImportOptions, where: str) -> Mapping[str, Any]:
    names = list(configurations)
    if options.configuration is None and len(names) == 1:
        return dict(configurations[names[0]])
    if options.configuration not in names:
        raise ConfigError(f"{where}: its adaptation plan has {', '.join(names)}. Choose with --configuration.")
    return dict(configurations[options.configuration])


def _renamed(weights: Mapping[str, Tensor], encoder: str, stem: str, network: str) -> dict[str, Tensor]:
    """Encoder and stem under the names that they have in the network that is adapted."""
    places = {encoder.rstrip(".") + ".": f"{ENCODER}stages."}
    if network == RESENC:  # a plain U-Net's stem is the first of its stages
        places[stem.rstrip(".") + "."] = f"{ENCODER}stem."
    return {
        ours + name.removeprefix(theirs): tensor
        for name, tensor in weights.items()
        for theirs, ours in places.items()
        if name.startswith(theirs)
    }


def _turned_back(values: Sequence[float], axes: Sequence[int]) -> tuple[Any, Any, Any]:
    """What a plan says in its own order of axes, as (z, y, x)."""
    z, y, x = (values[axes.index(axis)] for axis in range(3))
    return z, y, x


def _texts(value: Any, depth: int = 4) -> list[str]:
    """Every text in nested lists and tables, on one line each."""
    if isinstance(value, str):
        return [" ".join("".join(c if c.isprintable() else " " for c in value).split())]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [text for each in inner for text in _texts(each, depth - 1)] if depth else []

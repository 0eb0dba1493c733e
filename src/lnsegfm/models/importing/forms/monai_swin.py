"""MONAI's SwinUNETR, whole, and the transformer of its self-supervised pretraining (SwinViT).

MONAI turns every scan to RAS; the plans state it, and scans are turned so here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.models.importing.forms.bare_weights import PLANS, require_labels, unnamed_outputs, weights_of
from lnsegfm.models.importing.import_options import ImportOptions
from lnsegfm.models.importing.model_source import ModelSource
from lnsegfm.models.importing.monai_plans import AXES_NOTE, MonaiTraining, monai_plans
from lnsegfm.models.importing.recognised import FoldAsRead, NotThisForm, RecognisedFold, RecognisedModel
from lnsegfm.models.importing.swin_plans import swin_architecture
from lnsegfm.models.importing.validate_plans import synthesise_dataset_json
from lnsegfm.models.plans import CONFIGURATION
from lnsegfm.nnunet.lookup import STOCK_TRAINER
from lnsegfm.nnunet.plan_axes import RAS
from lnsegfm.weights.checkpoint import Checkpoint
from lnsegfm.weights.state_dict_names import TRANSFORMER, is_swin

TAKES = frozenset({"labels", "channels", "spacing_mm", "window_hu", "patch_size"})
TAKES_ENCODER = TAKES - {"labels"}
EXAMPLE = "MONAI's models for abdominal CT used --spacing 2.0 1.5 1.5 --window -175 250."


def read(source: ModelSource, options: ImportOptions) -> RecognisedModel:
    """Recognise a SwinUNETR of MONAI, which comes without plans.

    Raises:
        NotThis: It is none, or plans are given.
        ConfigError: Spacing, intensities or labels are not said.
    """
    weights = weights_of(source)
    if not is_swin(weights):
        started = any(name.startswith(TRANSFORMER) for name in weights)
        raise NotThisForm("its weights have no decoder1., which a SwinUNETR has" if started else "")
    if options.plans is not None or source.beside(*PLANS) is not None:
        raise NotThisForm
    architecture = swin_architecture(weights)
    if options.labels is None:
        raise ConfigError(unnamed_outputs(source.path, weights, by_label_alone=True))
    require_labels(options.labels, source.path, weights)
    plans, channels = _plans(source, options, architecture, weights)
    checkpoint = Checkpoint(
        weights=weights,
        configuration=CONFIGURATION,
        plans=plans,
        dataset_json=synthesise_dataset_json(channels, options.labels),
        trainer_name=STOCK_TRAINER,
        mirroring_axes=(0, 1, 2),
    )
    fold = RecognisedFold("0", source.place, lambda: FoldAsRead(checkpoint))
    return RecognisedModel(form="MONAI SwinUNETR", folds=(fold,), notes=(AXES_NOTE,), axes=RAS)


def read_encoder(source: ModelSource, options: ImportOptions) -> RecognisedModel:
    """Recognise the transformer of a SwinUNETR on its own, as MONAI's self-supervised pretraining saves it.

    Raises:
        NotThis: It is none.
        ConfigError: Spacing or intensities are not said.
    """
    weights = weights_of(source)
    bare = {name.removeprefix(TRANSFORMER): tensor for name, tensor in weights.items()}
    if is_swin(weights) or "patch_embed.proj.weight" not in bare or "layers1.0.blocks.0.attn.qkv.weight" not in bare:
        raise NotThisForm
    parts = ("patch_embed.", "layers1", "layers2", "layers3", "layers4")
    kept = {f"{TRANSFORMER}{name}": tensor for name, tensor in bare.items() if name.startswith(parts)}
    architecture = swin_architecture(kept)
    plans, channels = _plans(source, options, architecture, kept)
    left = sorted({name.partition(".")[0] for name in bare if not name.startswith(parts)})
    notes = [AXES_NOTE, "It is a pretrained encoder: the rest of the network starts fresh when it is adapted."]
    notes += [f"Not taken, because they belong to its pretraining: {', '.join(left)[:500]}."] if left else []
    checkpoint = Checkpoint(
        weights=kept,
        configuration=CONFIGURATION,
        plans=plans,
        dataset_json=synthesise_dataset_json(channels, None),
        trainer_name=STOCK_TRAINER,
        mirroring_axes=(0, 1, 2),
    )
    fold = RecognisedFold("0", source.place, lambda: FoldAsRead(checkpoint))
    return RecognisedModel(
        form="MONAI SwinViT, self-supervised encoder",
        folds=(fold,),
        covers=(TRANSFORMER,),
        notes=tuple(notes),
        axes=RAS,
    )


def _plans(
    source: ModelSource, options: ImportOptions, architecture: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    embedding = weights[f"{TRANSFORMER}patch_embed.proj.weight"]
    if embedding.ndim != 5:
        raise ModelError(f"{source.path}: its weights are for 2D images. Use those of a 3D model.")
    return monai_plans(source, options, architecture, int(embedding.shape[1]), MonaiTraining(EXAMPLE))

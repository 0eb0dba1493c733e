"""VoxTell's image encoder: a residual encoder of nnU-Net under the text-prompted model.

The model segments what a text names; its transformer and its decoder take the embedding of a text and are left out. The
encoder is what its authors transfer into a ResidualEncoderUNet, too.

Rokuss et al., CVPR 2026, https://github.com/MIC-DKFZ/VoxTell. Its scans were turned to RAS, normalised one by one and
not resampled, in patches of 192 voxels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lnsegfm.errors import ConfigError
from lnsegfm.models.importing.forms.nnssl_encoder import ENCODER, FEATURES, STRIDES
from lnsegfm.models.importing.import_options import ImportOptions
from lnsegfm.models.importing.model_source import ModelSource, SourceKind
from lnsegfm.models.importing.recognised import FoldAsRead, NotThisForm, RecognisedFold, RecognisedModel
from lnsegfm.models.importing.synthesise_plans import input_channels, synthesise_plans
from lnsegfm.models.importing.validate_plans import read_table, synthesise_dataset_json
from lnsegfm.models.model_layout import fold_files, model_folders
from lnsegfm.models.plans import CONFIGURATION
from lnsegfm.networks.architectures import ARCHITECTURES, RESENC
from lnsegfm.nnunet.lookup import STOCK_TRAINER
from lnsegfm.nnunet.plan_axes import RAS
from lnsegfm.weights.checkpoint import Checkpoint, load_safely
from lnsegfm.weights.state_dict_names import state_dict_in

TAKES = frozenset({"channels", "spacing_mm", "patch_size"})
TEXT = ("project_text_embed.", "project_bottleneck_embed.", "transformer_decoder.")
PATCH = (192, 192, 192)
SCHEME = "ZScoreNormalization"
CITATION = "Rokuss et al., VoxTell: Free-Text Promptable Universal 3D Medical Image Segmentation, CVPR 2026"


def read(source: ModelSource, options: ImportOptions) -> RecognisedModel:
    """Recognise a checkpoint of VoxTell, alone or in its folder.

    Raises:
        NotThisForm: It is none.
        ConfigError: No spacing is said.
    """
    file, plans = _place(source)
    weights = state_dict_in(load_safely(file) if file != source.place else source.content)
    if weights is None or not _is_voxtell(weights):
        raise NotThisForm
    kept = {name: tensor for name, tensor in weights.items() if name.startswith(ENCODER)}
    channels = input_channels(options, _channels(kept), "image", str(source.path))
    if options.spacing_mm is None:
        raise ConfigError(
            f"{source.path}: VoxTell was trained on scans at whatever spacing they had, and plans need one. "
            "Give --spacing Z Y X, in mm: that of the scans it will be adapted to."
        )
    architecture, patch = _planned(plans)
    checkpoint = Checkpoint(
        weights=kept,
        configuration=CONFIGURATION,
        plans=synthesise_plans(
            "Dataset001_VoxTell",
            architecture,
            spacing_mm=options.spacing_mm,
            patch_size=options.patch_size or patch,
            channels=channels,
            schemes=[SCHEME] * len(channels),
        ),
        dataset_json=synthesise_dataset_json(channels, None),
        trainer_name=STOCK_TRAINER,
        mirroring_axes=(0, 1, 2),
    )
    left = sorted({name.partition(".")[0] for name in weights if name not in kept})
    return RecognisedModel(
        form="VoxTell, image encoder",
        folds=(RecognisedFold("0", file, lambda: FoldAsRead(checkpoint)),),
        covers=(ENCODER,),
        notes=(
            "It is a pretrained encoder: the rest of the network starts fresh when it is adapted.",
            f"Not taken, because they make masks of a text: {', '.join(left)[:500]}.",
        ),
        citation=CITATION,
        axes=RAS,
    )


def _place(source: ModelSource) -> tuple[Path, Any]:
    """The file of weights, and the plans beside it or None."""
    if source.kind is SourceKind.CHECKPOINT or source.kind is SourceKind.TENSORS:
        beside = source.beside("plans.json")
        return source.place, read_table(beside) if beside is not None else None
    folders = model_folders(source.place) if source.kind is SourceKind.FOLDER else ()
    if len(folders) != 1:
        raise NotThisForm
    plans = read_table(folders[0] / "plans.json")
    if not isinstance(plans, Mapping) or "VoxTell" not in str(plans.get("dataset_name")):
        raise NotThisForm
    return next(iter(fold_files(folders[0]).values())), plans


def _is_voxtell(weights: Mapping[str, Tensor]) -> bool:
    return all(any(name.startswith(part) for name in weights) for part in (*TEXT, f"{ENCODER}stages."))


def _channels(encoder: Mapping[str, Tensor]) -> int:
    """Of the image: what its first convolution takes."""
    return next((int(t.shape[1]) for name, t in encoder.items() if "stem." in name and t.ndim == 5), 1)


def _planned(plans: Any) -> tuple[Mapping[str, Any], Any]:
    """The plans' entry of the network and the patch; those of the release where no plans state them."""
    try:
        settings = plans["configurations"][CONFIGURATION]
        architecture, patch = settings["architecture"], settings["patch_size"]
        if architecture["network_class_name"] == RESENC and len(patch) == len(PATCH):
            return dict(architecture), tuple(int(n) for n in patch)
    except (LookupError, TypeError, ValueError):
        pass
    return ARCHITECTURES["resenc-l"].build_plan(FEATURES, STRIDES), PATCH

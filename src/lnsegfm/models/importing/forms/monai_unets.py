"""MONAI's DynUNet and SegResNetDS (of Auto3DSeg), whose weights tell all of it but what leaves no mark in them.

MONAI turns every scan to RAS where its training says so; the plans state it, and scans are turned so here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.models.importing.forms.bare_weights import PLANS, require_labels, unnamed_outputs, weights_of
from lnsegfm.models.importing.import_options import ImportOptions
from lnsegfm.models.importing.model_source import ModelSource
from lnsegfm.models.importing.monai_plans import AXES_NOTE, MonaiTraining, monai_plans
from lnsegfm.models.importing.recognised import FoldAsRead, NotThisForm, RecognisedFold, RecognisedModel
from lnsegfm.models.importing.validate_plans import synthesise_dataset_json
from lnsegfm.models.plans import CONFIGURATION
from lnsegfm.networks.architectures import DYN_UNET, SEG_RES_NET_DS
from lnsegfm.nnunet.lookup import STOCK_TRAINER
from lnsegfm.nnunet.plan_axes import RAS
from lnsegfm.weights.checkpoint import Checkpoint

TAKES = frozenset({"labels", "channels", "spacing_mm", "window_hu", "patch_size"})
EXAMPLE = "They stand in the transforms of its training: Spacingd and ScaleIntensityRanged."


@dataclass(frozen=True)
class MonaiUNet:
    """A network of MONAI that its weights describe.

    Args:
        name: MONAI's.
        class_path: What plans call it.
        marks: Names of tensors that it has and no other network.
        unmarked: Arguments that leave no mark in weights, in words, as they are taken.
    """

    name: str
    class_path: str
    marks: tuple[str, ...]
    unmarked: str

    def arguments_of(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """Its arguments; MONAI, which takes seconds to load, is loaded here."""
        from lnsegfm.networks import dyn_unet, seg_res_net_ds

        return (dyn_unet if self.class_path == DYN_UNET else seg_res_net_ds).arguments_of(weights)


NETWORKS = (
    MonaiUNet(
        "DynUNet",
        DYN_UNET,
        ("input_block.conv1.conv.weight", "bottleneck.conv1.conv.weight", "upsamples.0.transp_conv.conv.weight"),
        "its activation is taken as LeakyReLU of 0.01, its first stride as 1",
    ),
    MonaiUNet(
        "SegResNetDS",
        SEG_RES_NET_DS,
        ("encoder.conv_init.weight", "encoder.layers.0.blocks.0.conv1.weight", "up_layers.0.blocks.0.conv1.weight"),
        "its activation is taken as ReLU",
    ),
)


def read(source: ModelSource, options: ImportOptions) -> RecognisedModel:
    """Recognise a whole DynUNet or SegResNetDS of MONAI, which comes without plans.

    Raises:
        NotThisForm: It is none, or plans are given.
        ConfigError: Spacing, intensities or labels are not said.
        ModelError: Its weights are not complete, or of a network for images.
    """
    weights = weights_of(source)
    network = next((each for each in NETWORKS if all(mark in weights for mark in each.marks)), None)
    if network is None or options.plans is not None or source.beside(*PLANS) is not None:
        raise NotThisForm
    try:
        arguments = network.arguments_of(weights) | dict(options.network or {})
    except ModelError as error:
        raise ModelError(f"{source.path}: {error}") from None
    if options.labels is None:
        raise ConfigError(unnamed_outputs(source.path, weights, by_label_alone=True))
    require_labels(options.labels, source.path, weights)
    channels = int(arguments.pop("input_channels"))
    squashed = arguments.get("intensities") is not None
    architecture = {"network_class_name": network.class_path, "arch_kwargs": arguments, "_kw_requires_import": []}
    plans, names = monai_plans(source, options, architecture, channels, MonaiTraining(EXAMPLE), squashed=squashed)
    checkpoint = Checkpoint(
        weights, CONFIGURATION, plans, synthesise_dataset_json(names, options.labels), STOCK_TRAINER, (0, 1, 2)
    )
    notes = [AXES_NOTE]
    if options.network is None:
        notes.append(f"What leaves no mark in weights: {network.unmarked}. Compare a mask with MONAI's.")
    return RecognisedModel(
        form=f"MONAI {network.name}",
        folds=(RecognisedFold("0", source.place, lambda: FoldAsRead(checkpoint)),),
        notes=tuple(notes),
        axes=RAS,
    )

"""SuPreM's models, and others of its networks: the U-Net of Models Genesis, SwinUNETR and SegResNet.

The release keeps its weights under ``net``, as ``module.backbone.*``, beside heads whose kernels a text embedding and
the image give (Liu et al., ICCV 2023). The backbone is taken and the heads are not. What was fine-tuned from it with
the release's own scripts has an output layer and is a whole model.

Li et al., ICLR 2024, https://github.com/MrGiovanni/SuPreM. Its training: scans turned to RAS, 1.5 mm, -175 to 250 HU
as 0 to 1, patches of 96 voxels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lnsegfm.errors import ConfigError
from lnsegfm.models.importing.forms.bare_weights import PLANS, require_labels, unnamed_outputs, weights_of
from lnsegfm.models.importing.import_options import ImportOptions
from lnsegfm.models.importing.model_source import ModelSource
from lnsegfm.models.importing.monai_plans import AXES_NOTE, MonaiTraining, monai_plans
from lnsegfm.models.importing.recognised import FoldAsRead, NotThisForm, RecognisedFold, RecognisedModel
from lnsegfm.models.importing.swin_plans import swin_architecture
from lnsegfm.models.importing.validate_plans import synthesise_dataset_json
from lnsegfm.models.plans import CONFIGURATION
from lnsegfm.networks.architectures import GENESIS, SEG_RES_NET
from lnsegfm.networks.genesis_unet import STRIDES, arguments_of, is_genesis_unet
from lnsegfm.nnunet.lookup import STOCK_TRAINER
from lnsegfm.nnunet.plan_axes import RAS
from lnsegfm.weights.checkpoint import Checkpoint
from lnsegfm.weights.state_dict_names import HEAD as SWIN_HEAD
from lnsegfm.weights.state_dict_names import is_seg_res_net, is_swin, outputs

TAKES = frozenset({"labels", "channels", "spacing_mm", "window_hu", "patch_size"})
TAKES_BACKBONE = TAKES - {"labels"}
TEXT = ("controller.", "precls_conv.", "GAP.", "organ_embedding", "text_to_vision.")
"""What the names of the text-driven heads begin with."""
EXAMPLE = "SuPreM's models were trained at --spacing 1.5 1.5 1.5 --window -175 250."
RELEASE = MonaiTraining(EXAMPLE, (1.5, 1.5, 1.5), (-175.0, 250.0))
CITATION = "Li et al., How Well Do Supervised 3D Models Transfer to Medical Imaging Tasks?, ICLR 2024"
GENESIS_UNET, SWINUNETR, SEGRESNET = "U-Net", "SwinUNETR", "SegResNet"
COVERS = {
    GENESIS_UNET: ("down_tr", "up_tr"),
    SWINUNETR: ("swinViT.", "encoder", "decoder"),
    SEGRESNET: ("convInit.", "down_layers.", "up_layers.", "up_samples.", "conv_final.0."),
}
"""What the names of the weights of each network begin with, less its output layer."""
ORGANS = (25, 32)
"""Outputs of the release's own SegResNet: one an organ, none of background."""
OF_ORGANS = "each output of the release's is an organ on its own (--label takes them as background and labels)"


def read(source: ModelSource, options: ImportOptions) -> RecognisedModel:
    """Recognise a whole U-Net of Models Genesis or SegResNet; a whole SwinUNETR has a form of its own.

    Raises:
        NotThisForm: It is none, or has no output layer of its own.
        ConfigError: Spacing, intensities or labels are not said.
    """
    weights = _weights(source, options)
    kind = _kind(weights)
    if kind not in (GENESIS_UNET, SEGRESNET) or _is_backbone(source, weights, options):
        raise NotThisForm
    if options.labels is None:
        raise ConfigError(unnamed_outputs(source.path, weights, by_label_alone=True))
    require_labels(options.labels, source.path, weights)
    architecture, channels = _architecture(kind, weights)
    plans, names = monai_plans(source, options, architecture, channels, MonaiTraining(EXAMPLE))
    checkpoint = Checkpoint(
        weights, CONFIGURATION, plans, synthesise_dataset_json(names, options.labels), STOCK_TRAINER, (0, 1, 2)
    )
    fold = RecognisedFold("0", source.place, lambda: FoldAsRead(checkpoint))
    form = "MONAI SegResNet" if kind == SEGRESNET else "U-Net of Models Genesis and SuPreM"
    return RecognisedModel(form=form, folds=(fold,), notes=(AXES_NOTE,), axes=RAS)


def read_backbone(source: ModelSource, options: ImportOptions) -> RecognisedModel:
    """Recognise a U-Net, SwinUNETR or SegResNet whose output layer is not its labels'.

    Raises:
        NotThisForm: It is none.
        ConfigError: Spacing or intensities are neither said nor those of the release.
    """
    weights = _weights(source, options)
    kind = _kind(weights)
    if kind is None or not _is_backbone(source, weights, options):
        raise NotThisForm
    kept = {name: tensor for name, tensor in weights.items() if name.startswith(COVERS[kind])}
    architecture, channels = _architecture(kind, kept)
    of_text = any(name.startswith(TEXT) for name in weights)
    released = of_text or kind == SEGRESNET
    plans, names = monai_plans(source, options, architecture, channels, RELEASE if released else MonaiTraining(EXAMPLE))
    checkpoint = Checkpoint(kept, CONFIGURATION, plans, synthesise_dataset_json(names, None), STOCK_TRAINER, (0, 1, 2))
    left = sorted({name.partition(".")[0] for name in weights if name not in kept})
    reason = "they make outputs of text" if of_text else OF_ORGANS if released else "its output is no label's"
    heads = " with text-driven heads" if of_text else ""
    return RecognisedModel(
        form=f"SuPreM {kind}{heads}" if released else f"{kind} without an output layer",
        folds=(RecognisedFold("0", source.place, lambda: FoldAsRead(checkpoint)),),
        covers=COVERS[kind],
        backbone=True,
        notes=(AXES_NOTE, *_notes(left, reason, options, released=released)),
        citation=CITATION if released else None,
        axes=RAS,
    )


def _notes(left: list[str], reason: str, options: ImportOptions, *, released: bool) -> list[str]:
    notes = ["It is a pretrained network without its output layer, which starts fresh when it is adapted."]
    notes += [f"Not taken, because {reason}: {', '.join(left)[:500]}."] if left else []
    known = (("a spacing of 1.5 mm", options.spacing_mm), ("-175 to 250 HU as 0 to 1", options.window_hu))
    assumed = [words for words, given in known if given is None and released]
    notes += [f"As SuPreM's release says of its training, {' and '.join(assumed)} were taken."] if assumed else []
    return notes


def _weights(source: ModelSource, options: ImportOptions) -> Mapping[str, Tensor]:
    weights = weights_of(source)
    if options.plans is not None or source.beside(*PLANS) is not None:
        raise NotThisForm
    return weights


def _kind(weights: Mapping[str, Tensor]) -> str | None:
    if is_genesis_unet(weights):
        return GENESIS_UNET
    return SWINUNETR if is_swin(weights) else SEGRESNET if is_seg_res_net(weights) else None


def _is_backbone(source: ModelSource, weights: Mapping[str, Tensor], options: ImportOptions) -> bool:
    """Whether weights have no output layer of labels: none, of an image, below text-driven heads, of single organs."""
    if any(name.startswith(TEXT) for name in weights):
        return True
    if is_seg_res_net(weights):
        under_net = isinstance(source.content, Mapping) and "net" in source.content
        return under_net and outputs(weights) in ORGANS and options.labels is None
    return (outputs(weights) or 0) < 2 if is_genesis_unet(weights) else SWIN_HEAD not in weights


def _architecture(kind: str, weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], int]:
    """The plans' entry of the network, and its input's channels."""
    if kind == SWINUNETR:
        return swin_architecture(weights), int(weights["swinViT.patch_embed.proj.weight"].shape[1])
    if kind == GENESIS_UNET:
        arguments = arguments_of(weights) | {"strides": [list(stride) for stride in STRIDES]}
    else:
        from lnsegfm.networks import seg_res_net  # MONAI takes seconds to load

        arguments = seg_res_net.arguments_of(weights)
    channels = int(arguments.pop("input_channels"))
    path = GENESIS if kind == GENESIS_UNET else SEG_RES_NET
    return {"network_class_name": path, "arch_kwargs": arguments, "_kw_requires_import": []}, channels

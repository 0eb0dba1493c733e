"""The architectures that can be pretrained: how each is built from plans, the patches it takes, what it costs.

Nothing here loads torch, so that architectures can be listed at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lnsegfm.errors import ConfigError, UnknownName

PLAIN = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
RESENC = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
SWIN = "lnsegfm.networks.swin_unetr.SwinUNETR"
STU_NET = "lnsegfm.networks.stu_net.STUNet"
SEG_RES_NET = "lnsegfm.networks.seg_res_net.SegResNet"
DYN_UNET = "lnsegfm.networks.dyn_unet.DynUNet"
SEG_RES_NET_DS = "lnsegfm.networks.seg_res_net_ds.SegResNetDS"
GENESIS = "lnsegfm.networks.genesis_unet.GenesisUNet"
TRAINER_PREFIX = "nnUNetTrainer_"

ENCODER_BLOCKS = {PLAIN: (2,) * 12, RESENC: (1, 3, 4, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6)}
DECODER_CONVOLUTIONS = {PLAIN: 2, RESENC: 1}
STU_WIDTHS = (1, 2, 4, 8, 16, 16)
"""Channels of a STU-Net's stages in multiples of the first; at full size it has these six, whatever the data."""
SWIN_HALVINGS = 5
SWIN_GB_PER_VOXEL = 15.9 / (64 * 128 * 192)
"""GPU memory of one patch voxel at feature_size 48, batch 2, half precision, with activation checkpointing: from the
15.9 GB that the paper's release reports at 64x128x192. Memory grows in proportion to the voxels."""


@dataclass(frozen=True)
class Reported:
    """What the paper's release reports of its model (RADCURE, V100S; https://github.com/Zihaoluoh/LN-Seg-FM).

    Args:
        dice_percent: Internal validation.
        seconds: Time of 250 iterations.
        gpu_gb: GPU memory in training.
    """

    dice_percent: float
    seconds: float
    gpu_gb: float


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network that can be pretrained.

    Args:
        name: What a user types.
        summary: What it is, in a line.
        source: The paper.
        network: Import path of its class, as plans name it.
        planner: nnU-Net's planner for it; for a network without one, the planner of spacing and intensities.
        gpu_memory_gb: GPU memory that is planned for by default.
        parameters: Of the full network at the release's patch, isotropic spacing, one channel and background + one
            label. Other plans change a U-Net's by a few per cent.
        release_patch: Patch (z, y, x) of the paper's release. The release gives 80x112x214 for the
            U-Nets, but 214 can be halved only once; 224 is the next length that fits.
        reported: Figures of the release; None where there are none.
        extra: Further arguments of the class.
        trainer: Name of a trainer under ``nnUNetv2_train`` that brings this network, after ``nnUNetTrainer_``.
        width: Channels of a STU-Net's first stage at full size.
        blocks: Residual blocks of each of its stages.
    """

    name: str
    summary: str
    source: str
    network: str
    planner: str
    gpu_memory_gb: float
    parameters: int
    release_patch: tuple[int, int, int]
    reported: Reported | None = None
    extra: Mapping[str, Any] | None = None
    trainer: str | None = None
    width: int = 32
    blocks: int = 1

    def stage_features(self, stages: int) -> tuple[int, ...]:
        """Channels of each stage of a U-Net at full size; a STU-Net has six stages whatever is asked for."""
        if self.network == STU_NET:
            return tuple(self.width * factor for factor in STU_WIDTHS)
        return tuple(min(320, 32 * 2**stage) for stage in range(stages))

    def trainer_name(self) -> str:
        """The class that ``nnUNetv2_train -tr`` knows the trainer by."""
        return f"{TRAINER_PREFIX}{self.trainer}"

    @property
    def patches(self) -> str:
        """Which patch sizes it takes."""
        if self.network == SWIN:
            return "multiples of 32, one side at least 64"
        return "multiples of the product of its strides"

    def build_plan(
        self,
        features: Sequence[int],
        strides: Sequence[Sequence[int]],
        kernels: Sequence[Sequence[int]] | None = None,
        *,
        checkpointing: bool = False,
    ) -> dict[str, Any]:
        """The ``architecture`` entry of nnU-Net plans.

        Args:
            features: Channels of each stage; a SwinUNETR takes the first and doubles it at each stage.
            strides: Strides of each stage, (z, y, x); of a STU-Net the first ones count, and further ones are 1.
            kernels: Kernel extents of each stage, (z, y, x); 3x3x3 unless given, and always of a STU-Net.
            checkpointing: Recompute activations of a SwinUNETR's transformer in the backward pass.

        Raises:
            ConfigError: Checkpointing of a network that has none.
        """
        if self.network == SWIN:
            arguments: dict[str, Any] = {
                "feature_size": features[0],
                "use_checkpoint": checkpointing,
                "strides": [[1, 1, 1]] + [[2, 2, 2]] * SWIN_HALVINGS,
                **(self.extra or {}),
            }
            return {"network_class_name": SWIN, "arch_kwargs": arguments, "_kw_requires_import": []}
        if checkpointing:
            raise ConfigError(f"Checkpointing: {self.name} has none. Use it with swinunetr or swinunetr-v2.")
        if self.network == STU_NET:
            stages = len(features)
            fitted = [*map(list, strides[:stages]), *[[1, 1, 1]] * (stages - len(strides))]
            arguments = {
                "features_per_stage": list(features),
                "n_blocks_per_stage": [self.blocks] * stages,
                "strides": fitted,
                "kernel_sizes": [[3, 3, 3]] * stages,
            }
            return {"network_class_name": STU_NET, "arch_kwargs": arguments, "_kw_requires_import": []}
        stages = len(strides)
        blocks = "n_conv_per_stage" if self.network == PLAIN else "n_blocks_per_stage"
        return {
            "network_class_name": self.network,
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": list(features),
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [list(k) for k in kernels] if kernels is not None else [[3, 3, 3]] * stages,
                "strides": [list(s) for s in strides],
                blocks: list(ENCODER_BLOCKS[self.network][:stages]),
                "n_conv_per_stage_decoder": [DECODER_CONVOLUTIONS[self.network]] * (stages - 1),
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        }

    def to_json(self) -> dict[str, Any]:
        """The card as plain values."""
        reported = vars(self.reported) if self.reported else None
        return {**vars(self), "extra": dict(self.extra or {}), "reported": reported, "patches": self.patches}


_NNUNET = "Isensee et al., Nature Methods 2021, https://doi.org/10.1038/s41592-020-01008-z"
_RESENC = "Isensee et al., MICCAI 2024, https://arxiv.org/abs/2404.09556"
_STU = "Huang et al., 2023, https://arxiv.org/abs/2304.06716"
_STU_LINE = "STU-Net, a U-Net of residual blocks, {}"
_RESENC_LINE = "U-Net with residual encoder, for GPUs of {} GB"

ARCHITECTURES: dict[str, Architecture] = {
    card.name: card
    for card in (
        Architecture(
            name="nnunet",
            summary="nnU-Net's default U-Net",
            source=_NNUNET,
            network=PLAIN,
            planner="ExperimentPlanner",
            gpu_memory_gb=8,
            parameters=30_581_194,
            release_patch=(80, 112, 224),
            reported=Reported(81.72, 53.8, 7.9),
        ),
        Architecture(
            name="resenc-m",
            summary=_RESENC_LINE.format(8),
            source=_RESENC,
            network=RESENC,
            planner="nnUNetPlannerResEncM",
            gpu_memory_gb=8,
            parameters=101_735_370,
            release_patch=(80, 112, 224),
            reported=Reported(81.44, 74.5, 8.6),
        ),
        Architecture(
            name="resenc-l",
            summary=_RESENC_LINE.format(24),
            source=_RESENC,
            network=RESENC,
            planner="nnUNetPlannerResEncL",
            gpu_memory_gb=24,
            parameters=101_735_370,
            release_patch=(80, 112, 224),
            reported=Reported(83.55, 203.2, 22.6),
        ),
        Architecture(
            name="resenc-xl",
            summary=_RESENC_LINE.format(40),
            source=_RESENC,
            network=RESENC,
            planner="nnUNetPlannerResEncXL",
            gpu_memory_gb=40,
            parameters=101_735_370,
            release_patch=(80, 112, 224),
        ),
        Architecture(
            name="swinunetr",
            summary="MONAI: Swin encoder, convolutional decoder",
            source="Hatamizadeh et al., 2022, https://arxiv.org/abs/2201.01266",
            network=SWIN,
            planner="ExperimentPlanner",
            gpu_memory_gb=16,
            parameters=62_186_708,
            release_patch=(64, 128, 192),
            reported=Reported(80.52, 126.9, 15.9),
            trainer="SwinUNETR",
        ),
        Architecture(
            name="swinunetr-v2",
            summary="the same with a convolution block before each stage",
            source="He et al., MICCAI 2023, https://doi.org/10.1007/978-3-031-43901-8_40",
            network=SWIN,
            planner="ExperimentPlanner",
            gpu_memory_gb=16,
            parameters=72_762_068,
            release_patch=(64, 128, 192),
            reported=Reported(80.97, 131.4, 14.5),
            extra={"use_v2": True},
            trainer="SwinUNETRv2",
        ),
        *(
            Architecture(
                name=f"stunet-{size[0]}",
                summary=_STU_LINE.format(size),
                source=_STU,
                network=STU_NET,
                planner="ExperimentPlanner",
                gpu_memory_gb=8,
                parameters=parameters,
                release_patch=(80, 112, 224),
                width=width,
                blocks=blocks,
            )
            for size, width, blocks, parameters in (
                ("small", 16, 1, 14_545_338),
                ("base", 32, 1, 58_159_978),
                ("large", 64, 2, 440_097_738),
                ("huge", 96, 3, 1_457_019_178),
            )
        ),
    )
}


def find_architecture(name: str) -> Architecture:
    """Look an architecture up.

    Raises:
        UnknownName: None of that name.
    """
    if name not in ARCHITECTURES:
        raise UnknownName(f"Architecture {name}: not known. The architectures: {', '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[name]


def require_patch(patch_size: Sequence[int], strides: Sequence[Sequence[int]]) -> None:
    """Refuse a patch that the network's strides do not divide, or of which they leave a single voxel.

    Args:
        patch_size: Voxels (z, y, x), or (y, x) of slices.
        strides: Strides of each stage, along the same axes.

    Raises:
        ConfigError: With the nearest patch size that fits.
    """
    factor = [1] * len(patch_size)
    for stride in strides:
        factor = [f * s for f, s in zip(factor, stride, strict=True)]
    nearest = [max(round(p / f), 1) * f for p, f in zip(patch_size, factor, strict=True)]
    if nearest == factor:  # the norm at the bottom needs more than one voxel
        nearest[-1] *= 2
    if list(patch_size) != nearest:
        raise ConfigError(
            f"Patch size {' '.join(map(str, patch_size))}: the network needs multiples of "
            f"{' '.join(map(str, factor))}, and twice that on one side at least. Use {' '.join(map(str, nearest))}."
        )

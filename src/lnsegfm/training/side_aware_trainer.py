"""nnU-Net's trainer, mirrored along axes that suit labels which name sides; nnU-Net's own augmentation stays.

With ``swap`` its mirroring is replaced by one that exchanges left and right labels with a flip from side to side, and
the plans say so: this package's predictions then average over such copies as well, stock nnU-Net's leave them out.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.datasets.sided_labels import MIRROR_AUTO, MIRROR_SWAP, require_mirror
from lnsegfm.errors import ConfigError
from lnsegfm.nnunet.mirroring import MirrorChoice, settle_mirroring
from lnsegfm.transforms.mirror_swap import MirrorSwap

MIRROR = "LNSEGFM_MIRROR_AXES"
"""Along which axes to mirror, as ``--mirror`` of ``lnsegfm finetune``; not the mirror of downloads."""
_EXCHANGED = "sides_exchanged"


class SideAwareTrainer(nnUNetTrainer):
    """Mirrors as nnU-Net does, but from side to side only where no label names a side, or labels are exchanged.

    Attributes:
        mirror: ``auto``, ``all``, ``none``, ``swap`` or axes of the patient.
    """

    mirror: str = MIRROR_AUTO

    def settled_mirroring(self, axes: tuple[int, ...]) -> MirrorChoice:
        """What is settled, of axes of volumes as plans have them.

        Raises:
            ConfigError: ``swap`` of labels without partners, of slices, or of the later stage of a cascade.
        """
        if self.mirror == MIRROR_SWAP and (self._planar or self.is_cascaded):
            what = "2D" if self._planar else "a later stage of a cascade"
            raise ConfigError(f"{MIRROR} {MIRROR_SWAP}: {self.configuration_name} is {what}. Use {MIRROR_AUTO}.")
        return settle_mirroring(
            self.mirror, axes, self.plans_manager.plans, LabelMap.of_model(self.dataset_json).outputs
        )

    @property
    def _planar(self) -> int:
        return int(len(self.configuration_manager.patch_size) == 2)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, Any, Any, Any]:
        """Mirror as nnU-Net does, but not from side to side where labels name sides and are not exchanged."""
        rotation, dummy_2d, patch, axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        planar = self._planar
        choice = self.settled_mirroring(tuple(axis + planar for axis in axes))
        if choice.words:
            self.print_to_log_file(choice.words)
        axes = tuple(axis - planar for axis in choice.axes or () if axis >= planar) or None
        self.inference_allowed_mirroring_axes = axes
        self._swap = choice.swap
        if choice.swap is not None:
            axes = tuple(sorted({*(axes or ()), choice.swap.axis}))
        return rotation, dummy_2d, patch, axes

    _swap: MirrorSwap | None = None

    def get_training_transforms(self, *args: Any, **kwargs: Any) -> BasicTransform:
        """nnU-Net's augmentation, with its mirroring replaced where sides are exchanged."""
        transforms = nnUNetTrainer.get_training_transforms(*args, **kwargs)
        if self._swap is not None:
            transforms.transforms = exchanging(transforms.transforms, self._swap)
        return transforms


def exchanging(transforms: list[BasicTransform], swap: MirrorSwap) -> list[BasicTransform]:
    """Transforms whose mirroring exchanges labels, or regions once segmentations are converted to them."""
    regions = any(isinstance(each, ConvertSegmentationToRegionsTransform) for each in transforms)
    found: list[BasicTransform] = []
    for each in transforms:
        mirrors = isinstance(each, MirrorTransform)
        found.append(ExchangingMirror(each.allowed_axes, swap, regions=regions) if mirrors else each)
        if isinstance(each, ConvertSegmentationToRegionsTransform):
            found.append(ExchangeRegions(swap))
    return found


class ExchangingMirror(MirrorTransform):
    """Mirroring after which left and right labels have changed places.

    Args:
        allowed_axes: Axes to mirror along, the left-right one among them.
        swap: What is exchanged.
        regions: Leave labels to `ExchangeRegions`, which comes when they are regions.
    """

    def __init__(self, allowed_axes: tuple[int, ...], swap: MirrorSwap, *, regions: bool) -> None:
        super().__init__(allowed_axes)
        self.swap, self.regions = swap, regions

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        """Mirror, and say whether sides are to be exchanged."""
        mirrored: dict[str, Any] = super().apply(data_dict, **params)
        return mirrored | {_EXCHANGED: self.swap.axis in params["axes"]}

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params: Any) -> torch.Tensor:
        mirrored: torch.Tensor = super()._apply_to_segmentation(segmentation, **params)
        exchanged = self.swap.axis in params["axes"] and not self.regions
        return self.swap.labels(mirrored) if exchanged else mirrored


class ExchangeRegions(BasicTransform):
    """Left and right regions change places in what `ExchangingMirror` flipped from side to side.

    Args:
        swap: Numbers of the regions that are exchanged.
    """

    def __init__(self, swap: MirrorSwap) -> None:
        super().__init__()
        self.swap = swap

    def apply(self, data_dict: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Exchange the channels of the segmentation, where that is to be done."""
        if data_dict.get(_EXCHANGED) and data_dict.get("segmentation") is not None:
            data_dict["segmentation"] = self.swap.channels(data_dict["segmentation"], 0)
        return data_dict


def mirror_of_environment() -> str:
    """What ``LNSEGFM_MIRROR_AXES`` says; ``auto`` unless it is set.

    Raises:
        ConfigError: No option of mirroring.
    """
    return require_mirror(os.environ.get(MIRROR, MIRROR_AUTO), MIRROR)

"""What a trainer of nnU-Net would augment with, read from the trainer."""

from __future__ import annotations

from typing import Any

from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

from lnsegfm.errors import ConfigError
from lnsegfm.nnunet.mirroring import swap_of_plans
from lnsegfm.nnunet.plan_configuration import not_for_volumes
from lnsegfm.transforms.augmentation.augmentation_parameters import AugmentationSettings


def augmentation_settings(trainer: Any) -> AugmentationSettings:
    """The settings of nnU-Net's default augmentation for the plans and labels of an ``nnUNetTrainer``.

    Raises:
        ConfigError: A 2D configuration, or a later stage of a cascade.
    """
    manager, labels = trainer.configuration_manager, trainer.label_manager
    configuration = {"patch_size": manager.patch_size, "previous_stage": trainer.is_cascaded}
    unusable = not_for_volumes(configuration)
    if unusable is not None:
        raise ConfigError(f"Configuration {trainer.configuration_name} {unusable}")
    (_, angle), in_plane, box, axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    depth, height, width = (int(n) for n in manager.patch_size)
    z, y, x = (int(n) for n in box)
    return AugmentationSettings(
        patch=(depth, height, width),
        box=(z, y, x),
        angle=float(angle),
        in_plane=bool(in_plane),
        mirror_axes=tuple(axes or ()),
        channels=determine_num_input_channels(trainer.plans_manager, manager, trainer.dataset_json),
        masked=tuple(channel for channel, masked in enumerate(manager.use_mask_for_norm) if masked),
        foreground=trainer.oversample_foreground_percent,
        has_ignore=labels.has_ignore_label,
        every_label=(-1, *labels.all_labels),
        regions=_regions(labels) if labels.has_regions else (),
        swap=swap_of_plans(trainer.plans_manager.plans),
    )


def _regions(labels: Any) -> tuple[tuple[int, ...], ...]:
    """The values that each region covers, and as nnU-Net's loss wants it the value that is ignored last."""
    regions = [region if isinstance(region, tuple) else (region,) for region in labels.foreground_regions]
    ignored = [(labels.ignore_label,)] if labels.has_ignore_label else []
    return tuple(tuple(int(value) for value in region) for region in (*regions, *ignored))

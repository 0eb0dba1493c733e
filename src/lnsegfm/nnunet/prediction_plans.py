"""A model's plans as nnU-Net reads them for prediction: preprocessing, labels, inverse preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor

from lnsegfm.inference.logits_to_mask import is_default
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.fast_resampling import with_fast_resampling
from lnsegfm.nnunet.preprocessing import ImageOnly, air_value
from lnsegfm.transforms.resampling.resample_blockwise import MAX_BYTES


@dataclass(frozen=True, eq=False)
class PredictionPlans:
    """A model's plans as nnU-Net's objects.

    Args:
        plans: nnU-Net's ``PlansManager``.
        labels: nnU-Net's ``LabelManager``.
        preprocessing: The configuration that preprocesses a scan.
        export: The configuration that brings logits back to the scan's grid.
        default_export: Whether `lnsegfm.inference.logits_to_mask` gives what nnU-Net's export would: its default
            resampling of logits, and labels that are no regions.
        air: What air is after normalisation; None where that is not known or nnU-Net's rounding is wanted.
    """

    plans: PlansManager
    labels: LabelManager
    preprocessing: ConfigurationManager
    export: ConfigurationManager
    default_export: bool
    air: float | None

    @classmethod
    def read(
        cls,
        plans: Mapping[str, Any],
        configuration: str,
        dataset_json: Mapping[str, Any],
        *,
        exact: bool,
        memory: int | None,
    ) -> PredictionPlans:
        """Read a model's plans.

        Args:
            plans: The model's.
            configuration: Name of the one that counts.
            dataset_json: The model's.
            exact: Round as nnU-Net does: its own resampling and export.
            memory: Bytes that may be held; None holds what is fastest.
        """
        manager = PlansManager(dict(plans))
        stated = manager.get_configuration(configuration)
        labels = manager.get_label_manager(dict(dataset_json))
        default = stated.preprocessor_class is DefaultPreprocessor and stated.previous_stage_name is None
        bound: dict[str, Any] = {} if memory is None else {"max_bytes": min(MAX_BYTES, max(1, memory // 2))}
        default_export = not exact and is_default(stated.configuration)
        return cls(
            plans=manager,
            labels=labels,
            preprocessing=stated if exact else (ImageOnly if default else with_fast_resampling)(stated, **bound),
            export=stated if exact else with_fast_resampling(stated, **bound),
            default_export=default_export and type(labels) is LabelManager and not labels.has_regions,
            air=None if exact else air_value(manager, stated),
        )

    @property
    def patch_size(self) -> list[int]:
        """Voxels of a tile, in the plans' order of axes: three, or two of a model of slices."""
        return [int(size) for size in self.preprocessing.patch_size]

    def stock_export(
        self, logits: Tensor, properties: Mapping[str, Any], *, probabilities: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The mask on the scan's grid by nnU-Net's own export, and the probabilities where they are wanted.

        Args:
            logits: (classes, z, y, x) on the network's grid.
            properties: What preprocessing noted of the scan.
            probabilities: Whether to find them.
        """
        from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

        with nnunet_environment():
            exported = convert_predicted_logits_to_segmentation_with_correct_shape(
                logits,
                self.plans,
                self.export,
                self.labels,
                dict(properties),
                return_probabilities=probabilities,
                num_threads_torch=torch.get_num_threads(),
            )
        return exported if probabilities else (exported, None)

"""nnU-Net version 1's networks, plans and files, by their definition: nothing of this program is used.

Version 1 cannot be installed beside version 2's requirements, so its ``Generic_UNet`` is written down here as a
function of its state dict, with the names, shapes and order of its tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Weights = Mapping[str, Tensor]
LABELS = {"0": "background", "1": "node"}


def state_dict(
    features: Sequence[int],
    strides: Sequence[Sequence[int]],
    kernels: Sequence[Sequence[int]],
    outputs: int = 2,
    channels: int = 1,
    convolutions: int = 2,
) -> dict[str, Tensor]:
    """Random weights of a ``Generic_UNet``: ``strides`` of the pools, ``kernels`` of the stages, one more."""
    made: dict[str, Tensor] = {}

    def row(name: str, widths: Sequence[int], kernel: Sequence[int]) -> None:
        for n, (before, after) in enumerate(pairwise(widths)):
            made[f"{name}.blocks.{n}.conv.weight"] = torch.randn(after, before, *kernel) / (before * 3) ** 0.5
            made[f"{name}.blocks.{n}.conv.bias"] = torch.randn(after)
            made[f"{name}.blocks.{n}.instnorm.weight"] = torch.rand(after) + 0.5
            made[f"{name}.blocks.{n}.instnorm.bias"] = torch.randn(after)

    pools = len(strides)
    for u in range(pools):  # the decoder comes first in version 1's state dict
        here, kernel = features[pools - 1 - u], kernels[-(u + 1)]
        row(f"conv_blocks_localization.{u}.0", [2 * here] + [here] * (convolutions - 1), kernel)
        row(f"conv_blocks_localization.{u}.1", [here, here], kernel)
    before = channels
    for d in range(pools):
        row(f"conv_blocks_context.{d}", [before] + [features[d]] * convolutions, kernels[d])
        before = features[d]
    row(f"conv_blocks_context.{pools}.0", [before] + [features[-1]] * (convolutions - 1), kernels[-1])
    row(f"conv_blocks_context.{pools}.1", [features[-1]] * 2, kernels[-1])
    for u in range(pools):
        here, below = features[pools - 1 - u], features[pools - u]
        made[f"tu.{u}.weight"] = torch.randn(below, here, *strides[-(u + 1)]) / below**0.5
        made[f"seg_outputs.{u}.weight"] = torch.randn(outputs, here, *[1] * len(strides[0]))
    return made


def logits(x: Tensor, w: Weights, strides: Sequence[Sequence[int]]) -> list[Tensor]:
    """What ``Generic_UNet`` with ``convolutional_pooling`` and ``convolutional_upsampling`` gives, the finest first."""
    convolve, transposed = (
        (functional.conv3d, functional.conv_transpose3d)
        if x.ndim == 5
        else (functional.conv2d, functional.conv_transpose2d)
    )

    def row(x: Tensor, name: str, stride: Any = 1) -> Tensor:
        n = 0
        while f"{name}.blocks.{n}.conv.weight" in w:
            at, kernel = f"{name}.blocks.{n}", w[f"{name}.blocks.{n}.conv.weight"]
            padding = [1 if extent == 3 else 0 for extent in kernel.shape[2:]]
            x = convolve(x, kernel, w[f"{at}.conv.bias"], stride if n == 0 else 1, padding)
            x = functional.instance_norm(x, None, None, w[f"{at}.instnorm.weight"], w[f"{at}.instnorm.bias"], eps=1e-5)
            x, n = functional.leaky_relu(x, 0.01), n + 1
        return x

    pools, skips = len(strides), []
    for d in range(pools):
        x = row(x, f"conv_blocks_context.{d}", tuple(strides[d - 1]) if d else 1)
        skips.append(x)
    x = row(row(x, f"conv_blocks_context.{pools}.0", tuple(strides[-1])), f"conv_blocks_context.{pools}.1")
    outputs = []
    for u in range(pools):
        x = transposed(x, w[f"tu.{u}.weight"], None, tuple(strides[-(u + 1)]))
        x = torch.cat((x, skips[-(u + 1)]), 1)
        x = row(row(x, f"conv_blocks_localization.{u}.0"), f"conv_blocks_localization.{u}.1")
        outputs.append(convolve(x, w[f"seg_outputs.{u}.weight"]))
    return outputs[::-1]


def plans(
    strides: Sequence[Sequence[int]],
    kernels: Sequence[Sequence[int]],
    patch: Sequence[int],
    spacing: Sequence[float],
    axes: Sequence[int] = (0, 1, 2),
) -> dict[str, Any]:
    """As version 1's planner makes them, less what describes single scans."""
    stage = {
        "batch_size": 2,
        "num_pool_per_axis": [sum(s[k] > 1 for s in strides) for k in range(len(strides[0]))],
        "patch_size": np.array(patch),
        "median_patient_size_in_voxels": np.array([40, 40, 40]),
        "current_spacing": np.array(spacing),
        "original_spacing": np.array(spacing),
        "do_dummy_2D_data_aug": False,
        "pool_op_kernel_sizes": [list(s) for s in strides],
        "conv_kernel_sizes": [list(k) for k in kernels],
    }
    statistics = {
        "median": 40.0,
        "mean": 30.0,
        "sd": np.float32(120.0),
        "mn": -900.0,
        "mx": 1500.0,
        "percentile_99_5": 400.0,
        "percentile_00_5": -500.0,
    }
    return {
        "num_stages": 1,
        "num_modalities": 1,
        "modalities": {0: "CT"},
        "normalization_schemes": {0: "CT"},
        "dataset_properties": {"intensityproperties": {0: statistics}, "all_classes": [1]},
        "num_classes": 1,
        "all_classes": [1],
        "base_num_features": 32,
        "use_mask_for_norm": {0: False},
        "transpose_forward": list(axes),
        "transpose_backward": [list(axes).index(k) for k in range(3)],
        "data_identifier": "nnUNetData_plans_v2.1",
        "plans_per_stage": {0: stage},
    }


def save(file: Path, weights: Weights) -> Path:
    """A checkpoint as version 1's trainer saves it, with its optimizer's state and its logs."""
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        {
            "epoch": 1000,
            "state_dict": dict(weights),
            "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 0.01, "momentum": 0.99}]},
            "lr_scheduler_state_dict": None,
            "plot_stuff": ([np.float64(-0.5), np.float32(0.1)], [np.float64(0.2)], [], [np.float64(0.7)]),
            "best_stuff": (None, None, np.float64(0.8)),
            "amp_grad_scaler": {"scale": 65536.0, "growth_factor": 2.0},
        },
        file,
    )
    return file

"""Weights of nnU-Net version 1's U-Net as those of nnU-Net 2's, which compute the same numbers.

Version 1 builds the decoder's stage at a resolution with the kernels of the resolution below, version 2 with those of
its own. Where they differ, both stages of a resolution get kernels of the larger extents, and the smaller ones lie in
their middle with zeros around them: the same convolution. Version 1 has no bias in transposed convolutions and outputs;
version 2 has, and it is zero.

Isensee et al., Nature Methods 2021, https://doi.org/10.1038/s41592-020-01008-z.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lnsegfm.errors import ModelError
from lnsegfm.networks.architectures import ARCHITECTURES
from lnsegfm.weights.state_dict_names import VERSION_1

_CONVOLUTION = re.compile(
    r"conv_blocks_(?P<path>context|localization)\.(?P<stage>\d+)\.(?:(?P<part>[01])\.)?blocks\.(?P<block>\d+)"
    r"\.(?P<kind>conv|instnorm)\.(?P<rest>\w+)"
)
_OTHER = re.compile(r"(?P<kind>tu|seg_outputs)\.(?P<stage>\d+)\.(?P<rest>weight|bias)")
_PARTS = {"conv": "conv", "instnorm": "norm", "tu": "transpconvs", "seg_outputs": "seg_layers"}


class Converted(NamedTuple):
    """A network of version 2.

    Args:
        weights: Its state dict, each tensor under one of its names.
        architecture: The plans' entry of it.
    """

    weights: dict[str, Tensor]
    architecture: dict[str, Any]


def is_version_1(weights: Mapping[str, Any]) -> bool:
    """Whether names of tensors are those of version 1's U-Net."""
    return any(name.startswith(VERSION_1) for name in weights)


def convert_version_1(weights: Mapping[str, Tensor]) -> Converted:
    """The weights and the architecture of the network of version 2 that computes the same.

    Args:
        weights: State dict of a ``Generic_UNet`` whose strides are convolutions, as nnUNetTrainerV2 builds it.

    Raises:
        ModelError: It is of another network, or not complete.
    """
    try:
        return _convert(weights)
    except (KeyError, IndexError, ValueError) as error:
        raise ModelError(
            f"its weights are not a whole U-Net of nnU-Net version 1 ({error} is missing). Copy the file again"
        ) from None


def _convert(weights: Mapping[str, Tensor]) -> Converted:
    encoder, decoder, others = _sorted(weights)
    depth = len(encoder) - 1
    if not any(name.startswith("transpconvs.") for name in others):
        raise ModelError(
            "its network pools and enlarges without weights, as nnUNetTrainer did before nnUNetTrainerV2, and nnU-Net "
            "2 has none like it. Train it with nnU-Net 2"
        )
    strides = [tuple(others[f"transpconvs.{depth - d}.weight"].shape[2:]) for d in range(1, depth + 1)]
    kernels = [_extents(stage) for stage in encoder]
    for u, stage in enumerate(decoder):
        d = depth - 1 - u
        kernels[d] = tuple(map(max, kernels[d], _extents(stage)))
    converted: dict[str, Tensor] = {}
    for d, stage in enumerate(encoder):
        converted |= {f"encoder.stages.{d}.0.{name}": _widened(t, kernels[d]) for name, t in _numbered(stage).items()}
    for u, stage in enumerate(decoder):
        d = depth - 1 - u
        converted |= {f"decoder.stages.{u}.{name}": _widened(t, kernels[d]) for name, t in _numbered(stage).items()}
    for name, tensor in others.items():
        converted[f"decoder.{name}"] = tensor
        bias = f"{name.removesuffix('.weight')}.bias"
        if name.endswith(".weight") and bias not in others:
            outputs = tensor.shape[1] if name.startswith("transpconvs.") else tensor.shape[0]
            converted[f"decoder.{bias}"] = torch.zeros(outputs, dtype=tensor.dtype)
    return Converted(converted, _architecture(encoder, decoder, [(1,) * len(strides[0]), *strides], kernels))


Stage = dict[tuple[int, int], dict[str, Tensor]]
"""The tensors of a stage's convolutions and norms, by the convolution's part and number."""


def _sorted(weights: Mapping[str, Tensor]) -> tuple[list[Stage], list[Stage], dict[str, Tensor]]:
    """Stages of encoder and decoder in the order of computation, and the other tensors by their names in version 2."""
    found: dict[str, dict[int, Stage]] = {"context": {}, "localization": {}}
    others = {}
    for name, tensor in weights.items():
        if (match := _CONVOLUTION.fullmatch(name)) is not None:
            stage = found[match["path"]].setdefault(int(match["stage"]), {})
            place = (int(match["part"] or 0), int(match["block"]))
            stage.setdefault(place, {})[f"{_PARTS[match['kind']]}.{match['rest']}"] = tensor
        elif (match := _OTHER.fullmatch(name)) is not None:
            others[f"{_PARTS[match['kind']]}.{match['stage']}.{match['rest']}"] = tensor
        else:
            raise ModelError(
                f"its tensor {name} is none of nnU-Net version 1's U-Net: its trainer built another network, which "
                "nnU-Net 2 does not have. Train it with nnU-Net 2"
            )
    encoder, decoder = ([stages[k] for k in range(len(stages))] for stages in found.values())
    return encoder, decoder, others


def _numbered(stage: Stage) -> dict[str, Tensor]:
    """Tensors under their names within a stage of version 2, which numbers its convolutions through."""
    return {
        f"convs.{number}.{name}": tensor
        for number, place in enumerate(sorted(stage))
        for name, tensor in stage[place].items()
    }


def _extents(stage: Stage) -> tuple[int, ...]:
    return tuple(stage[min(stage)]["conv.weight"].shape[2:])


def _widened(tensor: Tensor, extents: Sequence[int]) -> Tensor:
    """A kernel in the middle of one of larger extents; any other tensor as it is."""
    if tensor.ndim <= 2:
        return tensor
    margins = [(wanted - there) // 2 for wanted, there in zip(extents, tensor.shape[2:], strict=True)]
    return torch.nn.functional.pad(tensor, [margin for each in reversed(margins) for margin in (each, each)])


def _architecture(
    encoder: Sequence[Stage], decoder: Sequence[Stage], strides: Sequence[Sequence[int]], kernels: Sequence[Any]
) -> dict[str, Any]:
    features = [int(stage[max(stage)]["conv.weight"].shape[0]) for stage in encoder]
    plan = ARCHITECTURES["nnunet"].build_plan(features, strides, kernels)
    batch = any("norm.running_mean" in each for stage in encoder for each in stage.values())
    planar = len(kernels[0]) == 2
    arguments = plan["arch_kwargs"] | {
        "n_conv_per_stage": [len(stage) for stage in encoder],
        "n_conv_per_stage_decoder": [len(stage) for stage in decoder],
    }
    dimensions = 2 if planar else 3
    norm = f"batchnorm.BatchNorm{dimensions}d" if batch else f"instancenorm.InstanceNorm{dimensions}d"
    arguments |= {"conv_op": f"torch.nn.modules.conv.Conv{dimensions}d", "norm_op": f"torch.nn.modules.{norm}"}
    return plan | {"arch_kwargs": arguments}

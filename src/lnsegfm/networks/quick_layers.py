"""Faster implementations of a network's layers on a CPU: the same values up to rounding.

What torch 2.15 does slowly there, and what replaces it (`benchmarks/iteration.py`, with and without ``--plain``):

- The gradients of a convolution's weight and input, above all with fewer than 16 channels: they are computed on
  channels-last copies, which cost little in comparison.
- Instance norm, for which torch repeats the weights and calls batch norm: it is computed as a group norm with one
  channel per group.
- The gradient of the frozen encoder's channels of a concatenation, which is not needed but computed by the convolution:
  it is skipped.

The network's modules, weights and names stay as they are; `quick_layers` replaces the functions that they call.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name in torch's documentation
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

LAST = torch.channels_last_3d
BLOCK = 16
"""Channels per block of oneDNN's kernels."""
INPUTS = "_lnsegfm_inputs"
"""Attribute of a concatenation along the channels: its inputs."""
BY_NAME = frozenset({"input", "axis", "out"})
"""Arguments that no layer of torch passes by name; calls that do are left to torch."""
Functions = Mapping[Callable[..., Any], Callable[..., Any]]


@contextmanager
def quick_layers(network: nn.Module) -> Iterator[None]:
    """Within this context compute a network's layers as above; gradients may be computed later.

    It has an effect on float32 tensors on a CPU, outside of autocast. Second derivatives are not supported.
    """
    parameter = next(network.parameters(), None)
    if parameter is None or parameter.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        yield
        return
    with ReplacedFunctions(_OTHERS):
        yield


class ReplacedFunctions(TorchFunctionMode):
    """Calls other functions in place of some of torch's.

    Args:
        others: Replacement by torch's function.
    """

    def __init__(self, others: Functions) -> None:
        super().__init__()
        self._others = others

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        other = self._others.get(func, func) if BY_NAME.isdisjoint(named) else func
        return other(*args, **named)


def _cat(tensors: tuple[Tensor, ...] | list[Tensor], dim: int = 0) -> Tensor:
    """A concatenation that remembers its inputs, where only some of them require a gradient."""
    whole = torch.cat(tensors, dim)
    if dim == 1 and whole.requires_grad and not all(tensor.requires_grad for tensor in tensors):
        setattr(whole, INPUTS, (tuple(tensors), _states(whole, *tensors)))
    return whole


def _inputs(image: Tensor) -> Sequence[Tensor]:
    """The inputs of a concatenation whose gradient is needed for nothing else; any other tensor as it is.

    Not valid for an input that was modified since, or requires a gradient only since.
    """
    inputs, states = getattr(image, INPUTS, ((), None))
    if not inputs or image.retains_grad or image._backward_hooks or states != _states(image, *inputs):
        return (image,)
    return tuple(inputs)


def _states(*tensors: Tensor) -> list[tuple[int, bool]]:
    return [(0 if tensor.is_inference() else tensor._version, tensor.requires_grad) for tensor in tensors]


def _conv(
    image: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    if not torch.is_grad_enabled() or groups != 1 or not _is_plain(image, weight, padding) or _is_hooked():
        return torch.conv3d(image, weight, bias, stride, padding, dilation, groups)
    inputs = _inputs(image)
    if len(inputs) == 1 and not _is_slow(weight):
        return torch.conv3d(image, weight, bias, stride, padding, dilation)
    how = tuple(_three(n) for n in (stride, padding, dilation))
    ends = list(itertools.accumulate(part.shape[1] for part in inputs))
    spans = [(end - part.shape[1], end) for part, end in zip(inputs, ends, strict=True) if part.requires_grad]
    trained = [part for part in inputs if part.requires_grad]
    convolved: Tensor = _Convolution.apply(image.detach(), weight, bias, how, spans, *trained)
    return convolved


def _is_plain(image: Tensor, weight: Tensor, padding: Any) -> bool:
    is_single = image.dtype is weight.dtype is torch.float32 and not torch.is_autocast_enabled("cpu")
    return image.dim() == 5 and is_single and not isinstance(padding, str)


def _is_hooked() -> bool:
    """Whether hooks on saved tensors are active, as those of activation checkpointing.

    Checkpointing recomputes outside this context and expects the same tensors to be saved.
    """
    return torch._C._autograd._top_saved_tensors_default_hooks(False) is not None


def _is_slow(weight: Tensor) -> bool:
    """Whether torch's gradients take longer than those on channels-last copies; full blocks of channels are fast."""
    out, into, *taps = weight.shape
    return into > 1 and max(taps) > 1 and bool(out % BLOCK or into % BLOCK)


def _three(number: Any) -> list[int]:
    return [number] * 3 if isinstance(number, int) else list(number) * (3 if len(number) == 1 else 1)


class _Convolution(torch.autograd.Function):
    """A convolution that computes gradients only for those inputs of a concatenation that require one.

    Args:
        image: The input without its history.
        weight: (out, in, *taps).
        bias: (out,), or None.
        how: Stride, padding, dilation.
        spans: First channel of each such input, and the one after its last.
        inputs: The inputs that require a gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, weight: Tensor, bias: Tensor | None, how: Any, spans: Any, *inputs: Tensor
    ) -> Tensor:
        ctx.save_for_backward(image, weight)
        ctx.how, ctx.spans, ctx.shapes = how, spans, [part.shape for part in inputs]
        return torch.conv3d(image, weight, bias, *how)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        image, weight = ctx.saved_tensors
        _, for_weight, for_bias, *_ = ctx.needs_input_grad
        layout = LAST if _is_slow(weight) else torch.contiguous_format
        gradient = gradient.contiguous(memory_format=layout)
        of_weight = of_bias = None
        if for_weight:
            of_weight = _backward(gradient, image.contiguous(memory_format=layout), weight, ctx.how, 1).contiguous()
        if for_bias:
            of_bias = gradient.sum((0, 2, 3, 4))
        of_inputs = []
        for (first, end), shape in zip(ctx.spans, ctx.shapes, strict=True):
            like = torch.empty(shape, dtype=image.dtype, memory_format=layout)  # only its shape is used
            of_inputs.append(_backward(gradient, like, weight[:, first:end], ctx.how, 0).contiguous())
        return None, of_weight, of_bias, None, None, *of_inputs


def _backward(gradient: Tensor, image: Tensor, weight: Tensor, how: Any, which: int) -> Tensor:
    """The gradient of the input for 0, of the weight for 1."""
    mask = [which == 0, which == 1, False]
    convolution_backward = torch.ops.aten.convolution_backward
    gradients = convolution_backward(gradient, image, weight, None, *how, False, [0, 0, 0], 1, mask)
    wanted: Tensor = gradients[which]
    return wanted


def instance_norm(
    image: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``torch.nn.functional.instance_norm``, computed as a group norm with one channel per group where it is one."""
    is_plain = running_mean is None and use_input_stats and image.dim() == 5 and image.dtype is torch.float32
    if not is_plain or _is_hooked() or image.shape[2:].numel() == 1:  # torch refuses a single voxel
        return F.instance_norm(image, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    return F.group_norm(image.contiguous(), image.shape[1], weight, bias, eps)


_OTHERS: Functions = {
    torch.cat: _cat,
    torch.conv3d: _conv,
    F.conv3d: _conv,
    F.instance_norm: instance_norm,
}

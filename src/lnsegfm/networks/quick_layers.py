"""Layers of a network computed in another way on a CPU: the same values but for rounding, in less time.

What torch 2.15 does slowly there, and what is done instead (`benchmarks/iteration.py`, with and without ``--plain``):

- The gradients of a convolution's weight and input, above all with fewer than 16 channels: they are computed on
  channels-last copies, which cost little beside them.
- An instance norm, which torch repeats its weights for and hands to batch norm: it is a group norm of one channel each.
- The gradient of the frozen encoder's share of a concatenation, which nobody needs and a convolution computes
  nevertheless: it is left out.

The network's modules, weights and names stay as they are; `quick_layers` watches the functions that they call.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own documentation calls it so
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

LAST = torch.channels_last_3d
BLOCK = 16
"""Channels that the kernels beneath torch take at once."""
PIECES = "_lnsegfm_pieces"
"""Attribute of a concatenation along the channels: what it was made of."""
BY_NAME = frozenset({"input", "axis", "out"})
"""Arguments that no layer of torch gives by name; calls that do are left to torch."""
Functions = Mapping[Callable[..., Any], Callable[..., Any]]


@contextmanager
def quick_layers(network: nn.Module) -> Iterator[None]:
    """Compute what a network asks for in here in the ways above; gradients may be taken later.

    It has an effect on tensors in float32 on a CPU, outside of autocast. Second derivatives are not to be had.
    """
    parameter = next(network.parameters(), None)
    if parameter is None or parameter.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        yield
        return
    with Instead(_OTHERS):
        yield


class Instead(TorchFunctionMode):
    """Calls other functions instead of some of torch's.

    Args:
        others: By torch's function.
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
    """A concatenation that knows its pieces, where some of them need a gradient and others do not."""
    whole = torch.cat(tensors, dim)
    if dim == 1 and whole.requires_grad and not all(piece.requires_grad for piece in tensors):
        setattr(whole, PIECES, (tuple(tensors), _states(whole, *tensors)))
    return whole


def _pieces(image: Tensor) -> Sequence[Tensor]:
    """What a concatenation was made of, if it is one and its gradient is wanted for nothing else; else itself.

    A piece that was written into since, or asks for a gradient only since, is not what was put together.
    """
    pieces, states = getattr(image, PIECES, ((), None))
    if not pieces or image.retains_grad or image._backward_hooks or states != _states(image, *pieces):
        return (image,)
    return tuple(pieces)


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
    pieces = _pieces(image)
    if len(pieces) == 1 and not _is_slow(weight):
        return torch.conv3d(image, weight, bias, stride, padding, dilation)
    how = tuple(_three(n) for n in (stride, padding, dilation))
    ends = list(itertools.accumulate(piece.shape[1] for piece in pieces))
    spans = [(end - piece.shape[1], end) for piece, end in zip(pieces, ends, strict=True) if piece.requires_grad]
    asking = [piece for piece in pieces if piece.requires_grad]
    convolved: Tensor = _Convolution.apply(image.detach(), weight, bias, how, spans, *asking)
    return convolved


def _is_plain(image: Tensor, weight: Tensor, padding: Any) -> bool:
    is_single = image.dtype is weight.dtype is torch.float32 and not torch.is_autocast_enabled("cpu")
    return image.dim() == 5 and is_single and not isinstance(padding, str)


def _is_hooked() -> bool:
    """Whether what is kept for the backward pass goes through someone's hands.

    So does what checkpointing computes once more, out of here, and expects to be kept in the same way.
    """
    return torch._C._autograd._top_saved_tensors_default_hooks(False) is not None


def _is_slow(weight: Tensor) -> bool:
    """Whether torch's gradients take longer than those of channels-last copies; full blocks of channels are quick."""
    out, into, *taps = weight.shape
    return into > 1 and max(taps) > 1 and bool(out % BLOCK or into % BLOCK)


def _three(number: Any) -> list[int]:
    return [number] * 3 if isinstance(number, int) else list(number) * (3 if len(number) == 1 else 1)


class _Convolution(torch.autograd.Function):
    """A convolution; only the pieces of its input that ask for a gradient get one.

    Args:
        image: The input without its history.
        weight: (out, in, *taps).
        bias: (out,), or None.
        how: Stride, padding, dilation.
        spans: First channel of each piece, and the one after its last.
        pieces: What of the input needs a gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, weight: Tensor, bias: Tensor | None, how: Any, spans: Any, *pieces: Tensor
    ) -> Tensor:
        ctx.save_for_backward(image, weight)
        ctx.how, ctx.spans, ctx.shapes = how, spans, [piece.shape for piece in pieces]
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
        of_pieces = []
        for (first, end), shape in zip(ctx.spans, ctx.shapes, strict=True):
            like = torch.empty(shape, dtype=image.dtype, memory_format=layout)  # of its input it asks the shape alone
            of_pieces.append(_backward(gradient, like, weight[:, first:end], ctx.how, 0).contiguous())
        return None, of_weight, of_bias, None, None, *of_pieces


def _backward(gradient: Tensor, image: Tensor, weight: Tensor, how: Any, which: int) -> Tensor:
    """The gradient of the input for 0, of the weight for 1."""
    mask = [which == 0, which == 1, False]
    convolution_backward = torch.ops.aten.convolution_backward
    found = convolution_backward(gradient, image, weight, None, *how, False, [0, 0, 0], 1, mask)
    given: Tensor = found[which]
    return given


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
    """What ``torch.nn.functional.instance_norm`` gives, as a group norm of one channel each where it is one."""
    is_plain = running_mean is None and use_input_stats and image.dim() == 5 and image.dtype is torch.float32
    if not is_plain or _is_hooked() or image.shape[2:].numel() == 1:  # a single voxel has no variance: torch refuses it
        return F.instance_norm(image, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    return F.group_norm(image.contiguous(), image.shape[1], weight, bias, eps)


_OTHERS: Functions = {
    torch.cat: _cat,
    torch.conv3d: _conv,
    F.conv3d: _conv,
    F.instance_norm: instance_norm,
}

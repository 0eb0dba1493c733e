"""Match weights from elsewhere with the network of their plans: every tensor, or none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lnsegfm.errors import ModelError
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.weights.checkpoint import Checkpoint
from lnsegfm.weights.state import raw

SHOWN = 3


class DoesNotFit(ModelError):
    """Weights that are not the network's.

    Args:
        differences: One each, the first first.
    """

    def __init__(self, differences: Sequence[str]) -> None:
        self.differences = tuple(differences)
        more = f" and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        number = "1 tensor differs" if len(differences) == 1 else f"{len(differences)} tensors differ"
        super().__init__(f"{number}: {'; '.join(differences[:SHOWN])}{more}")


def empty_network(checkpoint: Checkpoint, *, computes: bool) -> nn.Module:
    """The network of a checkpoint's plans, without memory for its weights, whatever size a stranger plans.

    Args:
        checkpoint: Plans, configuration, description and trainer.
        computes: Its class computes while it is built, which takes memory: its size was checked before.

    Raises:
        ModelError: It cannot be built.
    """
    with torch.device("cpu" if computes else "meta"):
        return build_network(checkpoint, deep_supervision=False)


def match_weights(
    weights: Mapping[str, Tensor], network: nn.Module, covers: tuple[str, ...] = ()
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights as the network's own state dict would be: its names and order, its types, its tensors of two names.

    Args:
        weights: What is to fit.
        network: What it is to fit.
        covers: First parts of the names that are to be there; empty for all.

    Returns:
        The state dict, and what had to be done, one line each.

    Raises:
        DoesNotFit: A tensor is missing, is not the network's, or has another shape.
        ModelError: A tensor is not of finite floats, or differs under its several names.
    """
    state = {n: t for n, t in network.state_dict(keep_vars=True).items() if not covers or n.startswith(covers)}
    groups: dict[int, list[str]] = defaultdict(list)
    for name, tensor in state.items():
        groups[id(tensor)].append(name)
    differences, sources = [], {}
    for names in groups.values():
        own = state[names[0]]
        there = [name for name in names if name in weights]
        if there:
            sources[names[0]] = there
        elif own.is_floating_point() or own.is_meta:
            differences.append(f"{names[0]} {_shape(own)} is missing")
        differences += [
            f"{name} {_shape(own)} is {_shape(weights[name])} in the file"
            for name in there
            if weights[name].shape != own.shape
        ]
    differences += [f"{name} {_shape(weights[name])} is none of the network's" for name in weights if name not in state]
    if differences:
        raise DoesNotFit(differences)
    changed: set[str] = set()
    matched = {}
    for names in groups.values():
        tensor = _merge_aliases([(n, weights[n]) for n in sources.get(names[0], ())], state[names[0]], changed)
        matched.update(dict.fromkeys(names, tensor))
    notes = tuple(f"The weights came as {kind} and are taken as float32." for kind in sorted(changed))
    return {name: matched[name] for name in state}, notes


def _merge_aliases(named: Sequence[tuple[str, Tensor]], own: Tensor, changed: set[str]) -> Tensor:
    """One tensor in memory of its own, from all that the file has of it."""
    if not named:  # a table that the network computes itself
        return own.detach().clone()
    name, tensor = named[0]
    for other, same in named:
        _require_plain(other, same, own)
        if same.dtype != tensor.dtype or not torch.equal(raw(same), raw(tensor)):
            raise ModelError(f"{name} and {other} are one tensor in the network, and differ in the file. Save it anew.")
    if tensor.dtype != own.dtype:
        changed.add(str(tensor.dtype).removeprefix("torch."))
    matched = tensor.detach().to(own.dtype).clone(memory_format=torch.contiguous_format)
    if not torch.isfinite(matched).all():
        raise ModelError(f"Tensor {name}: it holds numbers that are not finite. Its training had failed: use another.")
    return matched


def _require_plain(name: str, tensor: Tensor, own: Tensor) -> None:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        raise ModelError(f"Tensor {name}: not a plain tensor of numbers. Save it as float32.")
    if tensor.is_floating_point() != own.is_floating_point() or tensor.is_complex():
        raise ModelError(f"Tensor {name}: its numbers are {tensor.dtype}, not {own.dtype}. Save it as float32.")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"

"""Base weights into a network: what fits as it is, what can be made to fit, and a report of all of it.

Heads go by label name. Where the network takes other input channels, has kernels of another extent or another
attention window, the base's tensors are made to fit (`lnsegfm.weights.fit_tensor`). What fits in no way stays at the
network's own initialisation; where that is too much, nothing is transferred.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lnsegfm.errors import ConfigError, TransferError
from lnsegfm.networks.cards import unwrap
from lnsegfm.networks.parameter_roles import NORMS, NetworkParameter, parameters_of
from lnsegfm.networks.role import Role
from lnsegfm.weights.decision import Change, Decision, decide
from lnsegfm.weights.state import aliases
from lnsegfm.weights.transfer_report import StatusCounts, Transfer, TransferGroup, TransferStatus, listed

__all__ = ["StatusCounts", "Transfer", "TransferGroup", "TransferStatus", "transfer"]

HEAD = "head"


@dataclass(frozen=True, eq=False)
class Place:
    """One tensor of the network, and what is to become of it."""

    names: tuple[str, ...]
    tensor: Tensor
    parameter: NetworkParameter | None
    decision: Decision

    @property
    def is_head(self) -> bool:
        """Whether it belongs to the head."""
        return self.parameter is not None and self.parameter.role is Role.HEAD

    @property
    def parameters(self) -> StatusCounts:
        """Its entries by fate; a running statistic has none."""
        if self.parameter is None:
            return StatusCounts()
        fresh = self.decision.fresh
        return StatusCounts().plus(self.decision.fate, self.tensor.numel() - fresh).plus(TransferStatus.FRESH, fresh)

    @property
    def group(self) -> str:
        """The module group that it lies in: two components of its name, or one that ends in a digit."""
        if self.is_head:
            return HEAD
        path = self.names[0].split(".")[:-1] or [self.names[0]]
        return path[0] if path[0][-1:].isdigit() else ".".join(path[:2])


@torch.no_grad()
def transfer(
    base: Mapping[str, Tensor],
    network: nn.Module,
    *,
    base_labels: Sequence[str],
    labels: Sequence[str],
    base_channels: int | None = None,
    channels: int | None = None,
    head: Sequence[nn.Module] | None = None,
    covers: Sequence[str] = (),
    minimum: float = 0.8,
) -> Transfer:
    """Copy base weights into a network.

    Args:
        base: State dict of the base.
        network: The network to fill, freshly initialised.
        base_labels: Names of the base's output channels in their order, background first.
        labels: Names of the network's output channels in their order, background first.
        base_channels: Input channels of the base. Without it, a first layer for other channels stays fresh.
        channels: Input channels of the network.
        head: Modules whose output channels are the labels, for a network that has no card.
        covers: How the names of those parameters begin that the base should have; all, where none is given.
        minimum: Share of these parameters, head excluded, that must come from the base.

    Raises:
        TransferError: Too little of the base fits, and the first differences are listed; the network has nothing
            that ``covers`` names; a tensor of the base holds a value that is no finite number. The network is as it
            was.
        ConfigError: The network has no card and no head was named; ``minimum`` cannot be.
    """
    if not 0 <= minimum <= 1:
        raise ConfigError(f"minimum {minimum}: it is the share of a network's parameters. Use one from 0 to 1.")
    network = unwrap(network)
    _require_finite(base)
    change = Change(list(base_labels), list(labels), base_channels, channels)
    places = list(_places(base, network, change, parameters_of(network, head)))
    share = _share(places, covers, minimum)
    for place in places:
        if place.decision.value is not None:
            place.tensor.copy_(place.decision.value)
    kept, new = _labels(places, change)
    named = {fate: tuple(p.names[0] for p in places if p.decision.fate is fate) for fate in TransferStatus}
    return Transfer(
        groups=_groups(places, kept, new),
        matched=named[TransferStatus.MATCHED],
        adapted=named[TransferStatus.ADAPTED],
        fresh=named[TransferStatus.FRESH],
        unused=_unused(base, network.state_dict()),
        labels_kept=kept,
        labels_new=new,
        share=share,
    )


def _require_finite(base: Mapping[str, Tensor]) -> None:
    names = aliases(base)
    for name, tensor in base.items():
        single = tensor.float() if tensor.is_floating_point() else tensor  # a large double is infinite there
        if names[name] == name and not bool(torch.isfinite(single).all()):
            raise TransferError(
                f"Tensor {name} of the base: it holds values that are no finite numbers, so the base is damaged. "
                "Use another checkpoint."
            )


def _places(
    base: Mapping[str, Tensor], network: nn.Module, change: Change, parameters: list[NetworkParameter]
) -> Iterator[Place]:
    """Every tensor of the network once, in its order, without what it computes itself."""
    by_id = {id(parameter.tensor): parameter for parameter in parameters}
    computed = {
        id(buffer)
        for module in network.modules()
        for buffer in module.buffers(recurse=False)
        if not isinstance(module, NORMS) and not (buffer.is_floating_point() or buffer.is_complex())
    }
    names: dict[int, list[str]] = {}
    tensors: dict[int, Tensor] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor) and id(tensor) not in computed:
            names.setdefault(id(tensor), []).append(name)
            tensors[id(tensor)] = tensor
    for key, tensor in tensors.items():
        parameter = by_id.get(key)
        yield Place(tuple(names[key]), tensor, parameter, decide(base, names[key], tensor, parameter, change))


def _share(places: Sequence[Place], covers: Sequence[str], minimum: float) -> float:
    """The share of what the base should have that it gives.

    Raises:
        TransferError: It is too small, or the network has nothing of what the base should have.
    """
    wanted = [p for p in places if not p.is_head and p.names[0].startswith(tuple(covers) or "")]
    counts = sum((p.parameters for p in wanted), StatusCounts())
    if covers and not counts.total:
        raise TransferError(
            f"Parts {', '.join(covers)} of the base: no parameter of the network has a name that begins so. "
            "Use the architecture that the base was made with."
        )
    share = (counts.matched + counts.adapted) / counts.total if counts.total else 1.0
    if share < minimum:
        differences = [p.decision.difference for p in wanted if p.decision.difference]
        number = "1 tensor differs" if len(differences) == 1 else f"{len(differences)} tensors differ"
        of = f" of {', '.join(covers)}" if covers else ""
        raise TransferError(
            f"The base does not fit the network: {int(1000 * share) / 10:g} % of the parameters{of} come from it, "
            f"at least {100 * minimum:g} % should, {number}: {listed(differences)}. "
            "Use the architecture and the plans that the base was trained with."
        )
    return share


def _labels(places: Sequence[Place], change: Change) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Labels whose head is the base's, and those whose head is fresh."""
    head = [p for p in places if p.is_head]
    whole = bool(head) and all(p.decision.fate is not TransferStatus.FRESH for p in head)
    known = set(change.base_labels) if whole else set()
    return (
        tuple(label for label in change.labels[1:] if label in known),
        tuple(label for label in change.labels[1:] if label not in known),
    )


def _groups(places: Sequence[Place], kept: Sequence[str], new: Sequence[str]) -> tuple[TransferGroup, ...]:
    members: dict[str, list[Place]] = {}
    for place in places:
        members.setdefault(place.group, []).append(place)
    groups = []
    for name, inside in members.items():
        tensors, parameters = StatusCounts(), StatusCounts()
        notes: dict[str, None] = {}
        if any(p.is_head for p in inside):
            notes[f"labels kept: {', '.join(kept) or 'none'}" + (f"; new: {', '.join(new)}" if new else "")] = None
        for place in inside:
            tensors = tensors.plus(place.decision.fate)
            parameters += place.parameters
            notes |= dict.fromkeys(place.decision.notes)
        groups.append(TransferGroup(name, tensors, parameters, tuple(notes)))
    return tuple(groups)


def _unused(base: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Tensors of the base none of whose names the network has, each by its first name."""
    first = aliases(base)
    used = {first[name] for name in base if name in state}
    return tuple(name for name in base if first[name] == name and name not in used)

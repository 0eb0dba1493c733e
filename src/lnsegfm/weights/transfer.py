"""Transfer of base weights into a network: what fits is copied, what can be adapted is adapted, and both are reported.

Heads are matched by label name. Where the network has other input channels, another kernel size or another attention
window, the base's tensors are adapted (`lnsegfm.weights.fit_tensor`). What does not fit keeps the network's own
initialisation; where that is too much, nothing is transferred.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lnsegfm.datasets.label_tables import BACKGROUND
from lnsegfm.errors import ConfigError, TransferError
from lnsegfm.networks.cards import unwrap
from lnsegfm.networks.parameter_roles import NORMS, NetworkParameter, parameters_of
from lnsegfm.networks.role import Role
from lnsegfm.weights.decision import BaseMismatch, Decision, decide
from lnsegfm.weights.state import aliases, module_group
from lnsegfm.weights.transfer_report import StatusCounts, Transfer, TransferGroup, TransferStatus, listed

__all__ = ["StatusCounts", "Transfer", "TransferGroup", "TransferStatus", "transfer"]

HEAD = "head"


@dataclass(frozen=True, eq=False)
class TransferTarget:
    """One tensor of the network, and what is transferred into it."""

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
        """Its entries by status; a running statistic has none."""
        if self.parameter is None:
            return StatusCounts()
        fresh = self.decision.fresh
        return StatusCounts().plus(self.decision.status, self.tensor.numel() - fresh).plus(TransferStatus.FRESH, fresh)

    @property
    def group(self) -> str:
        """Its module group; the head is one of its own."""
        if self.is_head:
            return HEAD
        return module_group(self.names[0])


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
        base_labels: Names of the base's output channels in their order, ``background`` among them if it is one.
        labels: Names of the network's output channels in their order.
        base_channels: Input channels of the base. Without it, a first layer for other channels stays fresh.
        channels: Input channels of the network.
        head: Modules whose output channels are the labels, for a network that has no card.
        covers: Prefixes of the names of the parameters that the base should have; all parameters unless given.
        minimum: Share of these parameters, without the head, that must come from the base.

    Raises:
        TransferError: Too little of the base fits (the first differences are listed), the network has no parameter
            that ``covers`` names, or a tensor of the base holds a value that is not finite. The network is unchanged.
        ConfigError: The network has no card and no head was named, or ``minimum`` is no share.
    """
    if not 0 <= minimum <= 1:
        raise ConfigError(f"minimum {minimum}: it is the share of a network's parameters. Use one from 0 to 1.")
    network = unwrap(network)
    _require_finite(base)
    mismatch = BaseMismatch(list(base_labels), list(labels), base_channels, channels)
    targets = list(_targets(base, network, mismatch, parameters_of(network, head)))
    share = _share(targets, covers, minimum)
    for target in targets:
        if target.decision.value is not None:
            target.tensor.copy_(target.decision.value)
    kept, new = _labels(targets, mismatch)
    named = {status: tuple(t.names[0] for t in targets if t.decision.status is status) for status in TransferStatus}
    return Transfer(
        groups=_groups(targets, kept, new),
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
                f"Tensor {name} of the base: it holds values that are not finite, so the base is damaged. "
                "Use another checkpoint."
            )


def _targets(
    base: Mapping[str, Tensor], network: nn.Module, mismatch: BaseMismatch, parameters: list[NetworkParameter]
) -> Iterator[TransferTarget]:
    """Every tensor of the network once, in its order, without integer buffers that it computes itself."""
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
        yield TransferTarget(
            tuple(names[key]), tensor, parameter, decide(base, names[key], tensor, parameter, mismatch)
        )


def _share(targets: Sequence[TransferTarget], covers: Sequence[str], minimum: float) -> float:
    """Share of the parameters which the base should have that come from it.

    Raises:
        TransferError: It is below ``minimum``, or the network has none of these parameters.
    """
    wanted = [t for t in targets if not t.is_head and t.names[0].startswith(tuple(covers) or "")]
    counts = sum((t.parameters for t in wanted), StatusCounts())
    if covers and not counts.total:
        raise TransferError(
            f"Modules {', '.join(covers)} of the base: no parameter of the network has a name that starts so. "
            "Use the architecture that the base was made with."
        )
    share = (counts.matched + counts.adapted) / counts.total if counts.total else 1.0
    if share < minimum:
        differences = [t.decision.difference for t in wanted if t.decision.difference]
        number = "1 tensor differs" if len(differences) == 1 else f"{len(differences)} tensors differ"
        of = f" of {', '.join(covers)}" if covers else ""
        raise TransferError(
            f"The base does not fit the network: {int(1000 * share) / 10:g} % of the parameters{of} come from it, "
            f"at least {100 * minimum:g} % should, {number}: {listed(differences)}. "
            "Use the architecture and the plans that the base was trained with."
        )
    return share


def _labels(targets: Sequence[TransferTarget], mismatch: BaseMismatch) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Labels whose head is the base's, and those that the base does not know."""
    head = [t for t in targets if t.is_head]
    whole = bool(head) and all(t.decision.status is not TransferStatus.FRESH for t in head)
    known = set(mismatch.base_labels) if whole else set()
    return (
        tuple(label for label in mismatch.labels if label in known and label != BACKGROUND),
        tuple(label for label in mismatch.labels if label not in known and label != BACKGROUND),
    )


def _groups(targets: Sequence[TransferTarget], kept: Sequence[str], new: Sequence[str]) -> tuple[TransferGroup, ...]:
    members: dict[str, list[TransferTarget]] = {}
    for target in targets:
        members.setdefault(target.group, []).append(target)
    groups = []
    for name, inside in members.items():
        tensors, parameters = StatusCounts(), StatusCounts()
        notes: dict[str, None] = {}
        if any(t.is_head for t in inside):
            notes[f"labels kept: {', '.join(kept) or 'none'}" + (f"; new: {', '.join(new)}" if new else "")] = None
        for target in inside:
            tensors = tensors.plus(target.decision.status)
            parameters += target.parameters
            notes |= dict.fromkeys(target.decision.notes)
        groups.append(TransferGroup(name, tensors, parameters, tuple(notes)))
    return tuple(groups)


def _unused(base: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Tensors of the base none of whose names the network has, each by its first name."""
    first = aliases(base)
    used = {first[name] for name in base if name in state}
    return tuple(name for name in base if first[name] == name and name not in used)

"""Base weights into a network for other labels: heads by label name, everything else tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lnsegfm.errors import TransferError
from lnsegfm.networks.cards import head_modules, unwrap
from lnsegfm.weights.state import aliases

SHOWN = 5


@dataclass(frozen=True)
class Transfer:
    """What became of the base's weights. Tensors are counted once, whatever number of names they have.

    Args:
        matched: Names of tensors taken over as they are.
        adapted: Names of head tensors whose rows were put in the order of the new labels.
        fresh: Names of tensors left at the network's own initialisation.
        unused: Names of base tensors that the network has no place for.
        labels_kept: Labels whose head comes from the base.
        labels_new: Labels with a fresh head.
    """

    matched: tuple[str, ...]
    adapted: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]
    labels_kept: tuple[str, ...]
    labels_new: tuple[str, ...]

    def summary(self) -> str:
        """One line for a person."""
        line = f"{len(self.matched)} tensors matched, {len(self.adapted)} adapted, {len(self.fresh)} new"
        if self.unused:
            line += f", {len(self.unused)} of the base unused"
        kept = ", ".join(self.labels_kept) or "none"
        line += f"; heads kept: {kept}"
        return line + (f"; fresh heads: {', '.join(self.labels_new)}" if self.labels_new else "")

    def to_json(self) -> dict[str, Any]:
        """Counts, names of what is not plainly matched, labels."""
        return {**asdict(self), "matched": len(self.matched)}


@torch.no_grad()
def transfer(
    base: Mapping[str, Tensor],
    network: nn.Module,
    *,
    base_labels: Sequence[str],
    labels: Sequence[str],
    head: Sequence[nn.Module] | None = None,
) -> Transfer:
    """Copy base weights into a network.

    Args:
        base: State dict of the base.
        network: The network to fill, freshly initialised.
        base_labels: Names of the base's output channels in their order, background first.
        labels: Names of the network's output channels in their order, background first.
        head: Modules whose output channels are the labels, for a network that has no card.

    Raises:
        TransferError: A tensor other than a head's is missing or has another shape; the first differences are listed.
    """
    network = unwrap(network)
    state = network.state_dict(keep_vars=True)
    heads = {id(p) for module in head_modules(network, head) for p in module.parameters()}
    rows = [(i, base_labels.index(label)) for i, label in enumerate(labels) if label in base_labels]
    as_it_is = list(labels) == list(base_labels)
    matched: list[str] = []
    adapted: list[str] = []
    fresh: list[str] = []
    differences: list[str] = []
    done: set[int] = set()
    for name, tensor in state.items():
        if id(tensor) in done:
            continue
        done.add(id(tensor))
        source = base.get(name)
        is_head = id(tensor) in heads
        if source is None:
            differences.append(f"{name} {tuple(tensor.shape)} is not in the base")
        elif is_head and tuple(source.shape) != (len(base_labels), *tensor.shape[1:]):
            differences.append(f"{name} {tuple(tensor.shape)} is {tuple(source.shape)} in the base")
        elif is_head and not as_it_is:
            for i, j in rows:
                tensor[i].copy_(source[j])
            (adapted if rows else fresh).append(name)
        elif source.shape != tensor.shape:
            differences.append(f"{name} {tuple(tensor.shape)} is {tuple(source.shape)} in the base")
        else:
            tensor.copy_(source)
            matched.append(name)
    if differences:
        more = f" and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        number = "1 tensor differs" if len(differences) == 1 else f"{len(differences)} tensors differ"
        raise TransferError(
            f"The base does not fit the network, {number}: "
            f"{'; '.join(differences[:SHOWN])}{more}. "
            "Use the plans that the base was trained with."
        )
    known = {labels[i] for i, _ in rows}
    return Transfer(
        matched=tuple(matched),
        adapted=tuple(adapted),
        fresh=tuple(fresh),
        unused=_unused(base, state),
        labels_kept=tuple(label for label in labels[1:] if label in known),
        labels_new=tuple(label for label in labels[1:] if label not in known),
    )


def _unused(base: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Tensors of the base none of whose names the network has, each by its first name."""
    first = aliases(base)
    used = {first[name] for name in base if name in state}
    return tuple(name for name in base if first[name] == name and name not in used)

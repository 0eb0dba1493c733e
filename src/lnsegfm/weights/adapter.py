"""What an adapted model changed against its base, exact to the bit.

A difference of floats is not exact, so an adapter holds the new values: where few entries of a tensor moved, their
indices and values; where many did, or the base has no such tensor, the whole tensor. ``base + adapter = model``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from lnsegfm.errors import DataError, ModelError, TransferError
from lnsegfm.storage import read_json, write_bytes, write_json
from lnsegfm.weights.state import aliases, raw, weights_hash

FORMAT = "lnsegfm.adapter/1"
TENSORS, CARD = "adapter.safetensors", "adapter.json"


@dataclass(frozen=True)
class Adapter:
    """The difference of one model to its base.

    Args:
        whole: New tensors, by name.
        indices: Flat indices of the entries that moved, int32 or int64, by name.
        values: Their new values, by name.
        same: Further names of each tensor: alias -> name.
        base_sha256: Hash of the base's weights (`lnsegfm.weights.state.weights_hash`).
        model_sha256: Hash of the adapted weights.
        card: What the model is besides its weights: method, plans, dataset.json, configuration; ``names`` are those
            of its state dict in their order.
    """

    whole: Mapping[str, Tensor]
    indices: Mapping[str, Tensor]
    values: Mapping[str, Tensor]
    same: Mapping[str, str]
    base_sha256: str
    model_sha256: str
    card: Mapping[str, Any]

    @classmethod
    def between(cls, base: Mapping[str, Tensor], model: Mapping[str, Tensor], card: Mapping[str, Any]) -> Adapter:
        """Find what a model changed against its base."""
        names = aliases(model)
        whole, indices, values = {}, {}, {}
        for name in sorted(set(names.values())):
            new, old = model[name], base.get(name)
            if old is None or old.shape != new.shape or old.dtype != new.dtype:
                whole[name] = _copy(new)
                continue
            moved = (raw(new) != raw(old)).any(dim=1).nonzero().flatten()
            if not moved.numel():
                continue
            index = moved.to(torch.int32 if new.numel() < 2**31 else torch.int64)
            value = new.detach().cpu().reshape(-1)[moved]
            if index.nbytes + value.nbytes < new.nbytes:
                indices[name], values[name] = index, value
            else:
                whole[name] = _copy(new)
        same = {alias: name for alias, name in names.items() if alias != name}
        card = {**card, "names": list(model)}
        return cls(whole, indices, values, same, weights_hash(base), weights_hash(model), card)

    def apply(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the adapted weights, bit for bit.

        Raises:
            TransferError: ``base`` is not the base that the adapter was made from.
        """
        if weights_hash(base) != self.base_sha256:
            raise TransferError(
                f"The adapter belongs to a base with hash {self.base_sha256[:12]}, not {weights_hash(base)[:12]}. "
                "Use the base it was made from."
            )
        try:
            model = self._rebuild(base)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError):  # names, indices, shapes
            model = {}
        if weights_hash(model) != self.model_sha256:
            raise TransferError(
                "The adapter is damaged: base + adapter is not the model it was made from. Copy both files again."
            )
        return model

    def _rebuild(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        own = [name for name in self.card["names"] if name not in self.same]
        model = {name: base[name].clone() for name in own if name not in self.whole}
        model.update({name: tensor.clone() for name, tensor in self.whole.items()})
        for name, index in self.indices.items():
            flat = model[name].contiguous().reshape(-1)
            flat[index.long()] = self.values[name]
            model[name] = flat.reshape(model[name].shape)
        model.update({alias: model[name] for alias, name in self.same.items()})
        return {name: model[name] for name in self.card["names"]}

    @property
    def entries(self) -> int:
        """Entries that it changes."""
        return sum(t.numel() for t in self.whole.values()) + sum(t.numel() for t in self.values.values())

    def save(self, folder: Path) -> int:
        """Write ``adapter.safetensors`` and ``adapter.json``; return the bytes of both."""
        tensors = {f"{name}:whole": tensor for name, tensor in self.whole.items()}
        tensors |= {f"{name}:indices": tensor for name, tensor in self.indices.items()}
        tensors |= {f"{name}:values": tensor for name, tensor in self.values.items()}
        write_bytes(folder / TENSORS, safetensors.torch.save(tensors))
        card = {
            "format": FORMAT,
            "base_sha256": self.base_sha256,
            "model_sha256": self.model_sha256,
            "same": dict(self.same),
            **self.card,
        }
        write_json(folder / CARD, card)
        return (folder / TENSORS).stat().st_size + (folder / CARD).stat().st_size

    @classmethod
    def load(cls, folder: Path) -> Adapter:
        """Read an adapter.

        Raises:
            ModelError: A file is missing, damaged, or not an adapter.
        """
        try:
            card = read_json(folder / CARD)
        except DataError as error:
            raise ModelError(f"{str(error).rstrip('.')}. Copy the adapter again.") from None
        if not isinstance(card, dict) or card.get("format") != FORMAT:
            raise ModelError(f"{folder / CARD}: not an adapter of this program ({FORMAT}). Give the folder of a run.")
        try:
            tensors = safetensors.torch.load_file(folder / TENSORS)
        except (safetensors.SafetensorError, OSError) as error:
            raise ModelError(f"{folder / TENSORS}: not a whole adapter ({error}). Copy it again.") from None
        parts: dict[str, dict[str, Tensor]] = {"whole": {}, "indices": {}, "values": {}}
        for key, tensor in tensors.items():
            name, _, part = key.rpartition(":")
            if part not in parts:
                raise ModelError(f"{folder / TENSORS}: tensor {key} is none of an adapter's. Copy it again.")
            parts[part][name] = tensor
        try:
            same, base, model = card.pop("same"), card.pop("base_sha256"), card.pop("model_sha256")
        except KeyError as error:
            raise ModelError(f"{folder / CARD}: {error} is missing. Copy it again.") from None
        if not (isinstance(same, dict) and isinstance(base, str) and isinstance(model, str)):
            raise ModelError(f"{folder / CARD}: an entry is of another kind than an adapter's. Copy it again.")
        card.pop("format")
        return cls(**parts, same=same, base_sha256=base, model_sha256=model, card=card)


def _copy(tensor: Tensor) -> Tensor:
    """A tensor in memory of its own: safetensors saves no two tensors that share any."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)

"""Adapters: what a model changed against its base, exact to the bit: ``base + adapter = model``.

A difference of floats is not exact, so an adapter stores new values: where few entries of a tensor changed, their
indices and values; where many did, or the base has no such tensor, the whole tensor; where a method computed the weight
from few numbers (LoRA, DoRA, SSF), these numbers, if they give the same bits and are fewer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from lnsegfm.errors import DataError, ModelError, TransferError
from lnsegfm.networks.computed_weights import Factors
from lnsegfm.storage import read_json, write_bytes, write_json
from lnsegfm.weights.factors import pack, unpack, weight_of
from lnsegfm.weights.state import aliases, raw, weights_hash

FORMAT = "lnsegfm.adapter/2"
FORMATS = ("lnsegfm.adapter/1", FORMAT)
"""Formats that are read; the first had no factors."""

TENSORS, CARD = "adapter.safetensors", "adapter.json"
LONGEST_CARD = 64 * 2**20
"""Bytes. Plans, names and settings take some thousands."""


class StoredTensor(NamedTuple):
    """What an adapter stores of one tensor.

    Args:
        name: Name of the tensor.
        form: ``whole``, ``entries`` or ``factors``.
        values: Number of new values, without indices.
        bytes: Of values and indices.
    """

    name: str
    form: str
    values: int
    bytes: int


@dataclass(frozen=True)
class Adapter:
    """The difference of one model to its base.

    Args:
        whole: New tensors, by name.
        indices: Flat indices of the entries that changed, int32 or int64, by name.
        values: Their new values, by name.
        factors: Factors from which weights are computed, together with the base's, by name.
        same: Further names of each tensor: alias -> name.
        base_sha256: Hash of the base's weights (`lnsegfm.weights.state.weights_hash`).
        model_sha256: Hash of the adapted weights.
        card: The model without its weights: method, plans, dataset.json, configuration; ``names`` are those
            of its state dict in their order.
    """

    whole: Mapping[str, Tensor]
    indices: Mapping[str, Tensor]
    values: Mapping[str, Tensor]
    factors: Mapping[str, Factors]
    same: Mapping[str, str]
    base_sha256: str
    model_sha256: str
    card: Mapping[str, Any]

    @classmethod
    def between(
        cls,
        base: Mapping[str, Tensor],
        model: Mapping[str, Tensor],
        card: Mapping[str, Any],
        factors: Mapping[str, Factors] | None = None,
    ) -> Adapter:
        """Compare a model with its base.

        Args:
            base: The base's weights.
            model: The adapted weights.
            card: The model without its weights.
            factors: Factors from which a method computed weights, under any of their names; used where they are exact.
        """
        names = aliases(model)
        candidates = {names[name]: entry for name, entry in (factors or {}).items() if name in names}
        whole, indices, values, exact = {}, {}, {}, {}
        for name in sorted(set(names.values())):
            new, old = model[name], base.get(name)
            if old is None or old.shape != new.shape or old.dtype != new.dtype:
                whole[name] = _copy(new)
                continue
            changed = (raw(new) != raw(old)).any(dim=1).nonzero().flatten()
            if not changed.numel():
                continue
            index = changed.to(torch.int32 if new.numel() < 2**31 else torch.int64)
            value = new.detach().cpu().reshape(-1)[changed]
            least = min(new.nbytes, index.nbytes + value.nbytes)
            computed = candidates.get(name)
            if computed is not None and _bytes_of(computed) < least and _is_exact(name, computed, old, new):
                exact[name] = computed
            elif least < new.nbytes:
                indices[name], values[name] = index, value
            else:
                whole[name] = _copy(new)
        same = {alias: name for alias, name in names.items() if alias != name}
        card = {**card, "names": list(model)}
        return cls(whole, indices, values, exact, same, weights_hash(base), weights_hash(model), card)

    @torch.no_grad()
    def apply(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The adapted weights, bit for bit.

        Raises:
            TransferError: ``base`` is not the base that the adapter was made from, or the adapter is damaged.
        """
        base_sha256 = weights_hash(base)
        if base_sha256 != self.base_sha256:
            raise TransferError(
                f"The adapter belongs to a base with hash {self.base_sha256[:12]}, not {base_sha256[:12]}. "
                "Use the base it was made from."
            )
        try:
            model = self._rebuild(base)
        except TransferError:
            raise
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
        model.update({name: weight_of(name, factors, base[name]) for name, factors in self.factors.items()})
        model.update({alias: model[name] for alias, name in self.same.items()})
        return {name: model[name] for name in self.card["names"]}

    @property
    def stored(self) -> tuple[StoredTensor, ...]:
        """What it stores, tensor by tensor."""
        stored = [StoredTensor(name, "whole", tensor.numel(), tensor.nbytes) for name, tensor in self.whole.items()]
        for name, values in self.values.items():
            stored.append(StoredTensor(name, "entries", values.numel(), values.nbytes + self.indices[name].nbytes))
        for name, factors in self.factors.items():
            number = sum(tensor.numel() for tensor in factors.tensors.values())
            stored.append(StoredTensor(name, "factors", number, _bytes_of(factors)))
        return tuple(stored)

    @property
    def entries(self) -> int:
        """Number of new values, without indices."""
        return sum(tensor.values for tensor in self.stored)

    def save(self, folder: Path) -> int:
        """Write ``adapter.safetensors`` and ``adapter.json``; return the bytes of both."""
        tensors = {f"{name}:whole": tensor for name, tensor in self.whole.items()}
        tensors |= {f"{name}:indices": tensor for name, tensor in self.indices.items()}
        tensors |= {f"{name}:values": tensor for name, tensor in self.values.items()}
        packed, table = pack(self.factors)
        tensors |= {name: _copy(tensor) for name, tensor in packed.items()}
        write_bytes(folder / TENSORS, safetensors.torch.save(tensors))
        card = {
            "format": FORMAT,
            "base_sha256": self.base_sha256,
            "model_sha256": self.model_sha256,
            "same": dict(self.same),
            "factors": table,
            **self.card,
        }
        write_json(folder / CARD, card)
        return size_of(folder)

    @classmethod
    def load(cls, place: Path) -> Adapter:
        """Read an adapter; nothing in it is executed.

        Args:
            place: The folder of a run or of both files, or one of the two files, which then share a name.

        Raises:
            ModelError: A file is missing, damaged, or not an adapter.
        """
        tensors_file, card_file = files_of(place)
        card = _read_card(card_file)
        tensors = _read_tensors(tensors_file)
        table = card.pop("factors", {})
        factors = unpack(tensors, table)
        tables: dict[str, dict[str, Tensor]] = {"whole": {}, "indices": {}, "values": {}}
        for key, tensor in tensors.items():
            name, _, form = key.rpartition(":")
            if form in tables:
                tables[form][name] = tensor
            elif name not in factors or form.partition(".")[0] != factors[name].kind:
                raise ModelError(f"{tensors_file}: tensor {key} does not belong to an adapter. Copy it again.")
        if tables["indices"].keys() != tables["values"].keys():
            raise ModelError(f"{tensors_file}: entries without indices, or indices without values. Copy it again.")
        same, base, model = (card.pop(key) for key in ("same", "base_sha256", "model_sha256"))
        return cls(**tables, factors=factors, same=same, base_sha256=base, model_sha256=model, card=card)


def files_of(place: Path) -> tuple[Path, Path]:
    """The two files of an adapter: in a folder, or side by side where one of them is named."""
    if place.suffix in (".safetensors", ".json") and not place.is_dir():
        return place.with_suffix(".safetensors"), place.with_suffix(".json")
    return place / TENSORS, place / CARD


def size_of(folder: Path) -> int:
    """Bytes of an adapter's two files."""
    return sum(file.stat().st_size for file in files_of(folder))


def _read_card(file: Path) -> dict[str, Any]:
    """The content of ``adapter.json``; its entries have the right types."""
    if file.is_file() and file.stat().st_size > LONGEST_CARD:
        raise ModelError(f"{file}: longer than an adapter's. Do not use it unless you trust its source.")
    try:
        card = read_json(file)
    except DataError as error:
        raise ModelError(f"{str(error).rstrip('.')}. Copy the adapter again.") from None
    if not isinstance(card, dict) or card.get("format") not in FORMATS:
        raise ModelError(f"{file}: not an adapter of this program ({FORMAT}). Give the folder of a run.")
    for key in ("same", "base_sha256", "model_sha256", "names"):
        if key not in card:
            raise ModelError(f"{file}: {key} is missing. Copy it again.")
    if not (
        isinstance(card["base_sha256"], str)
        and isinstance(card["model_sha256"], str)
        and isinstance(card["same"], dict)
        and all(isinstance(name, str) for name in card["same"].values())
        and isinstance(card["names"], list)
        and all(isinstance(name, str) for name in card["names"])
    ):
        raise ModelError(f"{file}: an entry has another type than in an adapter. Copy it again.")
    del card["format"]
    return card


def _read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(file)
    except Exception as error:  # a damaged or malicious file may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"{file}: not a whole adapter ({reason}). Copy it again.") from None


def _copy(tensor: Tensor) -> Tensor:
    """A copy in its own memory: safetensors does not save tensors that share memory."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _bytes_of(factors: Factors) -> int:
    return sum(tensor.nbytes for tensor in factors.tensors.values())


def _is_exact(name: str, factors: Factors, old: Tensor, new: Tensor) -> bool:
    """Whether factors give a weight to the bit, on every machine; the bits of a NaN differ between machines."""
    try:
        weight = weight_of(name, factors, old.detach().cpu())
    except TransferError:
        return False
    return bool(weight.isfinite().all()) and torch.equal(raw(weight), raw(new))

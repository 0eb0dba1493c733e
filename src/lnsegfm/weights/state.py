"""State dicts: which names are the same tensor, and a hash of the content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lnsegfm.errors import ModelError


def aliases(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Map every name to the first name (in sorted order) of the same tensor.

    nnU-Net's networks hold a convolution under up to four names. In memory these share storage; in some files they do
    not, so names of equal storage, shape and stride are the same tensor, and nothing else is.
    """
    first: dict[tuple[int, torch.Size, tuple[int, ...], torch.dtype], str] = {}
    names = {}
    for name in sorted(weights):
        tensor = weights[name]
        if tensor.numel() == 0:
            names[name] = name
            continue
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        names[name] = first.setdefault(key, name)
    return names


def raw(tensor: Tensor) -> Tensor:
    """The bytes of a tensor as (entries, bytes per entry), on the CPU: -0.0 and every NaN are distinct."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).reshape(flat.numel(), tensor.element_size())


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name]
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(raw(tensor).numpy().tobytes())
    return digest.hexdigest()


def module_group(name: str) -> str:
    """The module group that a tensor belongs to, such as ``encoder.stages`` or ``decoder5``.

    Two components of the name of its module, or one where that ends in a digit.
    """
    path = name.split(".")[:-1] or [name]
    return path[0] if path[0][-1:].isdigit() else ".".join(path[:2])


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], what: str = "Checkpoint") -> None:
    """Load a state dict into its network.

    Args:
        network: The network.
        weights: The state dict.
        what: What it is, for the message.

    Raises:
        ModelError: It does not fit the network.
    """
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise ModelError(
            f"{what}: its weights do not fit its own plans ({' '.join(lines[1:2]).strip()}). "
            "Use the plans.json that it was trained with."
        ) from None

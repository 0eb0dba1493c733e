"""Networks that are known by class: which of their modules is the head, which parameters are positions.

A card names its class by import path, so no card imports the library that its network comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from lnsegfm.errors import ConfigError


@dataclass(frozen=True)
class NetworkCard:
    """What has to be known of a class of networks.

    Args:
        class_path: Import path of the class; its subclasses are meant too.
        head: Gives the modules whose output channels are the labels.
        decoder: Names of the modules between the encoder and the head.
        last: Gives the layer of the head that sees the features at full resolution.
        positions: Last parts of the names of parameters that are tables of positions.
    """

    class_path: str
    head: Callable[[nn.Module], Sequence[nn.Module]]
    decoder: tuple[str, ...]
    last: Callable[[nn.Module], nn.Module]
    positions: frozenset[str] = frozenset()


def _unet(class_name: str) -> NetworkCard:
    return NetworkCard(
        f"dynamic_network_architectures.architectures.unet.{class_name}",
        head=lambda network: [network.get_submodule("decoder.seg_layers")],
        decoder=("decoder.stages", "decoder.transpconvs"),
        last=lambda network: list(network.get_submodule("decoder.seg_layers").children())[-1],
    )


NETWORKS: tuple[NetworkCard, ...] = (
    _unet("PlainConvUNet"),
    _unet("ResidualEncoderUNet"),
    NetworkCard(
        "monai.networks.nets.swin_unetr.SwinUNETR",
        head=lambda network: [network.get_submodule("out")],
        decoder=("decoder5", "decoder4", "decoder3", "decoder2", "decoder1"),
        last=lambda network: network.get_submodule("out.conv.conv"),
        positions=frozenset({"relative_position_bias_table"}),
    ),
)


def unwrap(network: nn.Module) -> nn.Module:
    """The network inside ``DistributedDataParallel``, ``DataParallel`` and ``torch.compile``, in any order."""
    while True:
        inner = getattr(network, "_orig_mod", None)
        if inner is None and isinstance(network, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = network.module
        if inner is None:
            return network
        network = inner


def find_card(network: nn.Module) -> NetworkCard | None:
    """The card of a network's class or of the nearest class it derives from."""
    for cls in type(unwrap(network)).__mro__:
        path = f"{cls.__module__}.{cls.__qualname__}"
        for card in NETWORKS:
            if card.class_path == path:
                return card
    return None


def head_modules(network: nn.Module, head: Sequence[nn.Module] | None = None) -> Sequence[nn.Module]:
    """The modules whose output channels are the labels.

    Args:
        network: The network.
        head: The answer for a network that has no card.

    Raises:
        ConfigError: The network has no card and no head was named.
    """
    if head is not None:
        return head
    card = find_card(network)
    if card is None:
        raise ConfigError(
            f"Network {type(unwrap(network)).__name__}: which layer is its head is not known. "
            "Name it: method.optimizer(network, lr=..., head=[network.out])."
        )
    return card.head(unwrap(network))


def last_layer(network: nn.Module, head: Sequence[nn.Module] | None = None) -> nn.Module:
    """The layer of the head that sees the features at full resolution: the card's, else the last that was named."""
    card = find_card(network)
    return card.last(unwrap(network)) if head is None and card is not None else head_modules(network, head)[-1]


def decoder_modules(network: nn.Module) -> Sequence[nn.Module]:
    """The modules between encoder and head; none for a network that has no card."""
    card = find_card(network)
    return [unwrap(network).get_submodule(name) for name in card.decoder] if card is not None else []

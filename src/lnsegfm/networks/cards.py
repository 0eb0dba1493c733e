"""Networks that are known by class: which of their modules is the head, which parameters are positions.

A card names its class by import path, so no card imports the library that its network comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from lnsegfm.errors import ConfigError
from lnsegfm.plugins import Plugin, PluginTable


@dataclass(frozen=True)
class NetworkCard:
    """What has to be known of a class of networks.

    Args:
        class_path: Import path of the class; its subclasses are meant too.
        head: Gives the modules whose output channels are the labels.
        decoder: Names of the modules between the encoder and the head.
        last: Gives the layer of the head that sees the features at full resolution.
        positions: Last parts of the names of parameters that are tables of positions.
        deep_supervision: Whether it gives outputs at several resolutions for nnU-Net's loss.
        outputs: Name of the argument that counts these outputs, where some of its networks have one only.
    """

    class_path: str
    head: Callable[[nn.Module], Sequence[nn.Module]]
    decoder: tuple[str, ...]
    last: Callable[[nn.Module], nn.Module]
    positions: frozenset[str] = frozenset()
    deep_supervision: bool = True
    outputs: str | None = None


def _unet(class_name: str) -> NetworkCard:
    return NetworkCard(
        f"dynamic_network_architectures.architectures.unet.{class_name}",
        head=lambda network: [network.get_submodule("decoder.seg_layers")],
        decoder=("decoder.stages", "decoder.transpconvs"),
        last=lambda network: list(network.get_submodule("decoder.seg_layers").children())[-1],
    )


def _named(network: nn.Module, *names: str) -> list[nn.Module]:
    """The modules of these names that the network has."""
    return [module for name in names if isinstance(module := getattr(network, name, None), nn.Module)]


_BUILTIN = {
    "plain-conv-unet": _unet("PlainConvUNet"),
    "residual-encoder-unet": _unet("ResidualEncoderUNet"),
    "swin-unetr": NetworkCard(
        "monai.networks.nets.swin_unetr.SwinUNETR",
        head=lambda network: [network.get_submodule("out")],
        decoder=("decoder5", "decoder4", "decoder3", "decoder2", "decoder1"),
        last=lambda network: network.get_submodule("out.conv.conv"),
        positions=frozenset({"relative_position_bias_table"}),
        deep_supervision=False,
    ),
    "seg-res-net": NetworkCard(
        "lnsegfm.networks.seg_res_net.SegResNet",
        head=lambda network: [network.get_submodule("conv_final.2")],
        decoder=("up_samples", "up_layers", "conv_final.0"),
        last=lambda network: network.get_submodule("conv_final.2.conv"),
        deep_supervision=False,
    ),
    "dyn-unet": NetworkCard(
        "lnsegfm.networks.dyn_unet.DynUNet",
        head=lambda network: _named(network, "output_block", "deep_supervision_heads"),
        decoder=("upsamples",),
        last=lambda network: network.get_submodule("output_block.conv.conv"),
        outputs="outputs",
    ),
    "seg-res-net-ds": NetworkCard(
        "lnsegfm.networks.seg_res_net_ds.SegResNetDS",
        head=lambda network: [level["head"] for level in network.get_submodule("up_layers").children()],  # type: ignore[index]
        decoder=("up_layers",),
        last=lambda network: list(network.get_submodule("up_layers").children())[-1].get_submodule("head"),
        outputs="outputs",
    ),
    "stu-net": NetworkCard(
        "lnsegfm.networks.stu_net.STUNet",
        head=lambda network: [network.get_submodule("seg_outputs")],
        decoder=("upsample_layers", "conv_blocks_localization"),
        last=lambda network: list(network.get_submodule("seg_outputs").children())[-1],
    ),
    "genesis-unet": NetworkCard(
        "lnsegfm.networks.genesis_unet.GenesisUNet",
        head=lambda network: [network.get_submodule("out_tr")],
        decoder=("up_tr256", "up_tr128", "up_tr64"),
        last=lambda network: network.get_submodule("out_tr.final_conv"),
        deep_supervision=False,
    ),
}


def accept_card(value: Any, plugin: Plugin) -> NetworkCard:
    """A plugin's card.

    Raises:
        PluginError: It is no card, or one of a class of another package.
    """
    if not isinstance(value, NetworkCard):
        raise plugin.error("it is no lnsegfm.networks.cards.NetworkCard")
    if not value.class_path.startswith(_package(plugin.module)):
        raise plugin.error(f"its class {value.class_path} lies in another package; derive from it in your own")
    return value


NETWORKS = PluginTable("networks", _BUILTIN, accept_card)
"""The cards that are built in, and those of plugins (entry points ``lnsegfm.networks``)."""


def plugin_packages() -> tuple[str, ...]:
    """The packages that bring cards of networks, each with a dot at its end: plans may name their networks."""
    return tuple(dict.fromkeys(_package(plugin.module) for plugin in NETWORKS.brought().values()))


def card_of_path(class_path: str) -> NetworkCard | None:
    """The card of a class by its import path; one of a plugin only for a class of the plugin's own package.

    Raises:
        PluginError: The card of the class's package cannot be used.
    """
    for card in NETWORKS.builtin.values():
        if card.class_path == class_path:
            return card
    for name, plugin in NETWORKS.brought().items():
        if class_path.startswith(_package(plugin.module)) and (card := NETWORKS[name]).class_path == class_path:
            return card
    return None


def has_deep_supervision(class_path: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a network gives outputs at several resolutions for nnU-Net's loss.

    Args:
        class_path: Import path of its class.
        arguments: What plans build it with.
    """
    card = card_of_path(class_path)
    if card is None:
        return not class_path.endswith("SwinUNETR")
    return card.deep_supervision and (card.outputs is None or arguments.get(card.outputs, 1) > 1)


def _package(module: str) -> str:
    return module.partition(".")[0] + "."


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
        if (card := card_of_path(f"{cls.__module__}.{cls.__qualname__}")) is not None:
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

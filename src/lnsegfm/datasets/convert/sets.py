"""The sets that can be converted, by name."""

from __future__ import annotations

from typing import Any

from lnsegfm.datasets.convert import (
    ct_lymph_nodes,
    dicom,
    hecktor2025,
    lnq2023,
    lynos,
    mediastinal_lymph_node_seg,
    radcure,
    segrap2023,
)
from lnsegfm.datasets.convert.conversion_plan import ConversionOptions
from lnsegfm.datasets.convert.set_card import SetCard
from lnsegfm.errors import ConfigError, UnknownName
from lnsegfm.plugins import Plugin, PluginTable


def accept_set(value: Any, plugin: Plugin) -> SetCard:
    """A plugin's card of a set.

    Raises:
        PluginError: It is no card, or one of another name.
    """
    if not isinstance(value, SetCard):
        raise plugin.error("it is no lnsegfm.datasets.convert.SetCard")
    if value.name != plugin.name:
        raise plugin.error(f"the set calls itself {value.name}, and both names must be the same")
    return value


_BUILTIN = {
    card.name: card
    for card in (
        dicom.CARD, radcure.CARD, segrap2023.CARD, lnq2023.CARD, ct_lymph_nodes.CARD, mediastinal_lymph_node_seg.CARD,
        hecktor2025.CARD, lynos.CARD,
    )
}  # fmt: skip
SETS = PluginTable("datasets", _BUILTIN, accept_set)
"""The sets that are built in, and those of plugins (entry points ``lnsegfm.datasets``)."""


def card_of(name: str) -> SetCard:
    """The card of a set.

    Raises:
        UnknownName: No set has this name.
        PluginError: A plugin's set that cannot be used.
    """
    if name not in SETS:
        raise UnknownName(f"Set {name!r}: it is not known. Use one of {', '.join(SETS)}.")
    return SETS[name]


def require_meaning(card: SetCard, options: ConversionOptions) -> None:
    """Refuse an option that means nothing to a set.

    Raises:
        ConfigError: There is one.
    """
    if idle := sorted(options.changed() - card.options):
        told = ", ".join(f"--{name.removesuffix('_mm').replace('_', '-')}" for name in idle)
        raise ConfigError(f"{told}: it means nothing to {card.name}. Leave it out.")

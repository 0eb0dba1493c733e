"""Settings that predict faster than nnU-Net's full setting, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from lnsegfm.errors import ConfigError, UnknownName


@dataclass(frozen=True, kw_only=True)
class CoarsePass:
    """Predict at half the network's resolution first, then at full resolution around the foreground.

    Args:
        margin: Predicted again beyond the foreground to every side, as a share of the patch.
        step: Distance of tiles in the coarse pass, as a share of the patch.
    """

    margin: float = 0.125
    step: float = 0.75

    def __post_init__(self) -> None:
        if not 0 <= self.margin <= 1:
            raise ConfigError(f"margin {self.margin}: it is a share of the patch. Use a number from 0 to 1.")
        if not 0 < self.step <= 1:
            raise ConfigError(f"step {self.step}: tiles must lie less than a patch apart. Use a step in (0, 1].")


@dataclass(frozen=True, kw_only=True)
class InferenceSetting:
    """What masks depend on besides the model.

    Args:
        mirroring: Average over mirrored copies, along the axes that the model allows.
        step: Distance of tiles as a share of the patch.
        coarse: Predict at full resolution only around foreground of a coarse pass; None predicts everywhere.
        exact: Round as nnU-Net does.

    Raises:
        ConfigError: An impossible step.
    """

    mirroring: bool = True
    step: float = 0.5
    coarse: CoarsePass | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.step <= 1:
            raise ConfigError(f"step {self.step}: tiles must lie less than a patch apart. Use a step in (0, 1].")

    def to_json(self) -> dict[str, Any]:
        """For ``masks.json`` and ``presets.json``; what is off is left out, as it was before there was such a thing."""
        coarse = {"coarse": asdict(self.coarse)} if self.coarse is not None else {}
        return {"mirroring": self.mirroring, "step": self.step} | coarse | ({"exact": True} if self.exact else {})


FULL = "full"
"""Name of the setting that presets are compared with."""
PRESETS: Mapping[str, InferenceSetting] = MappingProxyType(
    {
        "no-mirroring": InferenceSetting(mirroring=False),
        "wide-steps": InferenceSetting(mirroring=False, step=0.75),
        "coarse-first": InferenceSetting(mirroring=False, coarse=CoarsePass()),
    }
)
"""By name, from the mildest to the boldest."""


def choose_setting(
    fast: str | None, *, mirroring: bool = True, step: float = 0.5, exact: bool = False
) -> InferenceSetting:
    """The setting of a preset, or the one that is given in full.

    Raises:
        UnknownName: There is no such preset.
        ConfigError: A preset and a setting of one's own, or a step that cannot be.
    """
    own = InferenceSetting(mirroring=mirroring, step=step, exact=exact)
    if fast is None:
        return own
    if fast not in PRESETS:
        raise UnknownName(f"--fast {fast}: not known. Use {', '.join(PRESETS)}.")
    if own != InferenceSetting():
        raise ConfigError(f"--fast {fast}: it settles mirroring, step and rounding itself. Leave these out, or --fast.")
    return PRESETS[fast]

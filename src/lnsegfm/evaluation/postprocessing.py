"""Postprocessing of predicted masks: the largest component kept, small components removed.

The rule of the largest component is nnU-Net's (Isensee et al., Nature Methods 18, 2021; `remove_connected_components`
of nnU-Net 2): of all voxels of one label, or of several taken together, those outside the largest piece of 26-connected
voxels become background. Of several pieces of one largest size all are kept, as there. nnU-Net has no rule of a
smallest volume.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from lnsegfm.errors import ConfigError
from lnsegfm.evaluation.components import components
from lnsegfm.messages import listed


@dataclass(frozen=True)
class MaskRule:
    """A rule that turns voxels of some values into background.

    Args:
        values: Of the mask, as the network's outputs are numbered: 1, 2, 3, ...; taken together.

    Raises:
        ConfigError: No values, or background among them.
    """

    values: tuple[int, ...]
    kind: ClassVar[str] = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(dict.fromkeys(self.values)))
        if not self.values or min(self.values) < 1:
            raise ConfigError(f"Postprocessing of values {list(self.values)}: no labels. Name values from 1 up.")

    def applied(self, mask: np.ndarray, voxel_mm3: float) -> np.ndarray:
        """The mask (z, y, x) after the rule; the mask given is not changed."""
        own = mask == self.values[0] if len(self.values) == 1 else np.isin(mask, self.values)
        found = components(own)
        least = self._least_voxels(found.sizes, voxel_mm3)
        lost = [number for number, size in enumerate(found.sizes, 1) if size < least]
        if not lost:
            return mask
        cleaned = mask.copy(order="C")
        cleaned.reshape(-1)[found.voxels[np.isin(found.ids, lost)]] = 0
        return cleaned

    def _least_voxels(self, sizes: tuple[int, ...], voxel_mm3: float) -> float:
        """Voxels that a component has at least to stay, of all sizes in descending order."""
        raise NotImplementedError


@dataclass(frozen=True)
class LargestComponent(MaskRule):
    """Keep the largest component of the values taken together."""

    kind: ClassVar[str] = "largest component"

    def _least_voxels(self, sizes: tuple[int, ...], voxel_mm3: float) -> float:  # noqa: ARG002 - of voxels alone
        return max(sizes, default=0)


@dataclass(frozen=True)
class SmallestVolume(MaskRule):
    """Remove components below a volume.

    Args:
        mm3: The smallest volume that stays, in mm3.

    Raises:
        ConfigError: Not a volume above 0.
    """

    mm3: float = 0.0
    kind: ClassVar[str] = "smallest volume"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mm3 < float("inf"):
            raise ConfigError(f"Smallest volume {self.mm3:g} mm3: not a volume. Use a number above 0.")

    def _least_voxels(self, sizes: tuple[int, ...], voxel_mm3: float) -> float:  # noqa: ARG002 - whatever there is
        return self.mm3 / voxel_mm3 * (1 - 1e-9)


@dataclass(frozen=True)
class Postprocessing:
    """The rules of a model, in the order in which they are applied; none changes nothing.

    Args:
        rules: The rules.
    """

    rules: tuple[MaskRule, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rules)

    def applied(self, mask: np.ndarray, voxel_mm3: float) -> np.ndarray:
        """The mask (z, y, x) after all rules; the mask given is not changed.

        Args:
            mask: With the values of the network's outputs.
            voxel_mm3: Volume of a voxel.
        """
        for rule in self.rules:
            mask = rule.applied(mask, voxel_mm3)
        return mask

    def touches(self, values: tuple[int, ...]) -> bool:
        """Whether a rule may remove voxels of one of these values."""
        return any(not set(values).isdisjoint(rule.values) for rule in self.rules)

    @cached_property
    def in_stock(self) -> tuple[LargestComponent, ...]:
        """The rules that nnU-Net has a function for."""
        return tuple(rule for rule in self.rules if isinstance(rule, LargestComponent))

    def lines(self, covered: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
        """Each rule in words.

        Args:
            covered: The values of each label, numbered as the network's outputs.
        """
        return tuple(_line(rule, covered) for rule in self.rules)

    def to_json(self) -> list[dict[str, Any]]:
        """A plain table a rule."""
        return [
            {"rule": rule.kind, "values": list(rule.values)}
            | ({"mm3": rule.mm3} if isinstance(rule, SmallestVolume) else {})
            for rule in self.rules
        ]


def _line(rule: MaskRule, covered: Mapping[str, tuple[int, ...]]) -> str:
    every = {value for values in covered.values() for value in values}
    same = [name for name, values in covered.items() if set(values) == set(rule.values)]
    inside = [name for name, values in covered.items() if set(values) <= set(rule.values)]
    what = "all foreground" if set(rule.values) == every and len(covered) > 1 else listed(tuple(same[:1] or inside))
    what = what or f"values {', '.join(map(str, rule.values))}"
    if isinstance(rule, SmallestVolume):
        return f"components of {what} below {rule.mm3:g} mm3 are removed"
    return f"the largest component of {what} is kept"

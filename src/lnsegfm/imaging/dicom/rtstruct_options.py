"""How a structure set is written, as one value that travels from the command line to the file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from lnsegfm.errors import ConfigError
from lnsegfm.imaging.dicom.rtstruct_profiles import SHORT_NAME, RtstructProfile, profile_named

HOLES = ("separate", "keyhole")
DEFAULT_SHARE = 0.01


@dataclass(frozen=True)
class Thinning:
    """How far contours may leave the mask's voxel edges to have fewer points.

    Args:
        mm: No point of a contour is farther from the exact one, and no point of the exact one farther from it.
        share: The volume of a structure, counted in voxels, changes by this share of it at most.

    Raises:
        ConfigError: Values that cannot be.
    """

    mm: float
    share: float = DEFAULT_SHARE

    def __post_init__(self) -> None:
        if not 0 < self.mm < math.inf or not 0 <= self.share < 1:
            raise ConfigError(
                f"--thin {self}: contours leave by mm above 0, volumes change by a share below 1. Use 0.5, or 0.5,0.01."
            )

    @classmethod
    def of(cls, text: str) -> Self:
        """That of ``MM`` or ``MM,SHARE``, such as ``0.5`` or ``0.5,0.01``.

        Raises:
            ConfigError: It is neither.
        """
        try:
            values = [float(part) for part in text.split(",")]
            return cls(*values)
        except (ValueError, TypeError):
            raise ConfigError(f"--thin {text}: neither MM nor MM,SHARE. Use 0.5, or 0.5,0.01.") from None

    def __str__(self) -> str:
        return f"{self.mm:g},{self.share:g}"


@dataclass(frozen=True, kw_only=True)
class RtstructOptions:
    """How a structure set is written.

    Args:
        profile: ``generic``, ``eclipse``, ``raystation`` or ``monaco`` (`lnsegfm.imaging.dicom.rtstruct_profiles`).
        holes: ``separate``: each border is a contour; ``keyhole``: a hole is reached from its outer contour through a
            slit. The profile's unless given.
        thin: Fewer points, within bounds; None writes the voxel edges themselves.
        short_names: Names of at most 16 characters, whatever the profile.
        add_to: A structure set, or a folder of them, whose structures come first in the new file; it stays as it is.

    Raises:
        ConfigError: Values that are not known.
    """

    profile: str = "generic"
    holes: str | None = None
    thin: Thinning | None = None
    short_names: bool = False
    add_to: Path | None = None

    def __post_init__(self) -> None:
        profile_named(self.profile)
        if self.holes is not None and self.holes not in HOLES:
            raise ConfigError(f"--holes {self.holes}: not known. Use {' or '.join(HOLES)}.")

    @property
    def settled(self) -> RtstructProfile:
        """The profile with what the user said of it."""
        profile = profile_named(self.profile)
        length = min(profile.name_length, SHORT_NAME) if self.short_names else profile.name_length
        return replace(profile, holes=self.holes or profile.holes, name_length=length)

    def to_json(self) -> Mapping[str, Any]:
        """What differs from the defaults, for a record; empty for the defaults.

        Of a structure set to add to there is a hash of its path, which may hold a patient's name.
        """
        given = {
            "profile": self.profile if self.profile != "generic" else None,
            "holes": self.settled.holes if self.settled.holes != "separate" else None,
            "thin": str(self.thin) if self.thin is not None else None,
            "short_names": self.short_names or None,
            "add_to": sha256(str(self.add_to.absolute()).encode()).hexdigest() if self.add_to is not None else None,
        }
        return {name: value for name, value in given.items() if value is not None}

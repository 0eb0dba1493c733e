"""What planning systems are known to take of a structure set: one frozen table.

The values are from public documents and reports alone (docs/rtstruct.md names them); none was tried on the systems.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from lnsegfm.errors import ConfigError

LONG_STRING = 64
"""Characters of a ROIName, a DICOM long string (LO, PS3.5 6.2)."""
SHORT_NAME = 16
"""Characters that most planning systems have for a name: AAPM TG-263 (2018), principle 1; also DICOM's short string."""
EXPLICIT_POINTS = 1500
"""Points of a contour that fit into the 65534 bytes of an explicit transfer syntax (PS3.5 7.1.2): three coordinates of
up to 13 characters and a backslash each."""


@dataclass(frozen=True, kw_only=True)
class RtstructProfile:
    """How structures are written for one planning system.

    Args:
        name: What ``--profile`` calls it.
        name_length: Characters of a structure's name.
        ascii_names: Names hold ASCII alone.
        points: Points of a contour, at most; longer ones are cut into pieces that share a side. None for any number.
        interpreted_type: RTROIInterpretedType.
        holes: ``separate`` or ``keyhole``, unless the user says otherwise.
    """

    name: str
    name_length: int = LONG_STRING
    ascii_names: bool = False
    points: int | None = None
    interpreted_type: str = "ORGAN"
    holes: str = "separate"


_TABLE = (
    RtstructProfile(name="generic"),
    RtstructProfile(name="eclipse", name_length=SHORT_NAME, ascii_names=True, points=EXPLICIT_POINTS),
    RtstructProfile(name="raystation", name_length=SHORT_NAME, points=EXPLICIT_POINTS),
    RtstructProfile(name="monaco", name_length=SHORT_NAME, ascii_names=True, points=EXPLICIT_POINTS),
)
PROFILES = MappingProxyType({profile.name: profile for profile in _TABLE})
"""Profiles by name; the first is what is written unless one is named."""


def profile_named(name: str) -> RtstructProfile:
    """A profile.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in PROFILES:
        raise ConfigError(f"--profile {name}: not known. Use {', '.join(PROFILES)}.")
    return PROFILES[name]

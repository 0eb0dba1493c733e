"""What kind of images a series holds, by its ImageType and description: a projection, a reformat, another quantity.

ImageType (0008,0008) has "ORIGINAL" or "DERIVED", then "PRIMARY" or "SECONDARY"; from the third value on vendors write
words of their own beside those of DICOM (PS3.3 C.8.15.1.1 and C.8.16.1: MAXIMUM, MINIMUM, SUBTRACTION, VMI, ...).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.series_index import Series

Kinds = tuple[tuple[str, str], ...]

_PROJECTIONS = (
    (r"MIN[ _]?IP|MINIMUM", "minimum intensity projection"),
    (r"MIPS?|MAX[ _]?IP|MAXIMUM", "maximum intensity projection"),
    (r"PROJECTION[ _]IMAGE|VRT|VOLREN|SSD", "projection"),
)
_PROJECTION_IN_TEXT = (
    (r"MIN[ _-]?IPS?", "minimum intensity projection"),
    (r"MIPS?|MAX[ _-]?IPS?", "maximum intensity projection"),
    (r"VRT", "projection"),
)
_QUANTITIES = (
    (r"VMI|MONO[ _-]?E(NERGETIC)?|MONOCHROMATIC", "monoenergetic images"),
    (r"VNC|VUE|VIRTUAL[ _-]NON[ _-]?CONTRAST|MAT_REMOVED|MAT_MODIFIED", "virtual non-contrast images"),
    (r"IODINE.*|MAT_SPECIFIC|MAT_FRACTIONAL|MAT_VALUE_BASED|MATERIAL.*", "material map"),
    (r"EFF_ATOMIC_NUM|Z[ _-]?EFF(ECTIVE)?|EFFECTIVE[ _]Z|ELECTRON[ _]DENSITY|RHO[ _]Z", "map of densities or numbers"),
    (r"SUBTRACT(ION|ED)|SUB", "subtraction"),
    (r"PERFUSION.*|CBF|CBV|MTT|TTP|PBV", "perfusion map"),
)
_QUANTITY_IN_TEXT = (
    (r"\d{2,3} ?KEV|MONO ?E|MONO ?\d{2,3}|MONO ?PLUS|MONOENERGETIC", "monoenergetic images"),
    (r"VNC|VIRTUAL NON ?CONTRAST", "virtual non-contrast images"),
    (r"IODINE MAP|IODMAP|IODINE DENSITY", "material map"),
    (r"Z ?EFF(ECTIVE)?|ELECTRON DENSITY", "map of densities or numbers"),
)


def projection(series: Series) -> str:
    """What projection a series holds (over thick slabs of a scan, of the highest or lowest voxels); "" for none."""
    return _kind(series.traits.image_type, series.description, _PROJECTIONS, _PROJECTION_IN_TEXT)


def quantity(series: Series) -> str:
    """What a series holds that is no conventional CT, such as monoenergetic images; "" for a conventional one."""
    return _kind(series.traits.image_type, series.description, _QUANTITIES, _QUANTITY_IN_TEXT)


def is_average(series: Series) -> bool:
    """Whether it is an average of images (AVERAGE, MEAN): over a slab, or over the phases of a 4D scan."""
    stated = {"AVERAGE", "MEAN", "AVG", "AVERAGE_CT"} & set(series.traits.image_type[2:])
    return bool(stated) or bool(_text(series.description, ((r"AVERAGE|AVG|AVE ?IP|AIP|MEAN ?IP", "average"),)))


def is_reformat(series: Series) -> bool:
    """Whether it says that it was cut out of a volume anew (MPR, REFORMATTED, RESAMPLED)."""
    return any(re.search(r"\b(MPR|REFORMATTED|RESAMPLED)\b", value) for value in series.traits.image_type[2:])


@lru_cache(maxsize=4096)  # each series of a study is compared with each other one
def _kind(image_type: tuple[str, ...], description: str, words: Kinds, words_in_text: Kinds) -> str:
    values = [value.removeprefix("CSA ") for value in image_type[2:]]
    stated = next((kind for pattern, kind in words for value in values if re.fullmatch(pattern, value)), "")
    return stated or _text(description, words_in_text)


def _text(description: str, kinds: Kinds) -> str:
    words = re.sub(r"[\s_-]+", " ", description.upper())
    return next((kind for pattern, kind in kinds if re.search(rf"(?<![A-Z0-9])({pattern})(?![A-Z0-9])", words)), "")

"""What the values of a CT are by its RescaleType: HU, or another quantity.

Sources: DICOM PS3.3 C.11.1.1.2 (defined terms of RescaleType) and what scanners write beside them.
"""

from __future__ import annotations

from collections.abc import Iterable

_SAID_PLAINLY = frozenset({"", "HU", "US", "UNSPECIFIED"})
"""HU, or unspecified, which scanners write for HU. Attributes without a value are of HU as well (PS3.3 C.8.2.1)."""
_MODIFIED = "HU_MOD"
_OTHER_QUANTITIES = {
    "ED": "electron density, in 10^23 electrons per ml",
    "EDW": "electron density relative to water",
    "OD": "optical density",
    "PCT": "per cent",
    "MGML": "concentration, in mg/ml",
    "Z_EFF": "effective atomic number",
    "ZEFF": "effective atomic number",
    "RHO": "electron density",
    "BQML": "activity concentration, in Bq/ml",
    "CNTS": "counts",
    "HZ": "frequency, in Hz",
    "GY": "dose, in Gy",
    "KEV": "energy, in keV",
}
_OTHER_WORDS = {
    "ELECTRON": "electron density",
    "ATOMIC": "effective atomic number",
    "IODINE": "iodine concentration",
    "IOD": "iodine concentration",
    "CALCIUM": "calcium concentration",
    "URIC": "uric acid",
    "WATER": "water content",
    "FAT": "fat content",
    "MG/ML": "concentration, in mg/ml",
    "MG/CC": "concentration, in mg/ml",
    "MG/CM3": "concentration, in mg/ml",
    "CONCENTRATION": "concentration",
    "DENSITY": "density",
    "PERFUSION": "perfusion",
    "FRACTION": "fraction",
    "PERCENT": "per cent",
    "%": "per cent",
    "DOSE": "dose",
    "SUV": "standardised uptake",
    "BQ/ML": "activity concentration, in Bq/ml",
    "CM2ML": "standardised uptake",
    "PROPCNTS": "counts",
    "1/CM": "attenuation, in 1/cm",
    "CM-1": "attenuation, in 1/cm",
    "STOPPING": "stopping power ratio",
    "RSP": "stopping power ratio",
}
"""Words anywhere in a term that is not a defined one."""


def other_quantity(rescale_type: str) -> str | None:
    """What values of this RescaleType are, in words; None where they are read as HU.

    The term is compared without regard to case, blanks, underscores and hyphens. A term that names no other quantity is
    read as HU, and ``rescale_type_notes`` has a line about it.
    """
    term = _normalised(rescale_type)
    if _is_hu(term):
        return None
    if (
        meaning := {_joined(known): words for known, words in _OTHER_QUANTITIES.items()}.get(_joined(term))
    ) is not None:
        return meaning
    return next((meaning for word, meaning in _OTHER_WORDS.items() if _has_word(term, word)), None)


def rescale_type_notes(rescale_types: Iterable[str]) -> tuple[str, ...]:
    """One line for each unusual RescaleType among those of a series that is read as HU nevertheless."""
    unusual = sorted({_normalised(each) for each in rescale_types} - _SAID_PLAINLY)
    return tuple(f"RescaleType {term}: {_reading(term)}" for term in unusual if other_quantity(term) is None)


def _reading(term: str) -> str:
    if _joined(term) == _joined(_MODIFIED):
        return "modified HU (such as monoenergetic or metal-reduced images), read as HU"
    return "read as HU" if _is_hu(term) else "no defined term, read as HU"


def _is_hu(term: str) -> bool:
    joined = _joined(term)
    return term in _SAID_PLAINLY or joined in {"H", "CT"} or joined.startswith(("HU", "HOUNSFIELD", "CTN"))


def _normalised(rescale_type: str) -> str:
    return " ".join(rescale_type.replace("\0", " ").upper().split())


def _joined(term: str) -> str:
    return "".join(c for c in term if c not in " _-.")


def _has_word(term: str, word: str) -> bool:
    parts = term.replace("_", " ").replace("-", " ").split()
    return word in parts if len(word) <= 3 and word.isalpha() else word in term

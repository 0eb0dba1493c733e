"""Names of transfer syntaxes (PS3.6 table A-1), also of those that pydicom does not know yet."""

from __future__ import annotations

from pydicom.uid import UID

_NEWER = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.4.204": "JPIP HTJ2K Referenced",
    "1.2.840.10008.1.2.4.205": "JPIP HTJ2K Referenced Deflate",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}
_VIDEO = ("MPEG", "HEVC", "SMPTE", "JPIP")


def syntax_title(syntax: UID) -> str:
    """Its name, or the UID itself where it has none."""
    return _NEWER.get(syntax) or syntax.name


def is_known(syntax: UID) -> bool:
    """Whether it is one of the standard's."""
    return syntax_title(syntax) != syntax


def is_video(syntax: UID) -> bool:
    """Whether its pixels are a film, or lie elsewhere, and are no frames of an image."""
    return any(word in syntax_title(syntax) for word in _VIDEO)

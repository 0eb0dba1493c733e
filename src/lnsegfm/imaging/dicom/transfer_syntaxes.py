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
_PLAIN = "Export it uncompressed (explicit VR little endian)"


def syntax_title(syntax: UID) -> str:
    """Its name, or the UID itself where it has none."""
    return _NEWER.get(syntax) or syntax.name


def is_known(syntax: UID) -> bool:
    """Whether it is one of the standard's."""
    return syntax_title(syntax) != syntax


def not_readable(syntax: UID, which: str) -> str:
    """The line about pixels in a transfer syntax that is not read: a film, private, unknown, or without a decoder.

    Args:
        syntax: TransferSyntaxUID.
        which: What the line calls the file.
    """
    title = syntax_title(syntax)
    if not is_known(syntax):
        kind = "private" if syntax.is_private else "unknown"
        return f"{which} is in the {kind} transfer syntax {syntax}, which cannot be read. {_PLAIN}."
    if any(word in title for word in _VIDEO):  # a film, or pixels that lie elsewhere
        return f"{which} is in a format that is no image ({title}). {_PLAIN}."
    return f"{which} is compressed as {title}, which cannot be read. {_PLAIN}."

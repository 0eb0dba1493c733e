"""Keyed pseudonyms: a patient's scans stay together, and nobody without the key finds the patient.

A pseudonym is the start of an HMAC-SHA256 (RFC 2104) of the identifier under a secret key of 32 bytes. A plain hash
would not do: whoever knows how a hospital numbers its patients hashes all of the numbers and compares.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lnsegfm.errors import ConfigError, DataError
from lnsegfm.registry.home import home
from lnsegfm.storage import PARTIAL

KEY_BYTES = 32
KEY_FILE = "pseudonyms.key"
# Crockford's base 32: no I, L, O or U, so that a code read aloud or typed by hand arrives as it left.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CODE_LENGTH = 10  # 50 bits: among 10000 patients two share a code with a probability of 4e-8


@dataclass(frozen=True)
class Pseudonyms:
    """Readable codes for patients and series, the same for the same key.

    Args:
        key: The secret, 32 bytes. It appears in no message and in no ``repr``.

    Raises:
        ConfigError: A key of another length.
    """

    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise ConfigError(f"A key of {len(self.key)} bytes: it has {KEY_BYTES}. Let read_key make one.")

    def subject(self, patient_id: str, issuer: str = "") -> str:
        """The code of a patient, such as ``S-7F3K29QXAM``.

        Args:
            patient_id: PatientID. Blanks around it do not count: DICOM pads with them.
            issuer: IssuerOfPatientID: two hospitals may give the same number to two people.

        Raises:
            DataError: An empty PatientID: all patients without one would become the same patient.
        """
        patient_id, issuer = patient_id.strip(" \0"), issuer.strip(" \0")
        if not patient_id:
            raise DataError("PatientID '': scans without one cannot be grouped by patient. Fill it in at the source.")
        return f"S-{self._code('subject', issuer, patient_id)}"

    def case(self, series_uid: str) -> str:
        """The code of a scan, such as ``C-2M8VH0T4ZR``, by its SeriesInstanceUID.

        Raises:
            DataError: An empty SeriesInstanceUID.
        """
        series_uid = series_uid.strip(" \0")
        if not series_uid:
            raise DataError("SeriesInstanceUID '': a scan without one has no code. Give the series a UID first.")
        return f"C-{self._code('case', series_uid)}"

    @property
    def key_id(self) -> str:
        """Eight hexadecimal digits that tell keys apart and say nothing about them: a data set may record them."""
        return self._digest("key").hex()[:8]

    def _code(self, *parts: str) -> str:
        number = int.from_bytes(self._digest(*parts)[:8], "big") >> (64 - 5 * _CODE_LENGTH)
        return "".join(_ALPHABET[(number >> 5 * k) & 31] for k in reversed(range(_CODE_LENGTH)))

    def _digest(self, *parts: str) -> bytes:
        # the length before each part: "1", "23" and "12", "3" are different patients
        message = b"".join(len(p.encode()).to_bytes(4, "big") + p.encode() for p in parts)
        return hmac.new(self.key, message, hashlib.sha256).digest()


def key_place() -> Path:
    """Where the key lies unless another place is named: below ``LNSEGFM_HOME``, never inside a data set."""
    return home() / KEY_FILE


def read_key(path: Path | None = None, *, outside: Path | None = None) -> Pseudonyms:
    """The pseudonyms under the key in a file; the file is made, readable by its owner alone, where there is none.

    Args:
        path: The key's file; ``key_place()`` unless given. It holds 64 hexadecimal digits.
        outside: A folder that is to be given away: the key must not lie in it.

    Raises:
        ConfigError: The key would lie within ``outside``.
        DataError: The file holds no key, or others may read it.
    """
    path = key_place() if path is None else path
    if outside is not None and path.resolve().is_relative_to(outside.resolve()):
        raise ConfigError(f"Key {path}: it lies in the data set {outside}, which is given away. Keep it elsewhere.")
    if not path.exists():
        _make_key(path)
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise DataError(f"Key {path}: others may read it. Say `chmod 600` and think about who has seen it.")
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except (ValueError, UnicodeDecodeError):
        key = b""
    if len(key) != KEY_BYTES:
        raise DataError(f"Key {path}: not {2 * KEY_BYTES} hexadecimal digits. Restore it; a new key gives new names.")
    return Pseudonyms(key)


def _make_key(path: Path) -> None:
    """Put a new key in place, unless another process was faster: its key then stands.

    A rename would replace the other's key, which may be in use already; a hard link never replaces.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f"{PARTIAL}{os.getpid()}-{secrets.token_hex(4)}-{path.name}"
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_bytes(KEY_BYTES).hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(partial, path)
    finally:
        partial.unlink(missing_ok=True)

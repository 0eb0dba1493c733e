"""Pseudonyms: against HMAC computed from its definition (RFC 2104), and what a key file may be."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lnsegfm.errors import ConfigError, DataError
from lnsegfm.imaging.dicom.pseudonyms import Pseudonyms, key_place, read_key

KEY = bytes(range(32))


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """RFC 2104 by hand: H((K xor opad) || H((K xor ipad) || text)), K filled to a block of 64 bytes."""
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in block) + message).digest()
    return hashlib.sha256(bytes(b ^ 0x5C for b in block) + inner).digest()


def code(digest: bytes) -> str:
    """The first 50 bits, five at a time, in Crockford's base 32."""
    bits = "".join(f"{byte:08b}" for byte in digest)[:50]
    return "".join("0123456789ABCDEFGHJKMNPQRSTVWXYZ"[int(bits[i : i + 5], 2)] for i in range(0, 50, 5))


def told(*parts: bytes) -> bytes:
    return b"".join(len(p).to_bytes(4, "big") + p for p in parts)


def test_hmac_by_hand_is_the_one_of_rfc_4231():
    # test case 2 of RFC 4231
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert hmac_sha256(b"Jefe", b"what do ya want for nothing?").hex() == expected


@pytest.mark.parametrize(("patient", "issuer"), [("P1", ""), ("0012345", "Klinik Süd"), ("Ä^Ö", "x")])
def test_subject_is_the_hmac_of_issuer_and_patient(patient, issuer):
    expected = code(hmac_sha256(KEY, told(b"subject", issuer.encode(), patient.encode())))
    assert Pseudonyms(KEY).subject(patient, issuer) == f"S-{expected}"


def test_case_is_the_hmac_of_the_series():
    expected = code(hmac_sha256(KEY, told(b"case", b"1.2.840.1")))
    assert Pseudonyms(KEY).case("1.2.840.1") == f"C-{expected}"


def test_golden_names_stay_what_they_were():
    # made by this file's own hmac_sha256; a data set that is out must keep its names
    assert Pseudonyms(KEY).subject("P1") == "S-" + code(hmac_sha256(KEY, told(b"subject", b"", b"P1")))
    assert Pseudonyms(KEY).subject("P1") == "S-KQM3MDB0E1"


def test_padding_does_not_make_another_patient_and_parts_do_not_run_together():
    names = Pseudonyms(KEY)
    assert names.subject("P1 ") == names.subject("P1\0") == names.subject("P1")
    assert names.subject("23", "1") != names.subject("3", "12")
    assert names.subject("P1", "A") != names.subject("P1", "B")
    assert names.subject("1.2")[2:] != names.case("1.2")[2:]


def test_another_key_gives_other_names():
    one, other = Pseudonyms(KEY), Pseudonyms(KEY[::-1])
    assert one.subject("P1") != other.subject("P1")
    assert one.key_id != other.key_id


def test_ten_thousand_patients_keep_apart():
    names = Pseudonyms(KEY)
    assert len({names.subject(str(n)) for n in range(10_000)}) == 10_000


def test_an_empty_identifier_is_refused():
    for empty in ("", "  ", "\0"):
        with pytest.raises(DataError, match="PatientID"):
            Pseudonyms(KEY).subject(empty)
        with pytest.raises(DataError, match="SeriesInstanceUID"):
            Pseudonyms(KEY).case(empty)


def test_the_key_is_not_shown():
    assert KEY.hex() not in repr(Pseudonyms(KEY))
    assert repr(KEY) not in repr(Pseudonyms(KEY))
    assert not KEY.hex().startswith(Pseudonyms(KEY).key_id)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_key_of_another_length_is_refused(length):
    with pytest.raises(ConfigError, match=f"key of {length} bytes"):
        Pseudonyms(bytes(length))


def test_the_key_is_made_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))
    first = read_key()
    assert key_place() == tmp_path / "home" / "pseudonyms.key"
    assert read_key() == first
    assert read_key(tmp_path / "other.key") != first
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["pseudonyms.key"]


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
def test_only_the_user_can_read_the_key(tmp_path):
    before = os.umask(0)
    try:
        read_key(tmp_path / "a.key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600
    (tmp_path / "a.key").chmod(0o640)
    with pytest.raises(DataError, match="others may read it"):
        read_key(tmp_path / "a.key")


def test_the_key_does_not_lie_in_what_is_given_away(tmp_path):
    with pytest.raises(ConfigError, match="given away"):
        read_key(tmp_path / "set" / "sub" / "k.key", outside=tmp_path / "set")
    assert not (tmp_path / "set").exists()
    read_key(tmp_path / "k.key", outside=tmp_path / "set")


@pytest.mark.parametrize("content", ["", "00", "zz" * 32, "00" * 33, "é" * 10])
def test_a_file_that_holds_no_key_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "k.key"
    path.write_text(content, encoding="utf-8")
    path.chmod(0o600)
    with pytest.raises(DataError, match="64 hexadecimal digits"):
        read_key(path)
    assert path.read_text(encoding="utf-8") == content


def test_processes_that_start_at_once_get_one_key(tmp_path):
    line = "import sys; from pathlib import Path; from lnsegfm.imaging.dicom.pseudonyms import read_key; "
    line += "print(read_key(Path(sys.argv[1])).key_id)"
    path = tmp_path / "k.key"
    running = [
        subprocess.Popen([sys.executable, "-c", line, str(path)], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    ids = {process.communicate(timeout=60)[0] for process in running}
    assert len(ids) == 1
    assert [p.name for p in Path(tmp_path).iterdir()] == ["k.key"]

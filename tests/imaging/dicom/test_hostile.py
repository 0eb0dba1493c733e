"""Files from strangers, damaged in every way that comes to mind: refused in one line each, or read, and nothing else.

The damage is drawn from a seed, so a file that was found once is found again: ``damaged(content, seed)``.
"""

from __future__ import annotations

import os
import random
import time
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.rtstruct_write import write_rtstruct
from lnsegfm.imaging.dicom.seg_read import read_seg, segment_mask, segments_mask
from lnsegfm.imaging.dicom.seg_write import write_seg
from lnsegfm.imaging.dicom.series import find_series, read_series, series_of
from lnsegfm.imaging.dicom.structure_masks import structures_mask
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.scanner import write_series
from tests.imaging.dicom.test_seg import enhanced, other_seg, saved, transcoded
from tests.imaging.dicom.test_series import GDCM, packed

GRID = Grid((3, 16, 18), (2.5, 0.7, 0.6), (1.0, 2.0, 3.0))
MASK = np.zeros(GRID.shape, np.uint8)
MASK[:2, 3:9, 4:12], MASK[1:, 10:12, 10:12], MASK[1, 5:7, 6:8] = 1, 2, 0
LABELS = {"LN": 1, "GTVn": 2}
RLE = "1.2.840.10008.1.2.5"
JPEG_2000, JPEG_LS = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.80"
RENAMED = ("PatientName", "PatientID")

SEEDS = int(os.environ.get("LNSEGFM_HOSTILE_SEEDS", "30"))
"""Damaged folders a kind of file; tens of thousands were looked at when the readers were written."""
MAX_LINE = 3000

Make = Callable[[Path], None]


def ct(folder: Path, **tags: object) -> None:
    hu = np.random.default_rng(0).integers(-1000, 1000, GRID.shape)
    write_series(folder, hu, GRID, SeriesInstanceUID="1.2.3", FrameOfReferenceUID="1.9", **tags)


def compressed(codec: str) -> Make:
    def make(folder: Path) -> None:
        ct(folder)
        for file in folder.iterdir():
            packed(file, codec)

    return make


def encoded(syntax: str) -> Make:
    def make(folder: Path) -> None:
        ct(folder)
        for file in folder.iterdir():
            data = dcmread(file)
            data.file_meta.TransferSyntaxUID = syntax
            if syntax == ExplicitVRBigEndian:
                data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
            dcmwrite(file, data, implicit_vr=syntax == ImplicitVRLittleEndian,
                     little_endian=syntax != ExplicitVRBigEndian)  # fmt: skip

    return make


def multi_frame(shared: bool) -> Make:
    def make(folder: Path) -> None:
        folder.mkdir()
        enhanced(folder / "e.dcm", GRID, shared)
        for file in (folder / "e-slices").iterdir():
            file.unlink()
        (folder / "e-slices").rmdir()

    return make


def lut(folder: Path) -> None:
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [4096, 0, 16], "HU"
    table.add_new(0x00283006, "US", [int(v) for v in range(4096)])
    ct(folder, ModalityLUTSequence=[table], PixelPaddingValue=0, PixelPaddingRangeLimit=3)


def structures(folder: Path) -> None:
    ct(folder.parent / "scan")
    folder.mkdir()
    write_rtstruct(folder / "rs.dcm", MASK, LABELS, series_of(folder.parent / "scan"))


def seg(kind: str, syntax: str = "") -> Make:
    def make(folder: Path) -> None:
        ct(folder.parent / "scan")
        folder.mkdir()
        series, path = series_of(folder.parent / "scan"), folder / "seg.dcm"
        if kind != "FRACTIONAL":
            write_seg(path, MASK, LABELS, series, kind=kind)  # type: ignore[arg-type]
            return
        saved(other_seg(series, np.stack([MASK == 1, MASK == 2], -1) * 0.75, kind), path)
        if syntax == RLE:
            data = dcmread(path)
            data.compress(RLE, encoding_plugin="pydicom")
            data.save_as(path)
        elif syntax:
            transcoded(path, syntax)
            path.with_name("seg.dcm.packed").unlink()

    return make


BASES: dict[str, Make] = {
    "CT": ct,
    "CT implicit": encoded(ImplicitVRLittleEndian),
    "CT big endian": encoded(ExplicitVRBigEndian),
    "CT deflated": encoded(DeflatedExplicitVRLittleEndian),
    "CT with a table": lut,
    **{f"CT {codec}": compressed(codec) for codec in GDCM},
    "multi-frame": multi_frame(True),
    "multi-frame, each its own": multi_frame(False),
    "RTSTRUCT": structures,
    "SEG binary": seg("BINARY"),
    "SEG label map": seg("LABELMAP"),
    "SEG fractional": seg("FRACTIONAL"),
    "SEG RLE": seg("FRACTIONAL", RLE),
    "SEG JPEG 2000": seg("FRACTIONAL", JPEG_2000),
    "SEG JPEG-LS": seg("FRACTIONAL", JPEG_LS),
}

# ------------------------------------------------------------------------------------------------------ the damage

_TEXTS = (b"", b"nan ", b"inf ", b"-inf", b"1e400 ", b"1e300 ", b"-1e38 ", b"1e-320", b"0 ", b"-1", b"99999999999 ",
          b"\\\\\\ ", b"0\\0\\0 ", b"nan\\nan\\nan", b"1e300\\1e300\\1e300 ", b"1\\2\\3\\4\\5\\6 ", b"1e9\\1e9 ",
          b"1\n2 ", b"\x1b[31m\x07 ", b"\xff\xfe\xfd\xfc", b"9" * 400, b"1" + b"0" * 60, b"x" * 70000)  # fmt: skip
_WHOLE = (0, 1, 2, 3, 7, 8, 12, 16, 32, 64, 255, 256, 4096, 32767, 32768, 65535, 1 << 24, (1 << 31) - 1, (1 << 32) - 1)
_VRS = ("US", "SS", "UL", "FD", "FL", "DS", "IS", "LO", "UI", "OB", "OW", "UN", "AT", "PN", "CS", "DA", "UT", "UC")
_COUNTS = ("Rows", "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel",
           "PixelRepresentation", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "SegmentNumber",
           "RescaleSlope", "RescaleIntercept", "ContourData", "ReferencedSegmentNumber", "SegmentationType",
           "MaximumFractionalValue", "PixelPaddingValue", "LUTDescriptor", "ROINumber", "SpacingBetweenSlices",
           "ReferencedROINumber", "ContourGeometricType", "PhotometricInterpretation", "TransferSyntaxUID",
           "SliceThickness", "SpecificCharacterSet", "NumberOfContourPoints")  # fmt: skip


def damaged(content: bytes, seed: int) -> bytes:
    """A file with one to three things wrong, the same for the same seed."""
    draw = random.Random(seed)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        how = draw.choice((flipped, flipped, cut, spliced, altered, altered, altered, altered))
        content = how(content, draw)
    return content


def flipped(content: bytes, draw: random.Random) -> bytes:
    changed, end = bytearray(content), draw.choice((len(content), 700, 3000))
    for _ in range(draw.choice((1, 1, 2, 5, 30))):
        if changed:
            changed[draw.randrange(128, max(min(end, len(changed)), 129)) % len(changed)] = draw.choice(
                (0, 255, draw.randrange(256))
            )
    return bytes(changed)


def cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.choice((draw.randrange(len(content) + 1), len(content) - draw.randrange(1, 40)))]


def spliced(content: bytes, draw: random.Random) -> bytes:
    """A piece more, a piece less, or a piece twice."""
    start, length = draw.randrange(len(content) + 1), draw.choice((1, 2, 4, 8, 100, 1000))
    piece = draw.choice((b"", content[start : start + length] * 2, b"\0" * length, draw.randbytes(length)))
    return content[:start] + piece + content[start + length :]


def altered(content: bytes, draw: random.Random) -> bytes:
    """An element gone, empty, of another kind, huge, nested too deep, or with the value of another."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data = dcmread(BytesIO(content), force=True)
            places = list(_elements(data)) + [(data.file_meta, tag) for tag in data.file_meta.keys()]  # noqa: SIM118
            known = [p for p in places if DataElement(p[1], "UN", b"").keyword in _COUNTS]
            where, tag = draw.choice(known if known and draw.random() < 0.5 else places)
            _alter(where, tag, draw)
            out = BytesIO()
            data.save_as(out, enforce_file_format=False)
            return out.getvalue()
        except Exception:  # damaged already, beyond what pydicom writes
            return flipped(content, draw)


def _elements(data: Dataset) -> Any:
    for tag in list(data.keys()):
        held = data.get_item(tag)
        if DataElement(tag, "UN", b"").keyword not in RENAMED:
            yield data, tag
        if (held.VR or data[tag].VR) == "SQ":
            for item in data[tag].value:
                yield from _elements(item)


def _alter(where: Dataset, tag: Any, draw: random.Random) -> None:
    held = where.get_item(tag)
    kind = held.VR or where[tag].VR
    how = draw.randrange(8)
    if how == 0:
        del where[tag]
    elif kind == "SQ" and how < 7:
        items, depth = list(where[tag].value), draw.choice((3, 60, 2000))
        if draw.random() < 0.3:
            where[tag] = RawDataElement(tag, "SQ", 0, _nested(int(tag), depth), 0, False, True)
        else:
            where.add_new(tag, "SQ", draw.choice(([], [Dataset()], items[:-1], items * 2, [Dataset(), *items])))
    elif how == 1:
        other = draw.choice([t for t in where.keys() if DataElement(t, "UN", b"").keyword not in RENAMED])  # noqa: SIM118
        where[tag] = RawDataElement(tag, kind, 0, _value(where.get_item(other)), 0, False, True)
    elif kind in ("US", "SS", "UL", "SL") or how == 2:
        size = 2 if kind in ("US", "SS") else 4
        number = (draw.choice(_WHOLE) % (1 << 8 * size)).to_bytes(size, "little")
        where[tag] = RawDataElement(tag, kind, 0, number * draw.choice((1, 1, 1, 2)), 0, False, True)
    elif how == 3:
        where[tag] = RawDataElement(tag, draw.choice(_VRS), 0, _value(held), 0, False, True)
    else:
        where[tag] = RawDataElement(tag, kind, 0, draw.choice(_TEXTS), 0, False, True)


def _nested(tag: int, depth: int) -> bytes:
    """An item that holds a sequence with an item that holds a sequence ..."""
    item, open_end = b"\xfe\xff\x00\xe0", b"\xff\xff\xff\xff"
    group, element = (tag >> 16).to_bytes(2, "little"), (tag & 0xFFFF).to_bytes(2, "little")
    return (item + open_end + group + element + b"SQ\0\0" + open_end) * depth


def _value(held: Any) -> bytes:
    if isinstance(held.value, bytes):
        return held.value
    return b"" if isinstance(held.value, Sequence) else str(held.value).encode()


# ---------------------------------------------------------------------------------------------------- the readers


def look(folder: Path) -> list[str]:
    """Do with every file of a folder all that the readers can; gives the lines of all refusals.

    Raises:
        Exception: Something other than a refusal.
    """
    said: list[str] = []

    def attempt(call: Callable[..., Any], *given: Any, **named: Any) -> Any:
        try:
            return call(*given, **named)
        except DataError as error:
            said.extend(error.problems)
            return None

    for straighten in (False, True):
        found = find_series(folder, straighten=straighten)
        said.extend(r.reason for r in found.refused)
        for series in found.series:
            attempt(read_series, series)
            said.extend(series.notes)
    attempt(series_of, folder)
    for path in sorted(folder.iterdir()):
        drawn = attempt(read_rtstruct, path)
        if drawn is not None:
            said.extend(drawn.notes)
            attempt(structures_mask, drawn, GRID, ["LN*=a", "*=b"], {"a": 1, "b": 2}, strict=False, on_note=said.append)
        segments = attempt(read_seg, path)
        if segments is not None:
            attempt(
                segments_mask, segments, GRID, ["LN*=a", "*=b"], {"a": 1, "b": 2}, strict=False, on_note=said.append
            )
            for segment in segments.segments[:3]:
                attempt(segment_mask, segments, segment.number, GRID)
    return said


def attack(files: dict[str, bytes], seed: int, folder: Path) -> list[str]:
    """Damage one file of a folder, or all of them alike, and look at it."""
    names = sorted(files)
    hit = names if seed % 3 == 0 else [names[seed % len(names)]]
    for name in names:
        (folder / name).write_bytes(damaged(files[name], seed) if name in hit else files[name])
    return look(folder)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, bytes]]:
    def of(base: str) -> dict[str, bytes]:
        folder = tmp_path_factory.mktemp("base") / "files"
        BASES[base](folder)
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    return of


@pytest.mark.parametrize("base", BASES)
def test_damage_is_refused_in_a_line_or_read(files, tmp_path, base):
    whole = files(base)
    for seed in range(SEEDS):
        start = time.perf_counter()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            said = attack(whole, seed, tmp_path)
        assert time.perf_counter() - start < 5, seed
        assert [str(w.message) for w in warned] == [], seed
        for line in said:
            assert line.isprintable(), (seed, line)
            assert len(line) < MAX_LINE, (seed, line)
            assert "Doe" not in line, (seed, line)


@pytest.mark.parametrize("base", BASES)
def test_without_damage_nothing_is_refused(files, tmp_path, base):
    for name, content in files(base).items():
        (tmp_path / name).write_bytes(content)
    found = find_series(tmp_path)
    assert found.refused == ()
    if base.startswith("SEG"):
        masks = [segment_mask(read_seg(path), k, GRID) for path in tmp_path.iterdir() for k in (1, 2)]
        assert [int(m.sum()) for m in masks] == [int((k == MASK).sum()) for k in (1, 2)]
    elif base == "RTSTRUCT":
        drawn = read_rtstruct(tmp_path / "rs.dcm")
        assert np.array_equal(structures_mask(drawn, GRID, ["LN=LN", "GTVn=GTVn"], LABELS), MASK)
    else:
        assert read_series(found.series[0]).shape == GRID.shape

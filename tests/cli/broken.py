"""Broken DICOM as clinics send it: each builder writes one kind of it into a folder."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, HTJ2KLossless, JPEG2000Lossless

from lnsegfm.imaging.dicom.seg_write import write_seg
from lnsegfm.imaging.dicom.series import series_of
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.grid import Grid
from tests.datasets.convert.clinic import GRID, NODE, filled, rtstruct, scan
from tests.imaging.dicom.scanner import write_series

UID, FRAME, STUDY = "1.2.3", "1.9", "1.2"
SECRETS = ("Sally", "Secret", "MRN4711", "19660606")
PATIENT = {"PatientName": "Secret^Sally", "PatientID": "MRN4711", "PatientBirthDate": "19660606"}
LABELS = {"LN": 1}
Build = Callable[[Path], Path | None]
"""Writes into a folder that is there; gives the input where it is not the folder itself."""


def ct(folder: Path, **more: object) -> list[Path]:
    tags = {"SeriesInstanceUID": UID, "StudyInstanceUID": STUDY, "FrameOfReferenceUID": FRAME, **PATIENT, **more}
    return write_series(folder / "ct", scan(), GRID, **tags)


def contours(folder: Path, rois: object = None, *, series_uid: str = UID, frame: str = FRAME, **tags: object) -> Path:
    path = folder / "rs.dcm"
    names = {"PatientName": PATIENT["PatientName"], "PatientID": PATIENT["PatientID"]}
    rois = {"LN": NODE} if rois is None else rois
    rtstruct(path, rois, series_uid=series_uid, frame_uid=frame, **names, **tags)  # type: ignore[arg-type]
    return path


def healthy(folder: Path) -> None:
    """A series of another patient, with a structure and a segmentation of it."""
    uids = {"SeriesInstanceUID": "1.1", "StudyInstanceUID": "1.11", "FrameOfReferenceUID": "1.8"}
    write_series(folder / "ct", scan(5), GRID, PatientID="other", PatientName="Other^One", **uids)
    rtstruct(folder / "rs.dcm", {"LN": NODE}, series_uid="1.1", frame_uid="1.8")


# ------------------------------------------------------------------------------------------------------ series


def series(change: Callable[[Dataset, int], None] | None = None, **tags: object) -> Build:
    def build(folder: Path) -> None:
        ct(folder, change=change, **tags)

    return build


def rewritten(rewrite: Callable[[Dataset], None]) -> Build:
    """The third slice changed."""

    def build(folder: Path) -> None:
        file = ct(folder)[2]
        data = pydicom.dcmread(file)
        rewrite(data)
        data.save_as(file)

    return build


def without(*slices: int) -> Build:
    def build(folder: Path) -> None:
        files = ct(folder)
        for k in slices:
            files[k].unlink()

    return build


def position(of: Callable[[int], float], axis: int = 2) -> Build:
    def change(data: Dataset, k: int) -> None:
        data.ImagePositionPatient[axis] = round(of(k), 4)

    return series(change)


def two_images(folder: Path) -> None:
    ct(folder / "a")
    uids = {"SeriesInstanceUID": UID, "StudyInstanceUID": STUDY, "FrameOfReferenceUID": FRAME}
    write_series(folder / "b", scan(1), GRID, **uids, **PATIENT)


def colour(data: Dataset, _: int) -> None:
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.PixelData = data.PixelData * 3


def one_slice(**tags: object) -> Callable[[Dataset, int], None]:
    def change(data: Dataset, k: int) -> None:
        for key, value in tags.items() if k == 2 else ():
            setattr(data, key, value)

    return change


def cut(keep: int) -> Build:
    """The third slice without its end."""

    def build(folder: Path) -> None:
        file = ct(folder)[2]
        file.write_bytes(file.read_bytes()[:keep])

    return build


def frames_contradict(data: Dataset) -> None:
    data.NumberOfFrames, data.PixelData = 3, data.PixelData * 3
    data.PerFrameFunctionalGroupsSequence = [Dataset()]
    del data.ImagePositionPatient


def deflated(data: Dataset) -> None:
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.PixelData = b"\0" * (1 << 22)


def compressed(uid: str, content: bytes) -> Callable[[Dataset], None]:
    def rewrite(data: Dataset) -> None:
        data.PixelData = encapsulate([content])
        data.file_meta.TransferSyntaxUID = uid
        data["PixelData"].is_undefined_length = True

    return rewrite


def no_slope(data: Dataset) -> None:
    del data.RescaleSlope


def electron_density(data: Dataset) -> None:
    data.RescaleType = "ED"


def odd_bits(data: Dataset) -> None:
    data.BitsStored, data.HighBit = 12, 15


def smaller(folder: Path) -> None:
    """What happens to a file between finding and reading it."""
    file = folder / "ct" / "0002.dcm"
    data = pydicom.dcmread(file)
    data.Rows, data.PixelData = 4, data.PixelData[: 4 * data.Columns * 2]
    data.save_as(file)


SERIES: dict[str, Build] = {
    "gap": without(2),
    "spacing-changes": position(lambda k: 100 + 3 * k if k < 3 else 106 + 5 * (k - 2)),
    "spacing-drifts": position(lambda k: 100 + 3 * k + 0.03 * k * k),
    "two-images": two_images,
    "tilt": position(lambda k: -8 + 3 * k * 0.268, axis=1),
    "sideways": position(lambda k: -8 + 2 * (k == 2), axis=1),
    "one-slice": without(1, 2, 3, 4),
    "localiser": series(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
    "planes-apart": series(lambda data, k: setattr(data, "PixelSpacing", [1 + k, 1])),
    "no-position": series(ImagePositionPatient=None),
    "no-spacing": series(PixelSpacing=None),
    "slanted-axes": series(ImageOrientationPatient=[1, 0, 0, 0.5, 0.866, 0]),
    "colour": series(colour),
    "patients": series(one_slice(PatientID="MRN4711-2")),
    "studies": series(one_slice(StudyInstanceUID="1.3")),
    "cut-short": cut(-60),
    "no-pixels": series(one_slice(PixelData=b"")),
    "frames-contradict": rewritten(frames_contradict),
    "deflated-bomb": rewritten(deflated),
    "no-permission": series(),
    "undecodable": rewritten(compressed(JPEG2000Lossless, b"\xff\x4f\xff\x51" + b"\0" * 60)),
    "unknown-compression": rewritten(compressed(HTJ2KLossless, b"nothing.")),
    "video": rewritten(compressed("1.2.840.10008.1.2.4.100", b"nothing.")),
    "no-slope": rewritten(no_slope),
    "electron-density": rewritten(electron_density),
    "odd-bits": rewritten(odd_bits),
    "changed": series(),
}
"""A CT series that cannot be used: the only one of its folder, in ``ct`` or in two folders."""

# --------------------------------------------------------------------------------------- structures and segments


def drawn(rois: object = None, then: Callable[[Dataset], None] | None = None, **more: object) -> Build:
    """A healthy series and a broken structure set."""

    def build(folder: Path) -> None:
        ct(folder)
        path = contours(folder, rois, **more)  # type: ignore[arg-type]
        if then is not None:
            data = pydicom.dcmread(path)
            then(data)
            data.save_as(path)

    return build


def first_contour(data: Dataset) -> Dataset:
    return data.ROIContourSequence[0].ContourSequence[0]


def coordinates(value: Callable[[list[str]], list[str]]) -> Callable[[Dataset], None]:
    def change(data: Dataset) -> None:
        contour = first_contour(data)
        words = "\\".join(value([str(v) for v in contour.ContourData]))
        contour.add(pydicom.DataElement("ContourData", "DS", words, already_converted=True))

    return change


def one_number(data: Dataset) -> None:
    for item in data.StructureSetROISequence:
        item.ROINumber = 1


def cut_structures(folder: Path) -> None:
    ct(folder)
    path = contours(folder)
    path.write_bytes(path.read_bytes()[:-200])


STRUCTURES: dict[str, Build] = {
    "rt-empty": drawn({}),
    "rt-no-match": drawn({"Heart": NODE}),
    "rt-other-series": drawn(series_uid="1.77", frame="1.78"),
    "rt-other-frame": drawn(frame="1.78"),
    "rt-oblique": drawn(tilt_mm=2.9),
    "rt-beyond": drawn({"LN": ((40, 42), (5, 8), (6, 10))}),
    "rt-beside": drawn({"LN": ((1, 3), (5, 8), (600, 610))}),
    "rt-not-finite": drawn(then=coordinates(lambda v: ["nan", *v[1:]])),
    "rt-words": drawn(then=coordinates(lambda v: ["here", *v[1:]])),
    "rt-not-threes": drawn(then=coordinates(lambda v: v[:-1])),
    "rt-one-number": drawn({"LN": NODE, "Heart": NODE}, one_number),
    "rt-no-contour": drawn({"LN": None}),
    "rt-cut-short": cut_structures,
}


def segmented(change: Callable[[Dataset], None] | None = None, grid: Grid = GRID, cut_to: int | None = None) -> Build:
    """A healthy series and a broken segmentation of it."""

    def build(folder: Path) -> None:
        ct(folder)
        source = series_of(folder / "ct")
        if grid is not GRID:
            source = Series(UID, STUDY, FRAME, "CT", "", 3, "", source.slices, grid)
        path = folder / "seg.dcm"
        write_seg(path, filled(NODE).astype(np.uint8), LABELS, source)
        data = pydicom.dcmread(path)
        data.ContentDate = "20300101"  # newer than any structure set
        data.SegmentSequence[0].SegmentAlgorithmType = "MANUAL"  # what an algorithm drew is no reference
        if change is not None:
            change(data)
        data.save_as(path)
        if cut_to is not None:
            path.write_bytes(path.read_bytes()[:cut_to])

    return build


def seg_twice(data: Dataset) -> None:
    data.SegmentSequence = [data.SegmentSequence[0], data.SegmentSequence[0]]


def seg_unplaced(data: Dataset) -> None:
    for item in data.PerFrameFunctionalGroupsSequence:
        del item.PlanePositionSequence


def seg_of_another_frame(data: Dataset) -> None:
    """And off the slices whose images it names: on them, it would be taken."""
    data.FrameOfReferenceUID = "1.78"
    for item in data.PerFrameFunctionalGroupsSequence:
        x, y, z = item.PlanePositionSequence[0].ImagePositionPatient
        item.PlanePositionSequence[0].ImagePositionPatient = [x, y, z + 1]


def seg_without_frames(data: Dataset) -> None:
    data.NumberOfFrames = 0
    del data.PixelData


SEGMENTS: dict[str, Build] = {
    "seg-other-frame": segmented(seg_of_another_frame),
    "seg-other-grid": segmented(grid=Grid(GRID.shape, GRID.spacing_mm, (-10.5, -8.0, 100.0))),
    "seg-unknown-type": segmented(lambda data: setattr(data, "SegmentationType", "SURFACE")),
    "seg-no-frames": segmented(seg_without_frames),
    "seg-unplaced": segmented(seg_unplaced),
    "seg-one-number": segmented(seg_twice),
    "seg-cut-short": segmented(cut_to=-40),
    "seg-cut-in-header": segmented(cut_to=1200),
}

# ----------------------------------------------------------------------------------------------- files and zips


def junk(folder: Path) -> None:
    (folder / "IM0001.dcm").write_bytes(b"this is no DICOM file " * 30)


def empty_file(folder: Path) -> Path:
    (folder / "IM0001.dcm").write_bytes(b"")
    return folder / "IM0001.dcm"


def damaged_file(folder: Path) -> None:
    noise = np.random.default_rng(1).bytes(500)
    (folder / "IM0001.dcm").write_bytes(b"\0" * 128 + b"DICM" + noise)


def other_modality(folder: Path) -> None:
    ct(folder, Modality="MR")


def zipped(*members: tuple[str, bytes]) -> Build:
    def build(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "export.zip", "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in members:
                file.writestr(name, content)
        return folder / "export.zip"

    return build


def zip_link(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "export.zip", "w") as file:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(info, "/etc/passwd")
    return folder / "export.zip"


def zip_encrypted(folder: Path) -> Path:
    path = zipped(("a", b"x"))(folder)
    assert path is not None
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    return path


def zip_damaged(folder: Path) -> Path:
    path = zipped(("a", bytes(range(256)) * 40))(folder)
    assert path is not None
    content = bytearray(path.read_bytes())
    content[60:70] = b"\xff" * 10
    path.write_bytes(content)
    return path


FILES: dict[str, Build] = {
    "nothing-there": lambda folder: folder / "none",
    "empty-folder": lambda _: None,
    "junk": junk,
    "empty-file": empty_file,
    "damaged-file": damaged_file,
    "other-modality": other_modality,
    "zip-outside": zipped(("good", b"1"), ("../evil", b"x")),
    "zip-link": zip_link,
    "zip-encrypted": zip_encrypted,
    "zip-damaged": zip_damaged,
    "zip-too-large": zipped(("bomb", bytes(1 << 22))),
    "zip-empty": zipped(),
}

# ---------------------------------------------------------------------------------------------------------- lists


def listed(lines: Iterable[str], *, encoding: str = "utf-8") -> Build:
    """A CSV, beside a healthy series in ``good`` that its lines may name."""

    def build(folder: Path) -> Path:
        (folder / "list.csv").write_bytes("\n".join([*lines, ""]).encode(encoding))
        return folder / "list.csv"

    return build


LISTS: dict[str, tuple[Build, Build | None]] = {
    "csv-no-column": (listed(["file,case", "good,a"]), None),
    "csv-empty": (listed(["path,case"]), None),
    "csv-not-utf8": (listed(["path,case", "Müller,a"], encoding="latin-1"), None),
    "csv-no-file": (listed(["path,case", "none,a"]), listed(["path,case", "good,b", "none,a"])),
    "csv-no-path": (listed(["path,case", ",a"]), listed(["path,case", "good,b", ",a"])),
    "csv-one-name": (listed(["path,case", "none,a"]), listed(["path,case", "good,a", "good,a"])),
}
"""A list alone, and one that names a healthy series, too."""

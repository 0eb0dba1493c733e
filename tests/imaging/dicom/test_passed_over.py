"""What a study has besides its scans: passed over with its reason and no fault, unless a slice is lost by it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.uid import SecondaryCaptureImageStorage

from lnsegfm.datasets.doctor.dicom_diagnosis import diagnose_tree
from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.series import find_series
from lnsegfm.imaging.grid import Grid
from lnsegfm.prediction.case_names import Names
from lnsegfm.prediction.inputs import find_inputs
from tests.imaging.dicom.planes import counted, plane, sort, stack
from tests.imaging.dicom.scanner import write_series

SCAN = stack(3.0 * np.arange(12))
FRONTAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def other(k: int = 0, height: float = 15.0, **more):
    """An image of another series of the study."""
    return plane(height, 200 + k, **{"series_uid": "1.2.9", "pixels": f"other {k}", **more})


BESIDE = {
    "a localiser": ([other(image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"), orientation=FRONTAL)], "localisers"),
    "a topogram": ([other(image_type=("ORIGINAL", "PRIMARY", "LOCALIZER", "CT_SOM5 TOP"))], "localisers"),
    "a survey": (
        [other(image_type=("DERIVED", "SECONDARY", "REF_SURVIEW")), other(1, orientation=FRONTAL)],
        "localisers",
    ),
    "a scout in a frontal plane that no type tells": ([other(orientation=FRONTAL, rows=800, columns=512)], "1 slice"),
    "a scout without a position": (
        [other(image_type=("ORIGINAL", "PRIMARY", "SCOUT"), position_mm=None)],
        "localisers",
    ),
    "a dose report": (
        [other(sop_class_uid=SecondaryCaptureImageStorage, position_mm=None, orientation=None, bits=8)],
        "secondary captures",
    ),
    "a multi-frame secondary capture": (
        [other(sop_class_uid=f"{SecondaryCaptureImageStorage}.4", position_mm=None, samples=3)],
        "colour images",
    ),
    "a page by its type": (
        [other(image_type=("DERIVED", "SECONDARY", "DOSE_INFO"), position_mm=None, pixel_spacing_mm=None)],
        "pages without a place",
    ),
    "a page by its name": ([other(description="Patient Protocol", position_mm=None)], "pages without a place"),
    "colour pages": ([other(samples=3, bits=8), other(1, samples=3, position_mm=None)], "colour images"),
    "a premonitoring image": ([other()], "1 slice (such as a premonitoring image)"),
    "monitoring": (
        [other(k, hints={"AcquisitionNumber": str(k), "ContentTime": f"1000{k:02d}"}) for k in range(8)],
        "8 images at one position",
    ),
    "monitoring with nothing that tells times apart": ([other(k) for k in range(5)], "5 images at one position"),
    "a test scan": ([other(k, 200.0 + 5 * k) for k in range(3)], "3 slices (such as a test scan)"),
    "a test scan of uneven slices": ([other(k, z) for k, z in enumerate((200, 205, 230))], "3 slices"),
    "a perfusion": (
        [other(20 * t + z, 200.0 + 5 * z, hints={"AcquisitionNumber": str(t)}) for t in range(20) for z in range(4)],
        "80 images in 20 small stacks",
    ),
    "rotated views": (
        [other(k, orientation=(1.0, 0.0, 0.0, 0.0, float(np.cos(k)), float(np.sin(k)))) for k in range(30)],
        "30 images, each in another plane (such as rotated views)",
    ),
    "more rotated views": (
        [other(k, orientation=(1.0, 0.0, 0.0, 0.0, float(np.cos(k)), float(np.sin(k)))) for k in range(90)],
        "90 images, each in another plane (such as rotated views)",
    ),
    "a perfusion that nothing splits": (
        [other(20 * t + z, 200.0 + 5 * z) for t in range(20) for z in range(8)],
        "160 images at 8 positions (a time series",
    ),
}


@pytest.mark.parametrize("kind", BESIDE)
def test_it_is_told_and_no_fault(kind):
    images, words = BESIDE[kind]
    series, refused = sort([*SCAN, *images])
    assert [len(s.slices) for s in series] == [12]
    assert series[0].notes == ()
    assert refused
    assert all(r.harmless for r in refused)
    assert words in refused[0].reason
    assert "again" not in " ".join(r.reason for r in refused)
    assert counted(series, refused) == 12 + len(images)


@pytest.mark.parametrize("kind", BESIDE)
def test_it_is_told_in_the_scans_own_series_too(kind):
    images, _ = BESIDE[kind]
    if len(images) > 4:  # of the same series they are phases of the scan, or contradict it
        return
    images = [
        replace(image, series_uid="1.2.3", position_mm=image.position_mm and (9.0, 9.0, 1000.0)) for image in images
    ]
    series, refused = sort([*SCAN, *images])
    if all(r.harmless for r in refused):
        assert [len(s.slices) for s in series] == [12]
    assert counted(series, refused) == 12 + len(images)


@pytest.mark.parametrize(
    "kind", ["a premonitoring image", "monitoring", "a test scan of uneven slices", "a perfusion that nothing splits"]
)
def test_without_a_scan_beside_it_stays_a_fault(kind):
    images, _ = BESIDE[kind]
    for others in ([], [replace(p, study_uid="7") for p in SCAN], SCAN[:4]):
        _, refused = sort([*others, *images])
        assert [r.harmless for r in refused] == [False]


def test_a_small_series_alone_is_a_series():
    images, _ = BESIDE["a test scan"]
    assert [len(s.slices) for s in sort(images)[0]] == [3]
    assert [len(s.slices) for s in sort([*images, *SCAN[:7]])[0]] == [7, 3]


LOST = {
    "its slice after the last, in another series": [other(height=36.0)],
    "its slice before the first, called a localiser": [
        plane(-3.0, 300, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")),
    ],
    "its last slice in colour": [plane(36.0, 300, samples=3)],
    "its last slice without a position": [plane(0, 300, position_mm=None)],
    "its last slice without an orientation": [plane(36.0, 300, orientation=None)],
    "its last slice without spacing": [plane(36.0, 300, pixel_spacing_mm=None)],
    "its last slice of another size": [plane(36.0, 300, rows=400)],
}


@pytest.mark.parametrize("kind", LOST)
def test_what_is_a_slice_of_the_scan_is_a_fault(kind):
    series, refused = sort([*SCAN, *LOST[kind]])
    assert any(not r.harmless for r in refused)
    assert counted(series, refused) == 13


def test_many_slices_are_never_harmless():
    """Noise beyond all tolerance: no volume is left of it, and nothing is called harmless."""
    rng = np.random.default_rng(0)
    planes = [replace(p, orientation=(1.0, 0.0, 0.0, 0.0, *tilted)) for p in SCAN for tilted in [_tilted(rng)]]
    series, refused = sort(planes)
    assert series == []
    assert not any(r.harmless for r in refused)
    for kept in (2, 4, 6):
        changed = [replace(p, rows=300 + k) if k >= kept else p for k, p in enumerate(SCAN)]
        changed = [
            replace(p, position_mm=(0.0, 0.0, float(rng.uniform(0, 99)))) if k >= kept else p
            for k, p in enumerate(changed)
        ]
        series, refused = sort(changed)
        assert any(not r.harmless for r in refused)
        assert counted(series, refused) == 12


def _tilted(rng) -> tuple[float, float]:
    angle = rng.uniform(-0.3, 0.3)
    return float(np.cos(angle)), float(np.sin(angle))


# ----------------------------------------------------------------------------------------- through the commands

GRID = Grid((12, 8, 9), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0))
HU = np.random.default_rng(0).integers(-900, 900, GRID.shape)
STUDY = {"StudyInstanceUID": "1.2", "FrameOfReferenceUID": "1.7"}


def study(folder, scan=True):
    if scan:
        write_series(folder / "ct", HU, GRID, SeriesInstanceUID="1.2.3", **STUDY)
    write_series(folder / "pre", HU[4:5], GRID, SeriesInstanceUID="1.2.4", **STUDY)
    frontal = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImageOrientationPatient": list(FRONTAL)}
    write_series(folder / "topo", HU[:1], GRID, SeriesInstanceUID="1.2.5", **frontal, **STUDY)

    def here(data, k):
        data.ImagePositionPatient = [0, 0, 15]
        data.AcquisitionNumber = k

    write_series(folder / "bolus", HU[:6], GRID, SeriesInstanceUID="1.2.6", change=here, **STUDY)
    (report,) = write_series(folder / "dose", HU[:1], GRID, SeriesInstanceUID="1.2.7", ImagePositionPatient=None,
                             ImageOrientationPatient=None, PixelSpacing=None, **STUDY)  # fmt: skip
    data = pydicom.dcmread(report)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    data.save_as(report)


def test_check_gives_notes(tmp_path):
    study(tmp_path)
    found = [f for f in diagnose_tree(tmp_path).findings if f.kind == "series"]
    assert sorted(f.case for f in found) == ["1.2.4", "1.2.5", "1.2.6", "1.2.7"]
    assert {f.severity for f in found} == {"note"}
    assert not any("again" in f.remedy for f in found)


def test_predict_fails_nothing(tmp_path):
    study(tmp_path)
    with find_inputs(tmp_path, 1, names=Names.SERIES) as scans:
        assert len(scans.cases) == 1
        assert scans.refused == ()


def test_where_nothing_is_left_each_reason_is_told(tmp_path):
    study(tmp_path, scan=False)
    assert find_series(tmp_path).series == ()
    with pytest.raises(DataError) as error, find_inputs(tmp_path, 1):
        pass
    lines = str(error.value).splitlines()
    assert [line.split()[1].rstrip(":") for line in lines] == ["1.2.4", "1.2.5", "1.2.6", "1.2.7"]
    assert "has 1 slice: a volume needs at least two" in lines[0]

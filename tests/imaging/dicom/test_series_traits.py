"""What tells the series of a study apart is read off their headers, whichever slice comes first."""

from __future__ import annotations

import random
from datetime import datetime

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from scipy.spatial.transform import Rotation

from lnsegfm.imaging.dicom.series import series_of
from lnsegfm.imaging.dicom.series_traits import PlaneTraits, frame_traits, plane_name, plane_traits, series_traits
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.scanner import write_series

GRID = Grid((4, 6, 6), (2.0, 1.0, 1.0), (0.0, 0.0, 0.0))


def test_the_traits_of_a_series_are_those_of_its_slices(tmp_path):
    def change(data, k):
        data.AcquisitionTime = f"10111{k}.250000"
        data.AcquisitionNumber = 3 + k // 2

    write_series(
        tmp_path, np.zeros(GRID.shape), GRID, change=change,
        ConvolutionKernel=["Br40d", "3"], SliceThickness="1.5", AcquisitionDate="20260401", ContrastBolusAgent="Io",
        IrradiationEventUID="1.2.3.4", BodyPartExamined="NECK", PatientPosition="FFP",
    )  # fmt: skip

    traits = series_of(tmp_path).traits

    first = (datetime(2026, 4, 1, 10, 11, 10) - datetime(1900, 1, 1)).total_seconds() + 0.25
    assert traits.acquired_s == (first, first + 3)
    assert traits.acquisition_numbers == (3, 4)
    assert (traits.plane, traits.thickness_mm, traits.step_mm, traits.resolution_mm) == ("axial", 1.5, 2.0, 2.0)
    assert (traits.kernel, traits.image_type) == (("Br40d", "3"), ("ORIGINAL", "PRIMARY", "AXIAL"))
    assert (traits.irradiation_events, traits.contrast, traits.kvp) == (("1.2.3.4",), "Io", 120.0)
    assert (traits.body_part, traits.manufacturer, traits.patient_position) == ("NECK", "Phantom", "FFP")
    assert not traits.derived


def test_nothing_in_the_headers_is_nothing_in_the_traits(tmp_path):
    absent = dict.fromkeys(("SliceThickness", "ImageType", "AcquisitionNumber", "KVP", "Manufacturer"))
    write_series(tmp_path, np.zeros(GRID.shape), GRID, **absent)

    traits = series_of(tmp_path).traits

    assert traits == series_traits([PlaneTraits()], GRID)
    assert (traits.thickness_mm, traits.resolution_mm, traits.acquired_s) == (None, 2.0, None)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"AcquisitionDate": "2026", "AcquisitionTime": "soon"}, None),
        ({"AcquisitionTime": "1011"}, 10 * 3600 + 11 * 60.0),
        ({"AcquisitionTime": "101112.5"}, 10 * 3600 + 11 * 60 + 12.5),
        ({"AcquisitionDateTime": "19000102000000.5+0100"}, 86400.5),
        ({}, None),
    ],
)
def test_times(tags, expected):
    data = Dataset()
    for key, value in tags.items():
        data.add_new(key, "LO", value)  # as it is in the file, also where it breaks the standard
    assert plane_traits(data).acquired_s == expected


def test_a_frame_says_what_its_file_does_not():
    def group(sequence: str, **values: object) -> Dataset:
        item, outer = Dataset(), Dataset()
        for key, value in values.items():
            setattr(item, key, value)
        setattr(outer, sequence, Sequence([item]))
        return outer

    shared = group("CTReconstructionSequence", ConvolutionKernel="B31f", ConvolutionKernelGroup="SOFT_TISSUE")
    shared.update(group("PixelMeasuresSequence", SliceThickness=0.8))
    shared.update(group("CTXRayDetailsSequence", KVP=100))
    own = group("FrameContentSequence", FrameAcquisitionNumber=7, FrameAcquisitionDateTime="19000101000001")
    own.FrameContentSequence[0].TemporalPositionIndex = 2
    own.update(group("CTImageFrameTypeSequence", FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]))
    file = PlaneTraits(manufacturer="X", kernel=("B70f",), irradiation_events=("1.2",))

    traits = frame_traits(file, own, shared)

    assert traits == PlaneTraits(
        0.8,
        ("B31f",),
        "SOFT_TISSUE",
        ("ORIGINAL", "PRIMARY", "VOLUME", "NONE"),
        7,
        1.0,
        ("1.2",),
        "2",
        kvp=100.0,
        manufacturer="X",
    )
    assert frame_traits(file, Dataset(), None) == file


@pytest.mark.parametrize(
    ("normal", "tilted", "expected"),
    [
        ((0, 0, 1), False, "axial"),
        ((0, 0, -1), False, "axial"),
        ((0, -1, 0), False, "coronal"),
        ((1, 0, 0), False, "sagittal"),
        (Rotation.from_euler("x", 9, degrees=True).apply((0, 0, 1)), False, "axial"),
        (Rotation.from_euler("x", 12, degrees=True).apply((0, 0, 1)), False, "oblique"),
        (Rotation.from_euler("x", 25, degrees=True).apply((0, 0, 1)), True, "axial"),
        (Rotation.from_euler("y", 25, degrees=True).apply((0, 0, 1)), True, "oblique"),  # no gantry turns this way
        (Rotation.from_euler("x", 45, degrees=True).apply((0, 0, 1)), True, "oblique"),
    ],
)
def test_planes_by_their_normal(normal, tilted, expected):
    assert plane_name(np.array(normal, float), tilted=tilted) == expected


def test_the_order_of_slices_makes_no_difference():
    planes = [
        PlaneTraits(kernel=("A",), thickness_mm=1.0, acquisition_number=2, acquired_s=5.0),
        PlaneTraits(kernel=("B",), thickness_mm=2.0, acquisition_number=1, acquired_s=2.0),
        PlaneTraits(kernel=(), irradiation_events=("1.9", "1.1")),
    ]
    expected = series_traits(planes, GRID)
    for seed in range(6):
        random.Random(seed).shuffle(planes)
        assert series_traits(planes, GRID) == expected
    assert (expected.kernel, expected.thickness_mm, expected.acquired_s) == (("A",), 1.0, (2.0, 5.0))

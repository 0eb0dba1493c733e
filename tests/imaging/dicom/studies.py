"""Studies as clinics have them: one scan in several series, and several scans."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import numpy as np
from pydicom.uid import generate_uid

from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.scanner import write_series

EXTENT_MM = 60.0
AXES = {
    "axial": np.eye(3),
    "coronal": np.array([(1, 0, 0), (0, 0, -1), (0, 1, 0)], float),  # rows from head to foot
    "sagittal": np.array([(0, 1, 0), (0, 0, -1), (-1, 0, 0)], float),
}
MPR = ["DERIVED", "SECONDARY", "MPR"]
MIP = ["DERIVED", "SECONDARY", "REFORMATTED", "MIP"]


def uid(*words: object) -> str:
    """The same UID for the same words."""
    return generate_uid(entropy_srcs=["studies", *map(str, words)])


def cube(plane: str, step: float, pixel: float = 5.0, size: float = EXTENT_MM, height: float = EXTENT_MM) -> Grid:
    """A grid over a cube about the origin, ``height`` mm high along the patient."""
    axes = AXES[plane]
    along = np.array([height if abs(axis[2]) > 0.5 else size for axis in axes])  # of x, y and z of the array
    spacing = np.array([pixel, pixel, step])
    shape = np.rint(along / spacing).astype(int)
    origin = -(axes * ((shape - 1) / 2 * spacing)[:, None]).sum(0)
    direction = tuple(float(v) for v in axes.T.ravel())
    x, y, z = (float(v) for v in origin)
    return Grid((int(shape[2]), int(shape[1]), int(shape[0])), (step, pixel, pixel), (x, y, z), direction)


def add(root: Path, name: str, *, plane: str = "axial", step: float = 3.0, **tags: object) -> str:
    """Add a series to a study; gives its UID.

    Args:
        root: Of the tree.
        name: Its folder; UIDs come from it.
        plane: Of its slices.
        step: Distance of its slices, and their thickness.
        tags: ``pixel``, ``size`` and ``height`` of the grid in mm; ``study`` and ``frame`` by a name; attributes.
    """
    grid = cube(plane, step, *(float(tags.pop(key, default)) for key, default in  # type: ignore[arg-type]
                               (("pixel", 5.0), ("size", EXTENT_MM), ("height", EXTENT_MM))))  # fmt: skip
    study, frame = tags.pop("study", "st"), tags.pop("frame", "fr")
    given = {
        "SeriesInstanceUID": uid(name), "StudyInstanceUID": uid(study), "FrameOfReferenceUID": uid(frame),
        "SeriesDescription": name, "SliceThickness": step, "ConvolutionKernel": "B31f",
        "AcquisitionDate": "20260401", "AcquisitionTime": "101010",
    } | tags  # fmt: skip
    dropped = {key for key, value in given.items() if value is None}
    kept = {key: value for key, value in given.items() if value is not None}
    hu = np.random.default_rng(crc32(name.encode())).integers(0, 80, grid.shape)
    absent = dict.fromkeys(dropped & {"AcquisitionNumber", "SliceThickness", "SeriesNumber", "KVP", "ImageType"})
    write_series(root / name, hu, grid, **kept, **absent)
    return str(kept["SeriesInstanceUID"])

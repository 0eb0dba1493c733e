"""Frames of a multi-frame CT are found whatever the offset tables say or leave out.

SimpleITK (GDCM) reads neither extended offset tables nor frames of several fragments.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from lnsegfm.imaging.dicom.decoding import DEFLATED_FRAMES, ENCAPSULATED
from lnsegfm.imaging.dicom.series import read_series, series_of
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.frame_encoders import ENCODERS, mark_deflated
from tests.imaging.dicom.test_seg import enhanced

GRID = Grid((5, 24, 32), (3.0, 0.8, 0.7))
HU = np.random.default_rng(0).integers(-1000, 3000, GRID.shape)
WAYS = {
    "a basic offset table": lambda frames: encapsulate(frames),
    "an empty offset table": lambda frames: encapsulate(frames, has_bot=False),
    "three fragments a frame": lambda frames: encapsulate(frames, fragments_per_frame=3),
    "an extended offset table": encapsulate_extended,
}


def multi_frame(folder: Path, syntax: str, way: str) -> Path:
    """Frames run against the normal."""
    folder.mkdir()
    enhanced(folder / "e.dcm", GRID, True)
    for file in (folder / "e-slices").iterdir():
        file.unlink()
    data = dcmread(folder / "e.dcm")
    frames = [ENCODERS[syntax]((plane + 1024).astype(np.uint16), 16) for plane in HU[::-1]]
    content = WAYS[way](frames)
    if isinstance(content, tuple):
        content, data.ExtendedOffsetTable, data.ExtendedOffsetTableLengths = content
    data.PixelData = content
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.file_meta.TransferSyntaxUID = ENCAPSULATED if syntax == DEFLATED_FRAMES else syntax
    data.save_as(folder / "e.dcm", enforce_file_format=True)
    if syntax == DEFLATED_FRAMES:
        mark_deflated([folder / "e.dcm"])
    return folder / "e.dcm"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless, DEFLATED_FRAMES, ENCAPSULATED])
def test_every_way(tmp_path, syntax, way):
    file = multi_frame(tmp_path / "ct", syntax, way)
    np.testing.assert_array_equal(read_series(series_of(tmp_path / "ct")), HU)
    if syntax not in (DEFLATED_FRAMES, ENCAPSULATED) and way not in (
        "an extended offset table",
        "three fragments a frame",
    ):
        stored = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
        np.testing.assert_array_equal(np.sort(stored, axis=None), np.sort(HU, axis=None))

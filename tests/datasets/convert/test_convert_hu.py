"""What the doctor says of a scan's HU, the conversion says as well: one judgement, in both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lnsegfm.datasets.convert import ConversionOptions, card_of, convert
from lnsegfm.datasets.doctor.dicom_diagnosis import diagnose_tree
from lnsegfm.imaging.grid import Grid
from tests.datasets.convert.clinic import NODE, rtstruct, scan
from tests.imaging.dicom.scanner import write_series

GRID = Grid((12, 24, 30), (3.0, 1.0, 1.0), (-10.0, -8.0, 100.0))
BODY = scan(1, GRID.shape)
SHIFTED = {
    "HU": (BODY, {}, None),
    "stored values": (BODY, {"RescaleIntercept": 0}, "24"),
    "8192 too high": (BODY, {"RescaleIntercept": 7168}, "no air: the lowest value is 7192 HU"),
    "a slope of 2": (BODY, {"RescaleSlope": 2}, "the commonest value of what is no air is"),
    "no air": (np.where(BODY < 0, 600, BODY), {}, "no air: the lowest value is"),
    "a window": (np.clip(BODY, -160, 240), {}, ""),
}


def converted(root: Path, out: Path) -> tuple[str, ...]:
    options = ConversionOptions(roi=("LN=ln",), keep_names=True)
    return convert(card_of("dicom"), root, out, options).notes


@pytest.mark.parametrize("kind", SHIFTED)
def test_what_check_calls_wrong_is_a_note_of_the_case(tmp_path, kind):
    hu, tags, line = SHIFTED[kind]
    write_series(tmp_path / "in" / "ct", hu, GRID, SeriesInstanceUID="1.2.3", FrameOfReferenceUID="1.9", **tags)
    rtstruct(tmp_path / "in" / "rs.dcm", {"LN": NODE}, series_uid="1.2.3", frame_uid="1.9")
    said = converted(tmp_path / "in", tmp_path / "out")
    found = [f for f in diagnose_tree(tmp_path / "in").findings if f.kind.startswith("hu-") and f.severity == "warning"]
    assert len(said) == len(found)
    assert all(any(f.what in note and f.remedy in note for f in found) for note in said)
    assert (line is None) == (not said)
    assert line is None or any(line in note for note in said)
    assert converted(tmp_path / "in", tmp_path / "out") == said  # the case is kept, and its notes are said again

"""Structures in every form that they are written in, read by our reader, plastimatch and the definition of inside."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lnsegfm.imaging.dicom import rtstruct_contours
from lnsegfm.imaging.dicom.contours import fill_polygons
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.rtstruct_contours import plane_contours
from lnsegfm.imaging.dicom.rtstruct_options import RtstructOptions, Thinning
from lnsegfm.imaging.dicom.rtstruct_profiles import PROFILES
from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.rtstruct_write import write_rtstruct
from lnsegfm.imaging.dicom.series import series_of
from lnsegfm.imaging.dicom.structure_masks import roi_mask
from tests.imaging.dicom.test_rtstruct import GRIDS, LABELS, ball, nodes, scanned
from tests.imaging.dicom.test_uneven_stack import uneven

FORMS = {
    f"{profile}, {holes}, {thin or 'exact'}": RtstructOptions(
        profile=profile, holes=holes, thin=Thinning.of(thin) if thin else None
    )
    for profile in PROFILES
    for holes in ("separate", "keyhole")
    for thin in ("", "0.5", "1.5,0.05")
    if not (profile in ("raystation", "monaco") and thin == "0.5")
}
EXACT = {name: options for name, options in FORMS.items() if options.thin is None}
SOURCES: dict[str, Any] = {}


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Any:
    def of(name: str) -> Any:
        if name not in SOURCES:
            SOURCES[name] = scanned(tmp_path_factory.mktemp("series"), GRIDS[name])
        return SOURCES[name]

    return of


def rasterised(path: Path, grid: Any, rule: str) -> dict[str, np.ndarray]:
    """The file by pydicom, SimpleITK's geometry, and the definition of inside: crossings of a ray from each centre.

    Args:
        rule: ``odd``: an odd number of crossings; ``nonzero``: those to one side less those to the other are not 0.
    """
    image = sitk.Image(*reversed(grid.shape), sitk.sitkUInt8)
    image.SetSpacing(grid.spacing_mm[::-1])
    image.SetOrigin(grid.origin_mm)
    image.SetDirection(grid.direction)
    data = pydicom.dcmread(path)
    names = {item.ROINumber: item.ROIName for item in data.StructureSetROISequence}
    turns = {name: np.zeros(grid.shape, dtype=int) for name in names.values()}
    rows, columns = np.arange(grid.shape[1]), np.arange(grid.shape[2])
    for item in data.ROIContourSequence:
        for contour in item.ContourSequence:
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
            index = np.array([image.TransformPhysicalPointToContinuousIndex(p) for p in points.tolist()])
            plane = turns[names[item.ReferencedROINumber]][round(float(index[:, 2].mean()))]
            for (x0, y0), (x1, y1) in zip(index[:, :2], np.roll(index[:, :2], -1, axis=0), strict=True):
                crossed = (rows >= min(y0, y1)) & (rows < max(y0, y1))
                at = x0 + (rows[crossed] - y0) / (y1 - y0) * (x1 - x0) if crossed.any() else rows[crossed]
                beyond = columns[None] > at[:, None]
                plane[crossed] += beyond * (1 if y1 > y0 or rule == "odd" else -1)
    return {name: (t % 2 == 1) if rule == "odd" else (t != 0) for name, t in turns.items()}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("form", EXACT)
def test_every_form_gives_the_mask_back_to_the_voxel(form: str, name: str, series: Any, tmp_path: Path) -> None:
    source, options = series(name), FORMS[form]
    mask = nodes(source.grid)
    write_rtstruct(tmp_path / "rs.dcm", mask, LABELS, source, options=options)

    structures = read_rtstruct(tmp_path / "rs.dcm")
    for roi in structures.rois:
        assert np.array_equal(roi_mask(roi, source.grid), mask == LABELS[roi.name])
    rules = ("odd", "nonzero") if options.holes == "keyhole" else ("odd",)
    for rule in rules if name in ("axial", "oblique") else ():
        for label, voxels in rasterised(tmp_path / "rs.dcm", source.grid, rule).items():
            assert np.array_equal(voxels, mask == LABELS[label]), (rule, label)


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.data())
def test_any_mask_in_any_form(form: str, series: Any, tmp_path: Path, drawn: st.DataObject) -> None:
    source, options = series(drawn.draw(st.sampled_from(("oblique", "anisotropic", "sagittal")))), FORMS[form]
    part = drawn.draw(arrays(np.bool_, (2, 7, 8)).filter(np.any))
    mask = np.zeros(source.grid.shape, dtype=np.uint8)
    mask[3:5, 10:17, 20:28] = part

    written = write_rtstruct(tmp_path / "rs.dcm", mask, {"node": 1}, source, options=options)

    again = roi_mask(read_rtstruct(tmp_path / "rs.dcm").rois[0], source.grid)
    if options.thin is None:
        assert np.array_equal(again, mask == 1)
    else:
        change = (int(again.sum()) - int(mask.sum())) / int(mask.sum())
        assert abs(change) <= options.thin.share
        assert written.differences["node"].volume == change
        assert written.differences["node"].voxels == np.count_nonzero(again != (mask == 1))


@pytest.mark.parametrize("holes", ["separate", "keyhole"])
def test_thinned_contours_have_fewer_points_within_their_bounds(holes: str, series: Any, tmp_path: Path) -> None:
    source = series("anisotropic")
    mask = ball(source.grid, (4, 30, 40), 28).astype(np.uint8)
    mask[ball(source.grid, (4, 30, 40), 14)] = 0
    options = RtstructOptions(holes=holes, thin=Thinning(0.3, 0.02))
    written = write_rtstruct(tmp_path / "rs.dcm", mask, {"shell": 1}, source, options=options).contours["shell"]
    exact = write_rtstruct(tmp_path / "exact.dcm", mask, {"shell": 1}, source, options=RtstructOptions(holes=holes))

    assert written.points < 0.6 * written.exact_points
    assert written.exact_points == exact.contours["shell"].points
    assert "thinned by up to 0.3 mm" in pydicom.dcmread(tmp_path / "rs.dcm").StructureSetDescription
    assert abs(int(roi_mask(read_rtstruct(tmp_path / "rs.dcm").rois[0], source.grid).sum()) / mask.sum() - 1) <= 0.02


@pytest.mark.parametrize(
    ("what", "message"),
    [("volume", "the volume of 'node' differs by"), ("distance", "a contour of 'node' is .* mm off")],
)
def test_thinning_beyond_its_bounds_is_not_written(
    what: str, message: str, series: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = series("axial")
    mask = ball(source.grid, (6, 22, 30), 20).astype(np.uint8)
    honest = rtstruct_contours.roi_contours

    def careless(*given: Any) -> Any:
        made = honest(*given)
        planes = []
        for k, polygons in made.planes:
            centre = polygons[0].mean(axis=0)
            moved = (polygons[0] - centre) * 1.2 + centre if what == "volume" else polygons[0] + (1.5, 0)
            planes.append((k, (moved,)))
        return rtstruct_contours.RoiContours(tuple(planes), made.points, made.exact_points)

    monkeypatch.setattr("lnsegfm.imaging.dicom.rtstruct_write.roi_contours", careless)
    with pytest.raises(DicomError, match=message):
        write_rtstruct(
            tmp_path / "rs.dcm", mask, {"node": 1}, source, options=RtstructOptions(thin=Thinning(0.5, 0.05))
        )
    assert not list(tmp_path.iterdir())


def test_contours_have_no_more_points_than_the_profile_takes(series: Any, tmp_path: Path) -> None:
    source = series("axial")
    comb = np.zeros(source.grid.shape, dtype=bool)
    comb[5, :, 1::4] = comb[5, -1] = True
    comb[5, ::2, 0::4] = comb[5, ::2, 2::4] = True
    for holes in ("separate", "keyhole"):
        options = RtstructOptions(profile="eclipse", holes=holes)
        write_rtstruct(tmp_path / "rs.dcm", comb, {"comb": 1}, source, options=options)
        roi = read_rtstruct(tmp_path / "rs.dcm").rois[0]
        assert len(roi.contours) > 1
        assert max(len(contour.points_mm) for contour in roi.contours) <= 1500
        assert np.array_equal(roi_mask(roi, source.grid), comb)
    for item in pydicom.dcmread(tmp_path / "rs.dcm").ROIContourSequence[0].ContourSequence:
        assert len(item.get_item("ContourData").value) <= 65534  # what an explicit transfer syntax holds


@given(arrays(np.bool_, (9, 8)), st.integers(4, 14), st.sampled_from(("separate", "keyhole")))
def test_contours_cut_to_any_number_of_points_hold_the_plane(plane: np.ndarray, points: int, holes: str) -> None:
    profile = replace(PROFILES["generic"], points=points, holes=holes)
    made = plane_contours(plane, profile)

    assert all(4 <= len(polygon) <= points for polygon in made)
    assert np.array_equal(fill_polygons(made, plane.shape), plane)


@pytest.mark.parametrize("holes", ["separate", "keyhole"])
@pytest.mark.parametrize("thin", ["", "0.5"])
def test_series_of_uneven_slice_distances(holes: str, thin: str, tmp_path: Path) -> None:
    uneven(tmp_path / "ct", (0.0, 2.0, 4.0, 7.0, 9.0, 14.0))
    source = series_of(tmp_path / "ct", resample_uneven=True)
    mask = np.zeros(source.grid.shape, dtype=np.uint8)
    mask[1:-1, 2:9, 3:9] = 1
    mask[2:-2, 4:6, 5:7] = 0
    options = RtstructOptions(holes=holes, thin=Thinning.of(thin) if thin else None)
    write_rtstruct(tmp_path / "rs.dcm", mask, {"node": 1}, source, options=options)
    added = RtstructOptions(holes=holes, add_to=tmp_path / "rs.dcm")
    write_rtstruct(tmp_path / "added.dcm", mask, {"node": 1}, source, options=added)

    heights = {position.position_mm[2] for position in source.slices}
    for contour in (c for roi in read_rtstruct(tmp_path / "added.dcm").rois for c in roi.contours):
        assert min(abs(contour.points_mm[0, 2] - height) for height in heights) < 1e-5


def test_short_names_are_in_the_file_and_the_full_ones_in_its_description(series: Any, tmp_path: Path) -> None:
    source = series("axial")
    labels = {"lymph_node_mediastinal": 1, "lymph_node_mediastinum": 2}
    mask = nodes(source.grid)
    written = write_rtstruct(tmp_path / "rs.dcm", mask, labels, source, options=RtstructOptions(short_names=True))

    items = pydicom.dcmread(tmp_path / "rs.dcm").StructureSetROISequence
    assert [(i.ROIName, i.ROIDescription) for i in items] == [
        ("lymph_node_media", "lymph_node_mediastinal"),
        ("lymph_node_med_2", "lymph_node_mediastinum"),
    ]
    assert written.names == {i.ROIDescription: i.ROIName for i in items}
    assert "Structure 'lymph_node_mediastinum' is called 'lymph_node_med_2' in the file." in written.notes


@pytest.mark.parametrize("form", FORMS)
def test_a_seed_gives_equal_bytes(form: str, series: Any, tmp_path: Path) -> None:
    source, when = series("oblique"), datetime(2026, 1, 2, 3, 4, 5)
    for name in ("a", "b"):
        write_rtstruct(tmp_path / name, nodes(source.grid), LABELS, source, stamp=when, seed="s", options=FORMS[form])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.skipif(shutil.which("plastimatch") is None, reason="plastimatch is not installed")
@pytest.mark.parametrize(
    ("holes", "how", "filled"),
    [
        ("separate", ("--xor-contours",), 0),
        ("separate", (), 20),
        ("keyhole", (), 0),
        ("keyhole", ("--xor-contours",), 0),
    ],
)
@pytest.mark.parametrize("name", ["axial", "anisotropic"])
def test_plastimatch_reads_the_mask_of_keyholes_and_fills_separate_holes_unless_asked(
    name: str, holes: str, how: tuple[str, ...], filled: int, series: Any, tmp_path: Path
) -> None:
    source = series(name)
    mask = nodes(source.grid)
    write_rtstruct(tmp_path / "rs.dcm", mask, LABELS, source, options=RtstructOptions(holes=holes))
    command = ["plastimatch", "convert", "--input", "rs.dcm", "--referenced-ct", str(source.slices[0].path.parent)]
    subprocess.run(
        [*command, *how, "--output-prefix", "out", "--prefix-format", "nrrd"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    read = {
        label: sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / f"{label}.nrrd"))) > 0
        for label in ("lymph_node", "tumour")
    }
    different = read["lymph_node"] ^ (mask == 1)
    assert (np.count_nonzero(different), np.count_nonzero(different & (mask == 1))) == (filled, 0)
    assert np.array_equal(read["tumour"], mask == 2)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed")
@pytest.mark.parametrize("form", FORMS)
def test_dciodvfy_has_no_error(form: str, series: Any, tmp_path: Path) -> None:
    write_rtstruct(tmp_path / "rs.dcm", nodes(GRIDS["axial"]), LABELS, series("axial"), options=FORMS[form])
    said = subprocess.run(["dciodvfy", "rs.dcm"], cwd=tmp_path, capture_output=True, text=True)
    assert [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")] == []

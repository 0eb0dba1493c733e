"""HECKTOR 2025 and LyNoS, on trees with the folders, names and file types that are published."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lnsegfm.datasets.check import check
from lnsegfm.datasets.convert import SETS, ConversionOptions, convert
from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.errors import DataError
from lnsegfm.imaging.files import read_mask, read_volume, write_mask, write_volume
from tests.datasets.convert.clinic import GRID, NODE, OTHER, filled, scan


def mask_of(out: Path, case: str) -> np.ndarray:
    return read_mask(out / "labelsTr" / f"{case}.nii.gz")[0]


def hecktor(folder: Path, case: str, *, seed: int = 0, mask: np.ndarray | None = None, grid=GRID) -> Path:
    """One patient as it is published: CT, PET on a grid of its own, mask."""
    place = folder / case
    write_volume(place / f"{case}__CT.nii.gz", scan(seed), GRID)
    write_volume(place / f"{case}__PT.nii.gz", scan(9)[:3], replace(GRID, shape=(3, *GRID.shape[1:])))
    if mask is not None:
        write_mask(place / f"{case}.nii.gz", mask, grid)
    return place


BOTH = filled(OTHER).astype(np.uint8) + 2 * filled(NODE).astype(np.uint8)


def test_hecktor_takes_ct_tumour_and_nodes_and_tells_the_pet(tmp_path):
    task, other = (tmp_path / "hecktor2025_training" / name for name in ("Task 1", "Task 2"))
    hecktor(task, "CHUM-001", mask=BOTH)
    hecktor(task, "MDA-012", seed=1, mask=filled(OTHER).astype(np.uint8))
    hecktor(other, "CHUM-001")
    write_volume(other / "CHUM-001" / "CHUM-001__RTDOSE.nii.gz", scan(3), GRID)
    write_volume(other / "CHUM-001" / "CHUM-001__CTPlanning.nii.gz", scan(4), GRID)
    (task / "HECKTOR_2025_Training_Task_1.csv").write_text("PatientID\n")

    result = convert(SETS["hecktor2025"], tmp_path / "hecktor2025_training", tmp_path / "out")

    assert result.written == ("CHUM-001", "MDA-012")
    np.testing.assert_array_equal(mask_of(tmp_path / "out", "CHUM-001"), BOTH)
    np.testing.assert_array_equal(read_volume(tmp_path / "out/imagesTr/CHUM-001_0000.nii.gz")[0], scan(0))
    assert open_dataset(tmp_path / "out").labels.names == {"primary_tumour": 1, "lymph_node": 2}
    assert check(open_dataset(tmp_path / "out")) == []
    assert result.left_out == (
        "1 planning CT: the CT alone is converted.",
        "3 PET scans: the CT alone is converted.",
        "1 dose map: the CT alone is converted.",
    )
    assert result.notes == ("Case MDA-012: no lymph_node in its mask.",)
    assert not result.failed


def test_hecktor_in_its_first_layout_and_what_is_wrong_with_single_cases(tmp_path):
    root = tmp_path / "in"
    for number, name in enumerate(("CHUM-001", "CHUP-002", "CHUS-003", "HGJ-004")):
        write_volume(root / "imagesTr" / f"{name}__CT.nii.gz", scan(number), GRID)
    write_mask(root / "labelsTr" / "CHUM_001.nii.gz", BOTH, GRID)
    write_mask(root / "labelsTr" / "CHUP_002.nii.gz", BOTH, replace(GRID, origin_mm=(0.4, 0.0, 0.0)))
    write_mask(root / "labelsTr" / "CHUS_003.nii.gz", BOTH * 3, GRID)

    result = convert(SETS["hecktor2025"], root, tmp_path / "out")

    assert result.written == ("CHUM-001",)
    assert [line.split(": ")[0] for line in result.failed] == ["Case CHUP-002", "Case CHUS-003"]
    assert "the scan's" in result.failed[0]
    assert "holds [3, 6]" in result.failed[1]
    assert "HGJ-004: no mask" in result.left_out[0]
    both = convert(SETS["hecktor2025"], root, tmp_path / "out", ConversionOptions(unlabelled=True))
    assert both.written == ("HGJ-004",)
    assert (tmp_path / "out" / "imagesTs" / "HGJ-004_0000.nii.gz").is_file()


def lynos(root: Path, number: int) -> None:
    """One patient: nodes with a number each, two further structures."""
    place = root / "LyNoS" / f"Pat{number}"
    write_volume(place / f"pat{number}_data.nii.gz", scan(number), GRID)
    nodes = filled(NODE).astype(np.uint8) * 2 + filled(OTHER).astype(np.uint8) * 5
    write_mask(place / f"pat{number}_labels_LymphNodes.nii.gz", nodes, GRID)
    for name in ("Azygos", "Esophagus"):
        write_mask(place / f"pat{number}_labels_{name}.nii.gz", filled(((0, 1), (3, 9), (3, 9))).astype(np.uint8), GRID)


def test_lynos_takes_every_node_and_counts_patients(tmp_path):
    for number in (1, 15):
        lynos(tmp_path / "in", number)
    result = convert(SETS["lynos"], tmp_path / "in", tmp_path / "out")

    assert result.written == ("pat1", "pat15")
    np.testing.assert_array_equal(mask_of(tmp_path / "out", "pat15"), filled(NODE, OTHER))
    assert result.missing[0].startswith("Not there: pat2, pat3")
    assert check(open_dataset(tmp_path / "out")) == []


@pytest.mark.parametrize(
    "table", ["Patient,Label,Station 1,Station 2", "pat_id;node_id;station", "case,id,primary_sto"]
)
def test_lynos_gives_the_nodes_of_a_station(tmp_path, table):
    lynos(tmp_path / "in", 1)
    mark = ";" if ";" in table else ","
    rows = (f"Pat1{mark}2{mark}4R", f"Pat1{mark}5{mark}7")
    (tmp_path / "in" / "stations_sto.csv").write_text("\n".join((table, *rows)) + "\n")
    options = ConversionOptions(roi=("station_4*=paratracheal", "station_7*=subcarinal", "Azygos=azygos"))

    convert(SETS["lynos"], tmp_path / "in", tmp_path / "out", options)

    mask = mask_of(tmp_path / "out", "pat1")
    np.testing.assert_array_equal(mask == 1, filled(NODE))
    np.testing.assert_array_equal(mask == 2, filled(OTHER))
    assert (mask == 3).any()


def test_lynos_says_what_is_unclear_about_stations(tmp_path):
    lynos(tmp_path / "in", 1)
    options = ConversionOptions(roi=("station_4*=paratracheal",))
    with pytest.raises(DataError, match="no such file, so no node has a station"):
        convert(SETS["lynos"], tmp_path / "in", tmp_path / "out", options)
    (tmp_path / "in" / "stations_sto.csv").write_text("a,b,c\nPat1,2,4R\n")
    with pytest.raises(DataError, match=r"its columns \(a, b, c\) hold patient, node and station is not clear"):
        convert(SETS["lynos"], tmp_path / "in", tmp_path / "out", options)
    (tmp_path / "in" / "stations_sto.csv").write_text("patient,node,station\nPat1,2,7\n")
    with pytest.raises(DataError, match=r"Azygos, Esophagus, LymphNodes, station_7\) matches station_4"):
        convert(SETS["lynos"], tmp_path / "in", tmp_path / "out", options)

"""Channels, odd files, refusals, and writing that continues."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lnsegfm.datasets.arrange import ArrangeOptions, arrange, plan_arrangement
from lnsegfm.datasets.arrange import arrange_dataset as writing
from lnsegfm.datasets.check import check
from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.imaging.files import read_mask, write_mask, write_volume
from lnsegfm.storage import sha256
from tests.datasets.arrange.layouts import GRID, both, files, mask, scan

NODE = ArrangeOptions(names=LabelMap({"node": 1, "vessel": 2}))


def four_dimensional(path: Path, *seeds: int) -> None:
    image = sitk.JoinSeries([sitk.GetImageFromArray(scan(seed)) for seed in seeds])
    image.SetSpacing((*GRID.spacing_mm[::-1], 1.0))
    image.SetOrigin((*GRID.origin_mm, 0.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def test_several_modalities_in_one_file_become_channels(tmp_path):
    root = tmp_path / "Task05"
    for number, name in enumerate(("p1", "p2")):
        four_dimensional(root / "imagesTr" / f"{name}.nii.gz", 10 + number, 20 + number)
        write_mask(root / "labelsTr" / f"{name}.nii.gz", mask(number), GRID)
    content = {"modality": {"0": "T2", "1": "ADC"}, "labels": {"0": "background", "1": "node"}}
    training = [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in ("p1", "p2")]
    (root / "dataset.json").write_text(json.dumps({**content, "training": training}))

    arrange(root, tmp_path / "out")

    dataset = open_dataset(tmp_path / "out")
    assert dataset.channels == ("T2", "ADC")
    assert check(dataset) == []
    for channel, seed in ((0, 10), (1, 20)):
        image = sitk.ReadImage(str(tmp_path / "out" / "imagesTr" / f"p1_{channel:04d}.nii.gz"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), scan(seed))
        np.testing.assert_allclose(image.GetOrigin(), GRID.origin_mm)
        np.testing.assert_allclose(image.GetSpacing(), GRID.spacing_mm[::-1])

    (root / "dataset.json").unlink()
    with pytest.raises(DataError, match=r"2 volumes in each image, and nothing says what they are.*--channels CT,PET"):
        plan_arrangement(root, NODE)
    assert plan_arrangement(root, replace(NODE, channels=("A", "B"))).channels == ("A", "B")


def test_channels_by_patterns_and_by_numbers(tmp_path):
    files("{p}/{p}_ct", "{p}/{p}_seg")(tmp_path / "in")
    files("{p}/{p}_pt", "{p}/{p}_seg")(tmp_path / "in")
    alone = plan_arrangement(tmp_path / "in", NODE)
    assert alone.channels == ("CT",)
    assert alone.notes == (
        "3 images */*_pt.nii.gz: taken for another modality, and left. Name them with --images if they are to be used.",
    )
    two = plan_arrangement(tmp_path / "in", replace(NODE, images=("*/*_ct.nii.gz", "*/*_pt.nii.gz")))
    assert two.channels == ("CT", "PT")
    assert [path.name for path in two.cases[0].images] == ["P1_ct.nii.gz", "P1_pt.nii.gz"]

    numbered = tmp_path / "numbered"
    files("imagesTr/{p}_0000", "labelsTr/{p}")(numbered)
    files("imagesTr/{p}_0001", "labelsTr/{p}")(numbered)
    (numbered / "imagesTr" / "P2_0001.nii.gz").unlink()
    with pytest.raises(DataError, match=r"2 images in each case, and nothing says what they are"):
        plan_arrangement(numbered, NODE)
    result = arrange(numbered, tmp_path / "out", replace(NODE, channels=("CT", "PET")))
    assert sorted(result.written) == ["P1", "P10"]
    assert result.failed == ("Case P2: 1 of 2 channels, as other cases have them. Complete it, or take it out.",)
    assert check(open_dataset(tmp_path / "out")) == []


def test_one_odd_file_stops_no_other(tmp_path):
    root = tmp_path / "in"
    files("{p}/ct", "{p}/mask")(root)
    (root / "P1" / "mask.nii.gz").write_bytes(b"cut short")
    write_mask(root / "P2" / "mask.nii.gz", both(1), replace(GRID, origin_mm=(0.3, 0, 0)))
    write_volume(root / "P3" / "ct.nii.gz", scan(5), GRID)
    write_volume(root / "notes.nii.gz", scan(6), GRID)
    (root / "P10" / "._ct.nii.gz").write_bytes(b"macOS")

    result = arrange(root, tmp_path / "out", NODE)

    assert result.written == ("P10",)
    assert [line.split(":")[0] for line in result.failed] == ["Case P1", "Case P2"]
    assert result.plan.left_out == ("Case P3: no mask (--unlabelled takes the image alone, to imagesTs/).",)
    assert result.plan.left_over == ("notes.nii.gz",)
    assert check(open_dataset(tmp_path / "out")) == []
    assert not json.loads((tmp_path / "out" / "arrangement.json").read_text())["complete"]

    write_mask(root / "P1" / "mask.nii.gz", both(0), GRID)
    write_mask(root / "P2" / "mask.nii.gz", both(1), GRID)
    again = arrange(root, tmp_path / "out", NODE)
    assert (sorted(again.written), again.kept, again.failed) == (["P1", "P2"], ("P10",), ())


def test_masks_of_part_of_the_scan_or_on_other_axes_are_put_in_place(tmp_path):
    write_volume(tmp_path / "in" / "a.nii.gz", scan(0), GRID)
    part = replace(GRID, shape=(2, 6, 8), origin_mm=(-4.0, 2.0, 10.0))
    write_mask(tmp_path / "in" / "a_seg.nii.gz", both(0)[1:3], part)
    result = arrange(tmp_path / "in", tmp_path / "out", NODE)
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / "labelsTr" / "a.nii.gz")[0], both(0))
    assert "mask moved onto the scan's grid" in result.notes[0]


def test_names_in_both_unicode_forms_pair(tmp_path):
    for form, suffix, voxels in (("NFC", "", scan(0)), ("NFD", "_seg", None)):
        path = tmp_path / "in" / f"{unicodedata.normalize(form, 'Zoë')}{suffix}.nii.gz"
        write_volume(path, voxels, GRID) if voxels is not None else write_mask(path, both(0), GRID)
    result = arrange(tmp_path / "in", tmp_path / "out", NODE)
    assert result.written == (unicodedata.normalize("NFC", "Zoë"),)
    assert check(open_dataset(tmp_path / "out")) == []


def test_a_killed_arrangement_continues_to_the_same_bytes(tmp_path, monkeypatch):
    files("{p}/ct", "{p}/seg/Cord", "{p}/seg/Heart", structures=True)(tmp_path / "in")
    arrange(tmp_path / "in", tmp_path / "whole")

    calls: list[Path] = []
    real = writing.write_mask

    def stops(path: Path, *args: object) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(path, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(writing, "write_mask", stops)
    with pytest.raises(KeyboardInterrupt):
        arrange(tmp_path / "in", tmp_path / "out")
    monkeypatch.setattr(writing, "write_mask", real)
    result = arrange(tmp_path / "in", tmp_path / "out")

    assert len(result.kept) == 1
    stored = [
        {str(p.relative_to(root)): sha256(p) for p in sorted(root.rglob("*")) if p.is_file() and ".lock" not in p.name}
        for root in (tmp_path / "whole", tmp_path / "out")
    ]
    assert stored[0] == stored[1]


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    files("{p}/ct", "{p}/mask")(tmp_path / "in")
    arrange(tmp_path / "in", tmp_path / "out", NODE)
    with pytest.raises(DataError, match="another source, or with other options"):
        arrange(tmp_path / "in", tmp_path / "out", ArrangeOptions(names=LabelMap({"a": 1, "b": 2})))
    with pytest.raises(DataError, match="within each other"):
        arrange(tmp_path / "in", tmp_path / "in" / "out", NODE)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").touch()
    with pytest.raises(DataError, match="something that is no arrangement"):
        arrange(tmp_path / "in", tmp_path / "full", NODE)


def test_links_take_no_space_and_copies_are_apart(tmp_path):
    files("{p}/ct", "{p}/mask")(tmp_path / "in")
    arrange(tmp_path / "in", tmp_path / "linked", replace(NODE, link=True))
    arrange(tmp_path / "in", tmp_path / "copied", NODE)
    source = tmp_path / "in" / "P1" / "ct.nii.gz"
    assert (tmp_path / "linked" / "imagesTr" / "P1_0000.nii.gz").samefile(source)
    assert not (tmp_path / "copied" / "imagesTr" / "P1_0000.nii.gz").samefile(source)


def test_images_without_masks_on_request(tmp_path):
    files("{p}/ct")(tmp_path / "in")
    with pytest.raises(DataError, match=r"are masks is not clear .*--unlabelled takes images alone"):
        plan_arrangement(tmp_path / "in")
    result = arrange(tmp_path / "in", tmp_path / "out", ArrangeOptions(unlabelled=True))
    assert len(result.written) == 3
    assert (tmp_path / "out" / "imagesTs" / "P1_0000.nii.gz").is_file()


UNCLEAR = {
    "two maps": (("{p}/ct", "{p}/mask_a"), ("{p}/ct", "{p}/mask_b")),
    "two folders of maps": (("images/{p}", "labels_oar/{p}"), ("images/{p}", "labels_ptv/{p}")),
    "two images": (("{p}/ct_pre", "{p}/mask"), ("{p}/ct_post", "{p}/mask")),
    "numbers": (("{p}/1", "{p}/2"),),
}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("two folders of maps", r"--labels 'labels_oar/\*\.nii\.gz' or --labels 'labels_ptv/\*\.nii\.gz'\."),
        ("two images", r"Say which to take: --images '\*/ct_post.nii.gz' or --images '\*/ct_pre.nii.gz'"),
        ("numbers", r"Say it: --images '\*/CT\.nii\.gz' --labels"),
    ],
)
def test_what_is_not_clear_is_refused_with_the_options_that_make_it_so(tmp_path, kind, said):
    for layout in UNCLEAR[kind]:
        files(*layout)(tmp_path)
    with pytest.raises(DataError, match=said):
        plan_arrangement(tmp_path, NODE)


def test_patterns_that_fit_nothing_are_refused(tmp_path):
    files("{p}/ct", "{p}/mask")(tmp_path)
    with pytest.raises(
        ConfigError, match=r"--labels \*/seg\.nii\.gz: no file in .* fits it\. There are P1/ct\.nii\.gz"
    ):
        plan_arrangement(tmp_path, ArrangeOptions(labels=("*/seg.nii.gz",)))
    with pytest.raises(ConfigError, match="it is read below SOURCE"):
        ArrangeOptions(images=("../*/ct.nii.gz",))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no image files.*lnsegfm data convert dicom"):
        plan_arrangement(tmp_path / "empty")


def test_scans_of_one_patient_are_named_as_such(tmp_path):
    for number, place in enumerate(("P1/20190304", "P1/20200101", "P2/visit_1", "siteA/anna", "siteA/berta")):
        write_volume(tmp_path / "in" / place / "ct.nii.gz", scan(number), GRID)
        write_mask(tmp_path / "in" / place / "mask.nii.gz", both(number), GRID)
    result = arrange(tmp_path / "in", tmp_path / "out", NODE)
    assert open_dataset(tmp_path / "out").subjects == {
        "P1_20190304": "P1", "P1_20200101": "P1", "P2_visit_1": "P2", "siteA_anna": "siteA_anna",
        "siteA_berta": "siteA_berta",
    }  # fmt: skip
    assert "4 patients in 5 cases, by their folders (subjects.csv)." in result.notes
    files("images/{half}/{p}", "labels/{half}/{p}")(tmp_path / "halves")
    arrange(tmp_path / "halves", tmp_path / "of_halves", NODE)
    assert not (tmp_path / "of_halves" / "subjects.csv").exists()


def test_images_of_another_format_are_written_in_the_commonest_one(tmp_path):
    for number, kind in enumerate((".nii.gz", ".nii.gz", ".nrrd")):
        write_volume(tmp_path / "in" / f"P{number}{kind}", scan(number), GRID)
        write_mask(tmp_path / "in" / f"P{number}_seg.nrrd", both(number), GRID)
    arrange(tmp_path / "in", tmp_path / "out", NODE)
    assert {path.name[2:] for path in (tmp_path / "out").glob("*Tr/*")} == {"_0000.nii.gz", ".nii.gz"}
    for number in range(3):
        image = sitk.ReadImage(str(tmp_path / "out" / "imagesTr" / f"P{number}_0000.nii.gz"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), scan(number))
        assert image.GetSpacing() == GRID.spacing_mm[::-1]
    assert check(open_dataset(tmp_path / "out")) == []

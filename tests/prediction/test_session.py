"""A loaded model takes a scan in six forms and gives one mask, that which the folder functions write."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch

import lnsegfm
from lnsegfm.datasets.dataset import Case
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.evaluation.flags import read_flags
from lnsegfm.evaluation.probabilities import read_probabilities
from lnsegfm.imaging.dicom.rtstruct_options import RtstructOptions
from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.seg_read import read_seg
from lnsegfm.imaging.dicom.segmentation import segments_mask
from lnsegfm.imaging.dicom.series import read_series, series_of
from lnsegfm.imaging.dicom.structure_masks import structures_mask
from lnsegfm.imaging.files import read_mask, read_volume, write_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.models.model_folder import Model
from lnsegfm.prediction.predict_cases import predict_cases
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.session import Prediction, Session, load
from tests.imaging.dicom.scanner import write_series
from tests.prediction.test_predictor import TWO, coarser, write_random
from tests.scenes import SHAPE, scene

pytestmark = pytest.mark.usefixtures("one_thread")
CT = (2.0, 1.1, 1.3)
OBLIQUE = (0.0, -1.0, 0.0, -0.96, 0.0, 0.28, 0.28, 0.0, 0.96)
DIRECTIONS = {
    "straight": (1.0, 0, 0, 0, 1, 0, 0, 0, 1),
    "flipped": (-1.0, 0, 0, 0, -1, 0, 0, 0, 1),
    "sagittal": (0.0, 0, 1, 1, 0, 0, 0, 1, 0),
    "oblique": OBLIQUE,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_random(tmp_path_factory.mktemp("model"), labels=TWO, change=coarser)


@pytest.fixture(scope="module")
def session(model: Model) -> Session:
    return load(model, "cpu")


@pytest.fixture(params=DIRECTIONS)
def scan(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    grid = Grid(SHAPE, CT, (-12.25, 40.5, 7.125), DIRECTIONS[request.param])
    write_volume(tmp_path / "scan.nii.gz", scene(5)[0].astype(np.int16), grid)
    return tmp_path / "scan.nii.gz"


def same(a: Prediction, b: Prediction) -> None:
    np.testing.assert_array_equal(a.array, b.array)
    assert a.array.dtype == b.array.dtype
    assert a.grid.difference(b.grid) is None
    assert a.mirror_agreement == b.mirror_agreement


def test_every_form_of_a_scan_gives_the_mask_that_the_command_writes(session, model, scan, tmp_path):
    by_path = session.predict(scan)
    assert set(np.unique(by_path.array)) == {0, 1}
    image = sitk.ReadImage(str(scan))
    array, grid = sitk.GetArrayFromImage(image), Grid.from_image(image)
    forms: dict[str, Any] = {
        "text": str(scan),
        "SimpleITK": image,
        "nibabel": nibabel.load(scan),
        "nibabel in memory": nibabel.Nifti1Image.from_bytes(nibabel.load(scan).to_bytes()),
        "array": (array, grid),
        "list": [scan],
    }
    for form in forms.values():
        same(session.predict(form), by_path)
    same(session.predict(array, grid=grid), by_path)
    options = PredictOptions(device="cpu")
    assert not predict_cases(model, [Case("scan", (scan,))], tmp_path / "out", options).failed
    written, place = read_mask(tmp_path / "out" / "scan.nii.gz")
    np.testing.assert_array_equal(written, by_path.array)
    assert place.difference(by_path.grid) is None
    for form in (scan, image, forms["array"]):
        file = session.predict(form).save(tmp_path / "saved" / "mask.nii.gz")
        assert file.read_bytes() == (tmp_path / "out" / "scan.nii.gz").read_bytes()


def test_torchio_is_the_sixth(session, scan):
    torchio = pytest.importorskip("torchio")
    image = torchio.ScalarImage(scan)
    for form in (image, torchio.Subject(ct=image)):
        same(session.predict(form), session.predict(scan))


def test_dicom_is_predicted_as_the_command_does_and_knows_its_series(
    session, model, tmp_path, lnsegfm_here, monkeypatch
):
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))
    grid = Grid(SHAPE, CT, (-12.25, 40.5, 7.125), (1.0, 0, 0, 0, 0.96, -0.28, 0, 0.28, 0.96))
    write_series(tmp_path / "ct", scene(5)[0], grid)
    series = series_of(tmp_path / "ct")
    found = session.predict(tmp_path / "ct")
    same(session.predict(series), found)
    same(session.predict(read_series(series), grid=series.grid), found)
    assert found.name == series.name
    assert found.series is not None
    assert found.array.any()

    done = lnsegfm_here("predict", model.folder, tmp_path / "ct", "--out", tmp_path / "out", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    (mask,) = (tmp_path / "out").glob("*.nii.gz")
    assert found.save(tmp_path / "mask.nii.gz").read_bytes() == mask.read_bytes()

    rules = ["node=node"]
    drawn = read_rtstruct(found.to_rtstruct(tmp_path / "a.dcm"))
    assert np.array_equal(structures_mask(drawn, series.grid, rules, {"node": 1}), found.array)
    segments = read_seg(found.to_dicom_seg(tmp_path / "b.dcm"))
    assert np.array_equal(segments_mask(segments, series.grid, rules, {"node": 1}), found.array)
    each = read_rtstruct(found.to_rtstruct(tmp_path / "c.dcm", per_node=True))
    assert len(each.rois) == len(found.nodes["node"])
    short = read_rtstruct(found.to_rtstruct(tmp_path / "f.dcm", options=RtstructOptions(add_to=tmp_path / "a.dcm")))
    assert short.names == ("node", "node_2")
    nothing = replace(found, array=np.zeros_like(found.array))
    with pytest.raises(DataError, match=r"Nothing was found: no structure set is written.*Write a segmentation"):
        nothing.to_rtstruct(tmp_path / "g.dcm")
    assert not (tmp_path / "g.dcm").exists()
    with pytest.raises(DataError, match="refers to a DICOM series"):
        session.predict(read_series(series), grid=series.grid).to_rtstruct(tmp_path / "d.dcm")
    other = session.predict(read_series(series), grid=series.grid)
    assert other.to_rtstruct(tmp_path / "e.dcm", series).is_file()


def test_what_a_prediction_knows_is_what_the_command_writes_down(session, model, scan, tmp_path):
    options = PredictOptions(device="cpu", probabilities=True)
    predict_cases(model, [Case("scan", (scan,))], tmp_path / "out", options)
    found = session.predict(scan, probabilities=True)
    assert found.flags == read_flags(tmp_path / "out")["scan"]
    likely = read_probabilities(tmp_path / "out" / "scan.npz", model.labels, found.grid)["node"]
    np.testing.assert_allclose(found.probabilities[1], likely, atol=1 / 255)
    np.testing.assert_array_equal(found.probabilities.argmax(0), found.array)
    assert found.labels == {"node": 1}
    assert found.volumes_ml["node"] == pytest.approx(np.count_nonzero(found.array) * np.prod(CT) / 1000)
    assert sum(node.volume_ml for node in found.nodes["node"]) == pytest.approx(found.volumes_ml["node"])
    assert session.predict(scan).probabilities is None
    with pytest.raises(FrozenInstanceError):
        found.array = None


def test_a_mask_goes_back_into_the_libraries(session, scan, tmp_path):
    found, image = session.predict(scan), sitk.ReadImage(str(scan))
    ours = found.to_sitk()
    assert ours.GetSize() == image.GetSize()
    np.testing.assert_allclose(ours.GetDirection(), image.GetDirection(), atol=1e-6)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(ours), found.array)
    theirs = found.to_nibabel()
    np.testing.assert_allclose(theirs.affine, nibabel.load(scan).affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(theirs.dataobj).transpose(2, 1, 0), found.array)
    for ending in ("nii", "nrrd", "mha"):
        mask, grid = read_mask(found.save(tmp_path / f"mask.{ending}"))
        np.testing.assert_array_equal(mask, found.array)
        assert grid.difference(found.grid) is None


def test_channels_are_given_as_a_list_of_any_forms(tmp_path):
    two = description_of_two(tmp_path / "model")
    grid = Grid(SHAPE, CT)
    arrays = [scene(seed)[0].astype(np.int16) for seed in (5, 6)]
    files = [tmp_path / "case_0000.nii.gz", tmp_path / "case_0001.nii.gz"]
    for file, array in zip(files, arrays, strict=True):
        write_volume(file, array, grid)
    session = load(two, "cpu")
    by_files = session.predict(files)
    assert by_files.array.any()
    for form in ([sitk.ReadImage(str(files[0])), (arrays[1], grid)], [files[0], nibabel.load(files[1])]):
        same(session.predict(form), by_files)
    same(session.predict(arrays, grid=grid), by_files)
    (tmp_path / "scans").mkdir()
    for file in files:
        file.rename(tmp_path / "scans" / file.name)
    same(session.predict(tmp_path / "scans"), by_files)
    with pytest.raises(DataError, match=r"1 channels, but the model takes 2 \(CT, PET\)"):
        session.predict(arrays[0], grid=grid)
    with pytest.raises(DataError, match="its grid is not that of"):
        session.predict([(arrays[0], grid), (arrays[1], Grid(SHAPE, (2.0, 1.1, 1.4)))])


def description_of_two(folder: Path) -> Model:
    from dataclasses import replace

    from lnsegfm.models.model_folder import read_model, write_model
    from lnsegfm.nnunet.network_building import build_network

    model = write_random(folder, labels=TWO, change=coarser)
    plans = dict(model.plans)
    plans["configurations"]["3d_fullres"]["normalization_schemes"] = ["CTNormalization", "ZScoreNormalization"]
    plans["configurations"]["3d_fullres"]["use_mask_for_norm"] = [False, False]
    properties = plans["foreground_intensity_properties_per_channel"]
    plans["foreground_intensity_properties_per_channel"] = {"0": properties["0"], "1": properties["0"]}
    told = dict(model.dataset_json) | {"channel_names": {"0": "CT", "1": "PET"}}
    start = replace(model.first, plans=plans, dataset_json=told)
    torch.manual_seed(3)
    start = replace(start, weights=build_network(start, deep_supervision=True).state_dict())
    write_model(folder / "two", start)
    return read_model(folder / "two")


def test_a_reader_that_turns_scans_gives_a_mask_on_the_scans_own_axes(tmp_path, scan):
    def reoriented(plans: dict[str, Any]) -> None:
        coarser(plans)
        plans["image_reader_writer"] = "NibabelIOWithReorient"

    session = load(write_random(tmp_path / "model", labels=TWO, change=reoriented), "cpu")
    by_path = session.predict(scan)
    image = sitk.ReadImage(str(scan))
    assert by_path.array.shape == SHAPE
    assert by_path.grid.difference(Grid.from_image(image)) is None
    for form in (image, nibabel.load(scan)):
        same(session.predict(form), by_path)
    assert not predict_cases(session.model, [Case("scan", (scan,))], tmp_path / "out").failed
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / "scan.nii.gz")[0], by_path.array)


def test_many_scans_come_in_their_order_and_are_taken_as_needed(session):
    grid = Grid(SHAPE, CT)
    arrays = [scene(seed)[0] for seed in range(4)]
    alone = [session.predict(array, grid=grid).array for array in arrays]
    for threads in (0, 1, 3):
        taken: list[int] = []

        def scans(taken: list[int] = taken) -> Iterator[Any]:
            for number, array in enumerate(arrays):
                taken.append(number)
                yield array, grid

        found = session.predict_many(scans(), threads=threads)
        first = next(found)
        assert len(taken) <= threads + 1
        for prediction, expected in zip((first, *found), alone, strict=True):
            np.testing.assert_array_equal(prediction.array, expected)
    with pytest.raises(DataError, match="lies nowhere"):
        list(session.predict_many([(arrays[0], grid), arrays[1]]))


def test_threads_share_a_session(session):
    grid = Grid(SHAPE, CT)
    arrays = [scene(seed)[0] for seed in range(4)]
    alone = [session.predict(array, grid=grid).array for array in arrays]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda array: session.predict(array, grid=grid).array, arrays))
    for ours, theirs in zip(together, alone, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_network_is_built_once(model, monkeypatch):
    from lnsegfm.prediction import predictor

    built: list[Any] = []
    real = predictor.build_network
    monkeypatch.setattr(predictor, "build_network", lambda *a, **k: built.append(a) or real(*a, **k))
    session = load(model.folder, "cpu", mirroring=False)
    for seed in range(3):
        session.predict(scene(seed)[0], grid=Grid(SHAPE, CT))
    assert len(built) == 1


def test_settings_are_those_of_the_folder_functions(model, scan):
    session = load(model, "cpu", fast="no-mirroring", flags=False)
    found = session.predict(scan)
    assert found.mirror_agreement is None
    np.testing.assert_array_equal(found.array, load(model, "cpu", mirroring=False, flags=False).predict(scan).array)
    with pytest.raises(ConfigError, match="Option overwrite: not known"):
        load(model, "cpu", overwrite=True)
    with pytest.raises(ConfigError, match="Device quantum: not known"):
        load(model, "quantum")


def test_memory_is_kept_to_and_changes_nothing(model, session):
    from lnsegfm.prediction.memory_budget import LATE, resident

    array, grid = scene(5)[0], Grid(SHAPE, CT)
    enough = load(model, "cpu", memory=(resident() + LATE) / 1e9 + 0.5)
    same(enough.predict(array, grid=grid), session.predict(array, grid=grid))
    large = Grid((600, 600, 600), CT)
    with pytest.raises(ConfigError, match="this scan alone takes"):
        enough._left(large, probabilities=False)
    with pytest.raises(ConfigError, match="Give at least"):
        load(model, "cpu", memory=0.001)


def test_what_is_no_scan_is_refused(session, tmp_path, scan):
    for odd, reason in (
        (tmp_path / "none.nii.gz", "no such file"),
        (scene(1)[0], "lies nowhere"),
        (3, "int is no image that is known"),
        (np.full(SHAPE, np.nan), "lies nowhere"),
    ):
        with pytest.raises(DataError, match=reason):
            session.predict(odd)
    with pytest.raises(DataError, match="NaN or infinite"):
        session.predict(np.full(SHAPE, np.nan), grid=Grid(SHAPE, CT))
    with pytest.raises(DataError, match="a 3D image is needed"):
        session.predict(np.zeros((1, 8, 8)), grid=Grid((1, 8, 8), CT))
    (tmp_path / "two").mkdir()
    for name in ("a", "b"):
        write_volume(tmp_path / "two" / f"{name}.nii.gz", *read_volume(scan))
    with pytest.raises(DataError, match="it holds 2 scans"):
        session.predict(tmp_path / "two")


def test_a_notebook_shows_it(session, scan):
    shown = session.predict(scan, name="<script>alert(1)</script>")._repr_html_()
    assert shown.count("<svg") == 3
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "data:image/" in shown
    assert "http" not in shown.replace("http://www.w3.org/2000/svg", "")
    assert 'class="c prediction"' in shown
    assert "nodes" in shown
    empty = Prediction(array=np.zeros(SHAPE, np.uint8), grid=Grid(SHAPE, CT), labels={"node": 1})
    assert empty._repr_html_().count("<svg") == 3


def test_it_is_in_the_package():
    assert lnsegfm.load is load
    assert lnsegfm.Session is Session
    assert lnsegfm.Prediction is Prediction
    assert lnsegfm.Grid is Grid

"""Prediction against nnU-Net's own: equal voxel for voxel where it rounds as nnU-Net does, else but for near ties."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from lnsegfm.datasets.dataset import Case
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.evaluation.mask_statistics import FOREGROUND
from lnsegfm.imaging.dicom.series import read_series, series_of
from lnsegfm.imaging.files import read_mask
from lnsegfm.models.model_folder import Model, read_model, write_model
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.nnunet.preprocessing import NEAR_BOUND, air_value, prepare, require_volume
from lnsegfm.prediction.predictor import Predictor
from lnsegfm.prediction.results import PredictedMask
from lnsegfm.prediction.scans import find_scans
from lnsegfm.weights.checkpoint import Checkpoint
from tests.cli.machines import description
from tests.scenes import scene, small_plans, write_image

LABELS = {"background": 0, "node": 1, "vessel": 2}
TWO = {"background": 0, "node": 1}
NEAR = 1e-4
"""Two classes whose probabilities are closer than this may be told apart by rounding alone."""
pytestmark = pytest.mark.usefixtures("one_thread")


def as_it_is(plans: dict[str, Any]) -> None:
    pass


def write_random(
    folder: Path,
    *,
    labels: dict[str, Any] = LABELS,
    change: Callable[[dict[str, Any]], None] = as_it_is,
    folds: int = 1,
    axes: tuple[int, ...] = (2,),
) -> Model:
    """A model of random weights; its last layer sees to it that each class is somewhere."""
    plans = small_plans()
    change(plans)
    name = "2d" if "2d" in plans["configurations"] else "3d_fullres"
    told = description() | {"labels": labels}
    start = Checkpoint({}, name, plans, told, "nnUNetTrainer", axes)
    for fold in range(folds):
        torch.manual_seed(3 + fold)
        one = replace(start, weights=build_network(start, deep_supervision=True).state_dict())
        write_model(folder / str(fold), one)
        if fold:
            (folder / str(fold) / "fold_0").rename(folder / "0" / f"fold_{fold}")
    return read_model(folder / "0")


def coarser(plans: dict[str, Any]) -> None:
    plans["configurations"]["3d_fullres"]["spacing"] = [2.5, 1.3, 1.2]


def anisotropic(plans: dict[str, Any]) -> None:
    plans["configurations"]["3d_fullres"]["spacing"] = [7.0, 1.3, 1.2]


def turned(plans: dict[str, Any]) -> None:
    coarser(plans)
    plans["transpose_forward"], plans["transpose_backward"] = [2, 0, 1], [1, 2, 0]


def other_resampler(plans: dict[str, Any]) -> None:
    coarser(plans)
    plans["configurations"]["3d_fullres"]["resampling_fn_probabilities"] = "resample_torch_fornnunet"
    plans["configurations"]["3d_fullres"]["resampling_fn_probabilities_kwargs"] = {
        "is_seg": False,
        "force_separate_z": False,
        "memefficient_seg_resampling": False,
    }


def in_slices(plans: dict[str, Any]) -> None:
    configuration = plans["configurations"].pop("3d_fullres")
    arguments = configuration["architecture"]["arch_kwargs"]
    arguments |= {"conv_op": "torch.nn.modules.conv.Conv2d", "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d"}
    for name in ("kernel_sizes", "strides"):
        arguments[name] = [each[1:] for each in arguments[name]]
    plans["configurations"]["2d"] = configuration | {"patch_size": [16, 16], "spacing": [1.3, 1.2]}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, ...]:
    folder = tmp_path_factory.mktemp("scans")
    write_image(folder / "plain.nii.gz", scene(0)[0])
    framed = np.pad(scene(9)[0], 3)  # zeros around: nnU-Net crops them
    write_image(folder / "framed.nii.gz", framed)
    return find_scans(folder, 1).cases


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_random(tmp_path_factory.mktemp("model"), labels=TWO, change=coarser)


class InSingle:
    """torch as nnU-Net's predictor would have to see it to sum tiles in single precision."""

    half = torch.float32

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def stock(
    model: Model, images: Sequence[Path], *, mirroring: bool = True, step: float = 0.5, single: bool = False
) -> tuple[Any, Any]:
    """Mask and probabilities as nnU-Net makes them, or would make them if it summed in ``single`` precision."""
    with nnunet_environment(), pytest.MonkeyPatch.context() as patch:
        from nnunetv2.inference import predict_from_raw_data as module

        patch.setattr(torch, "set_num_threads", lambda _: None)  # it takes eight
        if single:
            patch.setattr(module, "torch", InSingle())
        predictor = module.nnUNetPredictor(
            device=torch.device("cpu"), allow_tqdm=False, use_mirroring=mirroring, tile_step_size=step
        )
        predictor.initialize_from_trained_model_folder(str(model.folder), tuple(range(len(model.folds))))
        data, properties = SimpleITKIO().read_images([str(image) for image in images])
        return predictor.predict_single_npy_array(data, properties, save_or_return_probabilities=True)


@pytest.mark.parametrize(
    ("change", "labels", "others"),
    [
        (coarser, LABELS, {}),
        (anisotropic, TWO, {}),
        (turned, LABELS, {}),
        (other_resampler, LABELS, {}),
        (coarser, TWO, {"folds": 2}),
        (in_slices, LABELS, {"axes": (1,)}),
    ],
)
def test_masks_are_those_of_stock_nnunet(change, labels, others, cases, tmp_path):
    model = write_random(tmp_path, change=change, labels=labels, **others)
    exact, ours = Predictor(model, exact=True), Predictor(model)
    for case in cases:
        expected, likely = stock(model, case.images)
        same = exact.run(exact.prepare(case.images), probabilities=True)
        np.testing.assert_array_equal(same.mask, expected)
        np.testing.assert_array_equal(same.probabilities, likely)
        assert same.mask.dtype == expected.dtype

        made = ours.run(ours.prepare(case.images), probabilities=True)
        single, likely = stock(model, case.images, single=True)
        np.testing.assert_allclose(made.probabilities, likely, atol=NEAR)
        rivals = np.sort(likely, axis=0)[-2:]
        assert not ((made.mask != single) & (rivals[1] - rivals[0] > NEAR)).any()
        assert (made.mask != single).mean() < 1e-4
        assert (made.mask != expected).mean() < 1e-2  # half precision is worst at a scan's corners
        assert len(np.unique(expected)) > 1


@pytest.mark.parametrize(("mirroring", "step"), [(False, 0.5), (True, 0.9)])
def test_settings_are_those_of_stock_nnunet(model, cases, mirroring, step):
    predictor = Predictor(model, exact=True, mirroring=mirroring, step=step)
    expected, _ = stock(model, cases[0].images, mirroring=mirroring, step=step)
    np.testing.assert_array_equal(predictor.run(predictor.prepare(cases[0].images)).mask, expected)


class Bright(torch.nn.Module):
    """Finds what is brighter than its neighbourhood should be; air is background."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        near = torch.nn.functional.avg_pool3d(x, 3, 1, 1, count_include_pad=False) + 2.0
        return torch.cat([-near, near], 1)


def test_neither_air_nor_memory_nor_counting_changes_a_mask(model, tmp_path):
    image = np.full((40, 48, 56), -1000, dtype=np.int16)
    image[:20, :24, :28] = scene(3)[0]
    write_image(tmp_path / "air.nii.gz", image)
    images = [tmp_path / "air.nii.gz"]
    found = {}
    for name, settings in {
        "plain": {"air": False},
        "air": {},
        "small": {"memory": 1000},
        "seen": {"watch": True},
    }.items():
        predictor, asked = Predictor(model, mirroring=name == "seen", **settings), []
        predictor._network = Bright()
        predictor._network.register_forward_hook(lambda *_, asked=asked: asked.append(1))
        made = predictor.run(predictor.prepare(images))
        found[name] = (made, len(asked))
    assert found["air"][1] < 0.8 * found["plain"][1]
    assert found["air"][0].mask.any()
    np.testing.assert_array_equal(found["air"][0].mask, found["plain"][0].mask)
    np.testing.assert_array_equal(found["small"][0].mask, found["plain"][0].mask)
    assert found["air"][0].mirrored is None
    assert set(found["seen"][0].mirrored) == {"node", FOREGROUND}
    unseen = Predictor(model)
    unseen._network = Bright()
    np.testing.assert_array_equal(unseen.run(unseen.prepare(images)).mask, found["seen"][0].mask)


def test_a_scan_is_read_once_and_as_nnunet_reads_it(model, cases):
    prepared = Predictor(model, exact=True).prepare(cases[0].images)
    _, properties = SimpleITKIO().read_images([str(cases[0].images[0])])
    assert {key: prepared.properties[key] for key in properties} == properties
    assert prepared.scan.shape == read_mask(cases[0].images[0])[0].shape


def test_voxels_at_ct_s_lower_bound_are_the_bound_and_no_others(model, tmp_path):
    """Resampling rounds: without this no tile of air would be of one value."""
    image = np.full((20, 24, 28), -1000, dtype=np.float32)
    image[:, :12] = np.linspace(-32, 160, 20 * 12 * 28).reshape(20, 12, 28)
    image[10:, 16:] = np.linspace(-30.01, -29.98, 10 * 8 * 28).reshape(10, 8, 28)
    write_image(tmp_path / "air.nii.gz", image)
    ours, exact = (Predictor(model, exact=exact).prepare([tmp_path / "air.nii.gz"]).volume for exact in (False, True))
    bound = (-30.0 - 60.0) / 25.0  # percentile_00_5, mean and std of the plans
    above = (exact - bound) / (exact.max() - bound)
    assert bool((ours[above < NEAR_BOUND / 2] == ours.min()).all())
    assert bool(((above > NEAR_BOUND / 4) & (above < NEAR_BOUND / 2)).any())
    assert float(ours.min()) == pytest.approx(bound)
    rising = above > 3 * NEAR_BOUND
    assert bool(((above > 3 * NEAR_BOUND) & (above < 1e-2)).any())
    assert float((ours - exact)[rising].abs().max()) < NEAR_BOUND * float(exact.max() - exact.min())


def test_air_is_known_of_ct_alone(model):
    told = deepcopy(dict(model.plans))

    def value(**changes: Any) -> float | None:
        plans = deepcopy(told)
        plans["configurations"]["3d_fullres"] |= changes
        manager = PlansManager(plans)
        return air_value(manager, manager.get_configuration("3d_fullres"))

    assert value() == pytest.approx((-30.0 - 60.0) / 25.0)
    told["foreground_intensity_properties_per_channel"]["0"]["percentile_00_5"] = -1000.0
    assert value() == pytest.approx((-1000.0 - 60.0) / 25.0)
    assert value(normalization_schemes=["ZScoreNormalization"]) is None
    assert value(normalization_schemes=["CTNormalization", "CTNormalization"]) is None
    with pytest.MonkeyPatch.context() as patch:  # another's preprocessor may do anything after that
        patch.setattr(ConfigurationManager, "preprocessor_class", type("Own", (DefaultPreprocessor,), {}))
        assert value() is None


def test_channels_share_a_grid(model, cases, tmp_path):
    plans = Predictor(model)._plans
    given, image = cases[0].images[0], sitk.ReadImage(str(cases[0].images[0]))
    sitk.WriteImage(image[:, :, 1:], str(tmp_path / "shape.nii.gz"))
    image.SetSpacing((1.5, 1.0, 2.1))
    sitk.WriteImage(image, str(tmp_path / "spacing.nii.gz"))
    for name in ("shape", "spacing"):
        images = [given, tmp_path / f"{name}.nii.gz"]
        with pytest.raises(DataError, match=f"{name}.nii.gz: its grid is not that of {given.name}"):
            prepare(images, plans.plans, plans.preprocessing, model.dataset_json, ct=0, bound=None)


def test_a_reader_that_keeps_axes_changes_nothing(cases, tmp_path):
    def other_reader(plans: dict[str, Any]) -> None:
        coarser(plans)
        plans["image_reader_writer"] = "NibabelIO"

    model = write_random(tmp_path, labels=TWO, change=other_reader)
    plain = write_random(tmp_path / "plain", labels=TWO, change=coarser)
    ours, theirs = (Predictor(one).prepare(cases[0].images) for one in (model, plain))
    assert torch.equal(ours.volume, theirs.volume)


def test_stages_run_in_threads(model, cases, tmp_path):
    predictor, ready, found = Predictor(model, mirroring=False), {}, []

    def prepare(case: Case) -> None:
        ready[case.name] = predictor.prepare(case.images)

    threads = [threading.Thread(target=prepare, args=(case,)) for case in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for case in cases:
        predictor.write(predictor.run(ready[case.name]), tmp_path / "a.nii.gz", first=found.append)
        predictor.predict(case.images, tmp_path / "b.nii.gz")
        assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert [one.scan.shape for one in found] == [read_mask(case.images[0])[0].shape for case in cases]
    assert isinstance(found[0], PredictedMask)


def test_what_cannot_be_is_refused(model, cases):
    for settings in ({"step": 0.0}, {"memory": 0}):
        with pytest.raises(ConfigError):
            Predictor(model, **settings)
    with pytest.raises(DataError, match="2 channels"):
        Predictor(model).prepare([*cases[0].images, *cases[0].images])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers_are_refused(model, tmp_path, value):
    image = scene(0)[0].astype(np.float32)
    image[3, 4, 5] = value
    write_image(tmp_path / "odd.nii.gz", image)
    with pytest.raises(DataError, match="NaN or infinite"):
        Predictor(model).prepare([tmp_path / "odd.nii.gz"])


@pytest.mark.parametrize(("shape", "channels"), [((1, 1, 5, 5), 1), ((1, 4, 5, 5), 2)])
def test_a_volume_of_the_model_s_channels_is_needed(shape, channels):
    require_volume(np.zeros((1, 2, 2, 2)), Path("a.nii.gz"), 1)
    with pytest.raises(DataError, match="a 3D image is needed"):
        require_volume(np.zeros(shape), Path("a.nii.gz"), channels)


@pytest.mark.realdata
def test_air_of_a_real_scan_is_asked_once_and_changes_nothing(model, real_data, tmp_path):
    series = series_of(real_data / "lung4d_113")
    corner = read_series(series)[40:64, 160:352, :160]  # air beside the patient, skin, lung
    write_image(tmp_path / "real.nii.gz", corner)
    found = []
    for air in (False, True):
        predictor, asked = Predictor(model, air=air, mirroring=False), []
        predictor._network.register_forward_hook(lambda *_, asked=asked: asked.append(1))
        found.append((predictor.run(predictor.prepare([tmp_path / "real.nii.gz"])).mask, len(asked)))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert 0 < found[0][0].mean() < 1
    assert found[1][1] < found[0][1]

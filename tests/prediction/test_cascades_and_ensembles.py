"""Slices, low resolution, both stages of a cascade, folds and mixed ensembles: what stock nnU-Net predicts."""

from __future__ import annotations

import json
import shutil
import zipfile
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lnsegfm
from lnsegfm.datasets.dataset import Case
from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.evaluation.mask_statistics import FOREGROUND
from lnsegfm.imaging.files import read_mask
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.image_objects import Volume
from lnsegfm.imaging.orientation import Turn
from lnsegfm.inference.speed_presets import InferenceSetting, choose_setting
from lnsegfm.models.export_model import export_model
from lnsegfm.models.install import ImportOptions, install
from lnsegfm.models.model_folder import Model, ModelChoice, read_model, read_models, write_model
from lnsegfm.models.plans import require_adaptable
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.nnunet.plan_axes import with_axes
from lnsegfm.prediction.memory_budget import scan_bytes
from lnsegfm.prediction.ready_predictor import ready
from lnsegfm.prediction.scans import find_scans
from lnsegfm.registry.stored_model import verify
from lnsegfm.weights.checkpoint import Checkpoint
from tests.cli.machines import description
from tests.nnunet.stock import stock as run_stock_command
from tests.scenes import SHAPE, SPACING_XYZ, scene, small_plans, write_image

DATA = "Dataset001_Scenes"
LABELS = {"background": 0, "node": 1, "vessel": 2}
EXACT = InferenceSetting(exact=True)
pytestmark = pytest.mark.usefixtures("one_thread")


def all_plans() -> dict[str, Any]:
    """Plans as nnU-Net writes them: every configuration in one file, each but the first by what it changes."""
    plans = small_plans()
    configurations = plans["configurations"]
    full = configurations["3d_fullres"] | {"spacing": [2.5, 1.3, 1.2]}
    slices = deepcopy(full) | {"patch_size": [16, 16], "spacing": [1.3, 1.2]}
    network = slices["architecture"]["arch_kwargs"]
    network |= {"conv_op": "torch.nn.modules.conv.Conv2d", "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d"}
    for name in ("kernel_sizes", "strides"):
        network[name] = [each[1:] for each in network[name]]
    configurations |= {
        "3d_fullres": full,
        "2d": slices,
        "3d_lowres": deepcopy(full) | {"spacing": [4.0, 2.2, 2.0], "next_stage": "3d_cascade_fullres"},
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
    }
    return plans


def write_configuration(
    root: Path, name: str, *, folds: int = 1, labels: dict[str, Any] = LABELS, change: Any = None, seed: int = 3
) -> Path:
    """A model of random weights in nnU-Net's results."""
    plans = all_plans()
    if change is not None:
        change(plans)
    axes = (0, 1) if name == "2d" else (0, 2)
    start = Checkpoint({}, name, plans, description() | {"labels": labels}, "nnUNetTrainer", axes)
    folder = root / DATA / f"nnUNetTrainer__nnUNetPlans__{name}"
    for fold in reversed(range(folds)):
        torch.manual_seed(seed + fold)
        write_model(folder, replace(start, weights=build_network(start, deep_supervision=True).state_dict()))
        (folder / "fold_0").rename(folder / f"fold_{fold}")
    return folder


def turned(plans: dict[str, Any]) -> None:
    plans["transpose_forward"], plans["transpose_backward"] = [2, 0, 1], [1, 2, 0]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One scan as it is, one in a frame of zeros, which nnU-Net crops."""
    folder = tmp_path_factory.mktemp("scans")
    write_image(folder / "plain_0000.nii.gz", scene(0)[0])
    write_image(folder / "framed_0000.nii.gz", np.pad(scene(9)[0], 3))
    return folder


def stock(
    model: Path, scans: Path, out: Path, *, folds: int = 1, previous: Path | None = None, probabilities: bool = False
) -> Path:
    """``nnUNetv2_predict`` by files, in this process: each stage a run of its own."""
    out.mkdir(parents=True, exist_ok=True)
    with nnunet_environment(), pytest.MonkeyPatch.context() as patch:
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        patch.setattr(torch, "set_num_threads", lambda _: None)  # it takes eight
        predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(model), tuple(range(folds)))
        predictor.predict_from_files_sequential(
            str(scans),
            str(out),
            save_probabilities=probabilities,
            folder_with_segs_from_prev_stage=None if previous is None else str(previous),
        )
    return out


def ours(model: Model, case: Case, *, exact: bool = True, probabilities: bool = False) -> Any:
    predictor = ready(model, EXACT if exact else InferenceSetting())
    return predictor.run(predictor.prepare(case.images), probabilities=probabilities)


def assert_equal_to_stock(model: Model, scans: Path, expected: Path) -> None:
    """Voxel for voxel with nnU-Net's rounding, and but for near ties without."""
    for case in find_scans(scans, 1).cases:
        theirs = read_mask(expected / f"{case.name}.nii.gz")[0]
        assert len(np.unique(theirs)) > 1, "a mask of one value shows nothing"
        np.testing.assert_array_equal(ours(model, case).mask, theirs)
        assert (ours(model, case, exact=False).mask != theirs).mean() < 1e-2  # half precision is worst at the corners


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("2d", None),
        ("3d_lowres", None),
        pytest.param("2d", turned, marks=pytest.mark.long),
        pytest.param("3d_lowres", turned, marks=pytest.mark.long),
    ],
)
def test_one_configuration_of_several_in_the_plans(name, change, scans, tmp_path):
    folder = write_configuration(tmp_path, name, change=change)
    assert_equal_to_stock(read_model(tmp_path), scans, stock(folder, scans, tmp_path / "theirs"))


def test_five_folds_average_their_logits(scans, tmp_path):
    folder = write_configuration(tmp_path, "3d_fullres", folds=5)
    model = read_model(folder)
    assert model.fold_names == ("0", "1", "2", "3", "4")
    assert_equal_to_stock(model, scans, stock(folder, scans, tmp_path / "theirs", folds=5))


@pytest.mark.parametrize("change", [None, pytest.param(turned, marks=pytest.mark.long)])
def test_both_stages_of_a_cascade(change, scans, tmp_path):
    low = write_configuration(tmp_path, "3d_lowres", folds=2, change=change)
    later = write_configuration(tmp_path, "3d_cascade_fullres", change=change, seed=11)
    before = stock(low, scans, tmp_path / "low", folds=2)
    expected = stock(later, scans, tmp_path / "theirs", previous=before)
    model = read_model(tmp_path / DATA)  # of the two, the later stage is meant
    assert (model.configuration, model.previous.configuration) == ("3d_cascade_fullres", "3d_lowres")
    assert f"Its masks of 3d_lowres are made by {low.resolve()}." in model.notes
    assert_equal_to_stock(model, scans, expected)
    assert any((read_mask(before / f"{c.name}.nii.gz")[0] > 0).any() for c in find_scans(scans, 1).cases)


def test_the_previous_stage_changes_the_later_one_s_masks(scans, tmp_path):
    """A cascade whose first stage is another one predicts something else: its masks are an input."""
    write_configuration(tmp_path, "3d_lowres")
    later = write_configuration(tmp_path, "3d_cascade_fullres", seed=11)
    other = write_configuration(tmp_path / "other", "3d_lowres", seed=40)
    (case, *_) = find_scans(scans, 1).cases
    found = read_model(later)
    given = read_model(later, choice=ModelChoice(previous_stage=other))
    assert (ours(found, case).mask != ours(given, case).mask).any()
    assert found.identity != given.identity
    assert found.identity["model"] == given.identity["model"]


def test_a_cascade_is_imported_and_exported_with_both_stages(scans, tmp_path, monkeypatch):
    write_configuration(tmp_path, "3d_lowres", folds=2)
    later = write_configuration(tmp_path, "3d_cascade_fullres", seed=11)
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))
    stored = install(tmp_path / DATA, "both", ImportOptions())
    assert (
        "Its previous stage, 3d_lowres, is stored with it, from nnUNetTrainer__nnUNetPlans__3d_lowres." in stored.notes
    )
    assert verify(tmp_path / "home" / "models" / "both") == ()
    done = export_model(Path("both"), "nnunet-zip", tmp_path / "both.zip")
    with zipfile.ZipFile(tmp_path / "both.zip") as archive:
        archive.extractall(tmp_path / "installed")
    assert [" ".join(command.split()[4:]) for command in done.predict[1:]] == [
        f"OUT0 -d {DATA} -c 3d_lowres -tr nnUNetTrainer -p nnUNetPlans -f 0 1 -chk checkpoint_final.pth",
        f"OUT -d {DATA} -c 3d_cascade_fullres -tr nnUNetTrainer -p nnUNetPlans -f 0 -chk checkpoint_final.pth "
        "-prev_stage_predictions OUT0",
    ]
    install(tmp_path / "both.zip", "again", ImportOptions())
    (case, *_) = find_scans(scans, 1).cases
    expected = ours(read_model(later), case).mask
    for place in (Path("both"), tmp_path / "installed", Path("again")):
        model = read_model(place)
        assert model.previous.fold_names == ("0", "1")
        np.testing.assert_array_equal(ours(model, case).mask, expected)
    install(tmp_path / "home" / "models" / "both", "moved", ImportOptions())  # from another machine's, say
    renamed = Path(shutil.copytree(tmp_path / DATA, tmp_path / "renamed"))
    mine = later.rename(later.parent / "mine") and (renamed / later.name).rename(renamed / "mine")
    install(mine, "mine", ImportOptions())
    for name in ("moved", "mine"):
        np.testing.assert_array_equal(ours(read_model(Path(name)), case).mask, expected)
    later = later.parent / "mine"
    export_model(later, "folder", tmp_path / "alone")
    install(tmp_path / "alone", "alone", ImportOptions())
    assert read_model(Path("alone")).previous is None


@pytest.mark.long
def test_the_commands_that_an_export_of_a_cascade_names_give_its_masks(scans, tmp_path):
    """Stock nnU-Net's console scripts, one after the other, in processes that know nothing of this package."""
    write_configuration(tmp_path, "3d_lowres", folds=2)
    later = write_configuration(tmp_path, "3d_cascade_fullres", seed=11)
    done = export_model(later, "nnunet-zip", tmp_path / "cascade.zip")
    places = {"IN": scans, "OUT": tmp_path / "out", "OUT0": tmp_path / "out0"}
    environment = {f"nnUNet_{part}": str(tmp_path / part) for part in ("raw", "preprocessed", "results")}
    for line in done.predict:
        name, *words = (str(places.get(word, word)) for word in line.split())
        quick = ("-device", "cpu", "-npp", "1", "-nps", "1") if name == "nnUNetv2_predict" else ()
        ran = run_stock_command(name, *words, *quick, **environment)
        assert ran.returncode == 0, ran.stderr
    model = read_model(later)
    for case in find_scans(scans, 1).cases:
        expected = read_mask(tmp_path / "out" / f"{case.name}.nii.gz")[0]
        np.testing.assert_array_equal(ours(model, case).mask, expected)


def test_slices_are_imported_and_exported(scans, tmp_path, monkeypatch):
    folder = write_configuration(tmp_path, "2d", folds=2)
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))
    stored = install(tmp_path, "slices", ImportOptions())
    assert stored.card.spacing_mm == (2.0, 1.3, 1.2)  # the slices' median distance, and the pixels'
    export_model(Path("slices"), "nnunet-zip", tmp_path / "slices.zip")
    export_model(Path("slices"), "safetensors", tmp_path / "plain")
    install(tmp_path / "slices.zip", "again", ImportOptions())
    install(tmp_path / "plain", "plain", ImportOptions())
    install(folder / "fold_1" / "checkpoint_final.pth", "one", ImportOptions())
    (case, *_) = find_scans(scans, 1).cases
    expected = ours(read_model(folder), case).mask
    for name in ("slices", "again", "plain"):
        np.testing.assert_array_equal(ours(read_model(Path(name)), case).mask, expected)
    assert read_model(Path("one")).weights_sha256 == read_model(folder).weights_sha256[1:]


def test_neither_slices_nor_a_later_stage_is_adapted(tmp_path):
    """Each in one line, which names what can be."""
    later = write_configuration(tmp_path, "3d_cascade_fullres")
    slices = write_configuration(tmp_path, "2d")
    with pytest.raises(ModelError, match=r"3d_cascade_fullres is the later stage of a cascade, .* Use 3d_"):
        require_adaptable(read_model(later))
    low, full = (write_configuration(tmp_path, name) for name in ("3d_lowres", "3d_fullres"))
    for folder in (later, slices):
        with pytest.raises(ModelError) as refused:
            require_adaptable(read_model(folder))
        (line,) = str(refused.value).splitlines()
        assert line.endswith(f"it predicts, and is not fine-tuned. Fine-tune {full.resolve()} or {low.resolve()}.")
    for folder in (low, full):
        require_adaptable(read_model(folder))


def ensembled(folders: list[Path], out: Path) -> Path:
    """``nnUNetv2_ensemble`` of what ``nnUNetv2_predict --save_probabilities`` left in folders."""
    out.mkdir()
    with nnunet_environment():
        from nnunetv2.ensembling.ensemble import merge_files
        from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        told = json.loads((folders[0] / "dataset.json").read_text())
        manager = PlansManager(json.loads((folders[0] / "plans.json").read_text())).get_label_manager(told)
        for file in sorted(folders[0].glob("*.npz")):
            files = [str(folder / file.name) for folder in folders]
            merge_files(files, str(out / file.stem), ".nii.gz", SimpleITKIO(), manager, save_probabilities=True)
    return out


def with_descriptions(folder: Path, model: Path) -> Path:
    for name in ("plans.json", "dataset.json"):
        (folder / name).write_text((model / name).read_text())
    return folder


@pytest.mark.parametrize(
    "names",
    [("2d", "3d_fullres"), pytest.param(("3d_fullres", "2d", "3d_lowres"), marks=pytest.mark.long)],
)
def test_models_average_their_probabilities(names, scans, tmp_path):
    folders = [write_configuration(tmp_path, name, seed=number) for number, name in enumerate(names)]
    theirs = [
        with_descriptions(stock(folder, scans, tmp_path / folder.name, probabilities=True), folder)
        for folder in folders
    ]
    expected = ensembled(theirs, tmp_path / "ensemble")
    model = read_models(folders)
    assert_equal_to_stock(model, scans, expected)
    (case, *_) = find_scans(scans, 1).cases
    with np.load(expected / f"{case.name}.npz") as kept:
        np.testing.assert_array_equal(ours(model, case, probabilities=True).probabilities, kept["probabilities"])
    assert ours(model, case).probabilities is None


@pytest.mark.long
def test_a_cascade_may_be_one_of_several(scans, tmp_path):
    low = write_configuration(tmp_path, "3d_lowres")
    later = write_configuration(tmp_path, "3d_cascade_fullres", seed=11)
    slices = write_configuration(tmp_path, "2d", seed=5)
    before = stock(low, scans, tmp_path / "low")
    theirs = [
        with_descriptions(stock(later, scans, tmp_path / "a", previous=before, probabilities=True), later),
        with_descriptions(stock(slices, scans, tmp_path / "b", probabilities=True), slices),
    ]
    assert_equal_to_stock(read_models([later, slices]), scans, ensembled(theirs, tmp_path / "ensemble"))


def test_a_model_with_itself_alone_is_the_model(scans, tmp_path):
    """A law: the average of one is that one, and the order of two plays no part."""
    one, other = (write_configuration(tmp_path, name, seed=1) for name in ("3d_fullres", "2d"))
    (case, *_) = find_scans(scans, 1).cases
    both = [ours(read_models(folders), case, exact=False).mask for folders in ([one, other], [other, one])]
    np.testing.assert_array_equal(*both)
    np.testing.assert_array_equal(ours(read_models([one]), case).mask, ours(read_model(one), case).mask)
    with pytest.raises(ConfigError, match="it is there twice"):
        read_models([one, one])


@pytest.mark.parametrize("stored", [Turn((2, 0, 1), (True, False, True)), Turn((1, 2, 0), (False, True, True))])
def test_masks_in_the_world_do_not_depend_on_storage(stored, tmp_path):
    """Scans are turned to the models' axes, between a cascade's stages too, and masks turned back before they meet."""

    def known(axes: str) -> Any:
        return lambda plans: plans.update(with_axes(plans, axes, ".nii.gz"))

    write_configuration(tmp_path, "3d_lowres", change=known("RAS"))
    later = write_configuration(tmp_path, "3d_cascade_fullres", change=known("RAS"), seed=11)
    slices = write_configuration(tmp_path, "2d", change=known("LPS"), seed=5)  # its axes are others
    grid = Grid(SHAPE, SPACING_XYZ[::-1], (-12.5, 4.0, 100.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    plain = Volume(scene(0)[0], grid)
    turned_scan = Volume(np.ascontiguousarray(stored.forth(plain.array)), stored.grid(grid))
    for model in (read_model(later), read_models([later, slices])):
        predictor = ready(model, InferenceSetting())
        one, other = (predictor.run(predictor.prepare([scan])).mask for scan in (plain, turned_scan))
        assert len(np.unique(one)) > 1
        np.testing.assert_array_equal(stored.forth(one), other)


def test_models_of_other_labels_are_not_averaged(tmp_path):
    one = write_configuration(tmp_path, "3d_fullres")
    other = write_configuration(tmp_path / "other", "2d", labels={"background": 0, "vessel": 1, "node": 2})
    with pytest.raises(ConfigError, match=r"it knows vessel=1, node=2 on CT, and .* node=1, vessel=2 on CT"):
        read_models([one, other])


def test_a_previous_stage_that_is_missing_or_another_is_named(scans, tmp_path):
    later = write_configuration(tmp_path, "3d_cascade_fullres")
    full = write_configuration(tmp_path / "other", "3d_fullres")
    (case, *_) = find_scans(scans, 1).cases
    with pytest.raises(ModelError, match=r"takes the masks of 3d_lowres, and .* Give it with --previous-stage"):
        ours(read_model(later), case)
    with pytest.raises(ConfigError, match=r"--previous-stage .*: it is of 3d_fullres, and .* takes masks of 3d_lowres"):
        read_model(later, choice=ModelChoice(previous_stage=full))
    low = write_configuration(tmp_path, "3d_lowres")
    with pytest.raises(ConfigError, match=r"is of 3d_fullres, which takes no other model's masks\. Leave it out"):
        read_model(full, choice=ModelChoice(previous_stage=low))
    with pytest.raises(ConfigError, match="the model is a cascade"):
        ready(read_model(later), choose_setting("coarse-first"))


def test_neither_memory_nor_flags_change_a_mask(scans, tmp_path):
    write_configuration(tmp_path, "3d_lowres")
    later = write_configuration(tmp_path, "3d_cascade_fullres", seed=11)
    slices = write_configuration(tmp_path, "2d", seed=5)
    (case, *_) = find_scans(scans, 1).cases
    for model in (read_model(later), read_models([later, slices])):
        plain, small, watched = (
            predictor.run(predictor.prepare(case.images))
            for settings in ({}, {"memory": 1000}, {"watch": True})
            for predictor in [ready(model, InferenceSetting(), **settings)]
        )
        np.testing.assert_array_equal(plain.mask, small.mask)
        np.testing.assert_array_equal(plain.mask, watched.mask)
        assert plain.mirrored is None
        assert set(watched.mirrored) == {"node", "vessel", FOREGROUND}
        grid = read_mask(case.images[0])[1]
        assert scan_bytes(model, grid) > scan_bytes(read_model(slices), grid)


def test_the_command_and_python_predict_alike(scans, tmp_path, lnsegfm_here):
    write_configuration(tmp_path, "3d_lowres")
    later = write_configuration(tmp_path, "3d_cascade_fullres", seed=11)
    slices = write_configuration(tmp_path, "2d", seed=5)
    data, out = tmp_path / DATA, tmp_path / "masks"
    words = ("predict", data, scans, "--out", out, "--configuration", "3d_cascade_fullres", "--with", slices)
    done = lnsegfm_here(*words, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    again = lnsegfm.predict([later, slices], scans, tmp_path / "again", device="cpu")
    assert again.failed == ()
    session = lnsegfm.load([later, slices], device="cpu")
    for case in find_scans(scans, 1).cases:
        mask = read_mask(out / f"{case.name}.nii.gz")[0]
        np.testing.assert_array_equal(mask, read_mask(tmp_path / "again" / f"{case.name}.nii.gz")[0])
        np.testing.assert_array_equal(mask, session.predict(case.images[0]).array)
    made_by = json.loads((out / "masks.json").read_text())
    assert "previous_stage" in json.dumps(made_by)
    assert "averaged_with" in json.dumps(made_by)
    alone = lnsegfm_here("predict", slices, scans, "--out", out, "--device", "cpu")
    assert alone.returncode == 2
    assert "Choose another --out" in alone.stderr or "masks of another" in alone.stderr

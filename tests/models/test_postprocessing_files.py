"""A model's postprocessing: nnU-Net's own files, equal masks in stock nnU-Net, and never a stranger's pickle."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from lnsegfm.datasets.dataset import Case
from lnsegfm.errors import ConfigError, ModelError, UnsafeFile
from lnsegfm.evaluation.postprocessing import LargestComponent, Postprocessing, SmallestVolume
from lnsegfm.evaluation.probabilities import read_probabilities
from lnsegfm.imaging.files import read_mask
from lnsegfm.models.export_model import export_model
from lnsegfm.models.importing.import_options import ImportOptions
from lnsegfm.models.install import install
from lnsegfm.models.model_folder import Model, read_model, read_models
from lnsegfm.models.postprocessing_files import JSON, PICKLE, read_postprocessing, write_postprocessing
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.prediction.predict_cases import predict_cases
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.session import load
from lnsegfm.workflows.model_postprocessing import choose_for_model, set_for_model
from tests.prediction.test_predictor import LABELS, write_random
from tests.scenes import scene, write_image

pytestmark = pytest.mark.usefixtures("one_thread")
WITNESS = str(Path(tempfile.gettempdir()) / f"executed-{os.getpid()}")
RULES = Postprocessing((LargestComponent((1, 2)), LargestComponent((2,)), SmallestVolume((1,), 40.0)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("random"), labels=LABELS).folder


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Case:
    file = tmp_path_factory.mktemp("scan") / "c_0000.nii.gz"
    write_image(file, scene(3)[0])
    return Case("c", (file,))


@pytest.fixture
def own(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "own"))


def mask_of(model: Model, scan: Case, out: Path, **options: Any) -> np.ndarray:
    predict_cases(model, [scan], out, PredictOptions(device="cpu", **options))
    return read_mask(out / "c.nii.gz")[0]


def test_predictions_equal_stock_nnunets_with_its_pickle(own: Path, scan: Case, tmp_path: Path) -> None:
    stock_rules = Postprocessing(RULES.rules[:2])
    write_postprocessing(own, stock_rules)
    raw = mask_of(read_model(own), scan, tmp_path / "raw", postprocessing=False, exact=True)
    ours = mask_of(read_model(own), scan, tmp_path / "ours", exact=True)
    with nnunet_environment():
        from nnunetv2.postprocessing.remove_connected_components import apply_postprocessing_to_folder

        functions, kwargs = pickle.loads((own / PICKLE).read_bytes())
        described = [json.loads((own / name).read_text()) for name in ("plans.json", "dataset.json")]
        apply_postprocessing_to_folder(
            str(tmp_path / "raw"), str(tmp_path / "stock"), functions, kwargs, *described, num_processes=1
        )

    assert (ours != raw).any()
    np.testing.assert_array_equal(ours, sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "stock" / "c.nii.gz")))


def test_the_json_is_nnunets_and_both_files_are_read_alike(own: Path) -> None:
    write_postprocessing(own, RULES)
    content = json.loads((own / JSON).read_text())
    functions, kwargs = pickle.loads((own / PICKLE).read_bytes())

    assert content["postprocessing_fns"] == [function.__name__ for function in functions]
    assert json.loads(json.dumps(kwargs)) == content["postprocessing_kwargs"]
    assert kwargs == [{"labels_or_regions": (1, 2)}, {"labels_or_regions": 2}]
    assert read_postprocessing(own) == RULES
    (own / JSON).unlink()
    assert read_postprocessing(own) == Postprocessing(RULES.in_stock)


@pytest.mark.parametrize(
    ("name", "content", "rules"),
    [
        (
            "nnunet",
            {"postprocessing_kwargs": [{"labels_or_regions": [1, 2]}, {"labels_or_regions": 2}]},
            RULES.in_stock,
        ),
        ("regions", {"postprocessing_kwargs": [{"labels_or_regions": [[1, 2], 2]}]}, RULES.in_stock[:1]),
        ("version 1", {"for_which_classes": [[1, 2], 2], "min_valid_object_sizes": None}, RULES.in_stock),
        ("none", {"postprocessing_kwargs": []}, ()),
    ],
)
def test_what_nnunet_writes_is_read(own: Path, name: str, content: dict[str, Any], rules: Any) -> None:
    if "postprocessing_kwargs" in content:
        fn = "remove_all_but_largest_component_from_segmentation"
        content |= {"postprocessing_fns": [fn] * len(content["postprocessing_kwargs"]), "input_folder": {}}
    place = own / "crossval_results_folds_0_1_2_3_4"
    place.mkdir()
    (place / JSON).write_text(json.dumps(content))

    assert read_model(own).postprocessing.rules == tuple(rules)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (WITNESS,)


@pytest.mark.parametrize(
    "content",
    [pickle.dumps(([Evil()], [{}])), pickle.dumps([os.getcwd]), b"no pickle", b""],
    ids=["calls", "names", "no pickle", "empty"],
)
def test_a_strangers_pickle_is_never_executed(content: bytes, own: Path, tmp_path: Path) -> None:
    (own / PICKLE).write_bytes(content)

    with pytest.raises(UnsafeFile, match="Remove the file"):
        read_model(own)
    assert not Path(WITNESS).exists()
    (own / JSON).write_text('{"for_which_classes": [1]}')
    assert read_model(own).postprocessing == Postprocessing((LargestComponent((1,)),))


@pytest.mark.parametrize(
    "content",
    [
        {"postprocessing_fns": ["other"], "postprocessing_kwargs": [{"labels_or_regions": 1}]},
        {"postprocessing_fns": [], "postprocessing_kwargs": [{}]},
        {"for_which_classes": [1], "min_valid_object_sizes": {"1": 30}},
        {"format": "lnsegfm.postprocessing/1", "rules": [{"rule": "dilate", "values": [1]}]},
        {"format": "lnsegfm.postprocessing/1", "rules": [{"rule": "largest component", "values": ["a"]}]},
        [1],
        {},
    ],
)
def test_rules_that_are_not_known_are_refused_in_a_line(content: Any, own: Path) -> None:
    (own / JSON).write_text(json.dumps(content))

    with pytest.raises(ModelError, match=r"postprocessing\.json: .*remove the file to predict without") as raised:
        read_model(own)
    assert "\n" not in str(raised.value)


def test_predict_applies_the_rules_everywhere_and_leaves_probabilities(own: Path, scan: Case, tmp_path: Path) -> None:
    write_postprocessing(own, RULES)
    model = read_model(own)
    raw = mask_of(model, scan, tmp_path / "raw", postprocessing=False, probabilities=True)
    cleaned = mask_of(model, scan, tmp_path / "cleaned", probabilities=True)
    grid = read_mask(tmp_path / "raw" / "c.nii.gz")[1]

    np.testing.assert_array_equal(cleaned, RULES.applied(raw, 1000 * grid.voxel_volume_ml))
    assert (cleaned != raw).any()
    shares = [read_probabilities(tmp_path / name / "c.npz", model.labels, grid) for name in ("raw", "cleaned")]
    for label in model.labels.names:
        np.testing.assert_array_equal(shares[0][label], shares[1][label])
    np.testing.assert_array_equal(load(own, "cpu").predict(scan.images[0]).array, cleaned)
    np.testing.assert_array_equal(load(own, "cpu", postprocessing=False).predict(scan.images[0]).array, raw)
    assert read_model(own).identity != read_model(own).without_postprocessing().identity


def test_models_that_are_averaged_share_rules_or_have_none(own: Path, tmp_path: Path) -> None:
    other = write_random(tmp_path / "other", labels=LABELS, axes=()).folder
    changed = read_model(other)
    assert not changed.postprocessing
    write_postprocessing(own, RULES)

    same = replace(read_model(own), companions=(replace(changed, postprocessing=RULES),))
    apart = replace(read_model(own), companions=(changed,))
    assert same.mask_postprocessing == RULES
    assert not apart.mask_postprocessing
    assert not same.without_postprocessing().mask_postprocessing
    assert read_models([own]).mask_postprocessing == RULES


@pytest.mark.parametrize("form", ["nnunet-zip", "folder", "safetensors"])
def test_rules_go_out_and_come_back(form: str, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))
    write_postprocessing(own, RULES)
    done = export_model(own, form, tmp_path / ("out.zip" if form == "nnunet-zip" else "out"))
    install(done.out, "back", ImportOptions())

    assert read_model(Path("back")).postprocessing == RULES
    assert any("apply_postprocessing" in command for command in done.predict) == (form != "safetensors")
    assert any("smallest volume" in note for note in done.notes) == (form != "safetensors")
    set_for_model(Path("back"), largest=["vessel"])
    from lnsegfm.registry.stored_model import verify

    assert verify(tmp_path / "home" / "models" / "back") == ()
    assert read_model(Path("back")).postprocessing == Postprocessing((LargestComponent((2,)),))


def test_an_import_leaves_a_pickle_that_would_run_something(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))
    (own / PICKLE).write_bytes(pickle.dumps(([Evil()], [{}])))

    stored = install(own, "stranger", ImportOptions())

    assert any("postprocessing is left out" in note for note in stored.notes)
    assert not read_model(Path("stranger")).postprocessing


def test_rules_said_by_hand(own: Path) -> None:
    stored = set_for_model(own, largest=["all", "vessel"], smallest=[("all", 25.0)])

    volumes = (SmallestVolume((1,), 25.0), SmallestVolume((2,), 25.0))
    assert read_model(own).postprocessing == Postprocessing((*RULES.in_stock, *volumes))
    assert stored.lines[0] == "the largest component of all foreground is kept"
    assert stored.lines[2] == "components of node below 25 mm3 are removed"
    with pytest.raises(ConfigError, match="none of that name"):
        set_for_model(own, largest=["larynx"])
    assert not set_for_model(own).postprocessing
    assert not (own / PICKLE).exists()


def test_chosen_by_name_whatever_the_values(own: Path, tmp_path: Path) -> None:
    """References number their labels otherwise, and know one that the model does not."""
    for folder in ("predictions", "references"):
        (tmp_path / folder).mkdir()
    (tmp_path / "references" / "dataset.json").write_text('{"labels": {"background": 0, "vessel": 7, "other": 9}}')
    for number in range(4):
        reference = np.zeros((12, 16, 16), np.uint8)
        reference[2:8, 2:8, 2:8] = 7
        prediction = np.where(reference == 7, 2, 0).astype(np.uint8)
        prediction[10, 12, 10 : 12 + number] = 2
        write_image(tmp_path / "references" / f"c{number}.nii.gz", reference)
        write_image(tmp_path / "predictions" / f"c{number}.nii.gz", prediction)

    done = choose_for_model(own, tmp_path / "predictions", tmp_path / "references")

    assert done.postprocessing == Postprocessing((LargestComponent((2,)),)) == read_model(own).postprocessing
    assert done.choice is not None
    assert set(done.choice.scores.means()) == {"vessel"}

"""What is written beside masks: flags, nodes, probabilities; and that the masks do not depend on it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lnsegfm.datasets.dataset import Case, open_dataset
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.evaluation.domain_ranges import TRAINING_DOMAIN, Range, read_domains
from lnsegfm.evaluation.flags import FLAGS, Flag, Overlap, read_flags
from lnsegfm.evaluation.mask_statistics import FOREGROUND
from lnsegfm.evaluation.nodes import Node
from lnsegfm.evaluation.probabilities import read_probabilities
from lnsegfm.evaluation.references import masks_in
from lnsegfm.imaging.files import read_grid, read_mask
from lnsegfm.models.model_folder import Model, read_model, write_model
from lnsegfm.models.training_domain import training_domains, write_training_domain
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.prediction import predict_cases as predicting
from lnsegfm.prediction.predict_cases import predict_cases
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.predictor import Predictor
from lnsegfm.prediction.results import PredictedMask
from lnsegfm.prediction.scans import find_scans
from lnsegfm.prediction.writers.case_records import read_record, write_record
from lnsegfm.progress import Silent
from lnsegfm.weights.checkpoint import Checkpoint
from tests.cli.machines import description
from tests.scenes import SHAPE, scene, small_plans, write_image, write_scenes

LABELS = {"background": 0, "node": 1, "vessel": 2}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def as_they_are(plans: dict[str, Any]) -> None:
    pass


def write_random(folder: Path, change: Callable[[dict[str, Any]], None] = as_they_are) -> Model:
    """A model of random weights for two labels, mirrored along all axes."""
    torch.manual_seed(3)
    plans = small_plans()
    change(plans)
    start = Checkpoint({}, "3d_fullres", plans, description() | {"labels": LABELS}, "nnUNetTrainer", (0, 1, 2))
    write_model(folder, replace(start, weights=build_network(start, deep_supervision=True).state_dict()))
    return read_model(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_random(tmp_path_factory.mktemp("model"))


@pytest.fixture
def scans(tmp_path: Path) -> tuple[Case, ...]:
    for case in range(2):
        write_image(tmp_path / "scans" / f"case_{case}.nii.gz", scene(case)[0])
    return find_scans(tmp_path / "scans", 1).cases


def names(folder: Path) -> list[str]:
    """What lies in a folder besides what always does."""
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in ("dataset.json", "masks.json") and not path.name.endswith(".case.json")
    )


# mirrored predictions


def test_overlap_is_counted_and_the_masks_are_as_without(model, scans, tmp_path):
    """On a scan of one tile, where plain and averaged prediction can be made by hand."""
    image = scene(5)[0][:16, :16, :16]
    write_image(tmp_path / "one" / "tile.nii.gz", image)
    images = find_scans(tmp_path / "one", 1).cases[0].images
    found: list[PredictedMask] = []
    watched = Predictor(model, watch=True)
    calls = []
    watched._network.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(2):  # the second one begins to count from 0
        watched.predict(images, tmp_path / "watched.nii.gz", first=found.append)
    assert len(calls) == 2 * 8
    stock = Predictor(model)
    stock.predict(images, tmp_path / "stock.nii.gz", first=found.append)
    assert found[2].mirrored is None
    np.testing.assert_array_equal(read_mask(tmp_path / "watched.nii.gz")[0], read_mask(tmp_path / "stock.nii.gz")[0])

    with nnunet_environment():
        plans = stock._plans
        data, _, _ = plans.preprocessing.preprocessor_class(verbose=False).run_case(
            [str(images[0])], None, plans.plans, plans.preprocessing, dict(model.dataset_json)
        )
    x, network = torch.from_numpy(data)[None].float(), stock._network
    assert x.shape[2:] == (16, 16, 16)
    axes = [c for n in range(4) for c in itertools.combinations((2, 3, 4), n)]
    with torch.inference_mode():
        copies = [network(x.flip(flipped)).flip(flipped) for flipped in axes]
    plain, averaged = copies[0].argmax(1), (sum(copies) / 8).argmax(1)

    def overlap(a: torch.Tensor, b: torch.Tensor) -> Overlap:
        return Overlap(int((a & b).sum()), int(a.sum()), int(b.sum()))

    by_hand = {name: overlap(plain == value, averaged == value) for name, value in LABELS.items() if value}
    by_hand[FOREGROUND] = overlap(plain > 0, averaged > 0)
    assert by_hand[FOREGROUND].disagreement > 0
    assert found[0].mirrored == found[1].mirrored == by_hand


def test_nothing_to_compare_without_mirroring(model, scans, tmp_path):
    found: list[PredictedMask] = []
    Predictor(model, mirroring=False, watch=True).predict(scans[0].images, tmp_path / "a.nii.gz", first=found.append)
    assert found[0].mirrored is None


def test_masks_do_not_depend_on_what_lies_beside_them(model, scans, tmp_path):
    predict_cases(model, scans, tmp_path / "bare", PredictOptions(flags=False))
    predict_cases(model, scans, tmp_path / "all", PredictOptions(nodes=True, probabilities=True))
    assert names(tmp_path / "bare") == ["case_0.nii.gz", "case_1.nii.gz"]
    for case in scans:
        one, other = (tmp_path / folder / f"{case.name}.nii.gz" for folder in ("bare", "all"))
        assert one.read_bytes() == other.read_bytes()
    beside = [f"case_{n}{ending}" for n in (0, 1) for ending in (".nii.gz", ".nodes.csv", ".nodes.json", ".npz")]
    assert names(tmp_path / "all") == sorted([*beside, FLAGS])
    assert list(masks_in(tmp_path / "all")) == ["case_0", "case_1"]


# flags.json


def test_flags_are_written_and_survive_going_on(model, scans, tmp_path, monkeypatch):
    out = tmp_path / "out"
    first = predict_cases(model, scans[:1], out)
    assert {flag.case for flag in first.flags} == {"case_0"}
    assert read_flags(out) == {"case_0": first.flags}
    assert "border" in {flag.kind for flag in first.flags}

    marked = Flag("case_0", "hu", "Kept.", 1.0, 0.0)
    write_record(out, replace(read_record(out, "case_0"), flags=(marked,)))
    second = predict_cases(model, scans, out)
    assert (second.done, second.skipped) == (("case_1",), ("case_0",))
    assert marked in second.flags
    assert read_flags(out)["case_0"] == (marked,)

    again = predict_cases(model, scans, out, PredictOptions(overwrite=True))
    assert marked not in again.flags
    assert json.loads(json.dumps(predicting.as_json(again)))["flags"] == [flag.to_json() for flag in again.flags]


def test_flags_are_there_once_the_mask_is(model, scans, tmp_path):
    """However a process ends, no mask stands without its flags."""
    seen = []
    predictor = Predictor(model, watch=True)

    def stop(found: PredictedMask) -> None:
        seen.append(found.mask.is_file() and not (tmp_path / "a.nii.gz").exists())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predictor.predict(scans[0].images, tmp_path / "a.nii.gz", first=stop)
    assert seen == [True]
    assert not list(tmp_path.glob("*.nii.gz"))


def test_masks_of_before_are_looked_at_without_a_network(model, scans, tmp_path, monkeypatch):
    out = tmp_path / "out"
    predict_cases(model, scans, out, PredictOptions(flags=False))
    monkeypatch.setattr(predicting, "ready", None)
    found = predict_cases(model, scans, out, PredictOptions(nodes=True))
    assert (found.done, found.skipped, found.failed) == ((), ("case_0", "case_1"), ())
    assert sorted(read_flags(out)) == ["case_0", "case_1"]
    assert {"case_0.nodes.csv", "case_1.nodes.json"} <= set(names(out))


def test_masks_made_anew_do_not_keep_what_lay_beside_them(model, scans, tmp_path):
    out = tmp_path / "out"
    predict_cases(model, scans, out, PredictOptions(nodes=True, probabilities=True))
    predict_cases(model, scans[:1], out, PredictOptions(flags=False, overwrite=True))
    assert [name for name in names(out) if name.startswith("case_0")] == ["case_0.nii.gz"]
    assert list(read_flags(out)) == ["case_1"]


def test_one_case_that_fails_does_not_stop_the_rest(model, scans, tmp_path):
    out = tmp_path / "out"
    predict_cases(model, scans, out, PredictOptions(flags=False))
    scans[0].images[0].write_bytes(b"no scan")
    found = predict_cases(model, scans, out)
    assert [failure.case for failure in found.failed] == ["case_0"]
    assert list(read_flags(out)) == ["case_1"]


# nodes


def test_nodes_are_those_of_the_labels_named_so(model, scans, tmp_path):
    predict_cases(model, scans[:1], tmp_path, PredictOptions(nodes=True))
    content = json.loads((tmp_path / "case_0.nodes.json").read_text())
    mask, _ = read_mask(tmp_path / "case_0.nii.gz")
    assert list(content["labels"]) == ["node"]
    nodes = [Node.from_json(node) for node in content["labels"]["node"]]
    assert sum(node.voxels for node in nodes) == (mask == 1).sum() > 0
    assert len((tmp_path / "case_0.nodes.csv").read_text().splitlines()) == 1 + len(nodes)


def test_all_labels_are_measured_where_none_is_named_as_nodes(scans, tmp_path, model):
    other = replace(model, dataset_json=dict(model.dataset_json) | {"labels": {"background": 0, "a": 1, "b": 2}})
    predict_cases(other, scans[:1], tmp_path, PredictOptions(nodes=True))
    assert list(json.loads((tmp_path / "case_0.nodes.json").read_text())["labels"]) == ["a", "b"]


# probabilities


def turned(plans: dict[str, Any]) -> None:
    """Plans that look along the last axis first, as nnU-Net makes them for scans with thick sagittal slices."""
    plans["transpose_forward"], plans["transpose_backward"] = [2, 0, 1], [1, 2, 0]


@pytest.mark.parametrize("change", [as_they_are, turned])
def test_probabilities_are_those_of_stock_nnunet(change, scans, tmp_path):
    model = write_random(tmp_path / "model", change)
    write_image(tmp_path / "scans" / "framed.nii.gz", np.pad(scene(9)[0], 3))  # zeros around: nnU-Net crops them
    cases = find_scans(tmp_path / "scans", 1).cases
    predict_cases(model, cases, tmp_path / "ours", PredictOptions(probabilities=True, exact=True))
    with nnunet_environment():
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        stock = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
        stock.initialize_from_trained_model_folder(str(model.folder), (0,))
        (tmp_path / "theirs").mkdir()
        stock.predict_from_files_sequential(
            [[str(case.images[0])] for case in cases],
            [str(tmp_path / "theirs" / case.name) for case in cases],
            save_probabilities=True,
        )
    for case in cases:
        ours, theirs = (tmp_path / who / case.name for who in ("ours", "theirs"))
        mask, grid = read_mask(ours.with_suffix(".nii.gz"))
        np.testing.assert_array_equal(mask, read_mask(theirs.with_suffix(".nii.gz"))[0])
        found = {
            who: read_probabilities(path.with_suffix(".npz"), model.labels, grid)
            for who, path in (("ours", ours), ("theirs", theirs))
        }
        with np.load(ours.with_suffix(".npz"), allow_pickle=False) as stored:
            assert stored["probabilities"].dtype == np.float16
            assert stored["probabilities"].shape == (3, *grid.shape)
        for name, value in model.labels.names.items():
            np.testing.assert_array_equal(found["ours"][name], found["theirs"][name].astype(np.float16))
            assert found["theirs"][name][mask == value].min() > 1 / 3


def test_probabilities_that_are_missing_are_predicted(model, scans, tmp_path):
    predict_cases(model, scans, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.nii.gz")}
    (tmp_path / "case_1.npz").write_bytes(b"there")
    found = predict_cases(model, scans, tmp_path, PredictOptions(probabilities=True))
    assert (found.done, found.skipped) == (("case_0",), ("case_1",))
    assert (tmp_path / "case_0.npz").is_file()
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


# what was seen in training


def test_plans_tell_what_a_stock_model_has_seen(model):
    (seen,) = training_domains(model)
    plans = model.plans
    assert [r.low for r in seen.spacing_mm] == plans["original_median_spacing_after_transp"]
    assert [r.low for r in seen.extent_mm] == [
        n * s
        for n, s in zip(plans["original_median_shape_after_transp"], [r.low for r in seen.spacing_mm], strict=True)
    ]
    assert seen.foreground_hu == Range(10, 110)  # mean 60, SD 25, percentiles -30 and 150
    assert seen.cases == 0


def test_plans_in_another_order_of_axes(tmp_path):
    def change(plans: dict[str, Any]) -> None:
        turned(plans)
        plans |= {
            "original_median_spacing_after_transp": [1.5, 2, 1],
            "original_median_shape_after_transp": [28, 20, 24],
        }

    (seen,) = training_domains(write_random(tmp_path, change))
    assert [r.low for r in seen.spacing_mm] == [2, 1, 1.5]
    assert [r.low for r in seen.extent_mm] == [40, 24, 42]


@pytest.mark.parametrize(
    "part", ["original_median_spacing_after_transp", "foreground_intensity_properties_per_channel"]
)
def test_plans_that_do_not_tell(model, part):
    assert training_domains(replace(model, plans={key: v for key, v in model.plans.items() if key != part})) == ()


def test_training_writes_ranges_and_its_own_cases_are_like_them(model, tmp_path):
    data = open_dataset(write_scenes(tmp_path / "data", 3))
    folder = tmp_path / "model"
    write_model(folder, model.first)
    write_training_domain(model.first, data.cases, data.labels, folder, Silent())
    (seen,) = read_domains(folder)
    assert (seen.source, seen.cases, list(seen.labels)) == ("training", 3, ["node"])
    assert seen.spacing_mm == (Range(2, 2), Range(1, 1), Range(1.5, 1.5))
    assert seen.extent_mm == tuple(Range(n * s, n * s) for n, s in zip(SHAPE, (2, 1, 1.5), strict=True))
    assert 60 < seen.labels["node"].hu.low <= seen.labels["node"].hu.high < 100
    found = predict_cases(read_model(folder), data.cases, tmp_path / "out")
    assert {flag.kind for flag in found.flags}.isdisjoint({"spacing", "field-of-view", "hu-scale"})

    written = (folder / TRAINING_DOMAIN).read_bytes()
    write_training_domain(model.first, (), data.labels, folder, Silent())
    assert (folder / TRAINING_DOMAIN).read_bytes() == written


def test_an_adapted_model_knows_what_its_base_has_seen(model, tmp_path):
    data = open_dataset(write_scenes(tmp_path / "data", 2))
    base, adapted, third = (tmp_path / name for name in ("base", "adapted", "third"))
    for folder in (base, adapted, third):
        write_model(folder, model.first)
    write_training_domain(model.first, data.cases, data.labels, base, Silent())
    write_training_domain(
        model.first,
        data.cases[:1],
        LabelMap({"lymph": 1}),
        adapted,
        Silent(),
        base=read_model(base),
        renamed={"node": "lymph"},
    )
    write_training_domain(model.first, [], data.labels, third, Silent(), base=read_model(adapted))
    assert [(s.source, s.cases, list(s.labels)) for s in read_domains(adapted)] == [
        ("training", 1, ["lymph"]),
        ("base", 2, ["lymph"]),
    ]
    assert [(s.source, s.cases) for s in read_domains(third)] == [("base", 1), ("base 1 before it", 2)]


def test_a_model_with_a_damaged_description_is_refused(model, scans, tmp_path):
    write_model(tmp_path / "model", model.first)
    (tmp_path / "model" / TRAINING_DOMAIN).write_text("{}")
    with pytest.raises(DataError, match=r"training_domain\.json"):
        predict_cases(read_model(tmp_path / "model"), scans, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_scan_unlike_the_training_is_flagged(model, scans, tmp_path):
    image = scene(0)[0] + 1024
    write_image(tmp_path / "odd" / "offset.nii.gz", image)
    found = predict_cases(model, find_scans(tmp_path / "odd", 1).cases, tmp_path / "out")
    (flag,) = [flag for flag in found.flags if flag.kind == "hu-scale"]
    assert read_grid(tmp_path / "odd" / "offset.nii.gz").shape == SHAPE
    assert flag.value > 900


def test_runs_keep_what_they_have_seen(world, run):
    (base,) = read_domains(world.base / "model")
    own, before = read_domains(run.model)
    assert (base.source, base.cases) == ("training", 3)
    assert (own.source, own.cases) == ("training", 2)
    assert before == replace(base, source="base")
    assert sorted(read_flags(run.folder / "predictions" / "adapted")) == sorted(run.record["held_out"])

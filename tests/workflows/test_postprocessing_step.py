"""A run's postprocessing: chosen on honest predictions, stored, reported, kept by the adapter, off by option."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import lnsegfm.workflows.postprocessing_step as step
from lnsegfm.errors import ConfigError
from lnsegfm.imaging.files import read_mask
from lnsegfm.models.adapter_files import apply_adapter
from lnsegfm.models.model_folder import read_model
from lnsegfm.prediction.predict_cases import predict_cases
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.recipe import PostprocessingMode, Recipe
from lnsegfm.workflows.finetune import Run, finetune
from lnsegfm.workflows.finetune_plan import plan
from tests.scenes import write_scenes
from tests.world import World

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cleaned(world: World, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A label that is one structure in each scan, and a barely trained network that scatters it."""
    data = write_scenes(tmp_path_factory.mktemp("organs"), 5, seed=40, contrast=60.0, label="organ")
    for file in sorted((data / "labelsTr").glob("*.nii.gz")):
        keep_largest(file)
    recipe = world.recipe(shots=2, label_names={"node": "organ"})
    return finetune(plan(data, world.base, recipe), tmp_path_factory.mktemp("runs") / "run", device="cpu")


def keep_largest(file: Path) -> None:
    from lnsegfm.evaluation.postprocessing import LargestComponent
    from lnsegfm.imaging.files import write_mask

    mask, grid = read_mask(file)
    write_mask(file, LargestComponent((1,)).applied(mask, 1.0), grid)


def test_it_is_chosen_stored_and_said(cleaned: Run) -> None:
    decided, model = cleaned.record["postprocessing"], read_model(cleaned.model)
    assert model.postprocessing
    assert decided["rules"] == model.postprocessing.to_json()
    assert (decided["chosen_on"], decided["crossfitted"], decided["scans"]) == ("held-out", True, 3)
    dice = decided["dice"]["organ"]
    assert dice["cases"] == 3
    page = (cleaned.folder / "report.html").read_text()
    for text in (*decided["lines"], f"Dice {dice['before']:.3f} before, {dice['after']:.3f} after"):
        assert text in page
    before = cleaned.evidence.comparison.adapted.summary()["organ"]["dice"].mean  # type: ignore[union-attr]
    assert dice["before"] == pytest.approx(before)


def test_the_evidence_is_without_it_and_predict_is_with_it(cleaned: Run, tmp_path: Path) -> None:
    model = read_model(cleaned.model)
    planned = json.loads((cleaned.folder / "recipe.json").read_text())
    data = Path(planned["data"]["folder"])
    from lnsegfm.datasets.dataset import open_dataset

    case = next(one for one in open_dataset(data).cases if one.name in planned["held_out"])
    predict_cases(model, [case], tmp_path, PredictOptions(device="cpu", mirroring=False))
    raw, grid = read_mask(model.mask_files(cleaned.folder / "predictions" / "adapted", [case.name])[case.name])

    mask = read_mask(model.mask_files(tmp_path, [case.name])[case.name])[0]
    np.testing.assert_array_equal(mask, model.postprocessing.applied(raw, 1000 * grid.voxel_volume_ml))


def test_the_adapter_keeps_it(cleaned: Run, world: World, tmp_path: Path) -> None:
    apply_adapter(world.base, cleaned.folder, tmp_path / "model")

    assert read_model(tmp_path / "model").postprocessing == read_model(cleaned.model).postprocessing


def test_too_few_patients_choose_nothing_and_the_report_says_so(run: Run) -> None:
    assert run.record["postprocessing"]["rules"] == []
    assert run.record["facts"]["Postprocessing"] == "none: fewer than 3 patients to choose by"
    assert not (run.model / "postprocessing.json").exists()


def test_off_by_option_and_unknown_modes_are_refused() -> None:
    assert Recipe(postprocessing="held-out").identity() == Recipe().identity()  # type: ignore[arg-type]
    assert Recipe(postprocessing=PostprocessingMode.NONE).identity() != Recipe().identity()
    with pytest.raises(ConfigError, match="--postprocessing best: not known"):
        Recipe(postprocessing="best")  # type: ignore[arg-type]


def test_on_the_shots_no_held_out_scan_plays_a_part(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[set[str]] = []
    whole = step.predict_left_out

    def watched(some, *rest):  # type: ignore[no-untyped-def]
        left.extend({case.name for case in member.left_out} for member in some)
        return whole(some, *rest)

    monkeypatch.setattr(step, "predict_left_out", watched)
    made = world.run("chosen-on-shots", shots=3, postprocessing="shots", iterations=2)
    record = made.record
    assert sorted(map(len, left)) == [1, 1, 1]
    assert set.union(*left) == set(record["shots"])
    assert record["postprocessing"]["scans"] == 3
    assert not record["postprocessing"]["crossfitted"]
    again = world.run("chosen-on-shots", shots=3, postprocessing="shots", iterations=2)
    assert len(left) == 3
    assert again.record["postprocessing"] == record["postprocessing"]

"""What a run says of whether it helped, of what it forgot, and of which cases to look at."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lnsegfm.errors import DataError
from lnsegfm.evaluation.case_scores import CaseScore
from lnsegfm.evaluation.evaluation_files import read_evaluation
from lnsegfm.report.comparison_json import from_json
from lnsegfm.report.verdict import verdict
from lnsegfm.workflows.finetune import Run, finetune
from lnsegfm.workflows.finetune_plan import plan
from tests.world import World


@pytest.fixture(scope="module")
def with_source_data(world: World, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("source") / "run"
    planned = plan(world.clinic, world.base, world.recipe(), source_data=world.folder / "source")
    return finetune(planned, out, device="cpu", workers=0)


def figures(score: CaseScore) -> Iterator[float]:
    for label in score.labels.values():
        yield from (label.dice, label.nsd, label.reference_ml, label.prediction_ml)


def test_the_source_data_are_predicted_with_both_models(with_source_data, world):
    found = with_source_data.evidence.source_data

    assert len(found.cases) == 4
    assert {case.files.prediction.parent.name for case in found.base.cases} == {"base"}
    assert {case.files.prediction.parent.name for case in found.adapted.cases} == {"adapted"}
    assert with_source_data.record["source_data"]["outcome"] == found.outcome
    said = with_source_data.record["facts"]["Source data"]
    assert said.startswith("On the 4 source cases")
    page = (with_source_data.folder / "report.html").read_text(encoding="utf-8")
    assert "On the 4 source cases" in page


def test_source_data_are_no_part_of_the_identity(with_source_data, world, run):
    assert with_source_data.record["identity"] == run.record["identity"]
    assert (with_source_data.model / "fold_0" / "checkpoint_final.pth").read_bytes() == (
        run.model / "fold_0" / "checkpoint_final.pth"
    ).read_bytes()


def test_scans_that_the_base_cannot_predict_are_refused_before_anything_is_done(world, tmp_path):
    from tests.scenes import write_scenes

    other = write_scenes(tmp_path / "larynx", 2, label="larynx")

    with pytest.raises(DataError, match=r"--source-data .*the base cannot predict it"):
        plan(world.clinic, world.base, world.recipe(), source_data=other)


def test_the_record_gives_the_evidence_back(run):
    record = json.loads((run.folder / "run.json").read_text())

    comparison = from_json(record["result"], run.folder)

    assert verdict(comparison) == verdict(run.evidence.comparison) == record["result"]["verdict"]
    assert comparison.adapted.node_labels == ("node",)
    assert record["result"]["nodes"]["node"]["nodes"] >= 1
    for model in ("base", "adapted"):
        kept = read_evaluation(run.folder / "predictions" / model)
        assert [case.case for case in kept.cases] == list(comparison.cases)
        assert (run.folder / "predictions" / model / "evaluation.csv").is_file()


def test_the_report_is_made_anew_without_the_model_and_where_the_run_was_moved(
    world, run, tmp_path, lnsegfm_here, with_plots
):
    world.run("run")  # other tests may have run it again, without plots
    moved = tmp_path / "moved"
    shutil.copytree(run.folder, moved)
    shutil.rmtree(moved / "model")
    (moved / "report.html").unlink()

    done = lnsegfm_here("report", moved)

    assert done.returncode == 0, done.stderr
    again = (moved / "report.html").read_text(encoding="utf-8")
    first = (run.folder / "report.html").read_text(encoding="utf-8")
    assert again == first


def test_a_record_of_another_version_is_said(run, tmp_path, lnsegfm_here):
    (tmp_path / "run.json").write_text(json.dumps({**run.record, "format": "lnsegfm.run/1"}, default=str))

    done = lnsegfm_here("report", tmp_path)

    assert done.returncode == 2
    assert "Run the same finetune command again" in done.stderr


def test_nobody_who_is_trained_on_is_held_out(world, tmp_path):
    clinic = tmp_path / "clinic"
    shutil.copytree(world.clinic, clinic)
    names = plan(clinic, world.base, world.recipe(shots=1)).data.cases
    (clinic / "subjects.csv").write_text(
        "case,subject\n" + "".join(f"{case.name},p{i // 2}\n" for i, case in enumerate(names))
    )

    planned = plan(clinic, world.base, world.recipe(shots=1))

    assert len(planned.split.held_out) == 2
    of = planned.data.subjects
    assert of[planned.split.shots[0]] not in {of[name] for name in planned.split.held_out}


def test_a_model_is_no_better_than_itself(world, run):
    """Zero-shot: the adapted model is the base, and nothing may be found between them."""
    found = world.run("itself", "zero-shot").evidence.comparison

    assert found.outcome == "no difference"
    assert found.difference().mean == 0.0
    assert found.nodes("node").sensitivity.effect.value == 0.0
    for ours, theirs in zip(found.adapted.cases, found.base.cases, strict=True):
        assert list(figures(ours)) == list(figures(theirs))
    assert replace(found.adapted, prediction_labels=None).summary() == found.base.summary()


def test_pictures_can_be_drawn_of_every_held_out_case(world: World, run: Run, with_plots: None):
    world.run("run")  # other tests may have run it again, without plots
    page = (run.folder / "report.html").read_text(encoding="utf-8")

    for case in run.evidence.comparison.adapted.cases:
        assert isinstance(case.files.image, Path)
        assert case.case in page
    assert page.count("<svg") >= 3

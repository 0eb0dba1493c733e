from __future__ import annotations

import pytest

import lnsegfm
from lnsegfm.errors import ConfigError, RunMismatch


def test_the_main_job_from_python(world, run, tmp_path):
    same = lnsegfm.finetune(
        world.clinic, world.base, tmp_path / "run", method=lnsegfm.DGST(), shots=2, iterations=6, mirroring=False
    )
    assert same.record["model"] == run.record["model"]

    done = lnsegfm.predict(same.folder, world.clinic / "imagesTr", tmp_path / "masks", mirroring=False)
    assert len(done.done) == 4
    again = lnsegfm.predict(same.folder, world.clinic / "imagesTr", tmp_path / "masks", mirroring=False)
    assert again.done == ()
    assert len(again.skipped) == 4


def test_masks_of_another_model_are_not_taken_for_this_ones(world, run, tmp_path):
    lnsegfm.predict(run.folder, world.clinic / "imagesTr", tmp_path / "masks", mirroring=False)
    with pytest.raises(RunMismatch, match="another model"):
        lnsegfm.predict(world.base, world.clinic / "imagesTr", tmp_path / "masks", mirroring=False)
    done = lnsegfm.predict(world.base, world.clinic / "imagesTr", tmp_path / "masks", mirroring=False, overwrite=True)
    assert len(done.done) == 4


def test_settings_that_cannot_be(world, tmp_path):
    with pytest.raises(ConfigError, match="patch size"):
        lnsegfm.finetune(world.clinic, world.base, tmp_path / "run", patch_size=(16, 16))  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_a_run_prints_as_a_line(run):
    assert len(repr(run)) < 500
    assert str(run.model) in repr(run)

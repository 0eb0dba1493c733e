"""The benchmark of the whole way: its measuring, its counting, and a small job of all arms. No test looks at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from benchmarks.plots import FIGURES, write_figures
from benchmarks.whole import ours, stock
from benchmarks.whole.flags import BEST_FLAGS, CANDIDATES, DEFAULT_FLAGS
from benchmarks.whole.setting import Prepared, Setting, bare
from benchmarks.whole.summary import BEST, DEFAULTS, OURS, dice_of, summarise, table
from benchmarks.whole.watch import Watched, watched

from lnsegfm.datasets.shots import Split
from lnsegfm.errors import ConfigError

ROOT = Path(__file__).parents[2]


def write_mask(file: Path, mask: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(file))


def made_up(seconds: float, dice: float, **stages: float) -> dict:
    alike = seconds - stages.get("report", 0.0)
    return {
        "seconds": seconds,
        "seconds_alike": alike,
        "stages": stages or {"training": seconds},
        "peak_mib": 100.0,
        "processes": 1,
        "dice": {"a": dice, "b": dice + 0.2},
    }


def test_memory_of_all_processes_is_counted_and_shared_memory_once(tmp_path):
    child = "import time; held = bytearray(300 * 2**20); print('held', flush=True); time.sleep(2.5)"
    code = (
        "import os, subprocess, sys, time\n"
        "held = bytearray(b'x') * (200 * 2**20)\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "forked = os.fork()\n"
        "time.sleep(2.5)\n"
        "if forked: child.wait(); os.waitpid(forked, 0)\n"
    )
    code = code.replace("held = bytearray(300", "held = bytearray(b'x') * (300")
    done = watched([sys.executable, "-c", code], os.environ, tmp_path / "log.txt")

    assert 500 <= done.peak_mib < 620, "200 in two processes that share it, and 300"
    assert done.processes == 3
    assert done.at("held") is not None
    assert "held" in (tmp_path / "log.txt").read_text()


def test_a_command_that_fails_ends_the_benchmark_with_its_words(tmp_path):
    with pytest.raises(RuntimeError, match=r"ended with 3[\s\S]*out of luck"):
        watched([sys.executable, "-c", "print('out of luck'); raise SystemExit(3)"], os.environ, tmp_path / "log.txt")


def test_nothing_that_the_user_has_set_reaches_an_arm(monkeypatch):
    for name in ("nnUNet_raw", "nnUNet_def_n_proc", "OMP_NUM_THREADS", "LNSEGFM_HOME"):
        monkeypatch.setenv(name, "1")
    found = bare({"OMP_WAIT_POLICY": "PASSIVE"})

    assert {key for key in found if key.startswith(("nnUNet", "OMP", "LNSEGFM"))} == {"OMP_WAIT_POLICY"}
    assert found["PATH"] == os.environ["PATH"]


def test_dice_is_that_of_the_masks_and_needs_one_grid(tmp_path):
    reference, mask = np.zeros((2, 6, 6, 6), bool)
    reference[1:4, 1:4, 1:4], mask[1:4, 1:4, 2:5] = True, True
    write_mask(tmp_path / "references" / "a.nii.gz", reference)
    write_mask(tmp_path / "masks" / "a.nii.gz", mask)
    assert dice_of(tmp_path / "masks", tmp_path / "references", ["a"]) == {"a": pytest.approx(2 * 18 / 54)}

    write_mask(tmp_path / "masks" / "a.nii.gz", mask, spacing=(1.0, 1.0, 2.0))
    with pytest.raises(RuntimeError, match="its grid is not the reference's"):
        dice_of(tmp_path / "masks", tmp_path / "references", ["a"])


def test_ratios_are_of_the_same_seed_and_tell_what_only_ours_does_apart():
    runs = {
        DEFAULTS: [made_up(600, 0.5), made_up(1200, 0.5), made_up(900, 0.5)],
        BEST: [made_up(300, 0.5), made_up(300, 0.4), made_up(300, 0.6)],
        OURS: [made_up(100, dice, report=beyond) for dice, beyond in ((0.5, 20), (0.6, 10), (0.4, 50))],
    }
    found = summarise(runs)

    assert found["times_faster"][DEFAULTS] == {"whole command": 9.0, "what both do": 13.33, "required": 6.0}
    assert found["times_faster"][BEST] == {"whole command": 3.0, "what both do": 3.75, "required": 3.0}
    assert found["dice_difference"] == {DEFAULTS: pytest.approx(0.0), BEST: pytest.approx(0.0)}
    assert found["arms"][BEST]["dice_by_seed"] == [0.6, 0.5, 0.7]
    assert found["arms"][BEST]["dice_sd"] == pytest.approx(0.1)
    assert "3.0 times faster than stock, best flags" in table(found, {"training_s": 1.0, "prediction_s": 2.0})


def test_stages_are_read_from_what_is_said():
    log = Watched(
        50.0,
        10.0,
        2,
        (
            (1.0, "Using device: cpu"),
            (12.0, "2026-01-01 10:00:00.1: Epoch 0 "),
            (30.0, "2026-01-01 10:00:18.1: predicting a "),
            (40.0, "2026-01-01 10:00:28.1: predicting b "),
        ),
    )
    short = Watched(5.0, 20.0, 1, ())
    found = stock.figures(short, short, log)
    assert found["stages"]["start of training"] == 12.0
    assert (found["stages"]["training"], found["stages"]["held-out evaluation"]) == (18.0, 20.0)
    assert found["seconds"] == sum(found["stages"].values()) == 60.0

    said = ["Training: 200 iterations", "Predicting 3 cases with the adapted model", "Predicting 3 cases with the base"]
    found = ours.figures(
        Watched(9.0, 1.0, 1, ((2.0, said[0]), (4.0, said[1]), (5.0, said[2]), (8.0, "Drawing the report")))
    )
    assert list(found["stages"].values()) == [2.0, 2.0, 1.0, 3.0, 1.0]
    assert found["seconds_alike"] == 5.0
    with pytest.raises(RuntimeError, match="it never said"):
        ours.figures(Watched(9.0, 1.0, 1, ()))


def test_all_arms_train_alike(tmp_path):
    setting = Setting(iterations=200, epochs=4)
    prepared = Prepared(tmp_path, tmp_path / "base", Split(("a",), ("b",)))
    lengths = [stock.lengths(setting, prepared, flags) for flags in (DEFAULT_FLAGS, BEST_FLAGS)]

    assert [found.pop("WHOLE_VALIDATION") for found in lengths] == ["10", "1"]
    assert lengths[0] == lengths[1]
    assert int(lengths[0]["WHOLE_EPOCHS"]) * int(lengths[0]["WHOLE_ITERATIONS"]) == 200
    assert BEST_FLAGS in CANDIDATES.values()
    with pytest.raises(ConfigError, match="do not divide"):
        Setting(iterations=10, epochs=4)


def test_figures_are_drawn_from_what_is_there_and_are_the_same_bytes_again(tmp_path):
    runs = {
        DEFAULTS: [made_up(60, 0.5, plan=9, preprocess=9, training=22, **{"held-out evaluation": 20})],
        OURS: [made_up(10, 0.5, training=4, report=1, **{"check and preprocess": 3, "held-out evaluation": 2})],
    }
    whole = {
        **summarise(runs),
        "setting": {"shots": 5, "iterations": 200, "held_out": 3, "cores": 2},
        "floor": {"training_s": 1.0, "prediction_s": 2.0},
    }
    line = {"sizes": [1, 2], "seconds": [1.0, 2.1], "above_start_mib": [10, 20]}
    growth = {"growth": {"prediction": line | {"grows with": "volume"}, "iteration": line | {"grows with": "shots"}}}
    for name, content in (("whole", whole), ("growth", growth)):
        (tmp_path / f"{name}_cpu.json").write_text(json.dumps(content))
    first = write_figures(tmp_path, tmp_path / "first")
    second = write_figures(tmp_path, tmp_path / "second")

    assert [file.name for file in first] == ["whole.svg", "growth.svg"]
    assert set(FIGURES) > {"whole", "growth"}
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
        assert b"<svg" in one.read_bytes()


def test_the_figures_of_results_that_are_kept_can_be_drawn(tmp_path):
    assert write_figures(ROOT / "results", tmp_path)


@pytest.mark.long
def test_a_small_job_goes_through_all_arms_and_is_not_done_twice(tmp_path):
    words = ["--iterations", "4", "--shape", "32", "40", "40", "--held-out", "1", "--base-iterations", "2"]
    words += ["--base-cases", "2", "--seeds", "1", "--work", tmp_path / "work", "--out", tmp_path / "whole.json"]

    def run() -> None:
        command = [sys.executable, "-m", "benchmarks.whole", *map(str, words)]
        subprocess.run(command, check=True, cwd=ROOT, timeout=900)

    run()
    found = json.loads((tmp_path / "whole.json").read_text())
    assert set(found["arms"]) == {DEFAULTS, BEST, OURS}
    for arm, (one,) in found["runs"].items():
        assert one["seconds"] == pytest.approx(sum(one["stages"].values()), rel=1e-3), arm
        assert len(one["dice"]) == 1
        assert all(0 <= dice <= 1 for dice in one["dice"].values())
        assert one["peak_mib"] > 100
    assert found["runs"][DEFAULTS][0]["processes"] > found["runs"][BEST][0]["processes"]
    assert found["floor"]["training_s"] > 0
    assert found["floor"]["tiles_of_all_held_out_scans"] > 0

    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "work").rglob("runs/*.json")}
    run()
    assert files == {file: file.stat().st_mtime_ns for file in (tmp_path / "work").rglob("runs/*.json")}

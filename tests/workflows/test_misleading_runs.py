"""Runs that a careless report would call a success: each ends in the right words, on the terminal and on the page.

One base, adapted in a first round, and a second round from it whose masks are then given: the command is run again and
judges them, from the files to the page.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lnsegfm.imaging.files import read_mask, write_mask
from lnsegfm.storage import read_json
from tests.scenes import SHAPE, write_image

pytestmark = pytest.mark.usefixtures("one_thread")

LABELS = {"Parotid_L": 1, "Parotid_R": 2, "Mandible": 3, "Larynx": 4}
BOXES = {
    "Parotid_L": (slice(6, 12), slice(8, 14), slice(19, 25)),
    "Parotid_R": (slice(6, 12), slice(8, 14), slice(3, 9)),
    "Mandible": (slice(4, 8), slice(16, 20), slice(10, 18)),
    "Larynx": (slice(14, 16), slice(10, 12), slice(12, 14)),
}
FIRST, SECOND, SEEN = ("c0", "c1"), ("c8", "c9"), tuple(f"c{number}" for number in range(2, 8))
LACKING = ("c6", "c7")
"""Held-out cases in which nobody contoured the mandible."""


@dataclass(frozen=True)
class Rounds:
    """Data, the first round's folder, and the words of the second round's command."""

    data: Path
    first: Path
    run: Path
    judged: dict[Any, Any] = field(default_factory=dict)

    @property
    def words(self) -> tuple[object, ...]:
        how = ("--iterations", 6, "--no-mirroring", "--device", "cpu", "--no-postprocessing")
        return ("finetune", self.data, "--model", self.first, "--out", self.run, "--shots", ",".join(SECOND), *how)


def reference(case: str) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    for label, box in BOXES.items():
        if label != "Mandible" or case not in LACKING:
            mask[box] = LABELS[label]
    return mask


@pytest.fixture(scope="module")
def rounds(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Rounds:
    from lnsegfm.workflows.finetune import finetune
    from lnsegfm.workflows.finetune_plan import plan

    folder = tmp_path_factory.mktemp("rounds")
    data, random = folder / "clinic", np.random.default_rng(3)
    for case in (*FIRST, *SEEN, *SECOND):
        mask = reference(case)
        image = random.normal(0, 12, SHAPE) + 40.0 * mask
        write_image(data / "imagesTr" / f"{case}_0000.nii.gz", image.astype(np.int16))
        write_image(data / "labelsTr" / f"{case}.nii.gz", mask)
    described = {"channel_names": {"0": "CT"}, "labels": {"background": 0, **LABELS}, "file_ending": ".nii.gz"}
    (data / "dataset.json").write_text(json.dumps(described | {"numTraining": 10}))
    recipe = world.recipe(shots=FIRST, held_out=1, keep_labels=("Parotid_L", "Parotid_R", "Mandible"))
    first = finetune(plan(data, world.base, recipe), folder / "first", device="cpu", workers=0)
    return Rounds(data, first.folder, folder / "second")


Masks = Callable[[str], np.ndarray]
Told = tuple[str, str, Mapping[str, Any]]


@pytest.fixture
def told(rounds: Rounds, lnsegfm_here: Any) -> Callable[[Masks, Masks], Told]:
    """Give the masks of base and adapted model; what the command then prints, the page says and the record holds."""

    def judged(base: Masks, adapted: Masks) -> Told:
        if not (rounds.run / "run.json").is_file():
            assert lnsegfm_here(*rounds.words).returncode == 0
        for which, masks in (("base", base), ("adapted", adapted)):
            for case in SEEN:
                file = rounds.run / "predictions" / which / f"{case}.nii.gz"
                write_mask(file, masks(case), read_mask(file)[1])
        done = lnsegfm_here(*rounds.words)
        assert done.returncode == 0, done.stderr
        page = html.unescape((rounds.run / "report.html").read_text(encoding="utf-8")).replace("\N{MINUS SIGN}", "-")
        shown = re.sub(r"<[^>]+>", " ", page)
        return one_line(done.stdout + done.stderr), one_line(shown), read_json(rounds.run / "run.json")

    return judged


def one_line(text: str) -> str:
    return " ".join(text.split())


def part_of(label: str, case: str, missing: int) -> tuple[np.ndarray, ...]:
    """Places of a label's box without so many voxels, a few more or less from case to case."""
    z, y, x = (np.arange(b.start, b.stop) for b in BOXES[label])
    grid = [axis.ravel() for axis in np.meshgrid(z, y, x, indexing="ij")]
    return tuple(axis[missing + int(case[1:]) % 3 :] for axis in grid)


def masks(missing: Mapping[str, int], more: Callable[[np.ndarray, str], None] = lambda *_: None) -> Masks:
    """Masks that hold the labels named but for so many voxels, and what is drawn besides."""

    def of(case: str) -> np.ndarray:
        mask = np.zeros(SHAPE, np.uint8)
        for label, voxels in missing.items():
            mask[part_of(label, case, voxels)] = LABELS[label]
        more(mask, case)
        return mask

    return of


def scattered(mask: np.ndarray, case: str) -> None:
    """Pieces of a mandible all over the scan, and a larynx ten times too large."""
    rows = mask[16:20:2, ::4, ::4]
    rows[rows == 0] = LABELS["Mandible"]
    mask[13:17, 9:13, 11:16] = LABELS["Larynx"]


BASE = masks({"Parotid_L": 60, "Parotid_R": 20, "Mandible": 90})
ADAPTED = masks({"Parotid_L": 20, "Parotid_R": 44, "Mandible": 0}, scattered)


@pytest.fixture
def second(told: Any, rounds: Rounds) -> Told:
    """What comes of the same masks, judged once."""
    if "second" not in rounds.judged:
        rounds.judged["second"] = told(BASE, ADAPTED)
    found: Told = rounds.judged["second"]
    return found


def test_an_empty_mask_that_was_beaten_is_no_success(second):
    terminal, page, record = second
    found = record["result"]["labels"]["Larynx"]
    assert found["outcome"] == "learnt from nothing"
    for text in (terminal, page):
        assert re.search(r"Larynx: learnt from nothing: Dice 0\.18;.* 10 times too large; not usable as it is", text)
        assert "Larynx not usable" in text
        assert "Larynx: better" not in text


def test_a_gain_on_average_names_the_organ_that_lost(second):
    terminal, page, record = second
    title = record["result"]["title"]
    assert re.match(r"The adapted model is better on average \(\+0\.\d+\), worse for Parotid_R \(-0\.0[678]\d\)", title)
    for text in (terminal, page):
        assert title in text
        assert "Parotid_R: worse (-0.0" in text


def test_what_nobody_contoured_is_not_counted_as_dice_0(second):
    terminal, page, record = second
    means = record["result"]["labels"]["Mandible"]
    assert means["n"] == 4
    assert "4 of 6 cases" in terminal
    reason = "predicted where the reference has none, and perhaps nobody annotated it, in c6, c7."
    assert f"Mandible: 2 cases not counted: {reason}" in page
    dice = means["adapted_mean"]
    assert f"Dice of the adapted model {dice:.2f} over 4 cases, {dice * 4 / 6:.2f} if they count as absent" in page
    assert f"{dice:.2f} over 4 cases, {dice * 4 / 6:.2f} if they count as absent" in terminal


def test_a_second_round_holds_out_no_scan_that_trained_its_base(second):
    terminal, page, record = second
    line = "Not held out: c0, c1; the base was trained on these scans, so they would prove nothing."
    assert record["held_out"] == list(SEEN)
    assert {case["case"] for case in record["result"]["adapted"]["cases"]} == set(SEEN)
    assert line in terminal
    assert line in page


def test_what_the_largest_component_would_give_is_said_where_no_postprocessing_was_tried(second):
    _, page, record = second
    gain = record["postprocessing"]["largest"]["Mandible"]
    assert gain["after"] > gain["before"] + 0.2
    (one,) = [one for one in record["advice"] if one["kind"] == "postprocessing"]
    dice = f"its Dice from {gain['before']:.3f} to {gain['after']:.3f}"
    said = f"keeping the largest component of Mandible alone takes {dice}"
    assert f"No postprocessing was tried: {said} on 4 held-out scans" in page
    assert "--largest Mandible" in one["command"]
    assert one["command"] in page


def test_the_first_thing_to_try_after_a_few_steps_is_more_of_them(second):
    terminal, _, record = second
    assert record["advice"][0]["kind"] == "steps"
    assert "6 iterations, too few to show anything" in terminal


def exchanged(mask: np.ndarray, case: str) -> None:
    """Left and right exchanged."""
    left, right = mask == LABELS["Parotid_L"], mask == LABELS["Parotid_R"]
    mask[left], mask[right] = LABELS["Parotid_R"], LABELS["Parotid_L"]


def test_sides_that_were_destroyed_are_said(told):
    terminal, page, record = told(BASE, masks(dict.fromkeys(LABELS, 0), exchanged))
    title = record["result"]["title"]
    assert record["result"]["outcome"] == "base better"
    assert title.startswith("Keep the base: it is better on average")
    assert record["advice"][0]["kind"] == "sides"
    for text in (terminal, page):
        assert title in text
        assert "Parotid_L: worse (-0.8" in text
        assert "not usable as it is" in text
        assert re.search(r"Parotid_L lies on the side of Parotid_R: its Dice is 0\.00, against the reference of", text)
        assert "--mirror swap" in text


def test_evaluate_counts_the_masks_of_a_run_as_the_run_did(second, rounds, lnsegfm_here):
    kept = read_json(rounds.run / "run.json")["result"]["adapted"]
    done = lnsegfm_here("evaluate", rounds.run / "predictions" / "adapted", rounds.data, "--json")
    scored = json.loads(done.stdout)
    assert scored["doubtful"] == kept["doubtful"]
    for label in LABELS:
        assert scored["summary"][label]["dice"] == kept["summary"][label]["dice"]

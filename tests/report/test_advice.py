from __future__ import annotations

import math
import re
import shlex
from dataclasses import replace

import numpy as np
import pytest

from lnsegfm.report.advice import Advice, LabelMeasure, advice, still_falling
from lnsegfm.report.comparison import Comparison
from lnsegfm.report.methods_paragraph import methods_paragraph
from lnsegfm.report.run_command import finetune_command

from .scores import evaluation

FLAT = [0.5 + 0.01 * (-1) ** i for i in range(160)]
RECORD = {
    "recipe": {
        "method": "dgst",
        "settings": {"gamma": 1},
        "shots": 5,
        "iterations": 400,
        "lr": 0.01,
        "seed": 0,
        "mirroring": False,
        "patch_size": None,
        "time_limit_s": None,
    },
    "base": {"folder": "/models/base", "name": None, "sha256": "ab" * 32},
    "data": {"folder": "our data"},
    "shots": list("abcde"),
    "held_out": list("fgh"),
    "spacing_mm": [2.5, 2.0, 2.0],
    "patch_size": [32, 32, 32],
    "batch_size": 2,
    "losses": FLAT,
    "training": {"iterations": 400, "stopped_by": "iterations", "divergence": None, "lr": 0.01},
    "trainable": {"parameters": 10, "total": 20},
    "versions": {"lnsegfm": "1", "nnunetv2": "2", "torch": "3"},
    "result": None,
}


def judged(dice: float = 0.6, ratio: float = 1.0, label: str = "node") -> Comparison:
    one = evaluation({label: [dice] * 4})
    cases = tuple(replace(c, labels={label: replace(c.labels[label], prediction_ml=4.0 * ratio)}) for c in one.cases)
    return Comparison(replace(one, cases=cases), replace(one, cases=cases))


def kinds(found: tuple[Advice, ...]) -> list[str]:
    return [one.kind for one in found]


def test_nothing_amiss_means_no_advice():
    assert advice(RECORD | {"losses": np.linspace(1, 0, 160).tolist()}, judged(0.95, 2.0), "run") == ()
    assert advice(RECORD, judged(0.6), "run") == ()


def test_a_falling_loss_asks_for_twice_the_steps():
    (one,) = advice(RECORD | {"losses": np.linspace(1, 0, 160).tolist()}, judged(), "runs/one")

    assert "still falling after 400 iterations" in one.sentence
    assert "--iterations 800" in one.command
    assert "--out runs/one-longer" in one.command


@pytest.mark.parametrize(
    ("losses", "falling"),
    [
        (FLAT, False),
        (np.linspace(1, 0, 160), True),
        (np.linspace(0, 1, 160), False),
        (np.linspace(1, 0, 40), False),
        ([math.nan] * 160, False),
    ],
)
def test_whether_a_loss_still_falls(losses, falling):
    assert still_falling(list(losses)) == falling


def test_a_training_that_diverged_is_not_prolonged():
    training = RECORD["training"] | {"divergence": {"iteration": 1, "loss": 0.0, "end": 1.0}}

    assert advice(RECORD | {"training": training, "losses": np.linspace(1, 0, 160).tolist()}, judged(), "run") == ()


@pytest.mark.parametrize(("ratio", "said"), [(2.0, "2.0 times"), (0.25, "0.2 times"), (1.4, None)])
def test_volumes_that_are_clearly_off(ratio, said):
    found = advice(RECORD, judged(0.6, ratio), "run")

    assert kinds(found) == (["volume"] if said else [])
    assert said is None or (said in found[0].sentence and "--method full" in found[0].command)


def test_a_patch_that_does_not_hold_the_structure():
    """100 mm of z at 2.5 mm are 40 voxels, more than the patch's 32: the next multiple of 16 is 48."""
    (one,) = advice(RECORD, judged(), "run", {"node": LabelMeasure((100.0, 40.0, 40.0))})

    assert "The patch (80 x 64 x 64 mm) does not hold node (100 x 40 x 40 mm)" in one.sentence
    assert "--patch-size 48 32 32" in one.command


@pytest.mark.parametrize(("swapped", "found"), [(0.7, True), (0.61, False), (0.1, False)])
def test_exchanged_sides(swapped, found):
    measured = {"Parotid_L": LabelMeasure((10.0, 10.0, 10.0), ("Parotid_R", swapped))}

    given = advice(RECORD, judged(label="Parotid_L"), "run", measured)

    assert ("sides" in kinds(given)) == found
    assert not found or "lies on the side of Parotid_R" in given[0].sentence


def test_sides_that_changed_places_with_the_flip_already_leave_the_references():
    record = RECORD | {"recipe": RECORD["recipe"] | {"mirror": "swap"}}
    measured = {"Parotid_L": LabelMeasure((10.0, 10.0, 10.0), ("Parotid_R", 0.7))}

    (one, *_) = advice(record, judged(label="Parotid_L"), "run", measured)

    assert one.sentence.endswith("Check the references.")
    assert one.command == "lnsegfm data check 'our data'"


def test_a_command_keeps_empty_scans_where_the_run_did():
    (one,) = advice(RECORD | {"data": RECORD["data"] | {"allow_empty": True}}, judged(0.6, 2.0), "run")

    assert one.command.endswith(" --allow-empty")


def test_nothing_held_out_leaves_one_advice():
    (one,) = advice(RECORD, None, "run")

    assert (one.kind, "--shots 4" in one.command) == ("hold out", True)


def test_commands_name_options_that_exist():
    import typer.main

    from lnsegfm.cli.main import app

    known = {o for p in typer.main.get_command(app).commands["finetune"].params for o in (*p.opts, *p.secondary_opts)}  # type: ignore[attr-defined]
    record = RECORD | {"losses": np.linspace(1, 0, 160).tolist(), "postprocessing": {"chosen_on": "none"}}
    measured = {"node": LabelMeasure((100.0, 40.0, 40.0), ("other", 0.9))}
    found = advice(record, judged(0.6, 3.0), "run", measured)

    assert kinds(found) == ["sides", "patch", "steps", "postprocessing", "volume"]
    for one in found:
        assert {w for w in shlex.split(one.command) if w.startswith("--")} <= known


def test_the_command_of_a_run_can_be_typed():
    assert finetune_command(RECORD, "run") == (
        "lnsegfm finetune 'our data' --model /models/base --out run --method dgst --shots 5 --iterations 400 --lr 0.01 "
        "--set gamma=1 --no-mirroring"
    )


def test_the_paragraph_states_what_was_done():
    overall = {
        "n": 6,
        "mean": 0.205,
        "base_mean": 0.557,
        "adapted_mean": 0.762,
        "effect": {"subjects": 6, "interval": {"low": 0.132, "high": 0.278}},
    }
    text = methods_paragraph(RECORD | {"result": {"overall": overall, "outcome": "adapted better"}})

    for part in (
        "fine-tuned on 5 scans by dgst (gamma 1)",
        "10 of 20 parameters",
        "patches of 32 x 32 x 32 voxels",
        "mean Dice 0.557 before and 0.762 after",
        "+0.132 to +0.278",
        "nnU-Net 2 and PyTorch 3",
        "arXiv 2503.00748",
    ):
        assert part in text
    assert not re.search(r"\.\.|  ", text)
    assert "No scan was held out" in methods_paragraph(RECORD)

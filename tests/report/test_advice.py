from __future__ import annotations

import math
import re
import shlex
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsegfm.evaluation.domain_ranges import LabelDomain, Range, TrainingDomain
from lnsegfm.report.advice import advice
from lnsegfm.report.advice_facts import Advice, LabelMeasure
from lnsegfm.report.comparison import Comparison
from lnsegfm.report.label_verdict import labels_apart, mean_dice, unusable
from lnsegfm.report.methods_paragraph import methods_paragraph
from lnsegfm.report.run_command import finetune_command
from lnsegfm.report.training_advice import still_falling

from .command_lines import commands
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

    assert "still falling after 400 iterations (by 0.13 over the last 20)" in one.sentence
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


def domain(source: str, hu: tuple[float, float], ml: tuple[float, float] = (3.0, 5.0)) -> TrainingDomain:
    axes = (Range(1.0, 1.0),) * 3
    label = LabelDomain(Range(*ml), Range(1, 1), Range(*hu))
    return TrainingDomain(source, 5, axes, axes, foreground_hu=Range(*hu), labels={"organ": label})


LARGEST = {"chosen_on": "none", "largest": {"organ": {"before": 0.62, "after": 0.79, "cases": 4}}}


def test_the_likeliest_cause_comes_first_and_every_command_is_read(asked):
    measured = {"organ": LabelMeasure((100.0, 40.0, 40.0), ("other", 0.9))}
    record = RECORD | {"losses": np.linspace(1, 0, 160).tolist(), "postprocessing": LARGEST}
    shifted = [domain("training", (300.0, 320.0), (40.0, 50.0)), domain("base", (40.0, 60.0))]

    found = advice(record, judged(0.6, 3.0, "organ"), "run", measured, shifted)
    last = advice(RECORD | {"postprocessing": LARGEST}, judged(0.6, 3.0, "organ"), "my run", {}, shifted)

    assert kinds(found) == ["sides", "hu", "steps", "patch", "label volume"]
    assert kinds(last) == ["hu", "label volume", "postprocessing", "volume"]
    for one in (*found, *last):
        read(one.command, asked)


def read(command: str, asked: Any) -> None:
    """Read a command line by the command that it names; of a fine-tuning the recipe is made, too."""
    program, *words = shlex.split(command)
    assert program == "lnsegfm"
    if words[0] == "finetune":
        asked(["lnsegfm", *words])
        return
    found = commands()[words.pop(0)]
    while hasattr(found, "commands"):
        found = found.commands[words.pop(0)]
    found.make_context(found.name, words)


def test_a_run_of_two_steps_is_told_to_take_more_and_not_another_method():
    training = RECORD["training"] | {"iterations": 2}
    record = RECORD | {"training": training, "losses": [1.0, 0.9]}
    record["recipe"] = RECORD["recipe"] | {"iterations": 2}

    (one,) = advice(record, judged(0.1, 9.0), "run")

    assert one.kind == "steps"
    assert "2 iterations, too few to show anything: the method's own recipe takes 1000" in one.sentence
    assert "--iterations 1000" in one.command
    assert "--method full" not in one.command


@pytest.mark.parametrize(("base", "told"), [(0.5, []), (0.7, ["steps"])])
def test_few_steps_after_which_it_is_better_and_usable_are_no_fault(base, told):
    record = RECORD | {"training": RECORD["training"] | {"iterations": 2}, "losses": [1.0, 0.9]}
    dice = [0.71, 0.70, 0.70, 0.71]
    better = Comparison(evaluation({"node": [base] * 4}), evaluation({"node": dice}))

    assert kinds(advice(record, better, "run")) == told


def test_a_flat_loss_asks_for_no_more_steps_and_says_so():
    (one,) = advice(RECORD, judged(0.6, 3.0), "run")

    assert (one.kind, "the loss no longer falls" in one.sentence) == ("volume", True)


@pytest.mark.parametrize(("base", "found"), [((40.0, 60.0), True), ((250.0, 280.0), False), ((200.0, 400.0), False)])
def test_a_shift_of_hu_between_base_and_shots(base, found):
    domains = [domain("training", (300.0, 320.0)), domain("base", base)]

    given = advice(RECORD, judged(label="organ"), "run", {}, domains)

    assert kinds(given) == (["hu"] if found else [])
    for text in ("300 to 320 HU in the shots", "40 to 60 HU") if found else ():
        assert text in given[0].sentence
    assert not found or given[0].command == "lnsegfm data check 'our data' --model /models/base"


@pytest.mark.parametrize(("shots", "found"), [((3.0, 5.0), False), ((9.0, 12.0), True), ((0.5, 1.5), True)])
def test_references_held_out_of_another_size_than_those_of_the_shots(shots, found):
    given = advice(RECORD, judged(label="organ"), "run", {}, [domain("training", (40.0, 60.0), shots)])

    assert kinds(given) == (["label volume"] if found else [])
    assert not found or "typically 4 ml" in given[0].sentence


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ({}, "No postprocessing was tried: keeping the largest component of organ alone takes its Dice from 0.620 to "),
        ({"chosen_on": "held-out", "reason": "fewer than 3 patients to choose by"}, "(fewer than 3 patients to choose"),
        ({"chosen_on": "held-out"}, "(its gain is within the standard error)"),
        ({"rules": [{"kind": "smallest volume"}]}, None),
        ({"largest": {"organ": {"before": 0.62, "after": 0.63, "cases": 4}}}, None),
    ],
)
def test_what_the_largest_component_would_give(kept, said):
    given = advice(RECORD | {"postprocessing": LARGEST | kept}, judged(label="organ"), "my run")

    assert kinds(given) == (["postprocessing"] if said else [])
    assert said is None or said in given[0].sentence
    assert said is None or given[0].command == "lnsegfm models postprocess 'my run' --largest organ"


def test_one_subject_held_out_asks_for_more():
    one = judged()
    cases = tuple(replace(case, subject="Ann") for case in one.adapted.cases)
    same = Comparison(*(replace(e, cases=cases) for e in (one.base, one.adapted)))

    (given,) = advice(RECORD, same, "run")

    assert (given.kind, "--shots 4" in given.command) == ("hold out", True)


DICE = st.floats(0, 1).map(lambda value: round(value, 3))


@st.composite
def situations(draw: st.DrawFn) -> tuple[dict[str, Any], Comparison, dict[str, LabelMeasure], list[TrainingDomain]]:
    """A run and what was measured of it: anything that can be."""
    labels = draw(st.sampled_from([("organ",), ("organ", "Parotid_L"), ("organ", "node", "Parotid_L")]))
    cases = draw(st.integers(1, 6))
    jitter = st.lists(st.sampled_from([0.0, 0.01, 0.02]), min_size=cases, max_size=cases)
    level = st.sampled_from([0.1, 0.55, 0.75, 0.93])
    ratio = st.sampled_from([0.0, 0.3, 1.0, 2.0, 9.0])
    both = []
    for known in (draw(st.booleans()), True):
        dice = {name: (draw(level), draw(jitter)) for name in labels}
        one = evaluation({name: [middle + each for each in more] for name, (middle, more) in dice.items()})
        ratios = {name: draw(ratio) for name in labels}
        both.append(
            replace(
                one,
                cases=tuple(
                    replace(
                        case,
                        labels={
                            name: replace(s, prediction_ml=4.0 * ratios[name], known=known or name != "organ")
                            for name, s in case.labels.items()
                        },
                    )
                    for case in one.cases
                ),
            )
        )
    done = draw(st.sampled_from([2, 60, 160, 400]))
    curve = draw(st.sampled_from([np.linspace(1, 0, done).tolist(), (FLAT * 3)[:done]]))
    training = {
        "iterations": done,
        "stopped_by": draw(st.sampled_from(["iterations", "plateau", "time limit"])),
        "divergence": draw(st.sampled_from([None, {"iteration": 1, "loss": 0.0, "end": 1.0}])),
    }
    recipe = RECORD["recipe"] | {
        "method": draw(st.sampled_from(["dgst", "full", "lora"])),
        "settings": {},
        "iterations": done,
        "mirror": draw(st.sampled_from(["auto", "swap"])),
    }
    gain = {"before": draw(DICE), "after": draw(DICE), "cases": cases}
    postprocessing = {"chosen_on": draw(st.sampled_from(["none", "held-out"])), "largest": {"organ": gain}}
    record = RECORD | {"training": training, "losses": curve, "recipe": recipe, "postprocessing": postprocessing}
    swapped = draw(st.sampled_from([None, ("Parotid_R", 0.7)]))
    measured = {"Parotid_L": LabelMeasure((draw(st.sampled_from([20.0, 200.0])), 30.0, 30.0), swapped)}
    hu = draw(st.sampled_from([(40.0, 60.0), (400.0, 500.0)]))
    domains = [domain("training", hu, draw(st.sampled_from([(3.0, 5.0), (30.0, 50.0)]))), domain("base", (40.0, 60.0))]
    return record, Comparison(both[0], both[1]), measured if "Parotid_L" in labels else {}, domains


@given(situations())
@settings(max_examples=150, deadline=None)
def test_advice_never_contradicts_the_verdict(situation):
    record, comparison, measured, domains = situation
    found = advice(record, comparison, "run", measured, domains)
    by_kind = {one.kind: one for one in found}
    training = record["training"]

    for one in found:
        words = shlex.split(one.command)
        assert re.search(r"\d", one.sentence)
        assert words[1] in ("finetune", "data", "models")  # nothing predicts, exports or shares the adapted model
        if words[1] == "finetune":  # from the base, into a folder of its own
            assert words[words.index("--model") + 1] == "/models/base"
            assert words[words.index("--out") + 1] not in ("run", "/models/base")
    if all(mean_dice(comparison, label) >= 0.9 for label in comparison.labels):
        assert found == ()
    better = comparison.outcome == "adapted better"
    poor = [name for name in comparison.labels if unusable(comparison, name)]
    if better and not labels_apart(comparison)[0] and not poor and "steps" in by_kind:  # only what was measured
        assert still_falling(record["losses"]) or training["stopped_by"] == "time limit"
    if training["divergence"] is not None:
        assert not {"steps", "volume"} & by_kind.keys()
    if "steps" in by_kind:
        assert "volume" not in by_kind
    if "volume" in by_kind:
        (label,) = [name for name in comparison.labels if by_kind["volume"].sentence.startswith(f"{name}: ")]
        assert comparison.outcome_of(label) not in ("base better", "base ahead")
    if "postprocessing" in by_kind:
        gain = record["postprocessing"]["largest"]["organ"]
        assert gain["after"] > gain["before"]
        if comparison.outcome_of("organ") in ("base better", "base ahead"):
            assert gain["after"] > comparison.difference("organ").base_mean
        assert ("not usable" in by_kind["postprocessing"].sentence) == (gain["after"] < 0.5)


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

"""Situations in which a careless report misleads: each ends in words that do not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from lnsegfm.evaluation.case_scores import LabelScore
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.report.comparison import Comparison
from lnsegfm.report.comparison_json import from_json, to_json
from lnsegfm.report.label_verdict import label_sentence, short_line, title, volume_ratios, volume_words
from lnsegfm.report.verdict import notes, verdict

from .scores import evaluation

STEADY = [0.70, 0.72, 0.74, 0.76, 0.78, 0.70, 0.72, 0.74, 0.76, 0.78]


def changed(values: Sequence[float], by: float) -> list[float]:
    """Every value moved, alternately a little more and less, so that there is some scatter."""
    return [value + by + (0.004 if i % 2 else -0.004) for i, value in enumerate(values)]


def with_scores(one: Evaluation, label: str, scores: Sequence[Mapping[str, object]]) -> Evaluation:
    """The evaluation with fields of a label's scores replaced, case by case."""
    cases = tuple(
        replace(case, labels=case.labels | {label: replace(case.labels[label], **fields)})  # type: ignore[arg-type]
        for case, fields in zip(one.cases, scores, strict=True)
    )
    return replace(one, cases=cases)


def learnt(dice: Sequence[float], ratios: Sequence[float]) -> Comparison:
    """A base that does not know the larynx, whose masks count as empty."""
    base = evaluation({"larynx": [0.0] * len(dice)}, known=False)
    adapted = with_scores(evaluation({"larynx": dice}), "larynx", [{"prediction_ml": 4.0 * r} for r in ratios])
    return Comparison(base, adapted)


def test_an_empty_mask_that_was_beaten_is_no_success():
    comparison = learnt([0.10, 0.18, 0.14, 0.14], [6.0, 23.0, 11.0, 15.0])

    assert comparison.outcome == "learnt from nothing"
    assert verdict(comparison) == (
        "larynx: learnt from nothing: Dice 0.14; masks 6 to 23 times too large; not usable as it is."
    )
    assert title(comparison) == "Learnt from nothing: not usable as it is"
    assert "better" not in " ".join([verdict(comparison), title(comparison), *notes(comparison)])


def test_the_better_of_two_that_learnt_from_nothing_does_not_read_worse():
    better, worse = learnt([0.9, 0.0, 0.0, 0.3], [1.0] * 4), learnt([0.14] * 4, [6.0] * 4)

    assert "Dice 0.30" in verdict(better)
    assert "Dice 0.14" in verdict(worse)
    assert better.outcome == worse.outcome


def test_a_title_on_subjects_too_few_for_a_test_says_how_few_they_are():
    """Five subjects or fewer: no test without assumptions can give p below 5 %, whatever the interval says."""
    for cases, said in ((3, " in only 3 subjects"), (5, " in only 5 subjects"), (6, "")):
        base = {"node": STEADY[:cases]}
        adapted = {"node": [value + 0.15 + 0.001 * k for k, value in enumerate(STEADY[:cases])]}
        comparison = Comparison(evaluation(base), evaluation(adapted))
        assert comparison.outcome == "adapted better"
        assert title(comparison).endswith(f"){said}")
        backwards = Comparison(evaluation(adapted), evaluation(base))
        assert title(backwards) == f"Keep the base: it is better{said}"


def test_a_gain_on_average_names_the_organ_that_lost():
    base = dict.fromkeys(("Mandible", "LeftParotid", "RightParotid"), STEADY)
    adapted = {
        "Mandible": changed(STEADY, 0.10),
        "LeftParotid": changed(STEADY, 0.08),
        "RightParotid": changed(STEADY, -0.062),
    }

    comparison = Comparison(evaluation(base), evaluation(adapted))

    assert title(comparison) == ("The adapted model is better on average (+0.039), worse for RightParotid (-0.062)")
    assert "but the base is better on average for RightParotid (by 0.06 Dice)" in verdict(comparison)
    assert short_line(comparison, "RightParotid").startswith("RightParotid: worse (-0.062); Dice 0.740 to 0.678")
    assert to_json(comparison)["labels"]["RightParotid"]["outcome"] == "base better"


def test_a_gain_too_small_to_matter_is_no_gain():
    comparison = Comparison(evaluation({"node": STEADY}), evaluation({"node": changed(STEADY, 0.009)}))

    assert comparison.difference().paired.p < 0.01
    assert comparison.outcome == "too small to matter"
    assert title(comparison) == "The adapted model is ahead by 0.009: too small to matter"
    assert "a difference too small to matter (below 0.02" in verdict(comparison)
    assert "better" not in verdict(comparison)
    finer = replace(comparison, smallest_difference=0.005)
    assert finer.outcome == "adapted better"
    assert from_json(to_json(finer)).smallest_difference == 0.005


@pytest.mark.parametrize("subjects", [1, 2])
def test_one_scan_shows_nothing(subjects):
    comparison = Comparison(evaluation({"node": [0.1] * subjects}), evaluation({"node": [0.9] * subjects}))
    said = " ".join([title(comparison), verdict(comparison), *notes(comparison)])

    assert "p =" not in said
    assert "95 % interval" not in said
    assert "is better (" not in said
    assert ("One scan shows nothing of others" in said) == (subjects == 1)


def test_labels_of_both_kinds_are_told_apart_and_the_mean_is_over_what_is_compared():
    base = evaluation({"node": STEADY, "larynx": [0.0] * 10})
    base = with_scores(base, "larynx", [{"known": False, "prediction_ml": 0.0}] * 10)
    adapted = evaluation({"node": changed(STEADY, 0.05), "larynx": [0.3] * 10})

    comparison = Comparison(base, adapted)

    assert comparison.difference().mean == pytest.approx(0.05)
    assert title(comparison) == "The adapted model is better (+0.050), larynx not usable"
    assert "larynx: learnt from nothing: Dice 0.30" in verdict(comparison)


def test_a_case_without_annotation_counts_nowhere():
    """Ten of twelve scans without a contoured mandible would have made 0.37 of 0.62."""
    values = [0.62] * 12
    absent = [{}] * 10 + [vars(LabelScore.unlabelled())] * 2
    base, adapted = (
        with_scores(evaluation({"mandible": changed(values, by)}), "mandible", absent) for by in (0.0, 0.1)
    )

    comparison = Comparison(base, adapted)

    assert comparison.difference("mandible").n == 10
    assert "Dice 0.620 to 0.720, 95 % interval of the difference +0.100 to +0.100, 10 of 12 cases" in label_sentence(
        comparison, "mandible"
    )
    assert "mandible: 2 cases not counted: not annotated in case_10, case_11." in notes(comparison)


def test_the_notes_name_the_cases_that_are_not_counted_and_why():
    scores: list[Mapping[str, object]] = [{}] * 3 + [
        vars(LabelScore.unlabelled()),
        vars(LabelScore(0.0, 0.0, 2.0, 2.0).as_doubtful()),
        {"dice": math.nan, "reference_ml": 0.0, "prediction_ml": 0.0},
        {"dice": 0.0, "reference_ml": 0.0, "prediction_ml": 1.0},
    ]
    nothing = {"dice": math.nan, "reference_ml": 0.0, "prediction_ml": 0.0}
    base = with_scores(evaluation({"cord": [0.6] * 7}), "cord", [*scores[:4], nothing, nothing, nothing])
    adapted = with_scores(evaluation({"cord": [0.8] * 7}), "cord", scores)

    (said,) = [note for note in notes(Comparison(base, adapted)) if "not counted" in note]

    assert said == (
        "cord: 4 cases not counted: not annotated in case_3; predicted where the reference has none, and perhaps "
        "nobody annotated it, in case_4; neither the reference nor a prediction has it in case_5; predicted by the "
        "adapted model alone, where the reference has none, in case_6. Dice of the adapted model 0.60 over 4 cases, "
        "0.48 if they count as absent. List them in unlabelled.csv if nobody annotated it there; --absent cord "
        "counts them."
    )
    assert "3 of 7 cases" in short_line(Comparison(base, adapted), "cord")
    alone = Comparison(with_scores(base, "cord", [{"known": False}] * 7), adapted)
    assert "Dice 0.60 over 4 of 7 cases" in label_sentence(alone, "cord")


def test_distances_stand_where_they_are_defined():
    one = evaluation({"node": [0.6, 0.7, 0.8]})
    measured = with_scores(one, "node", [{"hd95_mm": 4.0, "assd_mm": 1.0}, {"hd95_mm": 8.0, "assd_mm": 2.0}, {}])

    assert "HD95 6.0 mm, ASSD 1.5 mm" in label_sentence(Comparison(one, measured), "node")
    assert "HD95" not in label_sentence(Comparison(one, one), "node")


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ([], None),
        ([0.9, 1.0, 1.3], None),
        ([1.0, 1.6, 9.0], "masks typically 1.6 times too large"),
        ([6.0, 11.0, 23.0], "masks 6 to 23 times too large"),
        ([0.2, 0.4, 1.0], "masks typically hold 40% of the volume"),
        ([0.0, 0.0], "no mask at all"),
    ],
)
def test_volumes_in_words(ratios, words):
    assert volume_words(ratios) == words


def test_volume_ratios_leave_out_cases_without_the_structure():
    scores = [{"prediction_ml": 8.0}, {"reference_ml": 0.0, "prediction_ml": 1.0}]
    one = with_scores(evaluation({"node": [0.5, 0.5]}), "node", scores)

    assert volume_ratios(Comparison(one, one), "node") == [2.0]

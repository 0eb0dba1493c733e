from __future__ import annotations

import base64
import math
from xml.etree import ElementTree

import numpy as np
import pytest

from lnsegfm.evaluation.statistics import Estimate, mean, ratio
from lnsegfm.report.plot_style import Plot
from lnsegfm.report.plots import Curve, plot_cases, plot_froc, plot_pairs, plot_sensitivity, plot_volumes

NAN = math.nan
BINS = ("< 3", "3–5", "≥ 5")


def shares() -> list[Estimate]:
    counts = {0: ([0, 1, 0, 1], [1, 1, 2, 1]), 1: ([2, 1, 1, 2], [2, 2, 1, 2]), 2: ([0] * 4, [0] * 4)}
    return [ratio(*counts[i], bounds=(0.0, 1.0), counted="share") for i in range(3)]


def every_plot() -> dict[str, Plot]:
    dice, other = [0.2, 0.5, NAN, 0.9], [0.4, 0.6, 0.7, 0.8]
    return {
        "cases": plot_cases({"node": dice}, {"node": mean([0.2, 0.5, 0.9])}),
        "pairs": plot_pairs(dice, other, ("base", "adapted"), [mean([0.2, 0.5, 0.9]), mean([0.4, 0.6, 0.8])]),
        "sensitivity": plot_sensitivity(BINS, {"base": shares(), "adapted": shares()}, [5, 7, 0]),
        "froc": plot_froc({"adapted": Curve([0.9, 0.5, 0.1], [0.1, 0.5, 3.0], [0.3, 0.6, 0.8])}),
        "volumes": plot_volumes({"node": [1.0, 2.0, 4.0, 0.0, 3.0]}, {"node": [2.0, 2.0, 2.0, 1.0, 0.0]}),
    }


@pytest.fixture(scope="module")
def plots() -> dict[str, Plot]:
    return every_plot()


def svg(plot: Plot) -> bytes:
    return base64.b64decode(plot.uri.removeprefix("data:image/svg+xml;base64,"), validate=True)


def test_each_is_a_whole_small_svg_that_asks_for_nothing(plots):
    for name, plot in plots.items():
        root = ElementTree.fromstring(svg(plot))
        assert root.tag.endswith("svg"), name
        assert len(plot.uri) < 70_000, name
        links = [v for e in root.iter() for k, v in e.attrib.items() if k.endswith("href")]
        assert [link for link in links if not link.startswith("#")] == [], name


def test_the_same_figures_give_the_same_bytes(plots):
    assert every_plot() == plots


def test_alternative_texts_have_the_numbers(plots):
    assert "node: 0.53 (95 % interval" in plots["cases"].alt
    assert "lowest 0.20" in plots["cases"].alt
    assert "3 cases with both models: base 0.53" in plots["pairs"].alt
    assert "adapted is lower on 1" in plots["pairs"].alt
    assert "base < 3 mm: 0.40 (95 % interval" in plots["sensitivity"].alt
    assert "of 5, 3–5 mm: 0.86" in plots["sensitivity"].alt
    assert "≥ 5" not in plots["sensitivity"].alt  # no node has that size
    assert "at probability 0.5 sensitivity 0.60, 0.5 false positives per scan" in plots["froc"].alt


def test_volumes_agree_by_their_ratio_and_empty_masks_are_counted(plots):
    # ratios 2, 1 and 1/2: mean 1, SD of the logarithm ln 2, so limits of 2 ** ±1.96
    said = f"mean ratio 1.00 over 3 cases, limits of agreement {2**-1.96:.2f} to {2**1.96:.2f}"
    assert said in plots["volumes"].alt
    assert "1 with a prediction only, 1 with a reference only" in plots["volumes"].alt


def test_two_models_differ_by_marker_too(plots):
    text = svg(plots["sensitivity"]).decode()

    assert "#d55e00" in text
    assert "#0072b2" in text
    assert text.count("<defs>") > 2  # a marker is a shape of its own


@pytest.mark.parametrize("values", [[], [NAN], [0.5], [0.0, 1.0], [0.3] * 60])
def test_any_number_of_cases_can_be_drawn(values):
    defined = [v for v in values if not math.isnan(v)]

    assert svg(plot_cases({"node": values}, {"node": mean(defined)}))
    assert svg(plot_pairs(values, values, ("a", "b"), [mean(defined)] * 2))
    assert svg(plot_volumes({"node": values}, {"node": values}))


def test_names_are_no_mathematics_and_long_ones_are_cut():
    names = ["$x_1^", "a" * 300, "<b>&amp;", "näme 淋巴"]
    values = {name: [0.5] for name in names}

    assert svg(plot_cases(values, {name: mean([0.5]) for name in names}))


def test_a_users_own_style_changes_nothing(plots):
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 30, "svg.fonttype": "none", "axes.facecolor": "red"}):
        assert every_plot()["cases"] == plots["cases"]


def test_dots_that_lie_on_each_other_are_spread():
    uri = plot_cases({"node": [0.5] * 5}, {"node": mean([0.5] * 5)})
    heights = {e.get("y") for e in ElementTree.fromstring(svg(uri)).iter() if e.tag.endswith("use") and e.get("x")}

    assert len(np.unique(list(heights))) > 5

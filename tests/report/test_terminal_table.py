from __future__ import annotations

import math
from dataclasses import replace

from rich.console import Console

from lnsegfm.evaluation.case_scores import CaseScore
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.report.comparison import Comparison
from lnsegfm.report.terminal_tables import comparison_table

from .scores import evaluation, nodes


def shown(comparison: Comparison) -> str:
    console = Console(width=160, record=True, file=None, force_terminal=False)
    with console.capture() as capture:
        console.print(comparison_table(comparison))
    return capture.get()


def cells(text: str, first: str) -> list[str]:
    line = next(line for line in text.splitlines() if first in line)
    return [cell.strip() for cell in line.strip("│ ").split("│")]


def test_a_row_a_case_and_the_mean_with_its_interval():
    text = shown(nodes([0.1, 0.2, math.nan, 0.3], [0.4, 0.5, math.nan, 0.6]))

    assert cells(text, "case_0") == ["case_0", "0.100", "0.400", "+0.300", "4.00", "3.00", "3.00"]
    assert cells(text, "case_2")[1:4] == ["n/a", "n/a", "n/a"]
    assert cells(text, "mean of 3")[:4] == ["mean of 3", "0.200", "0.500", "+0.300"]
    assert "[+0.300 to +0.300]" in text


def test_several_labels_have_rows_of_their_own_and_unknown_ones_a_mark():
    base, adapted = evaluation({"node": [0.5], "larynx": [0.0]}), evaluation({"node": [0.6], "larynx": [0.7]})
    lacking = replace(base.cases[0].labels["larynx"], known=False)
    cases = tuple(replace(case, labels=case.labels | {"larynx": lacking}) for case in base.cases)
    text = shown(Comparison(replace(base, cases=cases), adapted))

    assert cells(text, "larynx")[1:4] == ["larynx", "0.000*", "0.700"]
    assert "mean over labels" in text
    assert "gives no mask of larynx" in text


def test_names_of_cases_are_text_and_neither_markup_nor_escape_sequences():
    one = evaluation({"node": [0.5]})
    name = "[red]a\x1b[2Jb"
    named = Evaluation(one.labels, tuple(replace(case, case=name) for case in one.cases))
    assert isinstance(named.cases[0], CaseScore)

    text = shown(Comparison(named, named))

    assert "[red]a\N{REPLACEMENT CHARACTER}[2Jb" in text
    assert "\x1b" not in text

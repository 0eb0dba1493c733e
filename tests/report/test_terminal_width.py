"""A terminal of 80 columns: no line is longer and no word of a table's headings is broken. Add a table by a line."""

from __future__ import annotations

import pytest
from rich.console import Console

from lnsegfm.report.comparison import Comparison
from lnsegfm.report.terminal_tables import case_table, comparison_table, summary_table

from .scores import evaluation

ONE = evaluation({"lymph_node": [0.5, 0.6, 0.7], "RightParotid": [0.5, 0.6, 0.7]})
TABLES = {
    "case": (case_table(ONE), ("Case", "Label", "Dice", "NSD", "Volume", "Reference", "RightParotid")),
    "summary": (summary_table(ONE), ("Label", "Metric", "95 % interval", "Median", "RightParotid")),
    "comparison": (comparison_table(Comparison(ONE, ONE)), ("Case", "Dice", "Change", "Reference", "RightParotid")),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_fits_80_columns_with_its_words_whole(name):
    table, words = TABLES[name]
    console = Console(width=80)
    with console.capture() as capture:
        console.print(table)
    text = capture.get()

    assert max(map(len, text.splitlines())) <= 80
    assert [word for word in words if word not in text] == []

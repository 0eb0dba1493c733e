"""A real study, tiny: every run once, the product's own figures, failures as rows, more draws later."""

from __future__ import annotations

import pytest

from lnsegfm.study.study_table import TABLE, StudyTable
from tests.study.tiny_study import write_study

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_run_is_a_row_and_the_base_is_among_them(tiny_study):
    runs = StudyTable(tiny_study.out / TABLE).runs()
    assert len(runs) == 1 + 2 * 2 * 2
    assert {record.state for record in runs.values()} == {"done"}
    assert tiny_study.outcome.done == tuple(run.name for run in tiny_study.outcome.planned)
    assert not tiny_study.outcome.lacking
    adapted = runs["clinic/tiny/bias/2 shots/draw 1"]
    assert len(adapted.facts["trained_on"]) == 2
    assert 0 < adapted.facts["moved"] < runs["clinic/tiny/full/2 shots/draw 1"].facts["moved"]

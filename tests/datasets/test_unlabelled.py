from __future__ import annotations

import re

import numpy as np
import pytest

from lnsegfm.datasets.check import check
from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.imaging.files import write_mask, write_volume
from lnsegfm.imaging.grid import Grid

GRID = Grid((4, 5, 6), (1.0, 1.0, 1.0))
LABELS = LabelMap({"node": 1, "vessel": 2})


@pytest.fixture
def folder(tmp_path):
    for number, (name, values) in enumerate({"a": (1, 2), "b": (1,), "c": (2,)}.items()):
        write_volume(tmp_path / "images" / f"{name}.nii.gz", np.full(GRID.shape, number, np.int16), GRID)
        mask = np.zeros(GRID.shape, np.uint8)
        mask.flat[: len(values)] = values
        write_mask(tmp_path / "labels" / f"{name}.nii.gz", mask, GRID)
    return tmp_path


def write(folder, text):
    (folder / "unlabelled.csv").write_text(text)
    return folder


def test_each_case_knows_its_own(folder):
    before = open_dataset(folder, LABELS)
    data = open_dataset(write(folder, "case,label,why\nb,vessel,\nc,node,\nb, vessel ,twice\n"), LABELS)

    assert [case.unlabelled for case in data.cases] == [frozenset(), {"vessel"}, {"node"}]
    assert check(data) == []
    assert data.content_hash() != before.content_hash()
    assert not any(case.unlabelled for case in before.cases)


def test_a_star_is_every_case(folder):
    data = open_dataset(write(folder, "case,label\n*,vessel\nc,node\n"), LABELS)

    assert [case.unlabelled for case in data.cases] == [{"vessel"}, {"vessel"}, {"vessel", "node"}]


def test_a_star_is_judged_case_by_case(folder):
    """What a mask holds is not unlabelled, and a case of which nothing is annotated is no case."""
    problems = check(open_dataset(write(folder, "case,label\n*,vessel\nc,node\n"), LABELS))
    assert [(problem.case, problem.kind) for problem in problems] == [
        ("a", "unlabelled"),
        ("c", "unlabelled"),
        ("c", "unlabelled"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("case,label\n*,Node\n", "there is no label Node. Use one of: node, vessel."),
        ("case,label\nd,node\n", "case d is not in the dataset"),
        ("case,label\na,Node\n", "there is no label Node. Use one of: node, vessel."),
        ("case,label\na,\n", "line 2 lacks a case or a label"),
        ("scan;label\na;node\n", "its columns are scan;label. Give it a header line: case,label."),
        ("", "its columns are none"),
    ],
)
def test_a_slip_is_not_passed_over(folder, text, said):
    with pytest.raises(DataError) as error:
        open_dataset(write(folder, text), LABELS)
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("case,label\na,vessel\n", "Case a: .*label vessel is said to be unlabelled, and is there"),
        ("case,label\nb,node\nb,vessel\n", "all of its labels are said to be unlabelled. Take the case out"),
    ],
)
def test_what_the_mask_contradicts_is_an_error(folder, text, said):
    lines = list(map(str, check(open_dataset(write(folder, text), LABELS))))
    assert any(re.search(said, line) for line in lines)

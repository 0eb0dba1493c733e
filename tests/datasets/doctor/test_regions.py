"""Region-based labels: each region is judged by all its voxels, not by the value that it alone has."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.datasets.doctor import diagnose
from lnsegfm.imaging.files import read_mask
from tests.datasets.doctor.scenes import GRID, ball, label, make

REGIONS = {"background": 0, "whole": [3, 9], "core": 9}


@pytest.fixture
def folder(tmp_path):
    """Three scans: a core within its rim, a core alone (the whole as well), a core with a fragment in the rim."""
    make(tmp_path)
    rim, core = ball((16, 30, 32), 7), ball((16, 30, 32), 4)
    nested = np.where(core, 9, np.where(rim, 3, 0)).astype(np.uint16)
    label(tmp_path, "a", nested)
    label(tmp_path, "b", np.where(core, 9, 0).astype(np.uint16))
    spoilt = nested.copy()
    spoilt[16, 30, 38] = 9  # a fragment of the core, within the whole
    spoilt[2, 2, 2] = 3  # and one of the whole, in the air
    label(tmp_path, "c", spoilt)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": REGIONS, "regions_class_order": [3, 9]}))
    return tmp_path


def test_regions_are_counted_by_all_their_values(folder):
    found = diagnose(open_dataset(folder))

    assert found.facts["cases_with_label"] == {"whole": 3, "core": 3}
    assert not [each for each in found.findings if each.kind in ("label-missing", "label-volume")]


def test_the_check_of_the_command_line_shows_them(lnsegfm_here, folder):
    result = lnsegfm_here("data", "check", folder)

    assert (result.returncode, result.stderr) == (0, "")
    assert "label whole=[3, 9]" in result.stdout
    assert result.stdout.count("in 3 of 3 cases") == 2


def test_a_rim_that_is_thin_is_no_fragment_and_a_fix_makes_no_hole(folder, lnsegfm_here, tmp_path_factory):
    fixed = tmp_path_factory.mktemp("copy") / "fixed"
    fragments = {(each.case, each.what.split()[1]): each.fix for each in diagnose(open_dataset(folder)).findings
                 if each.kind == "fragments"}  # fmt: skip
    assert fragments == {("c", "whole"): "drop-fragments", ("c", "core"): None}

    result = lnsegfm_here("data", "check", folder, "--fix", "drop-fragments", "--out", fixed)

    assert result.returncode == 0, result.stderr
    (file,) = fixed.rglob("labels*/c.nii.gz")
    before, after = (read_mask(each)[0] for each in (folder / "labels" / "c.nii.gz", file))
    assert {tuple(map(int, place)) for place in np.argwhere(before != after)} == {(2, 2, 2)}
    assert after.shape == GRID.shape

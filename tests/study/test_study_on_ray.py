"""A study on a real Ray of two nodes gives the table of this machine."""

from __future__ import annotations

import pytest

from tests.jobs.ray_cluster import in_namespace
from tests.jobs.test_ray import namespaces  # noqa: F401 - a fixture
from tests.study.tiny_study import content


@pytest.mark.services
@pytest.mark.usefixtures("one_thread", "namespaces")
def test_a_study_on_ray_gives_the_serial_table(tiny_study, tmp_path):
    seen = in_namespace(tmp_path / "two", str(tiny_study.file), 500, module="tests.study.study_on_ray")
    assert seen["failed"] == {}
    assert seen["done"] == list(tiny_study.outcome.done)
    assert content(tmp_path / "two") == content(tiny_study.out)

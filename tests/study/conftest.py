"""The study that ran, for the tests of this folder."""

from tests.study.tiny_study import tiny_study  # noqa: F401 - a fixture

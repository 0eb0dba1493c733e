"""The settings of a prediction."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

import pytest

from lnsegfm.errors import ConfigError, UnknownName
from lnsegfm.inference.speed_presets import PRESETS, InferenceSetting
from lnsegfm.prediction.predict_options import PredictOptions, SessionOptions


def test_what_is_not_given_is_nnu_nets_setting() -> None:
    assert SessionOptions().setting == InferenceSetting()
    assert SessionOptions().memory_bytes is None
    assert SessionOptions(memory=1.5).memory_bytes == 1_500_000_000


def test_what_cannot_be_is_refused_when_it_is_said() -> None:
    for step in (0.0, 1.01, float("nan")):
        with pytest.raises(ConfigError, match=r"^--step "):
            SessionOptions(step=step)
    with pytest.raises(UnknownName, match=r"^--fast warp: not known\. Use no-mirroring"):
        SessionOptions(fast="warp")
    with pytest.raises(ConfigError, match="settles mirroring"):
        SessionOptions(fast="wide-steps", mirroring=False)
    with pytest.raises(ConfigError, match=r"^Option speed: not known\. Use device, mirroring"):
        SessionOptions().with_fields(speed=3)


def test_changing_a_field_leaves_the_others_and_the_original() -> None:
    options = PredictOptions(nodes=True)
    changed = options.with_fields(fast="wide-steps", formats="seg")
    assert (changed.nodes, changed.setting, changed.formats) == (True, PRESETS["wide-steps"], ("seg",))
    assert options == PredictOptions(nodes=True)


def test_every_field_is_described_once() -> None:
    common = [field.name for field in fields(SessionOptions)]
    for kind, own in (
        (SessionOptions, common),
        (PredictOptions, [field.name for field in fields(PredictOptions) if field.name not in common]),
    ):
        for name in own:
            assert f"        {name}: " in (kind.__doc__ or ""), name


def test_the_settings_load_no_torch() -> None:
    code = "import sys, lnsegfm.prediction.predict_options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

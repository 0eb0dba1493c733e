from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest
from torch import nn

from lnsegfm.errors import ConfigError, LnSegFmError, UnknownName
from lnsegfm.methods.table import METHODS, load_method
from lnsegfm.testing.tiny_networks import Sequence3d

LEARNING = [name for name, cls in METHODS.items() if cls.learns]

BAD_SETTINGS = [
    ("dgst", {"gamma": "0"}, "gamma 0"),
    ("dgst", {"gamma": "-3"}, "gamma -3"),
    ("dgst", {"gamma": "1.5"}, "gamma=1.5.*whole number"),
    ("dgst", {"gamma": "none"}, "gamma=none.*whole number"),
    ("dgst", {"gamma": ""}, "gamma=.*whole number"),
    ("dgst", {"mode": "papers"}, "mode papers.*paper, momentum, masked-gradient"),
    ("dgst", {"weight_lr": "fast"}, "weight_lr=fast.*a number"),
    ("dgst", {"weight_lr": "0"}, "weight_lr 0"),
    ("dgst", {"weight_lr": "-1"}, "weight_lr -1"),
    ("dgst", {"weight_lr": "nan"}, "weight_lr nan"),
    ("dgst", {"weight_lr": "inf"}, "weight_lr inf"),
    ("dgst", {"weight_lr": "1", "mode": "momentum"}, "weight_lr 1.0: mode momentum"),
    ("dgst", {"gama": "2"}, "Setting gama.*gamma, mode, weight_lr"),
    ("full", {"rule": "adam"}, "rule adam.*sgd and adamw"),
    ("full", {"gamma": "2"}, "Setting gamma.*rule"),
    ("head", {"gamma": "2"}, "Setting gamma.*rule"),
    ("zero-shot", {"rule": "sgd"}, "Setting rule.*Its settings: none"),
    *(
        (name, {"rule": "adam"}, f"rule adam: method {name} knows sgd and adamw")
        for name in ("scratch", "head", "decoder", "bias", "affine", "ssf", "lora", "dora", "spatial-adapter")
    ),
    ("l2-sp", {"alpha": "-1"}, "alpha -1.0.*0 or above"),
    ("l2-sp", {"alpha": "nan"}, "alpha nan"),
    ("l2-sp", {"beta": "inf"}, "beta inf"),
    ("l2-sp", {"beta": "-0.1"}, "beta -0.1"),
    ("l2-sp", {"rule": "sgd"}, "Setting rule.*alpha, beta"),
    *(
        (name, settings, message)
        for name in ("lora", "dora")
        for settings, message in (
            ({"rank": "0"}, "rank 0"),
            ({"rank": "-2"}, "rank -2"),
            ({"rank": "1.5"}, "rank=1.5.*whole number"),
            ({"alpha": "0"}, "alpha 0.0"),
            ({"alpha": "inf"}, "alpha inf"),
            ({"alpha": "nan"}, "alpha nan"),
            ({"dropout": "1"}, "dropout 1.0"),
            ({"dropout": "-0.1"}, "dropout -0.1"),
            ({"dropout": "nan"}, "dropout nan"),
            ({"where": "head"}, f"where head: method {name} knows all, encoder, decoder"),
            ({"layers": "norms"}, f"layers norms: method {name} knows all, convolutions, linear"),
            ({"seed": "-1"}, "seed -1"),
        )
    ),
    ("spatial-adapter", {"width": "0"}, "width 0"),
    ("spatial-adapter", {"width": "wide"}, "width=wide.*whole number"),
    ("spatial-adapter", {"seed": "-1"}, "seed -1"),
    *((name, {"gamma": "0"}, "gamma 0") for name in ("gps", "random-static", "random-dynamic")),
    ("gps", {"passes": "0"}, "passes 0"),
    ("gps", {"passes": "many"}, "passes=many.*whole number"),
    ("random-static", {"seed": "-1"}, "seed -1"),
    ("random-dynamic", {"seed": "-1"}, "seed -1"),
    ("random-dynamic", {"weight_lr": "0"}, "weight_lr 0"),
    ("dgst-bounded", {"gamma": "-1"}, "gamma -1"),
    ("dgst-bounded", {"bound": "0"}, "bound 0"),
    ("dgst-bounded", {"bound": "nan"}, "bound nan"),
    ("dgst-bounded", {"weight_lr": "inf"}, "weight_lr inf"),
    ("dgst-bounded", {"weight_lr": "none"}, "weight_lr=none.*a number"),
    ("dgst-bounded", {"select": "first"}, "select first: method dgst-bounded knows steepest and random"),
    ("dgst-bounded", {"memory": "1"}, "memory 1.0"),
    ("dgst-bounded", {"memory": "-0.5"}, "memory -0.5"),
    ("dgst-bounded", {"norms": "perhaps"}, "norms=perhaps.*true or false"),
    ("dgst-bounded", {"seed": "-1"}, "seed -1"),
]


@pytest.mark.parametrize(("name", "settings", "message"), BAD_SETTINGS)
def test_a_bad_setting_is_told_in_one_line(name: str, settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_method(name, settings)
    assert "\n" not in str(caught.value)


def test_an_unknown_method_is_told_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r"dgsd.*zero-shot, scratch, full, .*, dgst-bounded\.") as caught:
        load_method("dgsd")
    assert isinstance(caught.value, (LnSegFmError, KeyError))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", METHODS)
def test_settings_round_trip_through_text(name: str) -> None:
    method = load_method(name)
    assert load_method(name, {key: str(value) for key, value in method.settings().items()}) == method
    assert method.name == name
    assert "\n" not in method.summary + method.source


@pytest.mark.parametrize(
    ("name", "texts", "values"),
    [
        ("lora", {"rank": "2", "alpha": "3", "dropout": "0.25", "where": "decoder"}, (2, 3.0, 0.25, "decoder")),
        ("spatial-adapter", {"width": "none", "rule": "sgd"}, (None, "sgd")),
        ("dgst-bounded", {"gamma": "0", "norms": "false", "select": "random"}, (0, False, "random")),
        ("dgst-bounded", {"norms": "1"}, (True,)),
        ("random-dynamic", {"weight_lr": "none", "seed": "7"}, (None, 7)),
        ("gps", {"passes": "3"}, (3,)),
    ],
)
def test_settings_of_every_kind_are_read(name: str, texts: dict[str, str], values: tuple[Any, ...]) -> None:
    method = load_method(name, texts)
    assert tuple(getattr(method, key) for key in texts) == values
    assert method.settings().keys() == {field.name for field in dataclasses.fields(method)}


def test_settings_are_read_by_kind() -> None:
    method = load_method("dgst", {"gamma": "2", "weight_lr": "0.5"})
    assert method.settings() == {"gamma": 2, "mode": "paper", "weight_lr": 0.5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, "Learning rate 0.0"),
        ({"lr": float("nan")}, "Learning rate nan"),
        ({"lr": float("inf")}, "Learning rate inf"),
        ({"lr": 0.1, "momentum": 1.0}, "Momentum 1.0"),
        ({"lr": 0.1, "momentum": -0.1}, "Momentum -0.1"),
        ({"lr": 0.1, "weight_decay": -1.0}, "Weight decay -1.0"),
    ],
)
@pytest.mark.parametrize("name", LEARNING)
def test_a_rate_that_cannot_be_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    network = Sequence3d()
    with pytest.raises(ConfigError, match=message):
        METHODS[name]().optimizer(network, head=[network.out], **options)


def test_what_trains_nothing_has_no_optimizer_and_leaves_the_network_alone() -> None:
    network = Sequence3d()
    with pytest.raises(ConfigError, match=r"Method zero-shot: it trains nothing.*Use the base as it is\.") as caught:
        METHODS["zero-shot"]().optimizer(network, lr=0.1, head=[network.out])
    assert "\n" not in str(caught.value)
    assert all(p.requires_grad for p in network.parameters())


def test_the_methods_that_take_no_step_or_start_afresh_say_so() -> None:
    assert [name for name, cls in METHODS.items() if not cls.learns] == ["zero-shot"]
    assert [name for name, cls in METHODS.items() if cls.starts_fresh] == ["scratch"]


@pytest.mark.parametrize("name", LEARNING)
def test_an_unknown_network_needs_its_head_named(name: str) -> None:
    with pytest.raises(ConfigError, match="head"):
        METHODS[name]().optimizer(Sequence3d(), lr=0.1)


def test_nothing_to_move_is_an_error_and_leaves_the_network_alone() -> None:
    network = Sequence3d(affine=False)
    with pytest.raises(ConfigError, match="Method affine: Sequence3d has no parameters"):
        METHODS["affine"]().optimizer(network, lr=0.1, head=[network.out])
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_a_network_without_parameters_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match="Head: none is named" if name == "spatial-adapter" else f"Method {name}"):
        METHODS[name]().optimizer(nn.Sequential(nn.ReLU()), lr=0.1, head=[])


def test_a_head_without_parameters_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"Method head.*head"):
        METHODS["head"]().optimizer(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), lr=0.1, head=[nn.ReLU()])


def test_the_table_loads_no_torch() -> None:
    code = (
        "import sys, lnsegfm.methods.table as t; t.load_method('dgst'); "
        "print([m for m in ('torch', 'nnunetv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

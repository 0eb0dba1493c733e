"""What is compared: methods with settings, each with a grid of learning rates from which the shots choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SGD = (0.001, 0.003, 0.01)
ADAM = (0.0003, 0.001, 0.003)


@dataclass(frozen=True)
class Arm:
    """A method with settings.

    Args:
        name: Its name in tables.
        method: The method's name.
        settings: What differs from its defaults.
        rates: Learning rates to choose from.
        rates_of: Another arm whose choice is taken, for variants of one method.
    """

    name: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    rates: tuple[float, ...] = SGD
    rates_of: str | None = None


def _variant(name: str, **settings: Any) -> Arm:
    return Arm(f"bounded {name}", "dgst-bounded", settings, rates_of="dgst-bounded")


METHODS = (
    Arm("zero-shot", "zero-shot", rates=()),
    Arm("scratch", "scratch"),
    Arm("full", "full"),
    Arm("full adamw", "full", {"rule": "adamw"}, ADAM),
    Arm("l2-sp", "l2-sp"),
    Arm("head", "head"),
    Arm("decoder", "decoder"),
    Arm("bias", "bias"),
    Arm("affine", "affine"),
    Arm("ssf", "ssf", rates=ADAM),
    Arm("lora", "lora", rates=ADAM),
    Arm("dora", "dora", rates=ADAM),
    Arm("spatial-adapter", "spatial-adapter", rates=ADAM),
    Arm("gps", "gps"),
    Arm("random-static", "random-static"),
    Arm("dgst", "dgst"),
    Arm("dgst momentum", "dgst", {"mode": "momentum"}),
    Arm("dgst masked-gradient", "dgst", {"mode": "masked-gradient"}),
    Arm("random-dynamic", "random-dynamic"),
    Arm("dgst-bounded", "dgst-bounded"),
)
VARIANTS = (
    _variant("gamma 1", gamma=1),
    _variant("gamma 16", gamma=16),
    _variant("bound 0.1", bound=0.1),
    _variant("bound 1", bound=1.0),
    _variant("random entries", select="random"),
    _variant("all entries bound 0.03", gamma=0, bound=0.03),
    _variant("all entries bound 0.3", gamma=0),
    _variant("norms held", norms=False),
    _variant("memory 0.9", memory=0.9),
    _variant("weight_lr 1000", weight_lr=1000.0),
)
SERIOUS = ("zero-shot", "full", "affine", "lora", "dgst", "random-dynamic", "dgst-bounded")
ARMS = {arm.name: arm for arm in (*METHODS, *VARIANTS)}

"""check_method passes what keeps the laws, and says which law a method breaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from lnsegfm.methods.bias import Bias
from lnsegfm.methods.dense import Dense
from lnsegfm.methods.dgst import DGST
from lnsegfm.methods.head import Head
from lnsegfm.methods.lora import LoRA
from lnsegfm.methods.method import setting
from lnsegfm.methods.table import METHODS
from lnsegfm.networks.role import Role
from lnsegfm.testing import check_method

ALL = frozenset(Role)


@dataclass(frozen=True, kw_only=True)
class Good(Dense):
    """The scale of every norm."""

    name = "good"
    summary = "the scale of every norm and the head move"
    source = "an example"
    trains = frozenset({Role.HEAD, Role.NORM_WEIGHT})


@pytest.mark.parametrize(
    "method", [Good, Good(rule="adamw"), METHODS["zero-shot"], DGST(gamma=2), LoRA(rank=1)], ids=str
)
def test_what_keeps_the_laws_passes(method: Any) -> None:
    check_method(method)


@pytest.mark.long
@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_the_table_passes(name: str) -> None:
    check_method(METHODS[name])


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    check_method(METHODS["zero-shot"])
    assert torch.get_num_threads() == before


@dataclass(frozen=True, kw_only=True)
class Greedy(Good):
    """Its optimizer moves what it freezes."""

    def _optimizer(self, trained: Any, **options: Any) -> torch.optim.Optimizer:
        class All(torch.optim.SGD):
            def step(self, closure: Any = None) -> Any:
                with torch.no_grad():
                    for parameter in LAST[0].parameters():
                        parameter.add_(1.0)
                return super().step(closure)

        return All([parameter.tensor for parameter in trained], lr=options["lr"])

    def attach(self, network: nn.Module, head: Any = None) -> None:  # noqa: ARG002
        LAST[:] = [network]


LAST: list[nn.Module] = []


@dataclass(frozen=True, kw_only=True)
class Idle(Good):
    """Its optimizer leaves the norms out."""

    def _optimizer(self, trained: Any, **options: Any) -> torch.optim.Optimizer:
        return super()._optimizer([parameter for parameter in trained if parameter.role is Role.HEAD], **options)


@dataclass(frozen=True, kw_only=True)
class Modest(Good):
    """It counts fewer entries than it moves."""

    def per_step(self, parameter: Any) -> int:
        return min(1, super().per_step(parameter))


@dataclass(frozen=True, kw_only=True)
class Chance(Good):
    """It depends on what nobody set."""

    calls: ClassVar[list[int]] = []

    def _optimizer(self, trained: Any, **options: Any) -> torch.optim.Optimizer:
        self.calls.append(1)
        return super()._optimizer(trained, **options | {"lr": options["lr"] * (1 + len(self.calls))})


@dataclass(frozen=True, kw_only=True)
class Forgetful(Good):
    """Its optimizer keeps momentum where no state dict looks."""

    def _optimizer(self, trained: Any, **options: Any) -> torch.optim.Optimizer:
        class Hidden(torch.optim.SGD):
            def state_dict(self) -> dict[str, Any]:
                return super().state_dict() | {"state": {}}

        return Hidden([parameter.tensor for parameter in trained], lr=options["lr"], momentum=0.9)


@dataclass(frozen=True, kw_only=True)
class Jumping(Good):
    """It changes the base before the first step."""

    def attach(self, network: nn.Module, head: Any = None) -> None:  # noqa: ARG002
        with torch.no_grad():
            next(network.parameters()).mul_(2.0)


@dataclass(frozen=True, kw_only=True)
class Leaving(LoRA):
    """It leaves its factors in the network."""

    name = "leaving"

    @staticmethod
    def merge(network: nn.Module) -> dict[str, Any]:  # noqa: ARG004
        return {}


@dataclass(frozen=True, kw_only=True)
class NoMeaning(Good):
    """A setting without a line of meaning."""

    width: int = 3


@dataclass(frozen=True, kw_only=True)
class NoCard(Dense):
    """No card."""


@dataclass(frozen=True, kw_only=True)
class BadName(Good):
    """A name that no command line takes."""

    name = "My Method"


class Thawed(Bias):
    """Settings that change after they were checked."""

    __setattr__ = object.__setattr__


@dataclass(frozen=True, kw_only=True)
class Unread(Good):
    """A setting that is not read as it is written."""

    scale: float = setting(1.0, "a scale")

    @classmethod
    def from_text(cls, settings: Any) -> Any:
        return cls(**{key: float(value) + 1 for key, value in settings.items() if key == "scale"})


@dataclass(frozen=True, kw_only=True)
class Learnless(Head):
    """It says that it takes no step, and has an optimizer."""

    name = "learnless"
    learns = False

    def optimizer(self, network: nn.Module, **options: Any) -> torch.optim.Optimizer:  # type: ignore[override]
        return torch.optim.SGD(network.parameters(), lr=options["lr"])


BROKEN: dict[Callable[[], Any], str] = {
    Greedy: "on plain-unet: frozen encoder",
    Idle: "its optimizer does not hold",
    Modest: "per_step says 1",
    Chance: "two runs with one seed differ",
    Forgetful: "keep all that the next step depends on",
    Jumping: "before the first step outputs",
    Leaving: "merging leaves",
    NoMeaning: "width: no line of meaning",
    NoCard: "NoCard lacks name, summary, source, trains",
    BadName: "the name 'My Method' is not of small letters",
    Thawed: "is not frozen",
    Unread: "are not read back",
    Learnless: "it does not learn and gives an optimizer",
}


@pytest.mark.parametrize("method", BROKEN, ids=lambda method: method.__name__)
def test_a_broken_law_is_named(method: Any) -> None:
    with pytest.raises(AssertionError, match=BROKEN[method]):
        check_method(method)

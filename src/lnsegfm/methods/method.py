"""Base of every method: a frozen record of settings, with the roles of the parameters that it trains.

Nothing here loads torch before a network is given, so that methods can be listed and checked quickly.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from lnsegfm.errors import ConfigError
from lnsegfm.methods.training_defaults import TrainingDefaults
from lnsegfm.networks.architectures import TRAINER_PREFIX
from lnsegfm.networks.role import Role

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from lnsegfm.networks.computed_weights import Factors
    from lnsegfm.networks.parameter_roles import NetworkParameter

MOMENTUM = 0.99
WEIGHT_DECAY = 3e-5


def setting(default: Any, meaning: str) -> Any:
    """A field of a method: its default and one line of meaning, shown by ``lnsegfm methods``."""
    return dataclasses.field(default=default, metadata={"meaning": meaning})


def require_rate(name: str, rate: float | None) -> None:
    """Check a learning rate or bound.

    Raises:
        ConfigError: It is not above 0, or not finite.
    """
    if rate is not None and not 0 < rate < float("inf"):
        raise ConfigError(f"{name} {rate}: a step has a finite length above 0. Use for example 1.")


def require_seed(seed: int) -> None:
    """Check a seed.

    Raises:
        ConfigError: It is negative.
    """
    if seed < 0:
        raise ConfigError(f"seed {seed}: seeds are counted from 0. Use seed >= 0.")


@dataclass(frozen=True)
class TrainableCounts:
    """What a method trains in one network, counted.

    Args:
        tensors: Tensors that train.
        parameters: Entries in them.
        per_step: Entries that one step can change.
        total: Entries of the whole network, without anything that the method adds.
    """

    tensors: int
    parameters: int
    per_step: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Method:
    """How a network is adapted.

    A subclass is a card: it names the roles it trains, and its fields are the settings that ``--set`` reaches.

    Attributes:
        name: What a user types.
        summary: What trains, in a line.
        source: The paper.
        trains: Roles of the parameters that train; `is_trained` may narrow them.
        training: How it is trained unless the user says otherwise.
        trainer: Name of its trainer under ``nnUNetv2_train``, after ``nnUNetTrainer_``, if that is not its own name; a
            subclass does not inherit it.
        learns: Whether it takes any step.
        starts_fresh: Whether it ignores the base's weights.
        needs_base: Whether it cannot start from fresh weights.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    trains: ClassVar[frozenset[Role]]
    training: ClassVar[TrainingDefaults] = TrainingDefaults()
    trainer: ClassVar[str] = ""
    learns: ClassVar[bool] = True
    starts_fresh: ClassVar[bool] = False
    needs_base: ClassVar[bool] = True

    @classmethod
    def trainer_name(cls) -> str:
        """The class that ``nnUNetv2_train -tr`` knows it by."""
        return TRAINER_PREFIX + (vars(cls).get("trainer") or cls.name.replace("-", "_"))

    def is_trained(self, parameter: NetworkParameter) -> bool:
        """Whether a parameter trains."""
        return parameter.role in self.trains

    def attach(self, network: nn.Module, head: Sequence[nn.Module] | None = None) -> None:
        """Add to a network, in place, what the method trains besides its own parameters; most methods add nothing."""

    def architecture(self, class_path: str, arguments: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        """Import path and arguments of the adapted network's class, from those of the base's: the same for most."""
        return class_path, arguments

    @staticmethod
    def merge(network: nn.Module) -> dict[str, Factors]:
        """Merge computed weights into plain ones, in place; without effect where no weight is computed.

        Returns:
            The factors of each computed weight, by its name: what an adapter can store in its place.
        """
        from lnsegfm.networks.cards import unwrap
        from lnsegfm.networks.reparametrize import merge

        return merge(unwrap(network))

    def optimizer(
        self,
        network: nn.Module,
        *,
        lr: float,
        momentum: float = MOMENTUM,
        nesterov: bool = True,
        weight_decay: float = WEIGHT_DECAY,
        head: Sequence[nn.Module] | None = None,
    ) -> Optimizer:
        """Freeze what the method does not train and return an optimizer for the rest.

        What the method adds is inserted into the network (`merge` removes it again). ``requires_grad`` is set for every
        parameter; BatchNorm keeps its running statistics where the method does not train norms. Call it before the
        network is wrapped for DDP, with the weights that training starts from in it.

        Args:
            network: Any network, on its device.
            lr: Learning rate of the dense parameters; schedulers may change it in all groups alike.
            momentum: Momentum of the dense parameters (nnU-Net: 0.99).
            nesterov: Nesterov's form of it.
            weight_decay: L2 decay of the dense parameters (nnU-Net: 3e-5).
            head: Modules whose output channels are the labels, for a network that has no card.

        Raises:
            ConfigError: A rate is out of range, no head is known, or the network has nothing that the method trains.
        """
        from lnsegfm.methods.freeze import freeze
        from lnsegfm.networks.parameter_roles import parameters_of

        if not self.learns:
            raise ConfigError(f"Method {self.name}: it trains nothing, so it has no optimizer. Use the base as it is.")
        if not 0 < lr < float("inf"):
            raise ConfigError(f"Learning rate {lr}: it must be finite and above 0. Use for example 0.01.")
        if not 0 <= momentum < 1:
            raise ConfigError(f"Momentum {momentum}: it must lie in [0, 1). Use for example 0.99.")
        if not 0 <= weight_decay < float("inf"):
            raise ConfigError(f"Weight decay {weight_decay}: it must be finite and 0 or above. Use for example 3e-5.")
        self.attach(network, head)
        parameters = parameters_of(network, head)
        trained = [parameter for parameter in parameters if self.is_trained(parameter)]
        self._require_trained(trained, network)
        freeze(network, parameters, self.is_trained)
        return self._optimizer(
            trained, lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0, weight_decay=weight_decay
        )

    def _require_trained(self, trained: Sequence[NetworkParameter], network: nn.Module) -> None:
        """Refuse a network in which the method finds nothing besides the head, or nothing at all."""
        from lnsegfm.networks.cards import unwrap

        roles = {parameter.role for parameter in trained}
        if roles - {Role.HEAD} or (roles and self.trains == {Role.HEAD}):
            return
        wanted = ", ".join(sorted(self.trains - {Role.HEAD})) or Role.HEAD.value
        raise ConfigError(
            f"Method {self.name}: {type(unwrap(network)).__name__} has no parameters of the roles "
            f"it trains ({wanted}). Use a method that finds some there: head, full or dgst."
        )

    def _optimizer(
        self, trained: Sequence[NetworkParameter], *, lr: float, momentum: float, nesterov: bool, weight_decay: float
    ) -> Optimizer:
        raise NotImplementedError

    def per_step(self, parameter: NetworkParameter) -> int:
        """Entries of a trained tensor that one step can change."""
        return parameter.tensor.numel()

    def trainable(self, network: nn.Module, head: Sequence[nn.Module] | None = None) -> TrainableCounts:
        """Count what the method trains in a network, without changing it."""
        from copy import deepcopy

        from lnsegfm.networks.cards import unwrap
        from lnsegfm.networks.parameter_roles import parameters_of

        parameters = parameters_of(network, head)
        total = sum(parameter.tensor.numel() for parameter in parameters)
        if Role.ADAPTER in self.trains:
            network, head = deepcopy((unwrap(network), head))
            self.attach(network, head)
            parameters = parameters_of(network, head)
        trained = [parameter for parameter in parameters if self.is_trained(parameter)]
        return TrainableCounts(
            tensors=len(trained),
            parameters=sum(parameter.tensor.numel() for parameter in trained),
            per_step=sum(self.per_step(parameter) for parameter in trained),
            total=total,
        )

    def settings(self) -> dict[str, Any]:
        """The settings by name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_text(cls, settings: Mapping[str, str]) -> Self:
        """Make the method from ``name=value`` texts, as ``--set`` gives them.

        Raises:
            ConfigError: A name that the method does not have, or a value of the wrong kind.
        """
        hints = typing.get_type_hints(cls)
        names = [field.name for field in dataclasses.fields(cls)]
        values = {}
        for name, text in settings.items():
            if name not in names:
                known = ", ".join(names) if names else "none"
                raise ConfigError(f"Setting {name}: method {cls.name} has no such setting. Its settings: {known}.")
            values[name] = _parse(cls.name, name, text, hints[name])
        return cls(**values)


def _parse(method: str, name: str, text: str, hint: Any) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if type(None) in options and text.lower() == "none":
        return None
    (kind,) = [option for option in options if option is not type(None)]
    try:
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError):
        raise ConfigError(f"Setting {name}={text}: method {method} needs {_KINDS[kind]} there.") from None


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}

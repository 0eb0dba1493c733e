"""Proof at the start of training that a method moves what it says and nothing else.

A method may be right and its network be built so that it never computes with what the method added: then nothing of it
trains, and the loss, which the head lowers alone, does not tell. So some trial steps are taken, on a copy of what will
train, and looked at: which tensors got a gradient, and which entries changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from lnsegfm.errors import ConfigError
from lnsegfm.methods.method import Method
from lnsegfm.networks.added import Added
from lnsegfm.networks.cards import unwrap
from lnsegfm.networks.parameter_roles import NetworkParameter, parameters_of
from lnsegfm.networks.role import Role

STEPS, MORE = 2, 4
"""Steps taken, and how many more while a tensor is without a gradient: LoRA's A has none while B is still zero."""
SKIPS = 20
"""Trials that torch's GradScaler may skip while it looks for its scale."""
NAMED = 3
"""Tensors that a message names."""


@dataclass(frozen=True, kw_only=True)
class SanityReport:
    """What the trial steps of a method showed.

    Args:
        steps: Trial steps taken.
        tensors: Tensors that are meant to train.
        parameters: Entries in them.
        total: Entries of the network, without anything that the method adds.
        roles: Number of the tensors that are meant to train, by role.
        moved: Entries that the trial steps changed.
        kept: Tensors and buffers that are meant to stay, and stayed bit for bit.
        silent: Head tensors without a gradient: those of outputs that the loss leaves out.
    """

    steps: int
    tensors: int
    parameters: int
    total: int
    roles: Mapping[str, int] = field(default_factory=dict)
    moved: int
    kept: int
    silent: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """What is meant to train, as a share of the network's own parameters; what is added may take it above 1."""
        return self.parameters / self.total if self.total else 0.0

    def to_json(self) -> dict[str, Any]:
        """The proof as plain values."""
        return asdict(self) | {"share": round(self.share, 8)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> SanityReport:
        """Read what `to_json` gives."""
        known = {key: value for key, value in content.items() if key != "share"}
        return cls(**known | {"silent": tuple(content["silent"])})

    def line(self) -> str:
        """The proof in a line."""
        roles = ", ".join(f"{number} {role}" for role, number in self.roles.items())
        silent = (
            f"; {len(self.silent)} of the head get none, as the loss leaves their outputs out" if self.silent else ""
        )
        return (
            f"{self.steps} steps on a copy: {self.tensors} tensors train ({roles}){silent}; "
            f"{self.moved:,} entries moved; {self.kept} tensors stayed bit for bit"
        )


def run_sanity_check(
    method: Method,
    network: nn.Module,
    optimizer: Optimizer,
    step: Callable[[int], Any],
    head: Sequence[nn.Module] | None = None,
) -> SanityReport:
    """Take trial steps and see that they move what the method means to move, and nothing else.

    The network and the optimizer are changed by it: give copies.

    Args:
        method: The method.
        network: The network with what the method added, perhaps wrapped.
        optimizer: What ``method.optimizer`` gave for it.
        step: Takes training step number 0, 1, 2, ...: gradients to zero, forward, backward, ``optimizer.step()``.
        head: The head that was named to the method.

    Raises:
        ConfigError: A tensor that is meant to train gets no gradient or is not in the optimizer, one that is meant to
            stay changed, or a step changed more entries of a weight than the method allows.
    """
    trial = _SanityRun(method, network, optimizer, head)
    with _without_chance(network):
        for number in range(STEPS + MORE + SKIPS):
            if trial.take(step, number):
                trial.require_kept()
            enough = STEPS if not trial.starved else STEPS + MORE
            if trial.steps >= enough:
                break
    if trial.steps < STEPS:
        raise ConfigError(
            f"Method {method.name}: no trial step had finite gradients. Lower --lr, or check the images' intensities."
        )
    trial.require_alive()
    return trial.report()


class _SanityRun:
    """A network before and after trial steps."""

    def __init__(
        self, method: Method, network: nn.Module, optimizer: Optimizer, head: Sequence[nn.Module] | None
    ) -> None:
        self.method, self.optimizer = method, optimizer
        self.network = unwrap(network)
        self.parameters = parameters_of(self.network, head)
        self.trained = [parameter for parameter in self.parameters if method.is_trained(parameter)]
        self.before = {parameter.name: _bits(parameter.tensor) for parameter in self.parameters}
        self.buffers = {name: _bits(buffer) for name, buffer in self.network.named_buffers()}
        self.alive: set[str] = set()
        self.steps = 0
        self._seen = False
        self._require_held()

    def _require_held(self) -> None:
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        left = [parameter.name for parameter in self.trained if id(parameter.tensor) not in held]
        if left:
            raise self._refusal(left, "meant to train but not in its optimizer", len(self.trained))

    def take(self, step: Callable[[int], Any], number: int) -> bool:
        """Take a step; whether it was one: a GradScaler leaves out those whose gradients are not finite."""
        self._seen = False
        hook = self.optimizer.register_step_pre_hook(lambda *_: self._look())
        try:
            step(number)
        finally:
            hook.remove()
        self.steps += self._seen
        return self._seen

    def _look(self) -> None:
        if self._seen:  # an optimizer whose step calls that of the class it derives from
            return
        self._seen = True
        for parameter in self.trained:
            gradient = parameter.tensor.grad
            if parameter.name not in self.alive and gradient is not None and bool((gradient != 0).any()):
                self.alive.add(parameter.name)

    @property
    def silent(self) -> list[str]:
        """Tensors that are meant to train and got no gradient yet."""
        return [parameter.name for parameter in self.trained if parameter.name not in self.alive]

    @property
    def starved(self) -> list[str]:
        """Those of them that nothing excuses: a loss may leave out some outputs, so some of a head may be silent."""
        heads = {parameter.name for parameter in self.trained if parameter.role is Role.HEAD}
        return self.silent if not heads & self.alive else [name for name in self.silent if name not in heads]

    def require_alive(self) -> None:
        """Refuse tensors that no trial step reached."""
        if self.starved:
            raise self._refusal(
                self.starved, f"meant to train but without a gradient in {self.steps} steps", len(self.trained)
            )

    def require_kept(self) -> None:
        """Refuse what changed against the method's word."""
        trained = {parameter.name for parameter in self.trained}
        changed = [p.name for p in self.parameters if p.name not in trained and self._changed(p)]
        statistics = self._statistics()
        changed += [
            name
            for name, buffer in self.network.named_buffers()
            if name not in statistics and bool((_bits(buffer) != self.buffers[name]).any())
        ]
        if changed:
            raise self._refusal(
                changed, "meant to stay but changed", len(self.parameters) - len(trained) + len(self.buffers)
            )
        limits = {parameter: self.method.per_step(parameter) * self.steps for parameter in self.trained}
        wide = [p.name for p, most in limits.items() if most < p.tensor.numel() and self._changed(p) > most]
        if wide:
            raise self._refusal(wide, "changed in more entries than the method allows", len(self.trained))

    def _changed(self, parameter: NetworkParameter) -> int:
        return int((_bits(parameter.tensor) != self.before[parameter.name]).sum())

    def _statistics(self) -> set[str]:
        """Names of running statistics that may change: those of norms that train."""
        scales = {id(parameter.module) for parameter in self.trained if parameter.name.rpartition(".")[2] == "weight"}
        return {
            f"{prefix}.{name}" if prefix else name
            for prefix, module in self.network.named_modules(remove_duplicate=False)
            if isinstance(module, _NormBase)
            and (id(module) in scales if module.affine else Role.NORM_WEIGHT in self.method.trains)
            for name, _ in module.named_buffers(recurse=False)
        }

    def _refusal(self, names: Sequence[str], what: str, of: int) -> ConfigError:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return ConfigError(
            f"Method {self.method.name}: {len(names)} of {of} tensors are {what} ({', '.join(names[:NAMED])}{more}). "
            "Nothing was trained. Use another method, or mend this one."
        )

    def report(self) -> SanityReport:
        """What was seen."""
        statistics = self._statistics()
        return SanityReport(
            steps=self.steps,
            tensors=len(self.trained),
            parameters=sum(parameter.tensor.numel() for parameter in self.trained),
            total=sum(parameter.tensor.numel() for parameter in self.parameters if parameter.role is not Role.ADAPTER),
            roles=dict(sorted(Counter(parameter.role.value for parameter in self.trained).items())),
            moved=sum(self._changed(parameter) for parameter in self.trained),
            kept=len(self.parameters) - len(self.trained) + len(set(self.buffers) - statistics),
            silent=tuple(self.silent),
        )


def empty_sanity_report(network: nn.Module) -> SanityReport:
    """The proof of a method that takes no step."""
    parameters = parameters_of(network)
    total = sum(parameter.tensor.numel() for parameter in parameters)
    buffers = len(dict(unwrap(network).named_buffers()))
    return SanityReport(steps=0, tensors=0, parameters=0, total=total, moved=0, kept=len(parameters) + buffers)


@contextmanager
def _without_chance(network: nn.Module) -> Iterator[None]:
    """Let what a method added leave out nothing by chance: its dropout could hide every gradient of a tensor."""
    added = [module for module in unwrap(network).modules() if isinstance(module, Added)]
    before = [module.training for module in added]
    for module in added:
        module.train(False)
    try:
        yield
    finally:
        for module, mode in zip(added, before, strict=True):
            module.train(mode)


def _bits(tensor: Tensor) -> Tensor:
    """A copy of a tensor on the CPU as integers: -0.0 differs from 0.0, and a NaN equals itself."""
    kinds = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.int8}
    return tensor.detach().cpu().clone().contiguous().view(-1).view(kinds[tensor.element_size()])

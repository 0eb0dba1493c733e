"""Sanity check at the start of training: a method trains what it declares and nothing else.

A method may be right and the network never compute with what the method added: then the head trains alone, and the loss
falls all the same. So a few steps are taken on a copy of what will be trained, and checked: which tensors got a
gradient, and which entries changed.
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
"""Steps taken, and further ones while a tensor has no gradient: LoRA's A has none while B is zero."""
SKIPS = 20
"""Steps that torch's GradScaler may skip until it has its scale."""
NAMED = 3
"""Tensors that an error message names."""


@dataclass(frozen=True, kw_only=True)
class SanityReport:
    """Result of a sanity check.

    Args:
        steps: Steps taken.
        tensors: Tensors that are meant to train.
        parameters: Entries in them.
        total: Entries of the network, without anything that the method adds.
        roles: Number of the tensors that are meant to train, by role.
        changed: Entries that these steps changed.
        unchanged: Frozen tensors and buffers, which stayed bit-identical.
        without_gradient: Head tensors without a gradient: those of outputs that the loss does not use.
    """

    steps: int
    tensors: int
    parameters: int
    total: int
    roles: Mapping[str, int] = field(default_factory=dict)
    changed: int
    unchanged: int
    without_gradient: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Trained entries as a share of the network's own parameters; added parameters may raise it above 1."""
        return self.parameters / self.total if self.total else 0.0

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self) | {"share": round(self.share, 8)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> SanityReport:
        """The inverse of `to_json`."""
        known = {key: value for key, value in content.items() if key != "share"}
        return cls(**known | {"without_gradient": tuple(content["without_gradient"])})

    def line(self) -> str:
        """The report in one line."""
        roles = ", ".join(f"{number} {role}" for role, number in self.roles.items())
        idle = len(self.without_gradient)
        note = f"; {idle} of the head get no gradient, as the loss does not use their outputs" if idle else ""
        return (
            f"{self.steps} steps on a copy: {self.tensors} tensors train ({roles}){note}; "
            f"{self.changed:,} entries changed; {self.unchanged} tensors stayed bit-identical"
        )


def run_sanity_check(
    method: Method,
    network: nn.Module,
    optimizer: Optimizer,
    step: Callable[[int], Any],
    head: Sequence[nn.Module] | None = None,
) -> SanityReport:
    """Take a few steps and check that they change what the method trains, and nothing else.

    The network and the optimizer are changed: pass copies.

    Args:
        method: The method.
        network: The network with what the method added, perhaps wrapped.
        optimizer: The optimizer that ``method.optimizer`` returned for it.
        step: Takes training step number 0, 1, 2, ...: gradients to zero, forward, backward, ``optimizer.step()``.
        head: The head that was given to the method.

    Raises:
        ConfigError: A tensor that is meant to train gets no gradient or is not in the optimizer, one that is meant to
            stay changed, or a step changed more entries of a weight than the method allows.
    """
    run = _SanityRun(method, network, optimizer, head)
    with _without_dropout(network):
        for number in range(STEPS + MORE + SKIPS):
            if run.take(step, number):
                run.require_unchanged()
            enough = STEPS if not run.missing_gradient else STEPS + MORE
            if run.steps >= enough:
                break
    if run.steps < STEPS:
        raise ConfigError(
            f"Method {method.name}: no step had finite gradients. Lower --lr, or check the images' intensities."
        )
    run.require_gradients()
    return run.report()


class _SanityRun:
    """A network before and after the steps of a sanity check."""

    def __init__(
        self, method: Method, network: nn.Module, optimizer: Optimizer, head: Sequence[nn.Module] | None
    ) -> None:
        self.method, self.optimizer = method, optimizer
        self.network = unwrap(network)
        self.parameters = parameters_of(self.network, head)
        self.trained = [parameter for parameter in self.parameters if method.is_trained(parameter)]
        self.before = {parameter.name: _bits(parameter.tensor) for parameter in self.parameters}
        self.buffers = {name: _bits(buffer) for name, buffer in self.network.named_buffers()}
        self.with_gradient: set[str] = set()
        self.steps = 0
        self._stepped = False
        self._require_in_optimizer()

    def _require_in_optimizer(self) -> None:
        optimized = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        missing = [parameter.name for parameter in self.trained if id(parameter.tensor) not in optimized]
        if missing:
            raise self._refusal(missing, "meant to train but not in its optimizer", len(self.trained))

    def take(self, step: Callable[[int], Any], number: int) -> bool:
        """Take a step; False if the GradScaler skipped it, as it does where gradients are not finite."""
        self._stepped = False
        hook = self.optimizer.register_step_pre_hook(lambda *_: self._note_gradients())
        try:
            step(number)
        finally:
            hook.remove()
        self.steps += self._stepped
        return self._stepped

    def _note_gradients(self) -> None:
        if self._stepped:  # an optimizer whose step calls its parent's
            return
        self._stepped = True
        for parameter in self.trained:
            gradient = parameter.tensor.grad
            if parameter.name not in self.with_gradient and gradient is not None and bool((gradient != 0).any()):
                self.with_gradient.add(parameter.name)

    @property
    def without_gradient(self) -> list[str]:
        """Tensors that are meant to train and had no gradient yet."""
        return [parameter.name for parameter in self.trained if parameter.name not in self.with_gradient]

    @property
    def missing_gradient(self) -> list[str]:
        """Those of them that are an error: a loss may not use all outputs, so part of a head may have no gradient."""
        heads = {parameter.name for parameter in self.trained if parameter.role is Role.HEAD}
        excused = heads if heads & self.with_gradient else set()
        return [name for name in self.without_gradient if name not in excused]

    def require_gradients(self) -> None:
        """Refuse tensors that are meant to train and had no gradient."""
        if self.missing_gradient:
            raise self._refusal(
                self.missing_gradient, f"meant to train but without a gradient in {self.steps} steps", len(self.trained)
            )

    def require_unchanged(self) -> None:
        """Refuse changes that the method does not declare."""
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
            "Nothing was trained. Use another method, or fix this one."
        )

    def report(self) -> SanityReport:
        """The result."""
        statistics = self._statistics()
        return SanityReport(
            steps=self.steps,
            tensors=len(self.trained),
            parameters=sum(parameter.tensor.numel() for parameter in self.trained),
            total=sum(parameter.tensor.numel() for parameter in self.parameters if parameter.role is not Role.ADAPTER),
            roles=dict(sorted(Counter(parameter.role.value for parameter in self.trained).items())),
            changed=sum(self._changed(parameter) for parameter in self.trained),
            unchanged=len(self.parameters) - len(self.trained) + len(set(self.buffers) - statistics),
            without_gradient=tuple(self.without_gradient),
        )


def empty_sanity_report(network: nn.Module) -> SanityReport:
    """The report of a method that takes no step."""
    parameters = parameters_of(network)
    total = sum(parameter.tensor.numel() for parameter in parameters)
    buffers = len(dict(unwrap(network).named_buffers()))
    return SanityReport(steps=0, tensors=0, parameters=0, total=total, changed=0, unchanged=len(parameters) + buffers)


@contextmanager
def _without_dropout(network: nn.Module) -> Iterator[None]:
    """Switch dropout of added modules off: it could hide every gradient of a tensor."""
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

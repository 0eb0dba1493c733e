"""Looks at a network right before and right after each optimizer step, and holds the step against the method's word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from lnsegfm.methods.method import Method
from lnsegfm.networks.cards import unwrap
from lnsegfm.networks.parameter_roles import NetworkParameter, parameters_of
from lnsegfm.testing.law import require
from lnsegfm.testing.tensor_bits import bits, require_same_bits

LR = 2.0**-10
"""A rate whose products are exact."""


class StepWitness:
    """Checks every step of an optimizer; make it after the optimizer and before the first step.

    What trains has a gradient and changes in no more entries than ``method.per_step`` says; what does not train has no
    gradient and stays bit for bit; so do buffers.

    Args:
        network: The network that trains.
        method: Its method.
        optimizer: Its optimizer.
        options: Momentum, Nesterov and decay that the optimizer was asked for.
        head: The head that was named.

    Attributes:
        parameters: All parameters of the network.
        trained: Those that train.
        steps: Steps seen.
        moved: Names of the parameters that changed at some step.
        garbled: A gradient was once not a number of any use.
    """

    def __init__(
        self,
        network: nn.Module,
        method: Method,
        optimizer: Optimizer,
        options: Mapping[str, Any],
        head: Sequence[nn.Module] | None = None,
    ) -> None:
        self.network: Any = network
        self.method, self.optimizer, self.options = method, optimizer, dict(options)
        self.parameters = parameters_of(network, head)
        self.trained = [parameter for parameter in self.parameters if self.is_meant(parameter)]
        self.steps = 0
        self.moved: set[str] = set()
        self.garbled = False
        self.before: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}
        self._buffers: dict[str, Tensor] = {}
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        left = [parameter.name for parameter in self.trained if id(parameter.tensor) not in held]
        require(not left, f"method {method.name}: its optimizer does not hold {left}, which train")
        self._depth = 0
        optimizer.register_step_pre_hook(lambda *_: self._enter())
        optimizer.register_step_post_hook(lambda *_: self._leave())

    def is_meant(self, parameter: NetworkParameter) -> bool:
        """Whether a parameter is to train."""
        return self.method.is_trained(parameter)

    def _enter(self) -> None:
        if self._depth == 0:
            self._before()
        self._depth += 1  # a step may call that of the class that it derives from, hooks and all

    def _leave(self) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._after()

    def _before(self) -> None:
        starved = [p.name for p in self.trained if p.tensor.grad is None]
        require(not starved, f"method {self.method.name}: trained tensors without a gradient: {starved}")
        fed = [p.name for p in self.parameters if p not in self.trained and p.tensor.grad is not None]
        require(not fed, f"method {self.method.name}: tensors that do not train have a gradient: {fed}")
        self.before = {parameter.name: parameter.tensor.detach().clone() for parameter in self.parameters}
        self.gradients = {p.name: p.tensor.grad.clone() for p in self.trained if p.tensor.grad is not None}
        self._buffers = {name: buffer.clone() for name, buffer in unwrap(self.network).named_buffers()}

    def _after(self) -> None:
        self.steps += 1
        self.after_step()
        for parameter in self.parameters:
            changed = bits(parameter.tensor) != bits(self.before[parameter.name])
            if parameter not in self.trained:
                require_same_bits(parameter.tensor, self.before[parameter.name], f"frozen {parameter.name}")
            else:
                self.check_trained(parameter, changed)
            if changed.any():
                self.moved.add(parameter.name)
        for name, buffer in unwrap(self.network).named_buffers():
            require_same_bits(buffer, self._buffers[name], f"buffer {name}")

    def after_step(self) -> None:
        """Look at the whole step, before its tensors are looked at one by one."""

    def check_trained(self, parameter: NetworkParameter, changed: np.ndarray) -> None:
        """Check what a step did to a tensor that trains.

        Args:
            parameter: The tensor.
            changed: Flat mask of its entries that changed.
        """
        most = self.method.per_step(parameter)
        require(
            changed.sum() <= most,
            f"method {self.method.name}: a step changed {changed.sum()} entries of {parameter.name}, "
            f"per_step says {most}",
        )

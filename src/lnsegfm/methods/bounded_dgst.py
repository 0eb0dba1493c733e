"""DGST with a bounded step: no entry changes by more than a fraction of its kernel's RMS in a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lnsegfm.errors import ConfigError
from lnsegfm.methods.method import require_rate, require_seed, setting
from lnsegfm.methods.sparse import Sparse
from lnsegfm.methods.training_defaults import TrainingDefaults
from lnsegfm.networks.role import Role

if TYPE_CHECKING:
    from lnsegfm.methods.entry_selection import Selection
    from lnsegfm.methods.entry_update import Update
    from lnsegfm.networks.parameter_roles import NetworkParameter


STEEPEST, RANDOM = "steepest", "random"


@dataclass(frozen=True, kw_only=True)
class BoundedDGST(Sparse):
    """DGST whose selected entries change by ``-weight_lr * g``, but by at most ``bound`` times their kernel's RMS.

    DGST's own step has no momentum and no bound, so its length depends on ``weight_lr``, ``gamma`` and the loss, and
    training diverges where it is too long. Here the RMS of the kernel limits the length. The bound falls with the
    learning rate's schedule. A kernel of zeros cannot change.

    Args:
        gamma: Entries that are updated per kernel and step; 0 for all of them (a control).
        bound: Largest step of an entry, as a share of the root mean square of its kernel's entries.
        weight_lr: Learning rate of the selected entries. Large values make nearly every step as long as the bound.
        select: ``steepest``; ``random`` for entries drawn anew at each step (a control).
        memory: Rank entries by an exponential mean of their gradients with this decay; 0 by the gradient alone.
        norms: Whether scale and shift of norms train.
        seed: Of random entries.
    """

    name = "dgst-bounded"
    summary = "DGST whose entries change by at most a fraction of their kernel's RMS in a step"
    source = "this project; after Luo et al., MICCAI 2025, arXiv 2503.00748"
    trains = frozenset({Role.HEAD, Role.WEIGHT, Role.BIAS, Role.NORM_WEIGHT, Role.NORM_BIAS})
    training = TrainingDefaults(lr=3e-3)

    gamma: int = setting(4, "entries that are updated per kernel and step; 0 for all")
    bound: float = setting(0.3, "largest step, as a share of the RMS of the entry's kernel")
    weight_lr: float = setting(10.0, "learning rate of the selected entries before the bound")
    select: str = setting(STEEPEST, "steepest or random")
    memory: float = setting(0.0, "decay of the mean of gradients that entries are ranked by; 0 for this step's alone")
    norms: bool = setting(True, "whether scale and shift of norms train")
    seed: int = setting(0, "of random entries")

    def __post_init__(self) -> None:
        if not isinstance(self.gamma, int) or self.gamma < 0:
            raise ConfigError(f"gamma {self.gamma}: 1, 2, 3, ... entries of a kernel are updated, with 0 all of them.")
        require_rate("bound", self.bound)
        require_rate("weight_lr", self.weight_lr)
        require_seed(self.seed)
        if self.select not in (STEEPEST, RANDOM):
            raise ConfigError(f"select {self.select}: method {self.name} knows {STEEPEST} and {RANDOM}.")
        if not 0 <= self.memory < 1:
            raise ConfigError(f"memory {self.memory}: it must lie in [0, 1). Use for example 0.9.")

    def is_trained(self, parameter: NetworkParameter) -> bool:
        """Whether it trains; norms may be frozen."""
        frozen = frozenset() if self.norms else frozenset({Role.NORM_WEIGHT, Role.NORM_BIAS})
        return super().is_trained(parameter) and parameter.role not in frozen

    def per_step(self, parameter: NetworkParameter) -> int:
        """Entries of a tensor that one step can change."""
        return super().per_step(parameter) if self.gamma else parameter.tensor.numel()

    def rules(self, lr: float, momentum: float) -> tuple[Selection, Update]:  # noqa: ARG002
        """Entries as the settings say; rate and bound as factors on ``lr``, which schedules change."""
        from lnsegfm.methods.entry_selection import RandomEntries, RunningMean, Steepest
        from lnsegfm.methods.entry_update import BoundedStep

        selection: Selection = RunningMean(self.gamma, self.memory) if self.memory else Steepest(self.gamma)
        if self.select == RANDOM:
            selection = RandomEntries(self.gamma, self.seed)
        return selection, BoundedStep(self.weight_lr / lr, self.bound / lr)

"""Low-rank adaptation of kernels (LoRA)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lnsegfm.errors import ConfigError
from lnsegfm.methods.added_parameters import AddedParameters
from lnsegfm.methods.method import require_seed, setting
from lnsegfm.methods.training_defaults import TrainingDefaults
from lnsegfm.networks.role import Role

if TYPE_CHECKING:
    from torch import nn

    from lnsegfm.networks.parameter_roles import NetworkParameter

WHERE = ("all", "encoder", "decoder")
LAYERS = ("all", "convolutions", "linear")


@dataclass(frozen=True, kw_only=True)
class LoRA(AddedParameters):
    """Every kernel matrix W becomes W + alpha / rank * B A; A, B and the head train, W stays.

    A row of W is a kernel: an output filter of a convolution, a transposed convolution or a linear layer. Weights are
    selected by the module that owns them, not by name; the product is merged into plain weights at the end.

    Args:
        rank: Rows of A; at most the rows or columns of the weight.
        alpha: Scale of the product, divided by the rank.
        dropout: Probability that a component of the rank is dropped in a step. (LoRA's paper drops entries of a
            layer's input instead, which a computed weight has no access to.)
        where: Encoder, decoder or both, by the network's card.
        layers: Kinds of layers.
        rule: AdamW unless given, as in the paper.
        seed: Of the initial values of A.
    """

    name = "lora"
    summary = "a low-rank product is added to every kernel matrix; it and the head train"
    source = "Hu et al., ICLR 2022, arXiv 2106.09685"
    trains = frozenset({Role.HEAD, Role.ADAPTER})
    training = TrainingDefaults(lr=3e-3, lr_grid=(3e-4, 1e-3, 3e-3))
    decomposed: ClassVar[bool] = False

    rank: int = setting(4, "rank of the product")
    alpha: float = setting(8.0, "scale of the product, divided by the rank")
    dropout: float = setting(0.0, "probability that a component of the rank is dropped in a step")
    where: str = setting("all", "all, encoder or decoder")
    layers: str = setting("all", "all, convolutions or linear")
    rule: str = setting("adamw", "adamw or sgd (nnU-Net's)")
    seed: int = setting(0, "of the initial values")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.rank, int) or self.rank < 1:
            raise ConfigError(f"rank {self.rank}: a product has at least rank 1. Use for example 4.")
        if not 0 < self.alpha < float("inf"):
            raise ConfigError(f"alpha {self.alpha}: the product needs a scale above 0. Use for example 8.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout {self.dropout}: a probability below 1 is needed. Use 0 for none.")
        require_seed(self.seed)
        for name, known in (("where", WHERE), ("layers", LAYERS)):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} {getattr(self, name)}: method {self.name} knows {', '.join(known)}.")

    def attach(self, network: nn.Module, head: Sequence[nn.Module] | None = None) -> None:
        """Compute every selected kernel matrix with a product, which is zero at the start."""
        import torch

        from lnsegfm.networks.cards import decoder_modules
        from lnsegfm.networks.computed_weights import Decomposed, LowRank
        from lnsegfm.networks.parameter_roles import parameters_of
        from lnsegfm.networks.reparametrize import owners_of, reparametrize

        network = self._plain_network(network)
        if self.where != "all" and not decoder_modules(network):
            raise ConfigError(
                f"where {self.where}: which layers of {type(network).__name__} are its decoder is not known. Use all."
            )
        owners = owners_of(network)
        selected = [parameter for parameter in parameters_of(network, head) if self._adapts(parameter)]
        for number, parameter in enumerate(selected):
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)  # torch reads 32 bits only
            module = (Decomposed if self.decomposed else LowRank)(
                parameter.tensor.detach(),
                parameter.layout,
                rank=self.rank,
                alpha=self.alpha,
                dropout=self.dropout,
                generator=generator,
            )
            reparametrize(owners[id(parameter.tensor)], module)

    def _adapts(self, parameter: NetworkParameter) -> bool:
        if parameter.role is not Role.WEIGHT:
            return False
        convolution = parameter.tensor.dim() > 2
        return self.where in ("all", "decoder" if parameter.in_decoder else "encoder") and self.layers in (
            "all",
            "convolutions" if convolution else "linear",
        )

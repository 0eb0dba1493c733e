"""The laws of a network and its card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pydoc import locate

import torch
from torch import nn

from lnsegfm.methods.method import Method
from lnsegfm.methods.table import METHODS
from lnsegfm.networks.cards import NetworkCard
from lnsegfm.networks.parameter_roles import parameters_of
from lnsegfm.networks.role import Role
from lnsegfm.testing.law import require
from lnsegfm.testing.method_laws import is_refused
from lnsegfm.testing.one_thread import one_thread
from lnsegfm.testing.tiny_networks import Tiny
from lnsegfm.testing.training_regimes import require_all_moved, train

METHODS_TRIED = ("full", "head", "bias", "affine", "decoder", "lora", "ssf", "dgst")


def check_network(
    card: NetworkCard,
    build: Callable[[], nn.Module],
    *,
    shape: tuple[int, int, int] = (8, 8, 8),
    methods: Sequence[str] = METHODS_TRIED,
) -> None:
    """Check that a network and its card keep the laws of all networks.

    The card's class is the network's and can be imported by its path; the head's last channels are the labels; the head
    gets a gradient and lies outside the decoder; every parameter has one role; methods move what they say, or refuse
    it.

    Args:
        card: The card.
        build: Makes a small network for one channel and two labels.
        shape: An input (z, y, x) that it takes, as small as can be.
        methods: Names of the methods that it is trained with.

    Raises:
        AssertionError: A law is broken; the text says which.
    """
    require(isinstance(card, NetworkCard), f"card {card!r}: it is no lnsegfm.networks.cards.NetworkCard")
    network = build()
    _check_class(card, network)
    _check_modules(card, network)
    tiny = Tiny(build, lambda made: list(card.head(made)), shape)
    with one_thread():
        _check_outputs(card, tiny)
        taken = [name for name in methods if not is_refused(METHODS[name](), tiny)]
        require("head" in taken or "head" not in methods, f"network {card.class_path}: its head cannot be trained")
        for name in taken:
            method: Method = METHODS[name]()
            try:
                require_all_moved(train(tiny, method, 3), tiny)
            except AssertionError as broken:
                raise AssertionError(f"network {card.class_path}, method {name}: {broken}") from None


def _check_class(card: NetworkCard, network: nn.Module) -> None:
    found = locate(card.class_path)
    require(isinstance(found, type), f"network {card.class_path}: no class can be imported by this path")
    paths = [f"{cls.__module__}.{cls.__qualname__}" for cls in type(network).__mro__]
    require(
        card.class_path in paths, f"network {card.class_path}: what is built is {paths[0]}, and not derived from it"
    )


def _check_modules(card: NetworkCard, network: nn.Module) -> None:
    where = f"network {card.class_path}"
    names = {id(module): name for name, module in network.named_modules(remove_duplicate=False)}
    head = list(card.head(network))
    require(head, f"{where}: its head is empty")
    require(all(id(module) in names for module in head), f"{where}: its head holds modules that the network does not")
    last = card.last(network)
    inside = any(last is module for outer in head for module in outer.modules())
    require(inside, f"{where}: its last layer {type(last).__name__} is no part of its head")
    for name in card.decoder:
        try:
            network.get_submodule(name)
        except AttributeError:
            raise AssertionError(
                f"{where}: it has no module {name}, which its card calls part of the decoder"
            ) from None
    parameters = parameters_of(network, head)
    require(
        [parameter.name for parameter in parameters] == [name for name, _ in network.named_parameters()],
        f"{where}: not every parameter has one role",
    )
    roles = {parameter.role for parameter in parameters}
    require(Role.HEAD in roles, f"{where}: its head has no parameters")
    stray = {str(name) for name in card.positions} - {p.name.rpartition(".")[2] for p in parameters}
    require(not stray, f"{where}: no parameter is called {', '.join(sorted(stray))}, which its card calls positions")


def _check_outputs(card: NetworkCard, tiny: Tiny) -> None:
    network, _ = tiny.make()
    given = network(tiny.batch(0))
    several = isinstance(given, (list, tuple))
    outputs = list(given) if several else [given]
    where = f"network {card.class_path}"
    for output in outputs:
        require(isinstance(output, torch.Tensor) and output.dim() == 5, f"{where}: an output is no (B, C, z, y, x)")
        require(output.shape[1] == 2, f"{where}: it was built for two labels and gives {output.shape[1]} channels")
    require(tuple(outputs[0].shape[2:]) == tiny.shape, f"{where}: its first output has not the shape of its input")
    sees = not several or card.deep_supervision
    require(sees, f"{where}: it gives several outputs, and its card says that it does not (deep_supervision)")

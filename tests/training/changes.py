"""What a method means to change in a model, told from its roles, and what it changed."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from lnsegfm.methods.method import Method
from lnsegfm.models.model_folder import read_model
from lnsegfm.networks.parameter_roles import NetworkParameter, parameters_of
from lnsegfm.networks.role import Role
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.weights.checkpoint import Checkpoint
from lnsegfm.weights.state import raw

Kind = tuple[Role, bool]


def meant(method: Method, start: Checkpoint) -> dict[str, Kind]:
    """Name to kind (role, in the decoder) of every tensor of the adapted model that the method changes."""
    network = build_network(start, deep_supervision=True)
    plain = {parameter.name: parameter for parameter in parameters_of(network)}
    method.attach(network)
    after = {parameter.name: parameter for parameter in parameters_of(network)}
    added = {
        name: parameter for name, parameter in after.items() if name not in plain and "parametrizations" not in name
    }
    return {
        name: (parameter.role, parameter.in_decoder)
        for name, parameter in (plain | added).items()
        if method.is_trained(after[name]) or computed(after[name])
    }


def computed(parameter: NetworkParameter) -> bool:
    """Whether something that the method added computes it."""
    held = getattr(parameter.module, "parametrizations", None)
    return isinstance(held, nn.ModuleDict) and parameter.name.rpartition(".")[2] in held


def changed(before: Mapping[str, Tensor], adapted: Checkpoint) -> dict[str, Kind]:
    """The same of every tensor that differs from the base's by a bit, or that the base does not have."""
    return {
        parameter.name: (parameter.role, parameter.in_decoder)
        for parameter in parameters_of(build_network(adapted, deep_supervision=True))
        if parameter.name not in before
        or bool((raw(before[parameter.name]) != raw(adapted.weights[parameter.name])).any())
    }


def assert_changed_as_meant(method: Method, base: Checkpoint, folder: object) -> None:
    """Raise unless every kind of tensor that is meant changed, and no other tensor did."""
    adapted = read_model(folder).first  # type: ignore[arg-type]
    wanted, found = meant(method, base), changed(base.weights, adapted)
    assert set(found) <= set(wanted), sorted(set(found) - set(wanted))
    assert set(found.values()) == set(wanted.values())

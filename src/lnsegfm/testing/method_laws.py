"""What must hold for every method on every network that it takes."""

from __future__ import annotations

import copy
import dataclasses
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from lnsegfm.errors import ConfigError
from lnsegfm.methods.method import Method
from lnsegfm.methods.table import card_problem
from lnsegfm.networks.architectures import PLAIN
from lnsegfm.networks.parameter_roles import NetworkParameter, parameters_of
from lnsegfm.networks.role import Role
from lnsegfm.testing.law import require
from lnsegfm.testing.step_witness import LR
from lnsegfm.testing.tensor_bits import bits, same_state, state_of
from lnsegfm.testing.tiny_networks import Tiny, loss_of
from lnsegfm.testing.training_regimes import outputs, train

Moves = Callable[[NetworkParameter], bool]


def card_is_complete(method: Method) -> None:
    """The card says all that tables, recipes and trainers are made of, and settings are read from text."""
    cls = type(method)
    problem = card_problem(cls)
    require(problem is None, f"card of {cls.__name__}: {problem}")
    for name in ("summary", "source"):
        text = getattr(cls, name)
        require(isinstance(text, str) and text and "\n" not in text, f"{cls.__name__}.{name} is no line: {text!r}")
    require(cls.trainer_name().isidentifier(), f"{cls.__name__}.trainer: {cls.trainer_name()} is no class name")
    require(all(isinstance(role, Role) for role in cls.trains), f"{cls.__name__}.trains holds what is no Role")
    require(not cls.learns or cls.trains, f"{cls.__name__} trains no role; set learns = False if it takes no step")
    cls()
    texts = {name: str(value) for name, value in method.settings().items()}
    require(cls.from_text(texts) == method, f"{cls.__name__}: settings {texts} are not read back as they are written")
    try:
        dataclasses.replace(method).name = "another"  # type: ignore[misc]
    except (dataclasses.FrozenInstanceError, AttributeError):
        return
    raise AssertionError(f"{cls.__name__} is not frozen")


def is_refused(method: Method, tiny: Tiny) -> bool:
    """Whether the method refuses a network; if so it says why in one line and leaves the network as it was."""
    network, head = tiny.make()
    before = state_of(network)
    try:
        method.optimizer(network, lr=LR, head=head)
    except ConfigError as error:
        require("\n" not in str(error), f"method {method.name}: its refusal has several lines: {error}")
        same = all(np.array_equal(found, before[key]) for key, found in state_of(network).items())
        require(same, f"method {method.name}: it refused a network and changed it")
        kept = all(p.requires_grad for p in network.parameters())
        require(kept, f"method {method.name}: it refused a network and froze some of it")
        return True
    return False


def has_no_optimizer(method: Method, tiny: Tiny) -> None:
    """A method that does not learn has no optimizer."""
    require(is_refused(method, tiny), f"method {method.name}: it does not learn and gives an optimizer")


def one_seed_gives_one_result(method: Method, tiny: Tiny, steps: int = 4) -> None:
    """Two runs with one seed are bit-identical."""
    first, second = (train(tiny, method, steps).network for _ in range(2))
    require(same_state(first, second), f"method {method.name}: two runs with one seed differ")


def a_saved_run_continues(method: Method, tiny: Tiny, after: int = 1, through_file: bool = True) -> None:
    """A run that is saved and loaded ends in the bits of an undisturbed one."""
    network, head = tiny.make()
    optimizer = method.optimizer(network, lr=LR, head=head)
    continue_from(tiny, network, optimizer, range(after))
    saved = copy.deepcopy({"network": network.state_dict(), "optimizer": optimizer.state_dict()})
    continue_from(tiny, network, optimizer, range(after, 6))

    saved = saved_and_loaded(saved) if through_file else saved
    fresh, head = tiny.make(seed=1)
    fresh_optimizer = method.optimizer(fresh, lr=LR, head=head)
    fresh.load_state_dict(saved["network"])
    fresh_optimizer.load_state_dict(saved["optimizer"])
    continue_from(tiny, fresh, fresh_optimizer, range(after, 6))
    require(
        same_state(network, fresh),
        f"method {method.name}: a run saved after step {after} does not end as one that was not interrupted; "
        "keep all that the next step depends on in the optimizer's state",
    )


def continue_from(tiny: Tiny, network: nn.Module, optimizer: Optimizer, steps: range) -> None:
    """Take steps on the batches of these numbers."""
    dtype = next(network.parameters()).dtype
    for step in steps:
        optimizer.zero_grad()
        given = network(tiny.batch(step).to(dtype))
        loss_of([out.float() for out in given] if isinstance(given, list) else given.float(), step).backward()
        optimizer.step()


def saved_and_loaded(content: Any) -> Any:
    """What is left of content after it went through a file that holds tensors and plain values alone."""
    stream = io.BytesIO()
    torch.save(content, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=True)


def infinite_gradients_are_skipped(method: Method, tiny: Tiny) -> None:
    """A step whose gradients are not finite is left out as a whole under torch's GradScaler."""
    network, head = tiny.make()
    optimizer = method.optimizer(network, lr=LR, head=head)
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    scaler.scale(loss_of(network(tiny.batch(0)))).backward()
    trained = [parameter for parameter in parameters_of(network, head) if method.is_trained(parameter)]
    poisoned = next((parameter for parameter in trained if parameter.role is Role.HEAD), trained[0])
    gradient = poisoned.tensor.grad
    if gradient is None:
        raise AssertionError(f"method {method.name}: {poisoned.name} trains and got no gradient")
    gradient[(0,) * gradient.dim()] = float("inf")
    before, kept, groups = state_of(network), _states(optimizer), copy.deepcopy(optimizer.state_dict()["param_groups"])
    scaler.step(optimizer)
    scaler.update()
    after = state_of(network)
    same = all(np.array_equal(before[name], after[name]) for name in before)
    require(same, f"method {method.name}: a step with infinite gradients changed the network")
    unchanged = all(a[0] == b[0] and np.array_equal(a[1], b[1]) for a, b in zip(kept, _states(optimizer), strict=True))
    require(unchanged, f"method {method.name}: a step with infinite gradients changed the optimizer's state")
    require(
        optimizer.state_dict()["param_groups"] == groups, f"method {method.name}: it changed the optimizer's groups"
    )
    require(scaler.get_scale() == 8.0, f"method {method.name}: the scaler did not see the infinite gradient")


def _states(optimizer: Optimizer) -> list[Any]:
    return [
        (key, bits(value) if isinstance(value, torch.Tensor) else value)
        for state in optimizer.state.values()
        for key, value in state.items()
    ]


def running_statistics_follow_their_norms(method: Method, tiny: Tiny, moves: Moves | None = None) -> None:
    """BatchNorm's running statistics move if the norm's scale trains, and only then."""
    moves = moves or method.is_trained
    network, head = tiny.make()
    method.optimizer(network, lr=LR, head=head)
    counters = {  # InstanceNorm has this counter and never counts
        f"{name}.num_batches_tracked" for name, m in network.named_modules() if isinstance(m, nn.InstanceNorm3d)
    }
    before = {name: bits(buffer) for name, buffer in network.named_buffers() if name not in counters}
    for _ in range(2):
        network.train()
        network(tiny.batch(0))
    moved = {name for name in before if not np.array_equal(bits(network.get_buffer(name)), before[name])}
    scales = [parameter for parameter in parameters_of(network, head) if parameter.role is Role.NORM_WEIGHT]
    owners = {id(parameter.module) for parameter in scales if moves(parameter)}
    expected = {n for n in before if id(network.get_submodule(n.rpartition(".")[0])) in owners}
    require(
        moved == expected,
        f"method {method.name}: running statistics {sorted(moved)} moved, and {sorted(expected)} belong to what trains",
    )
    if before:
        require(bool(expected) == any(map(moves, scales)), f"method {method.name}: no statistics belong to what trains")


def counts_are_those_of_the_network(method: Method, tiny: Tiny) -> None:
    """``moved`` counts what ``optimizer`` sets to train, and changes nothing."""
    network, head = tiny.make()
    total, before = sum(p.numel() for p in network.parameters()), state_of(network)
    counted = method.trainable(network, head)
    require(state_of(network).keys() == before.keys(), f"method {method.name}: counting changed the network")
    free = all(p.requires_grad for p in network.parameters())
    require(free, f"method {method.name}: counting froze some of the network")
    method.optimizer(network, lr=LR, head=head)
    trained = [p for p in network.parameters() if p.requires_grad]
    found = (len(trained), sum(p.numel() for p in trained), total)
    told = (counted.tensors, counted.parameters, counted.total)
    require(told == found, f"method {method.name}: moved says (tensors, parameters, total) {told}, it is {found}")
    most = sum(method.per_step(parameter) for parameter in parameters_of(network, head) if method.is_trained(parameter))
    require(counted.per_step == most, f"method {method.name}: moved says {counted.per_step} entries a step, not {most}")


def starts_where_the_base_is(method: Method, tiny: Tiny) -> None:
    """What the method adds changes no output before the first step, but by rounding."""
    base, _ = tiny.make()
    network, head = tiny.make()
    method.optimizer(network, lr=LR, head=head)
    with torch.no_grad():
        expected, given = outputs(base.eval(), tiny.batch(0)), outputs(network.eval(), tiny.batch(0))
    far = float((given - expected).abs().max() / expected.abs().max())
    require(
        far <= 1e-5, f"method {method.name}: before the first step outputs differ from the base's by {far:.1e} of it"
    )


def merging_keeps_the_outputs(method: Method, tiny: Tiny) -> None:
    """``merge`` gives the adapted network's outputs, to rounding, and has nothing left to do the second time."""
    network = train(tiny, method, steps=2).network
    with torch.no_grad():
        before = outputs(network.eval(), tiny.batch(0))
    method.merge(network)
    merged = state_of(network)
    with torch.no_grad():
        after = outputs(network, tiny.batch(0))
    far = float((after - before).abs().max() / before.abs().max())
    require(far <= 1e-5, f"method {method.name}: merging changes outputs by {far:.1e} of them")
    require(method.merge(network) == {}, f"method {method.name}: merging twice computes weights twice")
    again = state_of(network)
    same = again.keys() == merged.keys() and all(np.array_equal(again[key], merged[key]) for key in merged)
    require(same, f"method {method.name}: merging twice changes the network")
    if method.architecture(PLAIN, {})[0] != PLAIN:  # what it adds is no parameter of a plain network
        return
    plain = set(tiny.make()[0].state_dict())
    require(set(merged) == plain, f"method {method.name}: merging leaves {sorted(set(merged) ^ plain)} in the network")

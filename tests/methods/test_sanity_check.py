"""What the sanity check at the start sees: every method as it is, and methods that are broken on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn
from torch.optim import SGD, Optimizer

from lnsegfm.errors import ConfigError
from lnsegfm.methods.bias import Bias
from lnsegfm.methods.bounded_dgst import BoundedDGST
from lnsegfm.methods.decoder import Decoder
from lnsegfm.methods.dgst import DGST
from lnsegfm.methods.full import Full
from lnsegfm.methods.gps import GPS
from lnsegfm.methods.head import Head
from lnsegfm.methods.lora import LoRA
from lnsegfm.methods.method import Method
from lnsegfm.methods.sanity_check import STEPS, SanityReport, empty_sanity_report, run_sanity_check
from lnsegfm.methods.table import METHODS
from lnsegfm.networks.added import Added
from lnsegfm.networks.parameter_roles import parameters_of
from lnsegfm.networks.role import Role
from lnsegfm.testing.tiny_networks import TINY, UNET, Tiny, loss_of

pytestmark = pytest.mark.usefixtures("one_thread")
LR = 1e-3
NO_DECODER, NO_3D_HEAD = {"sequence", "grouped", "transformer", "batch-norm", "tied"}, {"sequence"}


def trial(
    tiny: Tiny,
    method: Method,
    loss: Callable[..., torch.Tensor] = loss_of,
    damage: Callable[[Any], None] = lambda _: None,
) -> SanityReport:
    network, head = tiny.make()
    optimizer = method.optimizer(network, lr=LR, head=head)
    damage(network)

    def step(number: int) -> None:
        optimizer.zero_grad()
        loss(network(tiny.batch(number)), number).backward()
        optimizer.step()

    return run_sanity_check(method, network, optimizer, step, head)


LEARNING = sorted(name for name, cls in METHODS.items() if cls.learns)


@pytest.mark.parametrize("name", LEARNING)
@pytest.mark.parametrize("network", TINY)
def test_every_method_on_every_network_passes(network: str, name: str) -> None:
    if network in {"decoder": NO_DECODER, "spatial-adapter": NO_3D_HEAD}.get(name, ()):
        pytest.skip("the method refuses this network")
    method = METHODS[name]()
    report = trial(TINY[network], method)
    plain, head = TINY[network].make()
    moved = method.trainable(plain, head)
    assert (report.tensors, report.parameters, report.total) == (moved.tensors, moved.parameters, moved.total)
    assert report.steps == STEPS
    assert report.without_gradient == ()
    assert sum(report.roles.values()) == report.tensors
    assert 0 < report.changed <= STEPS * moved.per_step or name == "gps"
    assert "\n" not in report.line()


def test_the_counts_are_those_of_the_network() -> None:
    report = trial(TINY["plain-unet"], DGST())
    network, _ = TINY["plain-unet"].make()
    parameters = parameters_of(network)
    assert report.tensors == len(parameters)
    assert report.share == 1
    assert report.unchanged == 0
    assert report.to_json()["roles"]["head"] == sum(parameter.role is Role.HEAD for parameter in parameters)
    head = trial(TINY["plain-unet"], Head())
    assert head.changed == head.parameters == sum(p.tensor.numel() for p in parameters if p.role is Role.HEAD)
    assert head.unchanged == len(parameters) - head.tensors
    assert 0 < head.share < 0.1


def test_the_report_of_a_method_that_takes_no_step_is_empty() -> None:
    network, _ = TINY["plain-unet"].make()
    report = empty_sanity_report(network)
    assert (report.steps, report.changed, report.parameters, report.share) == (0, 0, 0, 0)
    assert report.unchanged == len(parameters_of(network))


def test_a_choice_that_is_made_before_training_moves_nothing_yet() -> None:
    assert trial(TINY["plain-unet"], GPS(passes=10)).changed == 0
    assert trial(TINY["plain-unet"], GPS(passes=1)).changed > 0


def test_dropout_of_what_was_added_hides_no_gradient() -> None:
    assert trial(TINY["plain-unet"], LoRA(rank=1, dropout=0.99)).steps == STEPS


def left_out(outputs: Sequence[torch.Tensor], seed: int) -> torch.Tensor:
    """nnU-Net's loss: the output of lowest resolution counts with weight 0."""
    return loss_of(outputs[:-1], seed)


def zero_weight(outputs: Sequence[torch.Tensor], seed: int) -> torch.Tensor:
    """The same with a gradient that is zero instead of none."""
    return loss_of(outputs[:-1], seed) + 0 * loss_of(outputs[-1:], seed)


@pytest.mark.parametrize("loss", [left_out, zero_weight])
@pytest.mark.parametrize("method", [Full(), Head(), LoRA(), DGST()])
def test_heads_of_outputs_that_the_loss_leaves_out_are_told_and_not_refused(method: Method, loss: Any) -> None:
    report = trial(TINY["plain-unet"], method, loss)
    assert report.without_gradient == ("decoder.seg_layers.0.weight", "decoder.seg_layers.0.bias")
    assert report.steps == STEPS
    assert "2 of the head get no gradient" in report.line()


def test_a_head_without_any_gradient_is_refused() -> None:
    network, _ = TINY["plain-unet"].make()
    optimizer = Head().optimizer(network, lr=LR)

    def step(number: int) -> None:
        optimizer.zero_grad()
        sum(p.sum() * 0 for p in network.parameters()).backward()  # type: ignore[union-attr]
        optimizer.step()

    with pytest.raises(ConfigError, match=r"Method head: 4 of 4 tensors are meant to train but without a gradient"):
        run_sanity_check(Head(), network, optimizer, step)


# -- the release's LoRA, rebuilt -----------------------------------------------------------------------------------


class LowRankConv(Added):
    """A convolution with a low-rank one beside it, as peft wraps one."""

    def __init__(self, plain: nn.Conv3d, rank: int = 4) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(rank, *plain.weight.shape[1:]))
        self.b = nn.Parameter(torch.zeros(plain.out_channels, rank, 1, 1, 1))
        self.__dict__["plain"] = plain  # known to it, owned by the network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        plain = self.__dict__["plain"]
        low = nn.functional.conv3d(x, self.a, stride=plain.stride, padding=plain.padding)
        return plain(x) + nn.functional.conv3d(low, self.b)


@dataclass(frozen=True, kw_only=True)
class DeadLoRA(LoRA):
    """Replaces convolutions by name. nnU-Net's block holds each as `.conv` and in `.all_modules`, and runs these."""

    def attach(self, network: nn.Module, head: Sequence[nn.Module] | None = None) -> None:  # noqa: ARG002
        for module in list(network.modules()):
            if isinstance(getattr(module, "conv", None), nn.Conv3d) and hasattr(module, "all_modules"):
                module.conv = LowRankConv(module.conv)  # type: ignore[arg-type]


def test_the_releases_lora_is_refused() -> None:
    with pytest.raises(ConfigError, match="without a gradient") as caught:
        trial(TINY["plain-unet"], DeadLoRA())
    message = str(caught.value)
    assert "\n" not in message
    assert "10 of 14 tensors" in message
    assert "encoder.stages.0.0.convs.0.conv.a" in message
    assert message.endswith("Use another method, or fix this one.")


def test_the_same_that_also_replaces_what_runs_passes() -> None:
    """So it is the construction that was refused, not the layer."""

    def mend(network: nn.Module) -> None:
        for module in network.modules():
            if isinstance(getattr(module, "conv", None), LowRankConv):
                module.all_modules[0] = module.conv  # type: ignore[index, operator]

    assert trial(TINY["plain-unet"], DeadLoRA(), damage=mend).steps == STEPS


# -- methods whose optimizer leaks ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Leaking(Head):
    """Its optimizer decays tensors that it was not given."""

    def _optimizer(self, trained: Any, **_: Any) -> Optimizer:
        return DecaysAll([parameter.tensor for parameter in trained])


class DecaysAll(SGD):
    """SGD that decays tensors that nobody gave it."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__(parameters, lr=LR)
        self.others: list[torch.Tensor] = []

    def step(self, closure: Any = None) -> Any:
        for tensor in self.others:
            tensor.data.mul_(1 - LR)
        return super().step(closure)


def leak(network: Any, optimizer: Any, tensors: list[torch.Tensor]) -> SanityReport:
    optimizer.others = tensors

    def step(number: int) -> None:
        optimizer.zero_grad()
        loss_of(network(TINY["plain-unet"].batch(number)), number).backward()
        optimizer.step()

    return run_sanity_check(Leaking(), network, optimizer, step)


def test_a_tensor_that_should_stay_and_decays_is_named() -> None:
    network, _ = TINY["plain-unet"].make()
    optimizer = Leaking().optimizer(network, lr=LR)
    weight = network.encoder.stages[1][0].convs[0].conv.weight
    message = r"Method head: 1 of \d+ tensors are meant to stay but changed \(encoder.stages.1.0.convs.0.conv.weight\)"
    with pytest.raises(ConfigError, match=message):
        leak(network, optimizer, [weight])


def test_a_change_of_one_bit_is_seen() -> None:
    network, _ = TINY["plain-unet"].make()
    optimizer = Leaking().optimizer(network, lr=LR)
    bias = network.encoder.stages[0][0].convs[0].norm.bias
    assert bool((bias == 0).all())

    class Flip(list):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            bias.data[0] = -0.0
            return iter(())

    with pytest.raises(ConfigError, match="meant to stay but changed"):
        leak(network, optimizer, Flip())


@dataclass(frozen=True, kw_only=True)
class ClaimsSparse(DGST):
    """The masked gradient of the release, said to be sparse."""

    def per_step(self, parameter: Any) -> int:
        return DGST(gamma=self.gamma).per_step(parameter)


def test_a_masked_gradient_that_is_called_sparse_is_refused() -> None:
    trial(TINY["plain-unet"], DGST(mode="masked-gradient"))  # which says that every entry may move
    message = r"Method dgst: \d+ of \d+ tensors are changed in more entries than the method allows"
    with pytest.raises(ConfigError, match=message):
        trial(TINY["plain-unet"], ClaimsSparse(mode="masked-gradient"))


@dataclass(frozen=True, kw_only=True)
class Forgets(Full):
    """Leaves a tensor out of its optimizer."""

    def _optimizer(self, trained: Any, **options: Any) -> Optimizer:
        return super()._optimizer(trained[1:], **options)


def test_a_tensor_that_no_optimizer_holds_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"1 of \d+ tensors are meant to train but not in its optimizer"):
        trial(TINY["plain-unet"], Forgets())


# -- buffers -------------------------------------------------------------------------------------------------------

NORMED = Tiny(lambda: PlainConvUNet(**(UNET | {"norm_op": nn.BatchNorm3d}), n_conv_per_stage=1))


@pytest.mark.parametrize("method", [Full(), DGST(), BoundedDGST(norms=False), Decoder(), Bias(), LoRA()])
def test_running_statistics_may_change_where_the_norm_trains_alone(method: Method) -> None:
    trial(NORMED, method)


def test_running_statistics_that_move_though_the_norm_stays_are_refused() -> None:
    def unfreeze(network: nn.Module) -> None:
        for module in network.modules():
            module._forward_pre_hooks.clear()

    with pytest.raises(ConfigError, match=r"meant to stay but changed \(encoder.*running_mean"):
        trial(NORMED, Bias(), damage=unfreeze)


# -- gradient scaling ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skipped", [0, 3])
def test_steps_that_a_scaler_leaves_out_do_not_count(skipped: int) -> None:
    tiny = TINY["plain-unet"]
    network, _ = tiny.make()
    optimizer = LoRA().optimizer(network, lr=LR)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    calls = []

    def step(number: int) -> None:
        calls.append(number)
        optimizer.zero_grad()
        scaler.scale(loss_of(network(tiny.batch(number)), number)).backward()
        if number < skipped:
            next(p for p in network.parameters() if p.grad is not None).grad.fill_(float("inf"))
        scaler.step(optimizer)
        scaler.update()

    assert run_sanity_check(LoRA(), network, optimizer, step).steps == STEPS
    assert calls == list(range(STEPS + skipped))


def test_gradients_that_are_never_finite_are_told() -> None:
    tiny = TINY["plain-unet"]
    network, _ = tiny.make()
    optimizer = Full().optimizer(network, lr=LR)
    scaler = torch.amp.GradScaler("cpu")

    def step(number: int) -> None:
        optimizer.zero_grad()
        scaler.scale(loss_of(network(tiny.batch(number)), number) * float("nan")).backward()
        scaler.step(optimizer)
        scaler.update()

    with pytest.raises(ConfigError, match="no step had finite gradients"):
        run_sanity_check(Full(), network, optimizer, step)


def test_a_tensor_that_a_later_step_reaches_is_alive() -> None:
    """Stochastic depth leaves layers out of some steps."""
    tiny = TINY["plain-unet"]

    def late(outputs: Sequence[torch.Tensor], seed: int) -> torch.Tensor:
        return loss_of(outputs, seed) * (seed >= STEPS)

    assert trial(tiny, Full(), late).steps == STEPS + 1

"""The named trainers as nnU-Net's commands use them: built, loaded, begun, saved, continued."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from lnsegfm.cli.env_command import env
from lnsegfm.errors import ConfigError, RunMismatch, UnsafeFile
from lnsegfm.methods.table import METHODS
from lnsegfm.methods.trainer_names import architecture_trainers, method_trainers
from lnsegfm.models.model_folder import read_model
from lnsegfm.networks.architectures import ARCHITECTURES
from lnsegfm.networks.cards import unwrap
from lnsegfm.networks.parameter_roles import parameters_of
from lnsegfm.networks.reparametrize import is_reparametrized
from lnsegfm.networks.role import Role
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.lookup import STOCK_TRAINER
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.training import named_trainers
from lnsegfm.training.nnunet_trainer import TRAINING, NamedTrainer, default_lr
from lnsegfm.weights.checkpoint import load_safely, read_checkpoint
from lnsegfm.weights.state import load_weights, raw
from tests.nnunet.stock import NAME, QUICK, nnunet_world

TRAINERS, NETWORKS = method_trainers(), architecture_trainers()
SETTINGS = {"nnUNetTrainer_gps": "passes=1", "nnUNetTrainer_lora": "rank=2", "nnUNetTrainer_dora": "where=decoder"}
FRESH = "nnUNetTrainer_scratch"
every_trainer = pytest.mark.parametrize("name", TRAINERS)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folders(world, tmp_path_factory) -> dict[str, str]:
    return nnunet_world(world.base, world.clinic, tmp_path_factory.mktemp("native"))


Make = Callable[..., NamedTrainer]


@pytest.fixture
def made(world, folders, monkeypatch, tmp_path) -> Make:
    """Make a trainer as `nnUNetv2_train` does, without its processes that make batches."""
    for variable, value in (folders | QUICK | {"nnUNet_results": str(tmp_path / "results")}).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(NamedTrainer, "get_dataloaders", lambda _: (None, None))

    def make(name: str | type[NamedTrainer], plans: dict[str, Any] | None = None, **variables: object):
        if isinstance(name, str):
            variables.setdefault("SET", SETTINGS.get(name, ""))
        for variable in ("SET", "LR", "EPOCHS", "ITERATIONS"):
            monkeypatch.delenv(f"LNSEGFM_{variable}", raising=False)
        for variable, value in variables.items():
            monkeypatch.setenv(f"LNSEGFM_{variable}", str(value))
        plans = dict(read_model(world.base).plans) if plans is None else plans
        cls = getattr(named_trainers, name) if isinstance(name, str) else name
        description = json.loads((world.clinic / "dataset.json").read_text())
        ours = plans | {"dataset_name": NAME, "continue_training": False}
        return cls(ours, "3d_fullres", 0, description, torch.device("cpu"))

    return make


@pytest.fixture
def begun(made, world) -> Make:
    """A trainer that is about to make its first step, on the base's weights where its method has any."""

    def begin(name: str, **variables: object) -> NamedTrainer:
        trainer = made(name, **variables)
        load_base(trainer, world)
        trainer.on_train_start()
        return trainer

    return begin


def base_file(world) -> Path:
    return world.base / "model" / "fold_0" / "checkpoint_final.pth"


def load_base(trainer: NamedTrainer, world) -> None:
    """What ``-pretrained_weights`` does; from a seed, because nnU-Net's heads are random then."""
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

    torch.manual_seed(0)
    trainer.initialize()
    if not trainer.method.starts_fresh:
        load_pretrained_weights(trainer.network, str(base_file(world)))


def step(trainer: NamedTrainer, number: int) -> None:
    """One training step on a batch that the number alone decides."""
    shape = (trainer.batch_size, 1, *trainer.configuration_manager.patch_size)
    generator = torch.Generator().manual_seed(number)
    image = torch.randn(shape, generator=generator)
    mask = (torch.rand(shape, generator=generator) < 0.3).float()
    target: Tensor | list[Tensor] = mask
    if trainer.enable_deep_supervision:
        strides = [[round(1 / s) for s in scale] for scale in trainer._get_deep_supervision_scales()]
        target = [mask[:, :, ::z, ::y, ::x] for z, y, x in strides]
    trainer.network.train()
    trainer.lr_scheduler.step(number)
    assert np.isfinite(trainer.train_step({"data": image, "target": target})["loss"])


def outputs(network: torch.nn.Module) -> Tensor:
    network = unwrap(network).eval()
    network.decoder.deep_supervision = False
    with torch.no_grad():
        return network(torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(7)))


def same_bits(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(raw(one), raw(other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_bits(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same_bits, one, other))
    return bool(one == other)


def state(trainer: NamedTrainer) -> dict[str, Any]:
    """All that the next step depends on."""
    content = {"network": unwrap(trainer.network).state_dict(), "optimizer": trainer.optimizer.state_dict()}
    return copy.deepcopy(content)


def test_every_method_that_trains_has_one_trainer_and_the_table_says_which():
    assert sorted(TRAINERS.values()) == sorted(name for name, method in METHODS.items() if method.learns)
    assert {name: getattr(named_trainers, name).name for name in TRAINERS} == TRAINERS
    assert {name: getattr(named_trainers, name).architecture for name in NETWORKS} == NETWORKS


def test_the_trainers_are_named_by_their_cards_and_those_of_the_release_keep_their_names():
    release = {"DGST": "dgst", "bias": "bias", "norm": "affine", "lora": "lora"}
    assert release.items() <= {name.removeprefix("nnUNetTrainer_"): method for name, method in TRAINERS.items()}.items()
    assert NETWORKS == {"nnUNetTrainer_SwinUNETR": "swinunetr", "nnUNetTrainer_SwinUNETRv2": "swinunetr-v2"}
    others = {name: method for name, method in TRAINERS.items() if method not in ("dgst", "affine")}
    assert all(name == f"nnUNetTrainer_{method.replace('-', '_')}" for name, method in others.items())


@pytest.mark.parametrize("name", [*TRAINERS, *NETWORKS])
def test_a_trainer_is_one_class_by_its_name_and_is_pickled_by_it(name):
    cls = getattr(named_trainers, name)
    assert pickle.loads(pickle.dumps(cls)) is cls
    assert (cls.__module__, cls.__qualname__) == (named_trainers.__name__, name)
    assert list(inspect.signature(cls).parameters) == ["plans", "configuration", "fold", "dataset_json", "device"]
    assert name in dir(named_trainers)
    assert cls.__doc__


def test_there_is_no_trainer_of_another_name():
    for name in ("nnUNetTrainer_zero_shot", "nnUNetTrainer_", "nnUNetTrainer", "nnUNetTrainer_dgst"):
        assert not hasattr(named_trainers, name), name


@pytest.mark.parametrize("name", [*TRAINERS, *NETWORKS])
def test_nnunet_finds_the_trainer(name, lnsegfm_here, monkeypatch):
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    (line,) = lnsegfm_here("env").stdout.splitlines()
    monkeypatch.setenv("nnUNet_extTrainer", line.partition("=")[2])
    with nnunet_environment():
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

        assert recursive_find_trainer_class_by_name(name) is getattr(named_trainers, name)


def test_env_lists_every_trainer(lnsegfm_here):
    done = lnsegfm_here("env", "--list")
    assert "export" not in done.stdout
    assert [name for name in (*TRAINERS, *NETWORKS) if f" {name} " not in done.stdout] == []
    assert env.__doc__ is not None


def test_the_docs_tell_every_trainer_with_its_method_and_rate():
    page = (Path(__file__).parents[2] / "docs" / "env.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(nnUNetTrainer_\w+)`[ *]*\| `([\w-]+)`(.*\|) ([\d.]+)", page, flags=re.MULTILINE)
    assert {name: method for name, method, *_ in rows} == TRAINERS | dict.fromkeys(NETWORKS, "full")
    for name, method, needs, rate in rows:
        assert float(rate) == default_lr(METHODS[method]()), name
        assert needs.startswith(" | base |") == METHODS[method].needs_base, name


@every_trainer
def test_the_trainer_moves_what_its_method_says(name, begun):
    trainer = begun(name)
    moves = trainer.method.is_trained
    assert trainer.method.name == TRAINERS[name]
    parameters = parameters_of(trainer.network)
    assert [parameter.name for parameter in parameters if parameter.tensor.requires_grad != moves(parameter)] == []
    of_optimizer = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert of_optimizer == {id(parameter.tensor) for parameter in parameters if moves(parameter)}


@every_trainer
def test_the_method_begins_with_the_pretrained_weights(name, begun, world):
    trainer = begun(name)
    network = copy.deepcopy(unwrap(trainer.network))
    trainer.method.merge(network)
    base = read_checkpoint(base_file(world)).weights
    now = network.state_dict()
    equal = [torch.allclose(now[key], base[key], rtol=1e-6, atol=0) for key in base if ".seg_layers." not in key]
    assert all(equal) == (name != FRESH)


def test_l2_sp_is_anchored_to_the_pretrained_weights(begun, world):
    trainer = begun("nnUNetTrainer_l2_sp")
    base = read_checkpoint(base_file(world)).weights
    for parameter in parameters_of(trainer.network):
        if parameter.role is not Role.HEAD:
            assert same_bits(trainer.optimizer.state[parameter.tensor]["start"], base[parameter.name]), parameter.name


@every_trainer
def test_a_continued_training_is_the_uninterrupted_one_bit_by_bit(name, begun, made, tmp_path):
    trainer = begun(name, EPOCHS=4, LR=0.003)
    start = state(trainer)
    for number in range(2):
        step(trainer, number)
    assert not same_bits(state(trainer)["network"], start["network"])
    trainer.save_checkpoint(str(tmp_path / "a.pth"))
    again = made(name)
    again.load_checkpoint(str(tmp_path / "a.pth"))
    assert same_bits(state(again), state(trainer))
    again.on_train_start()
    for number in range(2, 4):
        for one in (trainer, again):
            step(one, number)
        assert same_bits(state(again), state(trainer))
    again.load_checkpoint(str(tmp_path / "a.pth"))  # as --val_best does once more
    assert not same_bits(state(again), state(trainer))


@every_trainer
def test_what_is_saved_is_a_plain_model_of_stock_nnunet(name, begun, world, tmp_path):
    trainer = begun(name)
    for number in range(2):
        step(trainer, number)
    trainer.save_checkpoint(str(tmp_path / "a.pth"))
    assert list(tmp_path.glob("*.pth")) == [tmp_path / "a.pth"]
    content = load_safely(tmp_path / "a.pth")
    checkpoint = read_checkpoint(tmp_path / "a.pth")
    written = json.loads((Path(trainer.output_folder_base) / "plans.json").read_text())

    assert checkpoint.trainer_name == STOCK_TRAINER
    assert checkpoint.plans == written
    added = {key for key in checkpoint.weights if "spatial_adapter" in key}
    assert checkpoint.weights.keys() - added == read_checkpoint(base_file(world)).weights.keys()
    assert bool(added) == (name == "nnUNetTrainer_spatial_adapter")
    network = build_network(checkpoint, deep_supervision=True)
    load_weights(network, checkpoint.weights)
    torch.testing.assert_close(outputs(network), outputs(trainer.network), rtol=1e-4, atol=1e-5)
    if not is_reparametrized(unwrap(trainer.network)):
        assert content[TRAINING]["network"] is content["network_weights"]  # stored once


def test_a_shell_that_knows_nothing_of_the_settings_continues_by_those_of_the_start(begun, made, tmp_path):
    begun("nnUNetTrainer_lora", SET="rank=3 alpha=5", LR=0.02, EPOCHS=7, ITERATIONS=10).save_checkpoint(
        str(tmp_path / "a.pth")
    )
    again = made("nnUNetTrainer_lora", SET="", EPOCHS=9)
    again.load_checkpoint(str(tmp_path / "a.pth"))
    assert (again.method.rank, again.method.alpha) == (3, 5.0)
    assert (again.initial_lr, again.num_iterations_per_epoch, again.num_val_iterations_per_epoch) == (0.02, 10, 2)
    assert again.num_epochs == 9  # told anew, so that a training can be made longer


def test_other_settings_than_those_of_the_start_are_refused(begun, made, tmp_path):
    begun("nnUNetTrainer_lora", SET="rank=3").save_checkpoint(str(tmp_path / "a.pth"))
    with pytest.raises(RunMismatch, match=r"^LNSEGFM_SET rank=2: the training was started with rank=3\. "):
        made("nnUNetTrainer_lora", SET="rank=2").load_checkpoint(str(tmp_path / "a.pth"))


def test_checkpoints_of_other_trainings_are_refused(begun, made, world, tmp_path):
    begun("nnUNetTrainer_bias").save_checkpoint(str(tmp_path / "a.pth"))
    for file in (tmp_path / "a.pth", base_file(world)):
        with pytest.raises(RunMismatch, match="it holds no training by method head"):
            made("nnUNetTrainer_head").load_checkpoint(str(file))


def test_a_checkpoint_that_would_run_something_is_refused_before_nnunet_opens_it(made, tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "canary",)

    torch.save({"network_weights": Evil()}, tmp_path / "a.pth")
    with pytest.raises(UnsafeFile):
        made("nnUNetTrainer_head").load_checkpoint(str(tmp_path / "a.pth"))
    assert not (tmp_path / "canary").exists()


def test_a_base_is_needed_by_whom_it_is_kept_and_refused_by_whom_it_is_not(made, world):
    needs = []
    for name in TRAINERS:
        trainer = made(name)
        try:
            trainer.on_train_start()
        except ConfigError as error:
            needs.append(name)
            said = str(error)
    assert said.endswith("Give -pretrained_weights FILE, or use nnUNetTrainer_scratch.")
    assert set(TRAINERS) - set(needs) == {"nnUNetTrainer_full", FRESH}
    scratch = made(FRESH)
    scratch.initialize()
    scratch.network.load_state_dict(read_checkpoint(base_file(world)).weights)
    with pytest.raises(ConfigError, match="it starts from fresh weights"):
        scratch.on_train_start()


def test_defaults_and_what_the_variables_change(made):
    bias, lora = made("nnUNetTrainer_bias"), made("nnUNetTrainer_lora")
    assert [(t.num_epochs, t.num_iterations_per_epoch, t.initial_lr) for t in (bias, lora)] == [
        (50, 250, 1e-2),
        (50, 250, 1e-3),
    ]
    assert bias.save_every < bias.num_epochs  # else --c would find nothing but the best epoch
    assert made("nnUNetTrainer_lora", SET="rule=sgd").initial_lr == 1e-2
    told = made("nnUNetTrainer_lora", EPOCHS=3, ITERATIONS=4, LR=0.5, SET="rank=1")
    assert (told.num_epochs, told.num_iterations_per_epoch, told.initial_lr, told.method.rank) == (3, 4, 0.5, 1)
    assert told.num_val_iterations_per_epoch == 1


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"EPOCHS": "0"}, "LNSEGFM_EPOCHS=0: a number above 0"),
        ({"LR": "fast"}, "LNSEGFM_LR=fast: a number above 0"),
        ({"SET": "rank"}, "LNSEGFM_SET rank: not NAME=VALUE"),
        ({"SET": "gamma=1"}, "Setting gamma: method lora has no such setting"),
    ],
)
def test_variables_that_cannot_be_are_refused_before_a_folder_is_made(variables, said, made, tmp_path):
    with pytest.raises(ConfigError, match=said):
        made("nnUNetTrainer_lora", **variables)
    assert not (tmp_path / "results").exists()


def test_validation_uses_the_network_with_the_method_in_it(begun, monkeypatch):
    """nnU-Net hands ``trainer.network`` to its predictor; eval mode must reach what the method added."""
    trainer = begun("nnUNetTrainer_lora", SET="dropout=0.5")
    step(trainer, 0)
    step(trainer, 1)
    one, other = outputs(trainer.network), outputs(trainer.network)
    assert same_bits(one, other)


@pytest.fixture
def alone(tmp_path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("name", ["nnUNetTrainer_lora", "nnUNetTrainer_DGST", "nnUNetTrainer_spatial_adapter"])
@pytest.mark.filterwarnings("ignore:.*GradScaler.*")
def test_under_ddp_the_network_is_wrapped_anew(name, begun, made, world, tmp_path, monkeypatch, request):
    without = begun(name)
    request.getfixturevalue("alone")
    module = __import__("nnunetv2.training.nnUNetTrainer.nnUNetTrainer", fromlist=["DDP"])
    monkeypatch.setattr(module, "DDP", lambda network, **_: torch.nn.parallel.DistributedDataParallel(network))

    def on_cpu() -> NamedTrainer:
        trainer = made(name)
        trainer.device, trainer.grad_scaler = torch.device("cpu"), None  # nnU-Net takes it that only GPUs train so
        return trainer

    trainer = on_cpu()
    torch.manual_seed(0)
    trainer.initialize()
    first = trainer.network
    inner = unwrap(first)
    weights = read_checkpoint(base_file(world)).weights
    inner.load_state_dict({key: t for key, t in weights.items() if ".seg_layers." not in key}, strict=False)
    trainer.on_train_start()
    assert trainer.network is not first
    assert trainer.network.module is inner
    without.loss = trainer.loss  # nnU-Net weighs the outputs otherwise under DDP
    for number in range(2):
        step(trainer, number)
        step(without, number)
    trainer.save_checkpoint(str(tmp_path / "a.pth"))
    again = on_cpu()
    again.load_checkpoint(str(tmp_path / "a.pth"))
    step(without, 2)
    for one in (trainer, again):
        step(one, 2)
        assert isinstance(one.network, torch.nn.parallel.DistributedDataParallel)
        assert same_bits(state(one), state(without))


@pytest.mark.parametrize("name", ["nnUNetTrainer_lora", "nnUNetTrainer_ssf", "nnUNetTrainer_spatial_adapter"])
def test_a_compiled_network_is_looked_into(name, begun, monkeypatch, tmp_path):
    plain = begun(name)
    monkeypatch.setattr(NamedTrainer, "_do_i_compile", lambda _: True)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    compiled = begun(name)
    for trainer in (plain, compiled):
        step(trainer, 0)
        step(trainer, 1)
    assert type(compiled.network).__name__ == "OptimizedModule"
    for key, tensor in unwrap(compiled.network).state_dict().items():
        torch.testing.assert_close(tensor, unwrap(plain.network).state_dict()[key], rtol=1e-3, atol=1e-5)


class Small(named_trainers.nnUNetTrainer_SwinUNETR):
    features = 12


def swin_plans(world, patch: list[int]) -> dict[str, Any]:
    plans = copy.deepcopy(dict(read_model(world.base).plans))
    plans["configurations"]["3d_fullres"] |= {"patch_size": patch, "batch_size": 1}
    return plans


@pytest.mark.parametrize(("name", "architecture"), NETWORKS.items())
def test_the_swin_trainers_build_the_releases_networks(name, architecture):
    cls = getattr(named_trainers, name)
    network = cls.build_network_architecture(None, None, 1, 2, enable_deep_supervision=False)
    assert sum(p.numel() for p in network.parameters()) == ARCHITECTURES[architecture].parameters
    assert network.swinViT.layers1[0].use_checkpoint
    assert hasattr(network.swinViT, "layers1c") == (architecture == "swinunetr-v2")


def test_a_swin_trainer_replaces_the_plans_network_and_leaves_plans_that_say_so(made, world, tmp_path):
    plans = swin_plans(world, [32, 32, 64])
    before = copy.deepcopy(plans)
    trainer = made(Small, plans)
    assert plans == before
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.initial_lr) == (1000, 250, 1e-2)
    trainer.on_train_start()
    assert not trainer.enable_deep_supervision
    step(trainer, 0)
    trainer.save_checkpoint(str(tmp_path / "a.pth"))
    checkpoint = read_checkpoint(tmp_path / "a.pth")
    assert checkpoint.trainer_name == STOCK_TRAINER
    assert checkpoint.plans == json.loads((Path(trainer.output_folder_base) / "plans.json").read_text())
    load_weights(build_network(checkpoint, deep_supervision=False), checkpoint.weights)
    again = made(Small, plans)
    again.load_checkpoint(str(tmp_path / "a.pth"))
    for one in (trainer, again):
        step(one, 1)
    assert same_bits(state(again), state(trainer))


def test_a_swin_trainer_takes_a_base_too(made, world, tmp_path):
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

    plans = swin_plans(world, [32, 32, 64])
    base, trainer = made(Small, plans), made(Small, plans)
    base.on_train_start()
    base.save_checkpoint(str(tmp_path / "base.pth"))
    trainer.initialize()
    load_pretrained_weights(trainer.network, str(tmp_path / "base.pth"))
    trainer.on_train_start()
    assert same_bits(state(trainer)["network"], state(base)["network"])  # its head too: the name is none of nnU-Net's


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ([32, 48, 64], "Patch size 32 48 64: the network needs multiples of 32 32 32"),
        ([64, 64], "Configuration 3d_fullres: it is 2D"),
    ],
)
def test_a_patch_that_a_swin_cannot_take_is_refused(patch, said, made, world, tmp_path):
    with pytest.raises(ConfigError, match=said):
        made("nnUNetTrainer_SwinUNETR", swin_plans(world, patch))
    assert not (tmp_path / "results").exists()

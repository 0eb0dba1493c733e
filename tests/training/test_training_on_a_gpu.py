"""Training steps of every method on a simulated GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.methods.table import METHODS, load_method
from lnsegfm.models.model_folder import read_model
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.plan_configuration import plans_managers
from lnsegfm.progress import Silent
from lnsegfm.training.in_memory_trainer import InMemoryTrainer
from lnsegfm.training.prepared_cases import prepare_cases
from lnsegfm.training.schedule import Schedule
from lnsegfm.transforms.augmentation.prepared_case import PreparedCase
from lnsegfm.weights.checkpoint import Checkpoint
from tests.simulated_gpu import simulated_gpu
from tests.world import World

STEPS = 2
SCHEDULE = Schedule(lr=0.01, iterations=4, seed=0)
TRAINING = sorted(name for name in METHODS if load_method(name).learns)


@pytest.fixture(scope="module")
def start(world: World) -> Checkpoint:
    return read_model(world.base).first


@pytest.fixture(scope="module")
def cases(world: World, start: Checkpoint) -> Sequence[PreparedCase]:
    plans, configuration = plans_managers(start.plans, start.configuration)
    return prepare_cases(open_dataset(world.clinic).cases[:2], plans, configuration, dict(start.dataset_json), Silent())


@pytest.mark.parametrize("name", TRAINING)
def test_a_step_is_that_of_the_cpu_and_reads_nothing_but_the_loss(
    name: str, start: Checkpoint, cases: Sequence[PreparedCase], tmp_path: Path
) -> None:
    losses: dict[str, list[float]] = {}
    for device in ("cpu", "cuda"):
        with simulated_gpu() as gpu:
            with nnunet_environment(tmp_path):
                trainer = InMemoryTrainer.ready(start, load_method(name), SCHEDULE, device)
            batches = trainer.feed(cases, 0)  # made on the CPU, as with worker processes: their own test is elsewhere
            made = [batches[number] for number in range(STEPS)]
            gpu.reads.clear(), gpu.to_host.clear()
            losses[device] = [trainer.take(number, made[number], 0) for number in range(STEPS)]

            assert {parameter.device.type for parameter in trainer.network.parameters()} == {device}
            state = [value for entry in trainer.optimizer.state.values() for value in entry.values()]
            whole = [value for value in state if isinstance(value, torch.Tensor) and value.dim()]
            assert {value.device.type for value in whole} <= {device}

    assert losses["cuda"] == pytest.approx(losses["cpu"], abs=1e-5)
    assert gpu.reads == {}
    assert gpu.to_host["cpu"] == STEPS  # nnU-Net's step gives the loss to the host

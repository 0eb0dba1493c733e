"""One arm on one draw of the shots: trained on the same batches as every other arm, scored on the held-out cases."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.study.arms import Arm
from benchmarks.study.settings import Setting
from lnsegfm.datasets.dataset import Case, open_dataset
from lnsegfm.evaluation.overlap import dice
from lnsegfm.methods.method import Method
from lnsegfm.methods.table import METHODS
from lnsegfm.models.model_folder import read_model
from lnsegfm.models.plans import adapted_architecture
from lnsegfm.networks.cards import unwrap
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.progress import Silent
from lnsegfm.recipe import Recipe
from lnsegfm.training.in_memory_trainer import InMemoryTrainer
from lnsegfm.training.prepared_cache import PreparedCache
from lnsegfm.training.prepared_cases import prepare_cases
from lnsegfm.training.schedule import Schedule
from lnsegfm.weights.checkpoint import Checkpoint
from lnsegfm.weights.state import aliases, load_weights, raw
from lnsegfm.workflows.finetune_plan import FinetunePlan, plan

STEP = 0.75
"""Distance of tiles at prediction, as a share of the patch; no mirroring."""
TILES = 8
"""Tiles that are predicted at once."""
WATCHED = 50
"""Steps over which the loss at the start and at the end is averaged."""


class Scored:
    """Held-out cases, prepared once.

    Args:
        start: Plans and description by which they are prepared.
        folder: The data set.
        limit: At most so many of them.
    """

    def __init__(self, start: Checkpoint, folder: Path, limit: int | None = None) -> None:
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        self._plans = PlansManager(dict(start.plans))
        self._configuration = self._plans.get_configuration(start.configuration)
        data = open_dataset(folder, None)
        self._labels = data.labels
        self._cases = [self._prepare(case, start) for case in data.cases[:limit]]

    def _prepare(self, case: Case, start: Checkpoint) -> tuple[str, torch.Tensor, dict[str, Any], np.ndarray]:
        from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

        with nnunet_environment():
            data, properties = SimpleITKIO().read_images([str(image) for image in case.images])
            reference, _ = SimpleITKIO().read_seg(str(case.label))
            prepared, _, properties = self._configuration.preprocessor_class(verbose=False).run_case_npy(
                data, None, properties, self._plans, self._configuration, dict(start.dataset_json)
            )
        return case.name, torch.from_numpy(prepared), properties, reference[0]

    def score(self, checkpoint: Checkpoint) -> dict[str, dict[str, float]]:
        """Dice of every label by case, on the scans' own grids: MONAI's sliding window, nnU-Net's export."""
        from monai.inferers import sliding_window_inference
        from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

        network = build_network(checkpoint, deep_supervision=False).eval()
        load_weights(network, checkpoint.weights)
        patch = tuple(self._configuration.patch_size)
        manager = self._plans.get_label_manager(dict(checkpoint.dataset_json))
        found = {}
        for name, data, properties, reference in self._cases:
            with nnunet_environment(), torch.inference_mode():
                logits = sliding_window_inference(data[None], patch, TILES, network, overlap=1 - STEP, mode="gaussian")
                mask = convert_predicted_logits_to_segmentation_with_correct_shape(
                    logits[0], self._plans, self._configuration, manager, properties
                )
            found[name] = {
                label: round(dice(mask == value, reference == value), 5)
                for label, value in self._labels.to_dataset_json().items()
                if label not in ("background", "ignore")
            }
        return found

    def of(self, names: Sequence[str]) -> Scored:
        """Some of the cases."""
        some = copy(self)
        some._cases = [case for case in self._cases if case[0] in names]
        return some


class Bench:
    """A setting with everything that its runs share.

    Args:
        setting: The setting.
        work: Folder with its data.
        iterations: Optimizer steps of a run.
    """

    def __init__(self, setting: Setting, work: Path, iterations: int) -> None:
        self.setting, self.work, self.iterations = setting, work, iterations
        self._batches: dict[Any, list[dict[str, Any]]] = {}
        self._plans: dict[Any, FinetunePlan] = {}

    def plan(self, shots: int, draw: int, method: str = "full") -> FinetunePlan:
        """Shots, network and weights to start from, as ``lnsegfm finetune`` settles them."""
        if (shots, draw, method) not in self._plans:
            recipe = Recipe(method=method, shots=shots, draw=draw, iterations=self.iterations)
            settled = plan(self.work / self.setting.name, self.work / self.setting.base, recipe)
            self._plans[shots, draw, method] = settled
        return self._plans[shots, draw, method]

    def plan_of(self, arm: Arm, shots: int, draw: int) -> FinetunePlan:
        """The same for an arm, which may start from fresh weights."""
        return self.plan(shots, draw, "scratch" if method_of(arm).starts_fresh else "full")

    @cached_property
    def base(self) -> Checkpoint:
        """The base."""
        return read_model(self.work / self.setting.base).first

    @cached_property
    def held_out(self) -> Scored:
        """The cases that adaptation is scored on."""
        return Scored(self.plan(1, 0).start, self.work / f"{self.setting.name}-held-out")

    @cached_property
    def pool(self) -> Scored:
        """The cases that shots are drawn from."""
        return Scored(self.plan(1, 0).start, self.work / self.setting.name)

    @cached_property
    def source(self) -> Scored:
        """The cases of the base's own task."""
        return Scored(self.base, self.work / self.setting.source)

    def batches(self, planned: FinetunePlan, cases: Sequence[Case], trainer: InMemoryTrainer) -> list[dict[str, Any]]:
        """The batches of a run: a function of the cases and the seed alone, so every arm gets the same."""
        key = tuple(case.name for case in cases)
        if key not in self._batches:
            while len(self._batches) > 1:  # those of the draw before; beside them those that rates are chosen on
                self._batches.pop(next(iter(self._batches)))
            plans = trainer.plans_manager
            configuration = plans.get_configuration(planned.start.configuration)
            description, cache = dict(planned.start.dataset_json), PreparedCache.of_this_machine()
            shots = prepare_cases(cases, plans, configuration, description, Silent(), cache=cache)
            made = trainer.feed(shots, seed=0)
            self._batches[key] = [made[i] for i in range(self.iterations)]
        return self._batches[key]

    def train(self, planned: FinetunePlan, method: Method, lr: float, cases: Sequence[Case]) -> dict[str, Any]:
        """Train on some cases; give the adapted checkpoint and how it went."""
        schedule = Schedule(lr=lr, iterations=self.iterations, seed=0)
        with TemporaryDirectory() as folder, nnunet_environment(Path(folder)):
            trainer = InMemoryTrainer.ready(planned.start, method, schedule, "cpu")
            batches = self.batches(planned, cases, trainer)
            trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
            trainer.network.train()
            losses, started = [], time.perf_counter()
            for i, batch in enumerate(batches):
                trainer.lr_scheduler.step(i)
                losses.append(float(trainer.train_step(batch)["loss"]))
                if not np.isfinite(losses[-1]):
                    break
            seconds = time.perf_counter() - started
        network = unwrap(trainer.network)
        method.merge(network)
        weights = {key: tensor.detach() for key, tensor in network.state_dict().items()}
        plans = adapted_architecture(planned.start.plans, planned.start.configuration, method)
        return {
            "checkpoint": replace(planned.start, weights=weights, plans=plans),
            "losses": losses,
            "seconds_per_iteration": seconds / len(losses),
        }

    def choose(self, arm: Arm, shots: int) -> dict[str, Any]:
        """The learning rate of an arm: the shots of draw 0 in two parts, the first trained on, the other scored."""
        planned = self.plan_of(arm, shots, 0)
        left_out = max(1, shots // 2)
        cases = planned.shots
        rest = self.pool.of([case.name for case in cases[-left_out:]])
        tried = {}
        for rate in arm.rates:
            went = self.train(planned, method_of(arm), rate, cases[:-left_out])
            scores = rest.score(went["checkpoint"])
            tried[str(rate)] = {"dice": mean(scores), "loss": float(np.mean(went["losses"][-WATCHED:]))}
        best = max(arm.rates, key=lambda rate: (tried[str(rate)]["dice"], -rate))
        return {"arm": arm.name, "setting": self.setting.name, "shots": shots, "lr": best, "tried": tried}

    def run(self, arm: Arm, shots: int, draw: int, lr: float | None) -> dict[str, Any]:
        """Train and score one arm on one draw."""
        method = method_of(arm)
        planned = self.plan_of(arm, shots, draw)
        cases = planned.shots
        with nnunet_environment():
            moves = method.trainable(build_network(planned.start, deep_supervision=True))
        record: dict[str, Any] = {
            "setting": self.setting.name,
            "arm": arm.name,
            "method": arm.method,
            "settings": method.settings(),
            "shots": shots,
            "draw": draw,
            "lr": lr,
            "iterations": self.iterations if method.learns else 0,
            "trained_on": list(planned.split.shots),
            "moves": vars(moves),
        }
        after = planned.start
        if method.learns:
            assert lr is not None
            went = self.train(planned, method, lr, cases)
            after = went["checkpoint"]
            record |= {
                "seconds_per_iteration": round(went["seconds_per_iteration"], 5),
                "loss_first": round(float(np.mean(went["losses"][:WATCHED])), 5),
                "loss_last": round(float(np.mean(went["losses"][-WATCHED:])), 5),
            }
        record["entries_moved"] = entries_moved(planned.start.weights, after.weights)
        record["dice"] = self.held_out.score(after)
        record["source_dice"] = self.source.score(self._with_own_head(after))
        record["mean_dice"], record["mean_source_dice"] = mean(record["dice"]), mean(record["source_dice"])
        return record

    def _with_own_head(self, after: Checkpoint) -> Checkpoint:
        """The adapted network for the base's own task: with the base's head where the labels are others."""
        if self.setting.same_labels:
            return after
        head = {name: tensor for name, tensor in self.base.weights.items() if ".seg_layers." in name}
        description = self.base.dataset_json
        return replace(after, weights={**after.weights, **head}, dataset_json=description)


def method_of(arm: Arm) -> Method:
    """The method of an arm."""
    return METHODS[arm.method](**arm.settings)


def mean(scores: Mapping[str, Mapping[str, float]]) -> float:
    """Mean over cases of the mean over labels; a label that is neither there nor found does not count."""
    return round(float(np.nanmean([np.nanmean(list(case.values())) for case in scores.values()])), 5)


def entries_moved(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> int:
    """Entries that differ, each tensor counted once; those that were not there before count."""
    moved = 0
    for name in set(aliases(after).values()):
        if name in before:
            moved += int((raw(before[name]) != raw(after[name])).any(dim=1).sum())
        else:
            moved += after[name].numel()
    return moved

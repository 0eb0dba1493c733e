"""A base and a clinic that many tests share. torch loads when the first of them asks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lnsegfm.recipe import Recipe
    from lnsegfm.workflows.finetune import Run

ITERATIONS = 6


@dataclass(frozen=True)
class World:
    """A base, and a clinic with other contrast."""

    folder: Path
    base: Path
    clinic: Path

    def recipe(self, method: str = "dgst", **changes: object) -> Recipe:
        from lnsegfm.methods.table import load_method
        from lnsegfm.recipe import Recipe

        settings = load_method(method).settings()
        defaults = {"method": method, "settings": settings, "shots": 2, "iterations": ITERATIONS, "mirroring": False}
        return Recipe(**(defaults | changes))

    def run(self, name: str, method: str = "dgst", workers: int = 0, **changes: object) -> Run:
        from lnsegfm.workflows.finetune import finetune
        from lnsegfm.workflows.finetune_plan import plan

        planned = plan(self.clinic, self.base, self.recipe(method, **changes))
        return finetune(planned, self.folder / name, device="cpu", workers=workers)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    from lnsegfm.workflows.pretrain import pretrain
    from lnsegfm.workflows.pretrain_plan import PretrainSettings
    from tests.scenes import small_plans, write_scenes

    folder = tmp_path_factory.mktemp("world")
    plans = folder / "plans.json"
    plans.write_text(json.dumps(small_plans()))
    data = write_scenes(folder / "source", 4)
    training = PretrainSettings(plans=plans, iterations=20, held_out=1, mirroring=False)
    base = pretrain(data, folder / "base", training, device="cpu")
    clinic = write_scenes(folder / "clinic", 4, seed=100, contrast=50.0)
    return World(folder, base.folder, clinic)


@pytest.fixture(scope="session")
def run(world: World) -> Run:
    return world.run("run")

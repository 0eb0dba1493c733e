"""Write the tables of the documents, and the file of shares, that follow from the tables in the code: make tables."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from lnsegfm.methods.method import Method
from lnsegfm.methods.shares import FILE, count_share, default_network, shares_text
from lnsegfm.methods.table import METHODS
from lnsegfm.methods.trainer_names import architecture_trainers, method_trainers
from lnsegfm.networks.architectures import ARCHITECTURES
from lnsegfm.networks.parameter_roles import NetworkParameter, parameters_of
from lnsegfm.networks.role import Role
from lnsegfm.recipe import recipe_of
from lnsegfm.training.nnunet_trainer import default_lr

DOCS = Path(__file__).parent
SHARES = DOCS.parent / "src" / "lnsegfm" / "methods" / FILE
RELEASE = ("DGST", "bias", "norm", "lora", "SwinUNETR", "SwinUNETRv2")
"""Trainers whose names are those of the paper's release."""
COLUMNS = ([Role.HEAD], [Role.WEIGHT], [Role.BIAS], [Role.NORM_WEIGHT], [Role.NORM_BIAS], [Role.POSITION, Role.OTHER])


def what_moves() -> str:
    """What one step of each method can change, by role."""
    rows = []
    for name, cls in METHODS.builtin.items():
        added = "yes" if Role.ADAPTER in cls.trains and Role.WEIGHT not in cls.trains else ""
        cells = [_moved_of(cls, roles) for roles in COLUMNS]
        rows.append([f"`{name}`", cls.summary, *cells, added, f"{count_share(cls):g} %"])
    roles = [", ".join(column) for column in COLUMNS]
    return _table(["method", "what trains", *roles, "added", "share"], rows)


def _moved_of(cls: type[Method], roles: Iterable[Role]) -> str:
    if not set(roles) <= cls.trains:
        return ""
    method = cls()
    unseen = [NetworkParameter("", nn.Parameter(torch.empty(1)), role, nn.Module(), False) for role in roles]
    parameters = [parameter for parameter in parameters_of(default_network()) if parameter.role in roles] or unseen
    moved = sum(method.per_step(parameter) for parameter in parameters if method.is_trained(parameter))
    return "all" if moved == sum(parameter.tensor.numel() for parameter in parameters) else "some"


def settings() -> str:
    """Settings with their defaults, and the paper, of each method."""
    rows = []
    for name, cls in METHODS.builtin.items():
        fields = [f"`{each.name}` ({_default(each.default)})" for each in dataclasses.fields(cls)]
        rows.append([f"`{name}`", ", ".join(fields) or "none", cls.source])
    return _table(["method", "settings (default)", "source"], rows)


def _default(value: object) -> str:
    if value is None or isinstance(value, (str, bool)):
        return f"`{str(value).lower()}`"
    return f"{value:g}"


def training() -> str:
    """How each method is trained by ``finetune`` unless the user says otherwise."""
    rows = []
    for name, cls in METHODS.builtin.items():
        if cls.learns:
            recipe = recipe_of(name)
            grid = ", ".join(map(str, recipe.lr_grid))
            rows.append([f"`{name}`", str(recipe.iterations), str(recipe.lr), grid, f"`{cls.trainer_name()}`"])
    return _table(["method", "iterations", "lr", "`--lr auto` tries", "under `nnUNetv2_train`"], rows)


def trainers() -> str:
    """The trainers of ``nnUNetv2_train``."""
    rows = []
    for trainer, method in method_trainers().items():
        if method in METHODS.builtin:
            cls = METHODS[method]
            needs = "base" if cls.needs_base else "nothing; refuses a base" if cls.starts_fresh else "base or nothing"
            lr = default_lr(cls())
            rows.append([_marked(trainer), f"`{method}`", needs, f"{lr:g}" + (" (AdamW)" if lr == 1e-3 else "")])
    for trainer, architecture in architecture_trainers().items():
        factor = "multiples of 32" if "swin" in architecture else ARCHITECTURES[architecture].patches
        rows.append([_marked(trainer), "`full`, its own network", f"patch in {factor}", "0.01"])
    return _table(["trainer", "method", "needs", "learning rate"], rows)


def _marked(trainer: str) -> str:
    return f"`{trainer}`" + (" *" if trainer.partition("_")[2] in RELEASE else "")


def _table(header: list[str], rows: Iterable[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("|" + "|".join(f" {cell} " if cell != "---" else cell for cell in line) + "|" for line in lines)


PAGES = {
    "methods.md": {"what-moves": what_moves, "settings": settings, "training": training},
    "env.md": {"trainers": trainers},
}


def page(name: str) -> str:
    """A page with its tables written anew between ``<!-- table: NAME -->`` and ``<!-- end of table -->``."""
    text = (DOCS / name).read_text(encoding="utf-8")
    for table, made in PAGES[name].items():
        marks = re.compile(rf"(<!-- table: {table} -->\n).*?(\n<!-- end of table -->)", flags=re.DOTALL)
        text, count = marks.subn(lambda found, made=made: found[1] + "\n" + made() + "\n" + found[2], text)
        if count != 1:
            sys.exit(f"{name}: it has {count} places for the table {table}, not one.")
    return text


if __name__ == "__main__":
    SHARES.write_text(shares_text(METHODS.builtin), encoding="utf-8")
    for name in PAGES:
        (DOCS / name).write_text(page(name), encoding="utf-8")

"""``lnsegfm env``."""

from __future__ import annotations

import os
import shlex
import sys
from importlib.resources import files
from typing import Annotated

import typer

from lnsegfm.datasets.sided_labels import require_mirror
from lnsegfm.errors import ConfigError
from lnsegfm.messages import printable


def env(
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of training (50 unless given; SwinUNETR 1000).")
    ] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Iterations an epoch (250 unless given).")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate (0.01 unless given; with AdamW 0.001).")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the method, such as gamma=2; repeat for more."),
    ] = None,
    mirror: Annotated[
        str | None,
        typer.Option(
            metavar="auto|all|none|swap|AXES", help="Axes to mirror along; auto spares sides that labels name."
        ),
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Show the trainers instead: names and what they train.")
    ] = False,
) -> None:
    """Make nnU-Net's own commands know the methods: run eval "$(lnsegfm env)" in the shell.

    Then `nnUNetv2_train ID CONFIG FOLD -tr nnUNetTrainer_DGST -pretrained_weights FILE` works, likewise with
    nnUNetTrainer_lora and the others that `lnsegfm env --list` shows. What they train loads in stock nnU-Net without
    them.
    """
    if list_:
        _show_trainers()
        return
    for text in set_ or ():
        if not text.partition("=")[1] or any(letter.isspace() for letter in text):
            raise ConfigError(f"--set {text}: not NAME=VALUE. Write --set gamma=2.")
    if lr is not None and not 0 < lr < float("inf"):
        raise ConfigError(f"--lr {lr}: a step needs a finite length above 0. Use for example 0.01.")
    mirror = require_mirror(mirror) if mirror is not None else None
    folder = str(files("lnsegfm.training").joinpath("ext"))
    there = [path for path in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if path and path != folder]
    lines = {"nnUNet_extTrainer": os.pathsep.join([*there, folder])}
    settings = " ".join(set_ or ())
    given = {"EPOCHS": epochs, "ITERATIONS": iterations, "LR": lr, "SET": settings, "MIRROR_AXES": mirror}
    for variable, value in given.items():
        if value:
            lines[f"LNSEGFM_{variable}"] = str(value)
    for name, value in lines.items():
        print(f"export {name}={shlex.quote(value)}")


def _show_trainers() -> None:
    from rich.console import Console
    from rich.table import Column, Table

    from lnsegfm.methods.table import METHODS
    from lnsegfm.methods.trainer_names import architecture_trainers, method_trainers

    table = Table(Column("trainer", no_wrap=True), Column("method", no_wrap=True), "what moves")
    for trainer, method in method_trainers().items():
        table.add_row(trainer, method, METHODS[method].summary)
    for trainer, network in architecture_trainers().items():
        table.add_row(trainer, "full", f"every parameter of a {network}, whatever network the plans name")
    Console().print(table)
    for line in METHODS.usable()[1]:
        print(f"lnsegfm: {printable(line)}", file=sys.stderr)

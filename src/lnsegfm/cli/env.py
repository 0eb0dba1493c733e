"""``lnsegfm env``."""

from __future__ import annotations

import os
import shlex
from importlib.resources import files
from typing import Annotated

import typer

from lnsegfm.errors import ConfigError

TRAINERS = ("nnUNetTrainer_DGST", "nnUNetTrainer_bias", "nnUNetTrainer_norm", "nnUNetTrainer_full")


def env(
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of training (50 unless given).")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Iterations an epoch (250 unless given).")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate (0.01 unless given).")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the method, such as gamma=2; repeat for more."),
    ] = None,
) -> None:
    """Make nnU-Net's own commands know the methods: run eval "$(lnsegfm env)" in the shell.

    Then `nnUNetv2_train ID CONFIG FOLD -tr nnUNetTrainer_DGST -pretrained_weights FILE` works, likewise with
    nnUNetTrainer_bias, nnUNetTrainer_norm and nnUNetTrainer_full. What they train loads in stock nnU-Net without them.
    """
    for text in set_ or ():
        if not text.partition("=")[1] or any(letter.isspace() for letter in text):
            raise ConfigError(f"--set {text}: not NAME=VALUE. Write --set gamma=2.")
    if lr is not None and not 0 < lr < float("inf"):
        raise ConfigError(f"--lr {lr}: a step needs a finite length above 0. Use for example 0.01.")
    folder = str(files("lnsegfm.nnunet").joinpath("ext"))
    there = [path for path in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if path and path != folder]
    lines = {"nnUNet_extTrainer": os.pathsep.join([*there, folder])}
    for variable, value in (("EPOCHS", epochs), ("ITERATIONS", iterations), ("LR", lr), ("SET", " ".join(set_ or ()))):
        if value:
            lines[f"LNSEGFM_{variable}"] = str(value)
    for name, value in lines.items():
        print(f"export {name}={shlex.quote(value)}")

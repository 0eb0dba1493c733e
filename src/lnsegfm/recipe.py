"""What is decided before a run: the recipe of each method, which its card holds, and one run as a value.

A run's content hash, with those of data and base, is its identity.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from lnsegfm.datasets.case_choice import CaseChoice, Cases, number_or_cases
from lnsegfm.datasets.label_choice import LabelChoice
from lnsegfm.datasets.sided_labels import MIRROR_AUTO, require_mirror
from lnsegfm.errors import ConfigError, UnknownName
from lnsegfm.imaging.axis_code import require_axes
from lnsegfm.methods.table import load_method
from lnsegfm.methods.training_defaults import TrainingDefaults, require_lr_grid, require_time_limit, require_training

DEFAULT_METHOD = "dgst"
AUTO = "auto"
ALL_FOLDS = "all"


class PostprocessingMode(StrEnum):
    """What a model's postprocessing is chosen on."""

    HELD_OUT = "held-out"
    """The held-out scans; figures are cross-fitted."""
    SHOTS = "shots"
    """The shots, by further trainings that each leave some of them out."""
    NONE = "none"
    """Nothing: the model gets no postprocessing."""


PRECISIONS = ("fp32", "fp16", "bf16")
"""Numbers that a network can train in, where the device has them."""
KINDS: dict[str, tuple[type, str]] = {
    "method": (str, "the name of a method"),
    "iterations": (int, "a whole number"),
    "lr": (float, "a number"),
    "lr_grid": (list, "a list of numbers such as [0.001, 0.003, 0.01]"),
    "warm_up": (int, "a whole number"),
    "settings": (dict, "a table, [settings],"),
}
"""Keys of a recipe file, and what may stand there."""


@dataclass(frozen=True, kw_only=True)
class MethodRecipe(TrainingDefaults):
    """How a method is trained unless the user says otherwise: what a recipe file holds.

    Args:
        method: Name of the method.
        settings: Its settings; ``none`` stands for a setting that is left open.
    """

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def texts(self) -> dict[str, str]:
        """The settings as ``--set`` would give them."""
        return {name: str(value) for name, value in self.settings.items()}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides the result of a run; device and number of workers do not belong here.

    ``iterations``, ``lr``, ``lr_grid``, ``lr_default`` and ``warm_up`` are the method's recipe's unless given.

    Args:
        method: Name of the method.
        settings: Its settings.
        shots: Labelled scans trained on, the rest held out: so many, or these, by name; None trains on all.
        held_out: Scans held out of those left: so many, or these, by name; None holds all of them out.
        cases: The only scans that are used; None uses all.
        exclude: Scans that are not used.
        keep_labels: The only labels that are used, by their names after merging; () uses all.
        merge: A merged label to those that it consists of.
        absent: Labels that are truly absent where references lack them, though most hold them: what is predicted there
            counts in the evidence.
        draw: Which scans a number of them are.
        iterations: Optimizer steps.
        lr: Learning rate, which falls to 0 by nnU-Net's polynomial schedule; ``auto`` chooses it on the shots.
        lr_grid: Rates that ``auto`` tries; None with a given rate.
        lr_default: The rate that ``auto`` takes where one shot leaves nothing to choose by; None with a given rate.
        warm_up: Iterations over which the rate rises to ``lr`` before it falls.
        batch_size: Patches a step; None takes the base's.
        patch_size: Voxels (z, y, x) at the base's spacing; None takes the base's.
        seed: Of patches, augmentation and heads that start fresh.
        time_limit_s: Stop training after this many seconds of it; the rate falls to 0 by then.
        early_stop: Stop after this many iterations in which the smoothed training loss did not fall.
        mirroring: Mirror patches at prediction, as nnU-Net does (8 times the work).
        mirror: Along which axes training and prediction mirror (`lnsegfm.nnunet.mirroring`): ``auto``, ``all``,
            ``none``, ``swap``, or axes of the patient such as ``y,z``.
        label_names: A label of the base to its name in the data, where they differ.
        plans: SHA-256 of nnU-Net plans to adapt into instead of the base's own.
        min_transfer: Share of the parameters that must come from the base; with less the run is refused.
        model_axes: The axis code of the arrays that the base was trained on, where it does not know it itself.
        folds: ``all`` adapts every fold of the base; None the first.
        precision: Numbers that the network trains in, of `PRECISIONS`; None leaves it to nnU-Net: fp16 on CUDA, fp32
            elsewhere.
        postprocessing: What the model's postprocessing is chosen on: ``held-out``, ``shots`` or ``none``; None is
            ``held-out``.
    """

    method: str = DEFAULT_METHOD
    settings: Mapping[str, Any] = field(default_factory=dict)
    shots: int | Cases | None = None
    held_out: int | Cases | None = None
    cases: Cases | None = None
    exclude: Cases = ()
    keep_labels: tuple[str, ...] = ()
    merge: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    draw: int = 0
    iterations: int = None  # type: ignore[assignment]  # the method's recipe knows it
    lr: float | str = None  # type: ignore[assignment]
    lr_grid: tuple[float, ...] | None = None
    lr_default: float | None = None
    warm_up: int = None  # type: ignore[assignment]
    batch_size: int | None = None
    patch_size: tuple[int, int, int] | None = None
    seed: int = 0
    time_limit_s: float | None = None
    early_stop: int | None = None
    mirroring: bool = True
    mirror: str = MIRROR_AUTO
    label_names: Mapping[str, str] = field(default_factory=dict)
    plans: str | None = None
    min_transfer: float = 0.8
    precision: str | None = None
    model_axes: str | None = None
    folds: str | None = None
    postprocessing: PostprocessingMode | None = None

    def __post_init__(self) -> None:
        self._fill()
        for name in ("shots", "held_out", "cases", "exclude"):
            given = number_or_cases(getattr(self, name), f"--{name.replace('_', '-')}")
            object.__setattr__(self, name, tuple(sorted(given)) if isinstance(given, tuple) else given)
        if self.postprocessing is not None:
            object.__setattr__(self, "postprocessing", postprocessing_mode(self.postprocessing))
        object.__setattr__(self, "mirror", require_mirror(self.mirror))
        for name in ("keep_labels", "absent"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "merge", {name: tuple(parts) for name, parts in self.merge.items()})
        _ = self.choice, self.label_choice  # which check themselves
        if self.model_axes is not None:
            object.__setattr__(self, "model_axes", require_axes(self.model_axes, "--model-axes"))
        for name in ("batch_size", "early_stop"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} {value}: it must be at least 1.")
        if self.seed < 0:
            raise ConfigError(f"seed {self.seed}: seeds are counted from 0. Use seed >= 0.")
        require_training(self.iterations, self.rate, self.warm_up)
        if self.lr_grid is not None:
            require_lr_grid(self.lr_grid)
        require_time_limit(self.time_limit_s)
        if self.patch_size is not None and (len(self.patch_size) != 3 or min(self.patch_size) < 1):
            raise ConfigError(f"patch size {self.patch_size}: three lengths in voxels are needed, such as 64 96 96.")
        if self.precision is not None and self.precision not in PRECISIONS:
            raise ConfigError(f"precision {self.precision}: not known. Use {', '.join(PRECISIONS)}, or leave it out.")
        if self.folds not in (None, ALL_FOLDS):
            raise ConfigError(f"folds {self.folds}: not known. Use {ALL_FOLDS}, or leave it out for the first.")
        if not 0 <= self.min_transfer <= 1:
            raise ConfigError(f"min transfer {self.min_transfer}: a share is needed. Use a number in [0, 1].")

    def _fill(self) -> None:
        """Take from the method's recipe what was not given, and leave out what a given rate makes idle."""
        packaged = recipe_of(self.method)
        for name in ("iterations", "lr", "warm_up"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(packaged, name))
        if isinstance(self.lr, str) and self.lr != AUTO:
            raise ConfigError(f"lr {self.lr}: a rate is a number, or {AUTO}. Use for example 0.01.")
        chosen = self.lr == AUTO
        grid, default = self.lr_grid or packaged.lr_grid, self.lr_default or packaged.lr
        object.__setattr__(self, "lr_grid", tuple(grid) if chosen else None)
        object.__setattr__(self, "lr_default", default if chosen else None)

    @property
    def rate(self) -> float:
        """The learning rate as a number: with ``auto`` the one taken where there is nothing to choose by."""
        return float(self.lr) if self.lr_default is None else self.lr_default

    @property
    def choice(self) -> CaseChoice:
        """Which cases are used, trained on and held out."""
        return CaseChoice(
            cases=self.cases, exclude=self.exclude, shots=self.shots, held_out=self.held_out, draw=self.draw
        )

    @property
    def label_choice(self) -> LabelChoice:
        """Which labels are used, and which as one."""
        return LabelChoice(keep=self.keep_labels, merge=self.merge)

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain values."""
        return dataclasses.asdict(self) | {"settings": dict(self.settings), "label_names": dict(self.label_names)}

    def identity(self) -> dict[str, Any]:
        """What of it decides the result, as plain values: what has no effect, or its default, is left out."""
        idle = {"lr_grid", "lr_default", "warm_up", "precision", "model_axes", "folds", "postprocessing"}
        idle |= {"cases", "exclude", "keep_labels", "merge", "absent"}
        unsaid = {"held_out": None, "mirror": MIRROR_AUTO}
        said = {key: value for key, value in self.to_json().items() if value or key not in idle}
        return {key: value for key, value in said.items() if key not in unsaid or value != unsaid[key]}


def postprocessing_mode(name: str) -> PostprocessingMode | None:
    """A mode by its name; the default is None, so that it is in no recipe's identity.

    Raises:
        ConfigError: There is no such mode.
    """
    if name not in set(PostprocessingMode):
        known = ", ".join(PostprocessingMode)
        raise ConfigError(f"--postprocessing {name}: not known. Use {known}.")
    mode = PostprocessingMode(name)
    return None if mode is PostprocessingMode.HELD_OUT else mode


def recipe_of(method: str) -> MethodRecipe:
    """The recipe of a method, from its card.

    Raises:
        UnknownName: There is no method of that name.
        PluginError: A plugin's method that cannot be used.
    """
    card = load_method(method)
    settings = {name: "none" if value is None else value for name, value in card.settings().items()}
    return MethodRecipe(method=method, settings=settings, **dataclasses.asdict(card.training))


def recipe_text(method: str) -> str:
    """The recipe of a method as a file: to be saved, changed and given back by ``--recipe``.

    Raises:
        UnknownName: There is no method of that name.
        PluginError: A plugin's method that cannot be used.
    """
    cls, recipe = type(load_method(method)), recipe_of(method)
    lines = [f"# {cls.name}: {cls.summary}", f'method = "{method}"']
    if cls.learns:
        lines += [
            f"iterations = {recipe.iterations}",
            f"lr = {recipe.lr}",
            f"lr_grid = {list(recipe.lr_grid)}  # what --lr auto tries",
            f"warm_up = {recipe.warm_up}",
        ]
    if recipe.settings:
        assigned = {name: f"{name} = {_toml(value)}" for name, value in recipe.settings.items()}
        width = max(map(len, assigned.values()))
        meanings = {each.name: each.metadata["meaning"] for each in dataclasses.fields(cls)}
        lines += ["", "[settings]"]
        lines += [f"{text:<{width}}  # {meanings[name]}" for name, text in assigned.items()]
    return "\n".join(lines) + "\n"


def read_recipe(file: Path) -> MethodRecipe:
    """Read a recipe from a file; what it leaves out is taken from the packaged recipe of its method.

    Raises:
        ConfigError: No such file, no TOML, or a key or value that cannot be; the line names file and key.
        UnknownName: It names no method that there is.
    """
    try:
        content = _parsed(file.read_text(encoding="utf-8-sig"), str(file))
        packaged = dataclasses.asdict(recipe_of(content["method"]))
    except (OSError, UnicodeDecodeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"it cannot be read ({error})"
        raise ConfigError(f"{file}: {reason}. Get one by: lnsegfm methods --recipe dgst > my.toml") from None
    except UnknownName as error:
        raise UnknownName(f"{file}: {error}") from None
    settings = {**packaged["settings"], **content.get("settings", {})}
    return _recipe(packaged | content | {"settings": settings}, str(file))


def _parsed(text: str, file: str) -> dict[str, Any]:
    """The content of a recipe file, every key known and every value of its kind."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not TOML ({error}).") from None
    for key, value in content.items():
        if key not in KINDS:
            raise ConfigError(f"{file}: {key}: a recipe has no such key. Its keys: {', '.join(KINDS)}.")
        kind, wanted = KINDS[key]
        if not _is(value, kind):
            raise ConfigError(f"{file}: {key} = {_toml(value)}: {wanted} is needed there.")
    for name, value in content.get("settings", {}).items():
        if not isinstance(value, (str, int, float)):
            raise ConfigError(f"{file}: settings.{name} = {_toml(value)}: one number or word is needed there.")
        if isinstance(value, str) and value[:1].isdigit():
            raise ConfigError(f"{file}: settings.{name} = {_toml(value)}: a number has no quotes. Leave them out.")
    if "method" not in content:
        raise ConfigError(f'{file}: method: it is missing. Write for example method = "{DEFAULT_METHOD}".')
    return content


def _recipe(content: dict[str, Any], file: str) -> MethodRecipe:
    rates: dict[str, Any] = {"lr": float(content["lr"])} if "lr" in content else {}
    if "lr_grid" in content:
        rates["lr_grid"] = tuple(map(float, content["lr_grid"]))
    try:
        return MethodRecipe(**content | rates)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, list):
        return kind is list and bool(value) and all(_is(element, float) for element in value)
    return isinstance(value, (int, float) if kind is float else kind)


def _toml(value: Any) -> str:
    """A value about as its file spells it, on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else " ".join(str(value).split())
